"""`dispatcher health`: for containers' health checks."""

import argparse
import sys

from dispatcher.client import Client, RequestFailed, base_url
from dispatcher.settings import DispatcherSettings
from shared.config import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="where the server is (default: from DISPATCHER_HTTP_ADDRESS)")


def run(options: argparse.Namespace) -> int:
    """0: serving. 1: not, with the reason on standard error. Raises ConfigError."""
    url = options.url or base_url(load(DispatcherSettings).http_address)
    try:
        with Client(url, answer_seconds=3) as client:
            client.get("/readyz")
    except RequestFailed as error:
        print(f"dispatcher health: {error}", file=sys.stderr)
        return 1
    return 0

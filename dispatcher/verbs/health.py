"""`dispatcher health`: for containers' health checks.

It is asked every few seconds in each container, so nothing of the server is imported for it.
"""

import argparse
import sys

from dispatcher.settings import DispatcherSettings
from dispatcher.verbs.client import Client, RequestFailed, base_url
from shared.config import load
from shared.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="where the server is (default: from DISPATCHER_HTTP_ADDRESS)")


def main(arguments: list[str]) -> int:
    """What stands behind `dispatcher health` on the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="dispatcher health", description="Exit 0 when the server is serving.")
    add_arguments(parser)
    try:
        return run(parser.parse_args(arguments))
    except ConfigError as error:
        print(f"dispatcher: {error}", file=sys.stderr)
        return 2


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

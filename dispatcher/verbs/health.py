"""`dispatcher health`: for containers' health checks.

It is asked every few seconds in each container, so it imports neither the server, nor the settings, nor an HTTP
library: all that it needs is one address.
"""

import argparse
import sys
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

from dispatcher.verbs.servers import RequestFailed, base_url, is_local, pinned, refusal, setting, unreachable
from shared.errors import ConfigError

ANSWER_SECONDS = 3.0
SETTING = "DISPATCHER_HTTP_ADDRESS"
CERTIFICATE = "DISPATCHER_HTTP_TLS__CERT"
DEFAULT_ADDRESS = "127.0.0.1:8080"  # of `DispatcherSettings`


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
    try:
        if options.url:
            _ask(options.url)
        else:
            _ask(configured_url(), setting(CERTIFICATE), own=True)
    except RequestFailed as error:
        print(f"dispatcher health: {error}", file=sys.stderr)
        return 1
    return 0


def configured_url() -> str:
    """Where the settings say that it is. Raises ConfigError."""
    try:
        return base_url(setting(SETTING) or DEFAULT_ADDRESS, tls=bool(setting(CERTIFICATE)))
    except ValueError as error:
        raise ConfigError(f"{SETTING}: {error}") from None


def _ask(url: str, certificate: str | None = None, *, own: bool = False) -> None:
    """certificate: the file of what it has to show. own: it is this machine's, whatever its address: no proxy of the
    environment stands before it. Raises RequestFailed.
    """
    if not url.startswith(("http://", "https://")):  # urllib would read a file too
        raise RequestFailed(f"cannot reach {url}: not a URL of HTTP")
    try:
        by = [HTTPSHandler(context=pinned(Path(certificate)))] if certificate else []
        opener = build_opener(ProxyHandler({} if own or is_local(url) else None), *by)
        opener.open(f"{url}/readyz", timeout=ANSWER_SECONDS).close()
    except HTTPError as error:
        with error:
            raise RequestFailed(refusal(error.code, error.read())) from None
    except URLError as error:
        raise unreachable(url, error.reason if isinstance(error.reason, Exception) else error) from None
    except (OSError, HTTPException, ValueError) as error:
        raise unreachable(url, error) from None

"""`dispatcher keys new NAME`: a key for a user, a Commander, an operator or Prometheus, shown once."""

import argparse
import sys
from pathlib import Path

from dispatcher.access.new_keys import NewKey
from dispatcher.access.rules import ROLES
from dispatcher.access.watch import OPEN
from dispatcher.settings import DispatcherSettings
from shared.config import load
from shared.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    new = verbs.add_parser("new", help="print a new key, and append its digest to the access file")
    new.add_argument("name", metavar="NAME", help="as logs name whoever shows it")
    new.add_argument(
        "--role", required=True, choices=ROLES, help="an auditor reads what an operator does; metrics: /metrics alone"
    )
    new.add_argument("--tenant", help="of a user: whose sessions it has")
    new.add_argument("--agents", metavar="A,B", help="that a user may ask for, or a Commander offer (default: all)")
    new.add_argument("--expires", metavar="DATE", help="such as 2027-01-01 (default: never)")
    new.add_argument("--file", type=Path, help="the access file (default: from DISPATCHER_ACCESS)")
    new.set_defaults(keys_verb=_new)


def run(options: argparse.Namespace) -> int:
    """Raises ConfigError."""
    status: int = options.keys_verb(options)
    return status


def _new(options: argparse.Namespace) -> int:
    agents = tuple(name.strip() for name in options.agents.split(",")) if options.agents else None
    key = NewKey(options.name, options.role, options.tenant, agents, options.expires)
    file = options.file or _file()
    try:
        print(key.append_to(file))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    print(f"appended to {file}; the key itself is nowhere else", file=sys.stderr)
    return 0


def _file() -> Path:
    setting = load(DispatcherSettings).access
    if setting in (None, OPEN):
        raise ConfigError("DISPATCHER_ACCESS: names no file; set it, or give --file")
    return Path(str(setting))

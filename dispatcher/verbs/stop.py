"""`dispatcher stop`: all sessions that fit, at all replicas, over the operator's routes."""

import argparse
import json
import sys

from dispatcher.verbs.client import Client, add_operators, as_count
from dispatcher.verbs.servers import RequestFailed
from shared.errors import ConfigError
from shared.records import STOP_REASONS
from shared.terminal import printable

BAR = 30  # characters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_operators(parser)
    add_order(parser)
    parser.add_argument("--hold", type=as_count, metavar="SECONDS", help="that no other that fits begins")
    parser.add_argument("--json", action="store_true", help="what comes of it, one JSON object a line")


def add_order(parser: argparse.ArgumentParser) -> None:
    """Which sessions are meant, and why."""
    parser.add_argument("--agent", help="those of that agent")
    parser.add_argument("--tenant", help="those of that tenant's users")
    parser.add_argument("--conversation", metavar="ID", help="those of that conversation")
    parser.add_argument("--commander", metavar="ID", help="those that run at that Commander")
    parser.add_argument(
        "--credential", metavar="NAME", help="of the --commander: what its key or certificate is called"
    )
    parser.add_argument("--all", action="store_true", help="all that there are")
    parser.add_argument("--reason", choices=STOP_REASONS, default="RiskControl", help="what the users are told")
    parser.add_argument("--detail", default="", help="for the logs; users do not see it")


def order_of(options: argparse.Namespace, verb: str) -> dict[str, object]:
    """As the routes want it. Raises ConfigError."""
    fits = {
        "agent": options.agent,
        "tenant": options.tenant,
        "conversation_id": options.conversation,
        "commander": options.commander,
        "credential": options.credential,
    }
    body = {name: value for name, value in fits.items() if value is not None}
    if bool(body) == options.all:
        raise ConfigError(f"{verb}: give --agent, --tenant, --conversation, --commander, or else --all")
    if options.credential is not None and options.commander is None:
        raise ConfigError(f"{verb}: --credential says which --commander of that id is meant: give that too")
    return body | {"reason": options.reason, "detail": options.detail} | ({"all": True} if options.all else {})


def run(options: argparse.Namespace) -> int:
    """0: none of them runs any more. Raises ConfigError."""
    body = order_of(options, "stop")
    if options.hold:
        body["hold_seconds"] = options.hold
    try:
        with Client.of(options, "operator") as client:
            return _follow(client, body, options.json)
    except RequestFailed as error:
        print(f"dispatcher stop: {printable(str(error))}", file=sys.stderr)
        return 1


def _follow(client: Client, body: dict[str, object], as_json: bool) -> int:
    shows = sys.stderr.isatty() and not as_json
    found = halted = 0
    for event in client.told("/operator/stop", body):
        if as_json:
            print(json.dumps({"event": event.name, **event.data}), flush=True)
        if event.name == "done":
            return _done(event.data, shows, as_json)
        if event.name == "hold" and not as_json:
            print(f"{event.data['hold_id']} is in force", flush=True)
        if event.name == "progress":
            found = event.data["found"]
        halted += event.name == "halted"
        if shows:
            filled = BAR * halted // max(1, found)
            print(f"\r[{'#' * filled}{'.' * (BAR - filled)}] {halted} of {found} halted", end="", file=sys.stderr)
    print("dispatcher stop: the answer was cut off; the order is carried out all the same", file=sys.stderr)
    return 1


def _done(done: dict[str, object], shows: bool, as_json: bool) -> int:
    if shows:
        print(file=sys.stderr)
    if not as_json:
        print(f"{done['found']} found, {done['running']} running")
    if not done["whole"]:
        print("dispatcher stop: there may be more: ask again", file=sys.stderr)
    return 0 if done["running"] == 0 and done["whole"] else 1

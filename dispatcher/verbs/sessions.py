"""`dispatcher sessions list|watch|stop`: the operator's view, over the operator's routes."""

import argparse
import json
import re
import sys
import time
from datetime import datetime
from itertools import islice
from typing import Any

from dispatcher.core.log import STATES
from dispatcher.verbs.client import Client, Event, add_operators, as_count, as_session_id
from dispatcher.verbs.servers import RequestFailed
from shared.records import STOP_REASONS
from shared.terminal import printable

COMMON = ("at", "generation", "sequence", "timestamp", "decided")  # of every entry; `at` stands before the line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    listing = verbs.add_parser("list", help="the live sessions, or those that are asked for, the newest first")
    listing.add_argument("--state", action="append", choices=STATES, help="may be repeated")
    listing.add_argument("--agent", help="only those of that agent")
    listing.add_argument("--reason", help="only those that were stopped for that reason, or failed with that code")
    listing.add_argument("--conversation", metavar="ID", help="only those of that conversation")
    listing.add_argument("--since", type=_age_of, metavar="AGE", help="not longer ago: 90s, 15m, 2h or 7d")
    listing.add_argument("--limit", type=as_count, default=100, help="at most so many (default: %(default)s)")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    listing.set_defaults(sessions_verb=_list)

    watching = verbs.add_parser("watch", help="all that a session's log holds, as it comes: thoughts and arguments too")
    watching.add_argument("session_id", metavar="ID", type=as_session_id)
    watching.add_argument("--json", action="store_true", help="one JSON object a line")
    watching.set_defaults(sessions_verb=_watch)

    stopping = verbs.add_parser("stop", help="stop a session for good")
    stopping.add_argument("session_id", metavar="ID", type=as_session_id)
    stopping.add_argument("--reason", choices=STOP_REASONS, default="RiskControl", help="what the user is told")
    stopping.add_argument("--detail", default="", help="for the log; users do not see it")
    stopping.set_defaults(sessions_verb=_stop)
    add_operators(parser, *verbs.choices.values())


def run(options: argparse.Namespace) -> int:
    """Raises ConfigError."""
    try:
        with Client.of(options, "operator") as client:
            status: int = options.sessions_verb(client, options)
            return status
    except RequestFailed as error:
        print(f"dispatcher sessions: {printable(str(error))}", file=sys.stderr)
        return 1


def _list(client: Client, options: argparse.Namespace) -> int:
    since = None if options.since is None else time.time() - options.since
    given = {"agent": options.agent, "reason": options.reason, "conversation": options.conversation, "since": since}
    asked = {name: value for name, value in given.items() if value is not None}
    sessions = list(islice(client.sessions(state=options.state or [], **asked), options.limit))
    if options.json:
        for session in sessions:
            print(json.dumps(session))
        return 0
    rows = [("SESSION", "STATE", "AGENT", "FOR", "COMMANDER", "ENTRIES")]
    now = time.time()
    for session in sessions:
        since = session["ended_at"] or session["since"]
        told = session["reason"] or session["code"]
        state = f"{session['state']} ({told})" if told else session["state"]
        entries = str(session["offset"])
        rows.append(
            (session["session_id"], state, session["agent"], _age(now - since), session["commander_id"], entries)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(printable("  ".join(cells).rstrip()))
    return 0


def _age_of(given: str) -> float:
    """In seconds."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", given)
    if not found:
        raise argparse.ArgumentTypeError(f"must be an age like 90s, 15m, 2h or 7d, got {given!r}")
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds / length)}{unit}"
    return f"{max(0, int(seconds))}s"


def _watch(client: Client, options: argparse.Namespace) -> int:
    for offset, event in client.events(f"/operator/sessions/{options.session_id}/events"):
        if options.json:
            print(json.dumps({"offset": int(offset), "event": event.name, **event.data}), flush=True)
        else:
            print(_line(offset, event), flush=True)
    return 0


def _line(offset: str, event: Event) -> str:
    data = event.data
    at = f"{datetime.fromtimestamp(data['at']).astimezone():%H:%M:%S.%f}"[:-3] if "at" in data else ""
    shown = {name: value for name, value in data.items() if name not in COMMON and value not in ("", None, [])}
    return f"{at}  {offset:>6}  {event.name:<11}  " + "  ".join(f"{name}={_quoted(shown[name])}" for name in shown)


def _quoted(value: Any) -> str:
    """As JSON, so that one entry stays one line; readable in any language."""
    return printable(json.dumps(value, ensure_ascii=False))


def _stop(client: Client, options: argparse.Namespace) -> int:
    body = {"reason": options.reason, "detail": options.detail}
    session = client.post(f"/operator/sessions/{options.session_id}/stop", body)
    print(f"{session['state']}: {session['reason'] or session['code'] or 'it had finished before'}")
    return 0

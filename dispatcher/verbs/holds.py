"""`dispatcher holds place|list|lift`: what keeps new sessions from beginning, or a Commander from getting any, over the
operator's routes.
"""

import argparse
import json
import sys
import time
from urllib.parse import quote

from dispatcher.verbs.client import Client, add_operators, as_count, as_session_id
from dispatcher.verbs.servers import RequestFailed
from dispatcher.verbs.stop import add_order, order_of
from shared.terminal import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    placing = verbs.add_parser("place", help="refuse new ones for a while (--commander: it gets none)")
    add_order(placing)
    placing.add_argument("--seconds", type=as_count, required=True, help="for how long")
    placing.set_defaults(holds_verb=_place)

    listing = verbs.add_parser("list", help="the holds that are in force, the first to end first")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    listing.set_defaults(holds_verb=_list)

    lifting = verbs.add_parser("lift", help="end a hold now")
    lifting.add_argument("hold_id", metavar="HOLD", type=as_session_id)
    lifting.set_defaults(holds_verb=_lift)
    add_operators(parser, *verbs.choices.values())


def run(options: argparse.Namespace) -> int:
    """Raises ConfigError."""
    try:
        with Client.of(options, "operator") as client:
            status: int = options.holds_verb(client, options)
            return status
    except RequestFailed as error:
        print(f"dispatcher holds: {printable(str(error))}", file=sys.stderr)
        return 1


def _place(client: Client, options: argparse.Namespace) -> int:
    hold = client.post("/operator/holds", order_of(options, "holds place") | {"hold_seconds": options.seconds})
    print(f"{hold['hold_id']} is in force")
    return 0


def _list(client: Client, options: argparse.Namespace) -> int:
    for hold in client.get("/operator/holds")["holds"]:
        if options.json:
            print(json.dumps(hold))
            continue
        given = ("agent", "tenant", "conversation_id", "commander", "credential")
        fits = [f"{name} {hold[name]}" for name in given if hold[name] is not None]
        left = max(0, round(hold["ends_at"] - time.time()))
        why = " ".join(filter(None, (hold["reason"], hold["detail"])))
        print(printable(f"{hold['hold_id']} {left} s left, {', '.join(fits) or 'all'}: {why}"))
    return 0


def _lift(client: Client, options: argparse.Namespace) -> int:
    client.delete(f"/operator/holds/{quote(options.hold_id, safe='')}")
    print("lifted")
    return 0

"""`dispatcher approvals list|approve|deny`: what waits for an operator, over the operator's routes."""

import argparse
import json
import sys
import time
from itertools import islice
from urllib.parse import quote

from dispatcher.verbs.client import Client, add_operators, as_count, as_session_id, shown_json
from dispatcher.verbs.servers import RequestFailed
from shared.terminal import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    listing = verbs.add_parser("list", help="the tool calls that wait, with their arguments")
    listing.add_argument("--limit", type=as_count, default=100, help="at most so many (default: %(default)s)")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    listing.set_defaults(approvals_verb=_list)

    for name, text in (("approve", "let a call run"), ("deny", "let it not run")):
        deciding = verbs.add_parser(name, help=text)
        deciding.add_argument("session_id", metavar="SESSION", type=as_session_id)
        deciding.add_argument("call_id", metavar="CALL", type=as_session_id)
        deciding.add_argument("arguments_sha256", metavar="HASH", help="of the arguments, as `list` shows it")
        deciding.add_argument("--note", default="", help="for the log; neither the agent nor the user sees it")
        deciding.set_defaults(approvals_verb=_decide, decision=name)
    add_operators(parser, *verbs.choices.values())


def run(options: argparse.Namespace) -> int:
    """Raises ConfigError."""
    try:
        with Client.of(options, "operator") as client:
            status: int = options.approvals_verb(client, options)
            return status
    except RequestFailed as error:
        print(f"dispatcher approvals: {printable(str(error))}", file=sys.stderr)
        return 1


def _list(client: Client, options: argparse.Namespace) -> int:
    for call in islice(client.pages("/operator/approvals", "approvals"), options.limit):
        if options.json:
            print(json.dumps(call))
            continue
        left = max(0, round(call["expires_at"] - time.time()))
        print(printable(f"{call['tool_name']} of {call['agent']}, asked of the {call['approval']}, {left} s left"))
        print(f"  {shown_json(call['arguments'])}")
        print(printable(f"  {call['session_id']} {call['call_id']} {call['arguments_sha256']}"))
    return 0


def _decide(client: Client, options: argparse.Namespace) -> int:
    body = {"decision": options.decision, "arguments_sha256": options.arguments_sha256, "note": options.note}
    session_id, call_id = quote(options.session_id, safe=""), quote(options.call_id, safe="")
    client.post(f"/operator/sessions/{session_id}/calls/{call_id}/decision", body)
    print("approved" if options.decision == "approve" else "denied")
    return 0

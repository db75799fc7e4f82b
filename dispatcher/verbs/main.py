"""The Dispatcher's verbs."""

import argparse
import asyncio
import os
import sys

import uvloop

from dispatcher.app import serve
from dispatcher.settings import DispatcherSettings
from dispatcher.verbs import approvals, chat, demo, dev, health, holds, keys, receipt, stop
from dispatcher.verbs import policy as policy_cli
from dispatcher.verbs import sessions as operator_cli
from dispatcher.verbs import tools as tools_cli
from dispatcher.verbs.client import shielded
from shared import logs
from shared.config import load
from shared.errors import ConfigError
from shared.version import version


def main(arguments: list[str] | None = None) -> int:
    """Run a verb; its exit status. 2: a wrong setting, argument or file."""
    parser = argparse.ArgumentParser(prog="dispatcher", description="The gateway between AI agents and their users.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version()}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, text, module in (
        ("serve", "run the server", None),
        ("dev", "run the server and one Commander in this terminal", dev),
        ("demo", "show the pair at work on the bundled model", demo),
        ("chat", "talk to an agent from this terminal", chat),
        ("sessions", "list, watch and stop sessions, as an operator", operator_cli),
        ("stop", "stop all sessions that fit, as an operator", stop),
        ("holds", "list and lift what keeps new sessions from beginning, as an operator", holds),
        ("receipt", "get the receipt of a session that is over, and verify one offline", receipt),
        ("approvals", "list, approve and deny tool calls that wait, as an operator", approvals),
        ("keys", "make keys for users, Commanders and operators", keys),
        ("policy", "check, test and replay an operator's rules", policy_cli),
        ("tools", "check, call and pin an operator's tools", tools_cli),
        ("health", "exit 0 when the server is serving", health),
    ):
        verb = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if module:
            module.add_arguments(verb)
        verb.set_defaults(run=module.run if module else _serve)
    parsed = parser.parse_args(shielded(sys.argv[1:] if arguments is None else arguments))
    try:
        status: int = parsed.run(parsed)
    except ConfigError as error:
        print(f"dispatcher: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _serve(_: argparse.Namespace) -> int:
    settings = load(DispatcherSettings)
    logs.configure(settings.log_json, settings.log_level, exception_text=settings.log_exception_text)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))
    return 0

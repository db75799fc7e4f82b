"""`dispatcher policy check|test|replay`: an operator's rules, tried before they count."""

import argparse
import contextlib
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import msgspec

from dispatcher.core.log import STATES
from dispatcher.files.document import Fault, FileError, Where, quoted
from dispatcher.policies.matches import CHANNELS
from dispatcher.policies.rules import RuleSet
from dispatcher.policing.load import load as load_rules
from dispatcher.policy_tools import cases, trials
from dispatcher.policy_tools.asking import Asking
from dispatcher.policy_tools.check import located, summary
from dispatcher.policy_tools.replay import LoggedEvent, Replayed, replayed
from dispatcher.policy_tools.splits import ALL_UP_TO, AT_RANDOM
from dispatcher.verbs.client import Client, NotFound, add_operators, as_session_id
from dispatcher.verbs.servers import RequestFailed
from shared import logs
from shared.terminal import printable

RIGHT, WRONG, UNUSABLE = 0, 1, 2  # exit statuses

_CHECK = "Exit status: 0 right; 2 wrong: every error with its line and entry on standard error."
_TEST = f"""Send the texts of [[case]] entries through the rules. What comes in packets (content, thoughts) is split in
all ways up to {ALL_UP_TO} characters; a longer text at each place alone, at every place at once, and {AT_RANDOM} times
by chance. A case names the text under its channel ({", ".join(CHANNELS)}) and what is expected:
stopped = "POLICY" or true, denied = "POLICY" or true, released = "TEXT". Nothing expected: no rule may touch it.
Exit status: 0 all as expected; 1 not so; 2 a wrong file."""
_REPLAY = """Read logged sessions, over the operator's routes, through these rules: what would have been stopped, denied
or redacted, and where. Nothing is changed at the server. Texts are shown only with --show-text. Exit status: 0;
1 the server cannot be reached or does not know the session; 2 a wrong file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    checking = verbs.add_parser("check", help="is the file right?", description=_CHECK)
    testing = verbs.add_parser("test", help="do the rules do what they shall?", description=_TEST)
    replaying = verbs.add_parser("replay", help="what would they have done?", description=_REPLAY)
    for verb, does in ((checking, _check), (testing, _test), (replaying, _replay)):
        verb.add_argument("rules", type=Path, metavar="FILE", help="the rules: a TOML file or a folder of them")
        verb.set_defaults(policy_verb=does)
    testing.add_argument("cases", type=Path, metavar="CASES", nargs="*", help="files of cases (default: in FILE)")
    which = replaying.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--session", metavar="ID", type=as_session_id, action="append", default=[], help="this one; may be repeated"
    )
    which.add_argument("--all", action="store_true", help="all that the log still holds")
    add_operators(replaying)
    replaying.add_argument("--json", action="store_true", help="one JSON object a line, of each session")
    replaying.add_argument("--show-text", action="store_true", help="what stands around a stop")


def run(options: argparse.Namespace) -> int:
    """The exit status. Raises ConfigError for wrong settings."""
    logs.configure(level="WARNING", exception_text=True)  # who asks is who reads
    try:
        status: int = options.policy_verb(options)
        return status
    except FileError as error:
        for fault in error.faults:
            print(printable(located(fault)), file=sys.stderr)
        return UNUSABLE
    except RequestFailed as error:
        print(f"dispatcher policy: {printable(str(error))}", file=sys.stderr)
        return WRONG


def _check(options: argparse.Namespace) -> int:
    print(printable(summary(options.rules, load_rules(options.rules))))
    return RIGHT


def _test(options: argparse.Namespace) -> int:
    rules = load_rules(options.rules)
    found = cases.load(options.cases or [options.rules])
    if not found:
        raise FileError([Fault(Where((options.cases or [options.rules])[0]), "no [[case]] in it")])
    splits, failures = 0, []
    with Asking() as ask:
        for case in found:
            tried = trials.tried(rules, case, ask)
            splits += tried.splits
            if tried.failure:
                failures.append(tried.failure)
    for failure in failures:
        told = located(Fault(failure.case.where, "; ".join(failure.wrong)))
        print(printable(f"{told}\n  split so: {trials.shown(failure)}"))
    told = f"{len(failures)} failed" if failures else "all as expected"
    print(f"{_count(len(found), 'case')} in {_count(splits, 'split')}: {told}")
    return WRONG if failures else RIGHT


def _replay(options: argparse.Namespace) -> int:
    rules = load_rules(options.rules)
    read = differing = gone = 0
    with Client.of(options, "operator") as client, Asking() as ask:
        for session_id in options.session or _all(client):
            found = _replayed(client, rules, session_id, ask, skip=options.all)
            gone += found is None
            if found:
                read += 1
                differing += found.differs
                _tell(found, options)
    if not options.json:
        expired = f"; {gone} were deleted meanwhile" if gone else ""
        print(f"{_count(read, 'session')} read; today's rules would have done otherwise in {differing}{expired}")
    return RIGHT


def _all(client: Client) -> Iterator[str]:
    for state in STATES:
        yield from (session["session_id"] for session in client.sessions(state=state))


def _replayed(client: Client, rules: RuleSet, session_id: str, ask: Asking, *, skip: bool) -> Replayed | None:
    """None: it is not there any more, where that may be (`skip`)."""
    try:
        session = client.get(f"/operator/sessions/{session_id}")
        with contextlib.closing(_events(client, session_id, session["offset"])) as events:
            return replayed(rules, session, events, ask)
    except NotFound:
        if skip:
            return None
        raise


def _events(client: Client, session_id: str, last: int) -> Generator[LoggedEvent, None, None]:
    """What the log holds up to that offset: a live session's events would not end."""
    if not last:
        return
    with contextlib.closing(client.events(f"/operator/sessions/{session_id}/events")) as events:
        for offset, event in events:
            yield int(offset), event.name, event.data
            if int(offset) >= last:
                return


def _tell(found: Replayed, options: argparse.Namespace) -> None:
    if options.json:
        document: dict[str, Any] = msgspec.to_builtins(found)
        if found.stop and not options.show_text:
            del document["stop"]["before"], document["stop"]["after"]
        print(msgspec.json.encode({**document, "differs": found.differs}).decode())
    elif found.differs or options.session:
        print(printable("\n".join(_lines(found, options.show_text))))


def _lines(found: Replayed, show_text: bool) -> Iterator[str]:
    then = f"{found.then} by {quoted(found.then_policy)}" if found.then_policy else found.then
    yield f"{found.session_id}  {then}; characters let out: {found.let_out_then:,}, today {found.let_out_today:,}"
    if stop := found.stop:
        detail = f", {stop.detail}" if stop.detail else ""
        yield f"  {_where(stop.offset, stop.channel)}: stopped by {quoted(stop.policy)} ({stop.reason}{detail})"
        if show_text:
            yield f"    {quoted(stop.before)} ▮ {quoted(stop.after)}"
    elif found.then_policy:
        yield "  not stopped today"
    for denial in found.denials:
        yield f"  {_where(denial.offset, denial.channel)}: denied by {quoted(denial.policy)}"
    for policy, times in found.hits.items():
        yield f"  {quoted(policy)} acts {_count(times, 'time')} without stopping"


def _where(offset: int, channel: str) -> str:
    return f"entry {offset}, {channel}" if offset else channel


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

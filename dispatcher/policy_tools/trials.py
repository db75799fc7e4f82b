"""`dispatcher policy test FILE`: cases through the rules, split over packets in all ways. Pure.

Guard and gate are those that sessions have; a budget of time is not tried, for no time passes.
"""

from collections.abc import Iterator

import msgspec

from dispatcher.events import Call
from dispatcher.files import quoted
from dispatcher.guard import Guard
from dispatcher.policies.outcomes import Reading, Violation
from dispatcher.policies.rules import RuleSet
from dispatcher.policy_tools.cases import STREAMED, Case
from dispatcher.policy_tools.splits import Cuts, pieces, splits
from shared.records import Thought, ToolResult


class Outcome(msgspec.Struct, frozen=True):
    """What the rules made of a text. released: what users get of content. denied: by which policy; empty: none."""

    released: str = ""
    violation: Violation | None = None
    denied: str = ""


class Failure(msgspec.Struct, frozen=True):
    """The first split of a case that has another outcome than expected. wrong: what of it, in words."""

    case: Case
    cuts: Cuts
    wrong: tuple[str, ...]


class Tried(msgspec.Struct, frozen=True):
    """splits: how many were tried, until the first that failed."""

    splits: int
    failure: Failure | None


def tried(rules: RuleSet, case: Case) -> Tried:
    """One case, in all its splits."""
    count = 0
    for cuts in splits(len(case.text)) if case.channel in STREAMED else [()]:
        count += 1
        if wrong := tuple(_differences(case, outcome(rules, case, cuts))):
            return Tried(count, Failure(case, cuts, wrong))
    return Tried(count, None)


def outcome(rules: RuleSet, case: Case, cuts: Cuts) -> Outcome:
    """One case, in one split."""
    if case.channel == "prompt":
        return _read(rules.prompt([case.text]))
    guard = Guard(rules.gate(0.0), 0)
    guard.resume(0)
    match case.channel:
        case "arguments":
            return _read(guard.read(Call(case.tool, case.text, "call", "here"), 0.0))
        case "results":
            return _read(guard.read(ToolResult(case.tool, case.text, "call", "OK"), 0.0))
        case "thoughts":
            readings = (guard.read(Thought("step", piece), 0.0) for piece in pieces(case.text, cuts))
            return next((_read(reading) for reading in readings if reading.violation), Outcome())
    released = ""
    for piece in pieces(case.text, cuts):
        release = guard.content(piece, 0.0)
        released += release.text
        if release.violation:
            return Outcome(released, release.violation)
    release = guard.end(0.0)
    return Outcome(released + release.text, release.violation)


def _read(reading: Reading) -> Outcome:
    return Outcome("", reading.violation, reading.denied)


def _differences(case: Case, got: Outcome) -> Iterator[str]:
    stopped = got.violation.policy if got.violation else ""
    if not _as_expected(case.stopped, stopped):
        detail = f" ({got.violation.detail})" if got.violation and got.violation.detail else ""
        yield f"expected: {_words('stopped', case.stopped)}; got: {_words('stopped', stopped)}{detail}"
    if not _as_expected(case.denied, got.denied):
        yield f"expected: {_words('denied', case.denied)}; got: {_words('denied', got.denied)}"
    if case.released is not None and case.released != got.released:
        yield f"expected to be let out: {quoted(case.released)}; got: {quoted(got.released)}"


def _as_expected(expected: str | bool, policy: str) -> bool:
    return expected == policy if isinstance(expected, str) else expected == bool(policy)


def _words(what: str, by: str | bool) -> str:
    return f"not {what}" if not by else what if by is True else f"{what} by {quoted(by)}"


def shown(failure: Failure) -> str:
    """The text as it was split."""
    return " | ".join(map(quoted, pieces(failure.case.text, failure.cuts)))

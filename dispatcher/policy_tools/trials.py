"""`dispatcher policy test FILE`: cases through the rules, split over packets in all ways. Pure.

The gate is the one that sessions have; a budget of time is not tried, for no time passes.
"""

from collections.abc import Callable, Iterator

import msgspec

from dispatcher.files.document import quoted
from dispatcher.policies.outcomes import UNAVAILABLE, Violation
from dispatcher.policies.questions import Question, Verdict
from dispatcher.policies.rules import RuleSet
from dispatcher.policy_tools.cases import STREAMED, Case
from dispatcher.policy_tools.splits import Cuts, pieces, splits
from dispatcher.policy_tools.trial import Trial, passes, try_text

VerdictOf = Callable[[Question], Verdict]


class FailedCase(msgspec.Struct, frozen=True):
    """The first split of a case that has another outcome than expected. wrong: what of it, in words."""

    case: Case
    cuts: Cuts
    wrong: tuple[str, ...]


class Tried(msgspec.Struct, frozen=True):
    """splits: how many were tried, until the first that failed."""

    splits: int
    failure: FailedCase | None


def tried(rules: RuleSet, case: Case, ask: VerdictOf = passes) -> Tried:
    """One case, in all its splits; in one piece where a plugin or a server is asked, for what they say is theirs."""
    split = case.channel in STREAMED and not rules.asked(case.channel)
    count = 0
    for cuts in splits(len(case.text)) if split else [()]:
        count += 1
        if wrong := tuple(_differences(case, _outcome(rules, case, cuts, ask))):
            return Tried(count, FailedCase(case, cuts, wrong))
    return Tried(count, None)


def _outcome(rules: RuleSet, case: Case, cuts: Cuts, ask: VerdictOf) -> Trial:
    try:
        return try_text(rules, pieces(case.text, cuts), case.channel, case.tool, ask)
    except Exception as error:  # as in a session: it is stopped
        return Trial(violation=Violation("unknown", "RiskControl", f"{UNAVAILABLE}: {type(error).__name__}"))


def _differences(case: Case, got: Trial) -> Iterator[str]:
    stopped = got.violation.policy if got.violation else ""
    if not _as_expected(case.stopped, stopped):
        detail = f" ({got.violation.detail})" if got.violation and got.violation.detail else ""
        yield f"expected: {_words('stopped', case.stopped)}; got: {_words('stopped', stopped)}{detail}"
    if not _as_expected(case.denied, got.denied):
        yield f"expected: {_words('denied', case.denied)}; got: {_words('denied', got.denied)}"
    if case.released is not None and case.released != got.shown:
        yield f"expected to be let out: {quoted(case.released)}; got: {quoted(got.shown)}"


def _as_expected(expected: str | bool, policy: str) -> bool:
    return expected == policy if isinstance(expected, str) else expected == bool(policy)


def _words(what: str, by: str | bool) -> str:
    return f"not {what}" if not by else what if by is True else f"{what} by {quoted(by)}"


def shown(failure: FailedCase) -> str:
    """The text as it was split."""
    return " | ".join(map(quoted, pieces(failure.case.text, failure.cuts)))

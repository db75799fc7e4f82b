"""What was measured of an agent that was stopped, and what that says. Pure."""

from collections.abc import Iterator
from typing import Literal, TypeAlias, get_args

import msgspec

from commander.check.messages import EndedItself, Halted, Left, Stopping
from commander.driver import HALT_SECONDS

STOPS, DOES_NOT_STOP, UNKNOWN, DOES_NOT_HONOUR = 0, 1, 2, 3  # exit statuses

CheckVerdict: TypeAlias = Literal[
    "stops", "does not stop", "cannot be checked", "stops, but does not honour what it declares"
]
_HONOURED = {
    "tools": "a call that was required was made, and its result taken",
    "structured": "the answer fits the schema",
}
_VERDICTS: tuple[CheckVerdict, ...] = get_args(CheckVerdict)


class Tolerance(msgspec.Struct, frozen=True):
    """tokens  that the provider may still make after the stop
    lag     seconds that the event loop may be late
    """

    tokens: int
    lag: float


class Metered(msgspec.Struct, frozen=True):
    """What the provider saw.

    requests      for an answer
    before, after tokens that it made before the stop and after it
    open          answers that it still made when the check ended
    closed_after  seconds from the stop until the last connection was closed that then carried an answer; None: none
    unknown_paths that it was asked for and does not have
    """

    requests: int
    before: int
    after: int
    open: int
    closed_after: float | None
    unknown_paths: tuple[str, ...] = ()


class Measured(msgspec.Struct, frozen=True):
    """All that is known of one session. None: it did not come to that.

    held        for the stop, at a `yield`: it finishes too soon otherwise
    warm        it was not the first: how late the loop was says something
    blocked_at  what the event loop was busy with while it was late, innermost first
    died        exit status of the agent's process, where that ended by itself
    declared    features that it declares → what is wrong with them; empty: they are honoured
    """

    provider: Metered
    held: bool = False
    warm: bool = False
    finished: EndedItself | None = None
    stopping: Stopping | None = None
    halted: Halted | None = None
    left: Left | None = None
    blocked_at: tuple[str, ...] = ()
    died: int | None = None
    declared: dict[str, str] = {}


class Report(msgspec.Struct, frozen=True):
    """`commander check --json`. Times are seconds; None: not known, or it did not happen.

    problems  why it does not stop, or why nothing can be said
    notes     what is worth knowing besides
    honoured  features that it declares and was seen to honour
    """

    agent: str
    verdict: CheckVerdict
    exit_status: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    said_before_stop: int
    stopped_after: float | None
    halt: float | None
    said_after_stop: int
    provider: Metered
    loop_lag: float | None
    honoured: tuple[str, ...] = ()


def judge(agent: str, measured: Measured, tolerance: Tolerance) -> Report:
    """The first problem is the most telling one."""
    stopping, halted, left = measured.stopping, measured.halted, measured.left
    if stopping is None:
        status, problems = _not_stopped(measured)
    else:
        problems = list(_late(stopping, measured, tolerance))
        status = DOES_NOT_STOP if problems else STOPS
        if not problems and not stopping.said:
            status = UNKNOWN
            problems = [f"it said nothing within {stopping.took:.1f} s: stopped there it ended, but in no sentence"]
        if wrong := [f"it declares `{feature}`: {why}" for feature, why in measured.declared.items() if why]:
            status, problems = DOES_NOT_HONOUR, wrong
    said = stopping.said if stopping else measured.finished.said if measured.finished else 0
    ended_at = halted.ended_at if halted else None
    return Report(
        agent=agent,
        verdict=_VERDICTS[status],
        exit_status=status,
        problems=tuple(problems),
        notes=tuple(_notes(measured)),
        said_before_stop=said,
        stopped_after=stopping.took if stopping else None,
        halt=(ended_at - stopping.at) / 1e9 if stopping and ended_at else None,
        said_after_stop=halted.late_deltas if halted else 0,
        provider=measured.provider,
        loop_lag=left.loop_lag if left else None,
        honoured=tuple(feature for feature, why in measured.declared.items() if not why),
    )


def _not_stopped(measured: Measured) -> tuple[int, list[str]]:
    finished = measured.finished
    if measured.died is not None:
        return UNKNOWN, [f"its process ended by itself, with exit status {measured.died}"]
    if finished is None:
        return DOES_NOT_STOP, [f"it blocks the event loop for good{_at(measured)}: no stop can reach it"]
    if finished.failure:
        return UNKNOWN, [f"it failed before it could be stopped: {finished.failure}"]
    deltas = _count(finished.said, "delta")
    return UNKNOWN, [f"it finished before it could be stopped, having said {deltas}: it has to say two at least"]


def _late(stopping: Stopping, measured: Measured, tolerance: Tolerance) -> Iterator[str]:
    halted, left, provider = measured.halted, measured.left, measured.provider
    if halted is None:
        why = (
            f"exit status {measured.died}" if measured.died is not None else f"it blocks the event loop{_at(measured)}"
        )
        yield f"nothing was heard of it after the stop: {why}"
    elif halted.ended_at is None:
        place = f", at {halted.place}" if halted.place else ""
        yield f"it still runs{place}: it swallows its cancellation, or waits in its clean-up"
    elif (took := (halted.ended_at - stopping.at) / 1e9) > HALT_SECONDS:
        yield f"it took {took:.1f} s to end; clean-up has {HALT_SECONDS:g} s, then it is cancelled once more"
    if halted and halted.late_deltas:
        yield f"it yielded {halted.late_deltas} more after the stop; after CancelledError there is nothing to say"
    if provider.open:
        yield (
            f"the connection to the provider stayed open, and the model ran on: {_count(provider.after, 'token')} so "
            "far. Leave the response's `async with`, do not pool its connection, and end your own tasks and threads"
        )
    elif provider.after > tolerance.tokens:
        yield f"the provider made {_count(provider.after, 'token')} after the stop; {tolerance.tokens} are allowed"
    if left and measured.warm and left.loop_lag > tolerance.lag:
        yield f"it blocks the event loop for {left.loop_lag:.2f} s{_at(measured)}: so late may a stop reach it"


def _notes(measured: Measured) -> Iterator[str]:
    provider, left = measured.provider, measured.left
    if measured.held:
        yield "it finishes too soon for a stop; so it was held at a `yield`, as a slow Dispatcher holds it"
    if not provider.requests:
        yield "it asked the metered provider for nothing"
    for path in provider.unknown_paths:
        yield f"it asked for {path}, which the metered provider does not have"
    if left and left.tasks:
        yield f"tasks that still run: {', '.join(left.tasks)}"
    if left and left.threads:
        yield f"threads that still work: {', '.join(left.threads)}"


def _at(measured: Measured) -> str:
    return f" (at {' ← '.join(measured.blocked_at)})" if measured.blocked_at else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def text(report: Report) -> str:
    """As people read it."""
    lines = [f"{report.agent} {report.verdict}"]
    lines += [f"  - {problem}" for problem in report.problems]
    provider = report.provider
    rows = []
    if report.stopped_after is not None:
        rows.append(("stopped", f"after {_count(report.said_before_stop, 'delta')}, {report.stopped_after:.2f} s"))
        halt = "not seen" if report.halt is None else f"{report.halt * 1000:.1f} ms after the stop"
        rows.append(("the generator's end", f"{halt}, its `finally` blocks included" if report.halt else halt))
        rows.append(("said after the stop", _count(report.said_after_stop, "delta")))
    if provider.requests and report.stopped_after is not None:
        closed = f"closed {provider.closed_after * 1000:.1f} ms after the stop" if provider.closed_after else "idle"
        rows.append(("the provider's connection", "open" if provider.open else closed))
        rows.append(("tokens after the stop", f"{provider.after} (before it: {provider.before})"))
    if report.loop_lag is not None:
        rows.append(("the event loop", f"late by {report.loop_lag * 1000:.1f} ms at most"))
    rows += [(f"declared `{feature}`", _HONOURED[feature]) for feature in report.honoured]
    lines += [f"  {name:26}{value}" for name, value in rows]
    lines += [f"  note: {note}" for note in report.notes]
    return "\n".join(lines)

"""What is said of what was measured, and where an event loop was blocked."""

import asyncio.runners
import faulthandler
import tempfile
import threading
from typing import Any

import pytest

from commander import driver
from commander.check.measure import places
from commander.check.messages import EndedItself, Halted, Left, Stopping
from commander.check.verdict import DOES_NOT_STOP, STOPS, UNKNOWN, Measured, Metered, Tolerance, judge, text

LIMITS = Tolerance(tokens=3, lag=0.25)
SECOND = 10**9
METERED = Metered(requests=1, before=10, after=0, open=0, closed_after=0.001)
GOOD = {
    "provider": METERED,
    "warm": True,
    "stopping": Stopping(at=SECOND, said=10, took=0.2),
    "halted": Halted(ended_at=SECOND + 500_000, late_deltas=0, place=""),
    "left": Left((), (), 0.001),
}


def measured(**changes: Any) -> Measured:
    return Measured(**{**GOOD, **changes})


def metered(**changes: Any) -> Metered:
    return Metered(**{"requests": 1, "before": 10, "after": 0, "open": 0, "closed_after": 0.001, **changes})


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({}, STOPS, ""),
        ({"provider": metered(after=3)}, STOPS, ""),
        ({"provider": metered(after=4)}, DOES_NOT_STOP, "the provider made 4 tokens after the stop; 3 are allowed"),
        ({"provider": metered(after=1, open=1)}, DOES_NOT_STOP, "stayed open, and the model ran on: 1 token so far"),
        ({"halted": Halted(SECOND + 1, 2, "")}, DOES_NOT_STOP, "it yielded 2 more"),
        ({"halted": Halted(None, 0, "a.py:3")}, DOES_NOT_STOP, "it still runs, at a.py:3"),
        ({"halted": Halted(SECOND + 2 * SECOND + 1, 0, "")}, DOES_NOT_STOP, "it took 2.0 s to end"),
        ({"halted": Halted(SECOND + 2 * SECOND, 0, "")}, STOPS, ""),
        ({"halted": None, "left": None}, DOES_NOT_STOP, "nothing was heard of it after the stop"),
        ({"left": Left((), (), 0.3), "blocked_at": ("a.py:3 f",)}, DOES_NOT_STOP, "for 0.30 s (at a.py:3 f)"),
        ({"left": Left((), (), 0.3), "warm": False}, STOPS, ""),
        ({"stopping": Stopping(SECOND, 0, 10.0)}, UNKNOWN, "it said nothing within 10.0 s"),
        ({"stopping": Stopping(SECOND, 0, 10.0), "halted": Halted(None, 0, "")}, DOES_NOT_STOP, "it still runs"),
        ({"stopping": None}, DOES_NOT_STOP, "it blocks the event loop for good"),
        ({"stopping": None, "died": 7}, UNKNOWN, "with exit status 7"),
        ({"stopping": None, "finished": EndedItself(1, "")}, UNKNOWN, "having said 1 delta"),
        ({"stopping": None, "finished": EndedItself(3, "E: x")}, UNKNOWN, "it failed before it could be stopped: E: x"),
    ],
)
def test_the_verdict(changes: dict[str, Any], status: int, words: str) -> None:
    report = judge("a:b", measured(**changes), LIMITS)
    assert report.exit_status == status
    assert bool(report.problems) == bool(words)
    if words:
        (problem,) = report.problems
        assert words in problem
        assert problem in text(report)
    assert text(report).splitlines()[0] == f"a:b {report.verdict}"


def test_all_problems_are_named() -> None:
    report = judge(
        "a:b",
        measured(
            provider=metered(after=50, open=1), halted=Halted(None, 1, ""), left=Left(("t",), ("u",), 0.5), held=True
        ),
        LIMITS,
    )
    assert len(report.problems) == 4
    assert [note.partition(":")[0] for note in report.notes[1:]] == ["tasks that still run", "threads that still work"]
    shown = text(report)
    for words in ("not seen", "open", "50 (before it: 10)", "late by 500.0 ms at most", "held at a `yield`"):
        assert words in shown


def test_places_are_those_of_the_agent_on_the_main_thread() -> None:
    stacks = f"""Timeout (0:00:00.260000)!
Thread 0x00007f3a00000001 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 5 in wait

Thread 0x000000000000002a (most recent call first):
  File "/usr/lib/python3.11/socket.py", line 706 in readinto
  File "/home/me/agent.py", line 12 in agent
  File "{driver.__file__}", line 105 in _iterate
  File "{asyncio.runners.__file__}", line 118 in run
"""
    assert places(stacks, 42) == ("socket.py:706 readinto", "agent.py:12 agent")
    idle = f"""Timeout (0:00:00.260000)!
Thread 0x000000000000002a (most recent call first):
  File "{asyncio.runners.__file__}", line 118 in run
"""
    assert places(idle + stacks + idle, 42) == places(stacks, 42), "the machine was late before, and after"
    assert places(idle, 42) == ()
    assert places(stacks, 43) == ()
    assert places("", 42) == ()


def test_places_of_a_stack_as_this_python_writes_it() -> None:
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        found = places(file.read().decode(), threading.get_ident())
    assert found[0].startswith("test_verdict.py:")

"""What a session's runner needs: of the stream that it is open on, and of the set of sessions that it is part of."""

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from dispatcher.core.log import Record
from dispatcher.metrics import Metrics
from dispatcher.policing.judges import Judges
from dispatcher.store.ports import Store
from dispatcher.tools.registry import Registry
from shared.records import Closed, DownstreamSignal

if TYPE_CHECKING:
    from dispatcher.live.runner import Runner

T = TypeVar("T")

CLOSED_MESSAGES = {
    "fenced": "A later assignment has this session.",
    "superseded": "Another stream has opened this session since.",
    "gap": "A packet is missing before this one; open the session again.",
    "ended": "The session has ended.",
    "unknown_session": "The session is not known, or not open on this stream.",
    "exists": "The session id is taken.",
    "invalid": "The packet breaks the contract; the session has failed.",
    "credit": "More than the credit was sent without an Ack; the session has failed.",
    "unavailable": "The session's log cannot be reached now; try again.",
}


def closed(code: str) -> Closed:
    return Closed(code, CLOSED_MESSAGES[code])


class Link(Protocol):
    """A session's side of a stream."""

    alive: bool

    def attach(self, runner: "Runner") -> None:
        """The session is open on this stream from now."""

    def send(self, session_id: str, signal: DownstreamSignal) -> None:
        """Queue a signal for the one writer. Welcome and Stop go ahead of all else."""

    def send_ack(self, runner: "Runner", at_once: bool) -> None:
        """See to it that `runner.take_ack` is asked soon (within 50 ms), or at once."""

    def closed(self, session_id: str, over: bool) -> None:
        """The session is no longer on this stream. over: it has ended."""


class Host(Protocol):
    """What a runner needs of the set of sessions that it is part of."""

    store: Store
    registry: Registry
    judges: Judges
    metrics: Metrics
    instance: str
    log_thoughts: bool

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Run it to its end, also while draining."""

    async def look_again(self, session_id: str) -> None:
        """The log knows more than the core did: rebuild it, and begin its grace anew."""

    def judge_calls(self, runner: "Runner") -> None:
        """Call `runner.settle_gone` with the instances that live, soon."""

    def requeued(self, runner: "Runner", record: Record) -> None:
        """The session waits again."""

    def settled(self, runner: "Runner") -> None:
        """Nothing is left to do for the session here."""

"""What the pieces of a live session need of each other: its stream, its runner, and the set that it is part of."""

import asyncio
from collections.abc import Awaitable, Callable, Container, Coroutine
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from dispatcher.core.effects import Effect
from dispatcher.core.entries import Approval, Call, Entry
from dispatcher.core.log import Applied, CommanderName, Outcome, Record, Request
from dispatcher.core.session import Session
from dispatcher.live.deadlines import Pace
from dispatcher.live.shown_tokens import ShownTokens
from dispatcher.live.tool_starts import ToolStarts
from dispatcher.metrics import Metrics
from dispatcher.policing.judges import Judges
from dispatcher.store.ports import Store
from dispatcher.tools.registry import ApprovalRequest, Registry
from shared.records import DownstreamSignal, ToolResult, Upstream
from shared.spans import TraceContext
from shared.turns import LoopTurn

T = TypeVar("T")

Batch: TypeAlias = list[tuple[Entry, float]]  # of one append, with the time of receipt (perf_counter)


class Unlogged(NamedTuple):
    """Of a session that lives here, which its log does not say. step: of its last thought, the beginning of the name;
    held: characters of content that wait for a decision of the policies.
    """

    step: str
    held: int


class Carried(Protocol):
    """A session as the stream that carries it sees it."""

    session_id: str

    async def read_ahead(self, packet: Upstream, turn: LoopTurn) -> None:
        """Before a large packet is received: its text is read by the policies, with the loop given way in between."""

    def receive(self, packet: Upstream) -> None:
        """A packet of the session; not `open`, not `status`."""

    def take_ack(self) -> int:
        """The sequence to ack now; what is acked no longer counts against the credit."""

    def detach(self, link: "Link") -> None:
        """That stream carries it no more: its grace begins, unless it has ended. Another's: nothing happens."""

    def lost(self, sent: bool = True) -> None:
        """Its Commander does not hold it, as it says, or as the assignment was not sent (sent: False): no grace."""

    def stop_written(self, began: float) -> None:
        """A stop has just been handed to gRPC, which began at that time (`perf_counter`)."""

    @property
    def over(self) -> bool:
        """The end that its Commander sent, or that the Dispatcher made, is in the log."""

    @property
    def expected(self) -> int:
        """The generation whose Commander has to hold it now; 0: nobody has to."""

    @property
    def done(self) -> bool:
        """Its end has come, or is about to be refused: nothing more of it is awaited on its stream."""

    @property
    def answered_by_leaving(self) -> bool:
        """It was stopped, and its peer is an older one, which has no other answer than to end its stream."""

    async def room(self) -> None:
        """Return when fewer packets than its credit are on their way to the log and no call waits for another's end."""

    @property
    def tools_run(self) -> bool:
        """A tool of it runs, or its result is not in the log yet, or was not sent."""

    async def tools_over(self) -> None:
        """Return when none does."""


class Link(Protocol):
    """A session's side of a stream."""

    alive: bool

    @property
    def full(self) -> bool:
        """Much waits to be read: nothing large is to be added."""

    def wait_for_room(self, session_id: str, send: "Callable[[Link], Awaitable[bool]]") -> None:
        """Call `send` when there is room again, until it says that nothing waits. Sessions take turns."""

    def attach(self, carried: Carried) -> None:
        """The session is open on this stream from now."""

    def send(self, session_id: str, signal: DownstreamSignal) -> None:
        """Queue a signal for the one writer. Welcome and Stop go ahead of all else."""

    def send_ack(self, carried: Carried, at_once: bool) -> None:
        """See to it that `carried.take_ack` is asked soon (within 50 ms), or at once."""

    def close(self, session_id: str, code: str) -> None:
        """The session is over on this stream, and its peer is told `closed` with that code."""

    def leave(self, session_id: str, over: bool) -> None:
        """The session is no longer on this stream, as its peer knows. over: it has ended."""


class Host(Protocol):
    """What a runner needs of the set of sessions that it is part of."""

    store: Store
    registry: Registry
    judges: Judges
    tokens: ShownTokens
    starts: ToolStarts
    metrics: Metrics
    instance: str
    log_thoughts: bool
    pace: Pace

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Run it to its end, also while draining."""

    def completed(self, session_id: str) -> None:
        """Its log is, and no other instance tells of it."""

    def trace(self, session_id: str, request: Request) -> TraceContext | None:
        """For the lines of its log and its exemplars, sampled or not; None: nobody is told of traces."""

    def traceparent(self, session_id: str, request: Request, generation: int) -> str:
        """For what is done for the session under that generation."""

    def observe(self, session_id: str, outcome: Applied) -> bool:
        """It was logged here without an epoch (rule 12): who has the session here is told. Whether somebody has."""

    async def look_again(self, session_id: str) -> None:
        """The log knows more than the core did: rebuild it, and begin its grace anew."""

    def judge_calls(self, settle_gone: Callable[[Container[str]], None]) -> None:
        """Call it with the instances that live, soon."""

    def requeued(self, runner: Carried, record: Record) -> None:
        """The session waits again."""

    def ended(self, commander: CommanderName, well: bool) -> None:
        """A session of that Commander has ended well; or it has failed, or was lost by it."""

    def settled(self, runner: Carried) -> None:
        """Nothing is left to do for the session here."""


class Owner(Protocol):
    """A session's runner, as its helpers see it: those that append, run tools and ask policies for it."""

    session_id: str
    session: Session  # the core as it is now
    link: Link | None  # the stream that has it
    host: Host

    @property
    def owned(self) -> bool:
        """This instance has the session."""

    def carry_out(self, effects: list[Effect]) -> None:
        """Do what the core asks for."""

    def answered(self, outcome: Outcome | BaseException, session: Session, batch: Batch) -> None:
        """What came of an append: its outcome, or why it can never be stored; the core that it was made for."""

    async def run_call(self, call: Call) -> ToolResult:
        """The result of a call; raises nothing but CancelledError."""

    async def check_call(self, call: Call) -> ApprovalRequest | ToolResult:
        """What has to be approved before the call runs; or its result, where it does not come to that."""

    async def settle(self, body: ToolResult | Approval) -> None:
        """Put it into the log, however long that takes."""

    def maybe_settled(self) -> None:
        """Something is over: perhaps all is."""

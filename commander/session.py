"""One session at the Commander: its agent, its outbox, and the stream that carries it.

A session talks on one stream (`_current`) and, while it moves, is being opened on a second (`_opening`); it goes on on
the first until it is welcomed on the second. What comes from any other stream is late and dropped. The generator starts
at the first Welcome, so that no agent runs for a session that somebody else has.
"""

import time
from collections.abc import AsyncIterator, Callable, Container, Mapping
from enum import Enum, auto
from typing import Any, Protocol, TypeAlias

import structlog

from commander import calls
from commander.agent import Finish, Thought, ToolCaller, ToolError, Yielded
from commander.driver import Driver, Failure
from commander.metrics import Metrics
from commander.outbox import Outbox
from shared import records, wire
from shared.conversation import Phase, ProtocolError, kind_of, kind_of_signal, next_phase
from shared.flags import Flag
from shared.records import Upstream

FIRST_REOPEN_SECONDS = 0.1
MAX_DOUBLINGS = 5  # of that, while nothing gets through: about 3 s

logger = structlog.get_logger()

Begin: TypeAlias = Callable[[ToolCaller], AsyncIterator[Yielded]]


def _begun(_: ToolCaller) -> AsyncIterator[Yielded]:
    raise RuntimeError("a session's agent begins once")


class Carrier(Protocol):
    """A stream, as its sessions see it."""

    def queue(self, session: "Session") -> None:
        """Something may be taken: call `session.take` soon."""


class Holder(Protocol):
    """Whoever holds sessions: the worker of the pool, or `commander run`."""

    @property
    def commander_id(self) -> str: ...

    def generator_ended(self, session: "Session") -> None:
        """Its slot is free."""

    def let_go(self, session: "Session") -> None:
        """It is over: the log has its end, or it is somebody else's, or it was given up."""

    def moved(self, session: "Session") -> None:
        """It left a stream that may be waiting for that."""

    def reopen(self, session: "Session", delay: float) -> None:
        """Open it again after so many seconds, on the stream for work."""


class Halt(Enum):
    """Why the generator was halted."""

    STOP = auto()  # answered by `stopped`
    HAND_OVER = auto()  # answered by a retryable error
    DATA_LOSS = auto()  # the error is on its way already
    OVER = auto()  # nothing more is sent


class _Link:
    """The session on one stream."""

    __slots__ = ("phase", "stream")

    def __init__(self, stream: Carrier) -> None:
        self.stream = stream
        self.phase = Phase.IDLE


class Session:
    """history: the sequence that its agent's history ends with, if it has one. token: that `open` shows. client_tools:
    the names of those that the answer may end with calls of. stop, failure, closed: how it ended, for `commander run`;
    all None: it finished, or runs.
    """

    def __init__(
        self,
        session_id: str,
        generation: int,
        begin: Begin,
        holder: Holder,
        metrics: Metrics,
        *,
        history: int | None = None,
        token: bytes = b"",
        client_tools: Container[str] = (),
        echo: Callable[[str | Thought], None] | None = None,
    ) -> None:
        self.session_id = session_id
        self.generation = generation
        self.outbox = Outbox(session_id, history)
        self.stop: records.Stop | None = None
        self.failure: str | None = None
        self.closed: records.Closed | None = None
        self._token = token
        self._begin = begin
        self._holder = holder
        self._metrics = metrics
        self._client_tools = client_tools
        self._echo = echo
        self._calls = calls.WaitingCalls()
        self._driver: Driver | None = None
        self._halt: Halt | None = None
        self._over = False
        self._last_at_stop = 0
        self._current: _Link | None = None
        self._opening: _Link | None = None
        self._reopenings = 0
        self._open_unanswered = False  # of some `open` of ours nobody said what became of it
        self._has_room = Flag()
        self._received_at = time.monotonic()
        self._logger = logger.bind(session_id=session_id)

    # ---- streams

    def open_on(self, stream: Carrier) -> None:
        """Begin it on this stream, or begin it again; where it is now, it goes on until the Welcome."""
        if not self._over:
            self._opening = _Link(stream)
            stream.queue(self)

    def carried_by(self, stream: Carrier) -> bool:
        return any(link is not None and link.stream is stream for link in (self._current, self._opening))

    @property
    def stream(self) -> Carrier | None:
        """Where it is open."""
        return self._current.stream if self._current else None

    @property
    def being_opened(self) -> bool:
        return self._opening is not None

    def stream_ended(self, stream: Carrier) -> None:
        """It carries nothing any more."""
        if self._opening and self._opening.stream is stream:
            self._open_unanswered |= self._opening.phase is Phase.OPENING
            self._opening = None
        if self._current and self._current.stream is stream:
            self._current = None
        self._wake()

    def take(self, stream: Carrier, budget: int) -> list[Upstream]:
        """What the stream's writer may send now, about `budget` bytes."""
        opening = self._opening
        if opening and opening.stream is stream and opening.phase is Phase.IDLE:
            opening.phase = next_phase(opening.phase, "open")
            awaiting = self._calls.awaiting
            opened = records.Open(self._holder.commander_id, self.generation, awaiting, self._token)
            return [Upstream(self.session_id, opened)]
        link = self._current
        if link is None or link.stream is not stream:
            return []
        # A call that its `open` on the other stream does not name would get its result here, after we have left.
        hold_calls = opening is not None and opening.phase is Phase.OPENING
        packets = self.outbox.take(budget, int(time.time() * 1000), hold_calls=hold_calls)
        for packet in packets:
            link.phase = next_phase(link.phase, kind_of(packet.payload))
        self._make_room()
        if self.outbox.settled:  # an older Dispatcher: what is sent counts as logged
            self._let_go()
        return packets

    def _wake(self) -> None:
        if self._current:
            self._current.stream.queue(self)

    # ---- what the Dispatcher says

    def receive(self, stream: Carrier, signal: records.DownstreamSignal) -> None:
        """A packet for this session. What this phase has no place for is dropped."""
        link = self._current
        if link is None or link.stream is not stream:
            link = self._opening
        kind = kind_of_signal(signal)
        if link is None or link.stream is not stream or kind is None or self._over:
            return
        try:
            link.phase = next_phase(link.phase, kind)
        except ProtocolError as error:
            self._logger.debug("packet_dropped", reason=str(error))
            return
        match signal:
            case records.Ack(sequence):
                self._acked(sequence)
            case records.Stop():
                self._stopped(signal)
            case records.ToolResult():
                self._calls.resolve(signal, legacy=not self.outbox.retain)
            case records.Welcome():
                self._welcomed(link, signal)
            case records.Closed():
                self._closed(link, signal)

    def welcome_legacy(self) -> None:
        """Go on without a Welcome: an older Dispatcher, which neither acks nor limits, and knows no second stream."""
        if self._opening:
            self.outbox.retain = False
            self.receive(self._opening.stream, records.Welcome(0, 2**32 - 1, 2**32 - 1))

    def _welcomed(self, link: _Link, welcome: records.Welcome) -> None:
        self._current, self._opening = link, None
        known = self.outbox.welcome(welcome.sequence, welcome.max_unacked_packets, welcome.max_unacked_bytes)
        if not known:
            self._lost_data(welcome.sequence)
        elif self._driver is None and self._halt is None:
            with structlog.contextvars.bound_contextvars(session_id=self.session_id):  # of what the agent logs, too
                self._driver = Driver(self._start, self)
        elif self._driver is None:
            self.driver_ended(None)  # handed over before it began
        else:
            self._metrics.resumes.inc()
        if self.outbox.settled:
            self._let_go()
            return
        self._make_room()
        self._wake()
        self._holder.moved(self)

    def _lost_data(self, sequence: int) -> None:
        """The log was rolled back below what it had acked: never silently (rule 6)."""
        self._logger.error("data_loss", logged=sequence, acked=self.outbox.acked, sent=self.outbox.last)
        self.failure = "data_loss"
        self.outbox.fail(sequence, records.Error("data_loss", "the session log lost what it had acknowledged"))
        self._halt_generator(Halt.DATA_LOSS)

    def _acked(self, sequence: int) -> None:
        self.outbox.ack(sequence)
        self._reopenings = 0
        if self.outbox.settled:
            self._let_go()
            return
        self._make_room()
        if self.outbox.waiting:
            self._wake()

    def _closed(self, link: _Link, closed: records.Closed) -> None:
        if link is self._current:
            self._current = None
            # Only another open of ours can have superseded it, or will be answered in its place.
            if self._opening and closed.code in ("superseded", "gap", "unavailable"):
                self._holder.moved(self)
                return
        else:
            self._opening = None
            self._wake()
        self._open_unanswered |= closed.code == "unavailable"
        # That `open` may be what supersedes us, late; if it is another's, this is answered by `fenced`.
        again = self._open_unanswered if closed.code == "superseded" else closed.code in ("gap", "unavailable")
        if again:
            first_gap = closed.code == "gap" and not self._reopenings
            delay = 0.0 if first_gap else FIRST_REOPEN_SECONDS * 2 ** min(self._reopenings, MAX_DOUBLINGS)
            self._reopenings += 1
            self._logger.warning("session_closed", code=closed.code, reopen_seconds=delay)
            self._holder.reopen(self, delay)
            return
        if closed.code != "ended" or not self.outbox.ended:  # else its end is in the log, only the ack was lost
            self._logger.warning("session_closed", code=closed.code)
            self.closed = closed
        self.give_up()

    # ---- the agent

    def _start(self) -> AsyncIterator[Yielded]:
        structlog.contextvars.bind_contextvars(session_id=self.session_id)  # of the driver's task, for its agent's logs
        begin, self._begin = self._begin, _begun  # and with it what the session was assigned with
        return begin(self.call_tool)

    def accept(self, item: str | Thought) -> bool:
        """A delta of the agent's. False: wait for `room`."""
        if isinstance(item, str):
            self.outbox.say(item)
        else:
            self.outbox.think(item.step_name, item.delta)
        self._wake()
        if self._received_at:
            self._metrics.first_token.observe(time.monotonic() - self._received_at)
            self._received_at = 0.0
        if self._echo:
            self._echo(item)
        return not self.outbox.full

    async def room(self) -> None:
        """Returns when the outbox can take more, or the session is over."""
        while self.outbox.full and not self._over:
            self._has_room.clear()
            await self._has_room.wait()

    def _make_room(self) -> None:
        if self._over or not self.outbox.full:
            self._has_room.set()

    async def call_tool(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """What `Turn.call_tool` does."""
        call = calls.request(name, arguments)
        async with self._calls.places:
            await self.room()
            if self._halt or self._over or self.outbox.ending:
                raise ToolError("CANCELLED", "the session is over")
            self.outbox.call(call)
            self._wake()
            return await self._calls.result(call)

    @property
    def generator_ended(self) -> bool:
        """Nothing of the agent runs, or ever will."""
        return self._driver.ended if self._driver else self._halt is not None

    @property
    def late_deltas(self) -> int:
        """Deltas that the agent still made after it was halted."""
        return self._driver.late_deltas if self._driver else 0

    def hand_over(self) -> None:
        """Halt the agent and give the session back, for a Commander that leaves."""
        self._halt_generator(Halt.HAND_OVER)

    def _stopped(self, stop: records.Stop) -> None:
        """Halt at once; the stop is sticky, and the first is the one that is answered."""
        if self.stop or self.outbox.ended or self._halt is Halt.DATA_LOSS:
            return
        self.stop = stop
        self._last_at_stop = self.outbox.last
        self._halt_generator(Halt.STOP)
        self._logger.info("session_stopping", reason=stop.reason, detail=stop.detail, each=True)

    def _halt_generator(self, halt: Halt) -> None:
        """Only a stronger reason replaces one: a stop a hand-over, being over both."""
        if self._over or self._halt is Halt.DATA_LOSS or (self._halt is Halt.STOP and halt is Halt.HAND_OVER):
            return
        if halt is Halt.HAND_OVER and (self._halt or self.outbox.ending):
            return
        self._halt = halt
        if halt is not Halt.DATA_LOSS:
            self.outbox.discard_waiting()
        if self._driver and not self._driver.ended:
            self._driver.halt()
        elif halt is Halt.STOP or (halt is Halt.HAND_OVER and self._driver):
            self._end(None)

    def driver_ended(self, result: Finish | Failure | None) -> None:
        """The generator has ended: say how, and free the slot."""
        self._calls.close()
        self._count_tokens(result)
        if not self._over:
            self._end(result)
        self._holder.generator_ended(self)

    def driver_overdue(self) -> None:
        """It does not stop: say so and give the session up; the slot stays taken until it has really ended."""
        self._logger.error("did_not_stop", late_deltas=self.late_deltas)
        self.give_up()

    def _end(self, result: Finish | Failure | None) -> None:
        end = self._end_packet(result)
        if end:
            self.outbox.end(end)
            self._wake()

    def _end_packet(self, result: Finish | Failure | None) -> records.Content | records.Error | records.Stopped | None:
        driver = self._driver
        if isinstance(result, Finish) and (missing := self._missing(result)):
            result = Failure(f"the agent calls {missing!r:.80}, which is no tool of the client's")
            self._logger.warning("agent_failed", why=result.message)
        match self._halt, result:
            case Halt.STOP, _:
                late, micros = (driver.late_deltas, driver.halt_micros) if driver else (0, 0)
                stop_id = self.stop.stop_id if self.stop else ""
                self._logger.info("session_stopped", late_deltas=late, halt_micros=micros, each=True)
                return records.Stopped(stop_id, self._last_at_stop, late, micros)
            case Halt.HAND_OVER, _:
                return records.Error("commander_lost", "the Commander leaves", retryable=True)
            case None, Finish() as finish:
                counted = finish.prompt_tokens is not None or finish.completion_tokens is not None
                usage = records.Usage(finish.prompt_tokens or 0, finish.completion_tokens or 0) if counted else None
                calls = [records.ClientCall(call.call_id, call.name, call.arguments_json) for call in finish.calls]
                return records.Content("", True, finish.reason, usage, tuple(calls))
            case None, _:
                self.failure = result.message if isinstance(result, Failure) else "the agent was cancelled"
                return records.Error("agent_error", wire.well_formed(self.failure))
            case _:
                return None  # its end is on its way already

    def _missing(self, finish: Finish) -> str | None:
        """A tool that it calls and the client does not have."""
        return next((call.name for call in finish.calls if call.name not in self._client_tools), None)

    def _count_tokens(self, result: Finish | Failure | None) -> None:
        """As the model counted them; a delta for a token where it did not, or was stopped."""
        finish = result if isinstance(result, Finish) else Finish()
        deltas = self._driver.deltas + self._driver.late_deltas if self._driver else 0
        self._metrics.tokens(finish.prompt_tokens or 0, finish.completion_tokens or deltas)

    # ---- its end

    def give_up(self) -> None:
        """Over without an end of ours: nothing more is sent."""
        self._halt_generator(Halt.OVER)
        self._let_go()

    def _let_go(self) -> None:
        if self._over:
            return
        self._over = True
        self._current = self._opening = None
        self._make_room()
        self._holder.let_go(self)

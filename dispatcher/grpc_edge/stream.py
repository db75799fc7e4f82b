"""One ChatStream: packets ⇄ inputs by session, errors → `closed` or a status. Older peers end here."""

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import Any

import grpc
import structlog

from dispatcher.access.rules import Caller
from dispatcher.grpc_edge.callers import forbidden, unauthenticated
from dispatcher.grpc_edge.feeder import Feeder, Send
from dispatcher.grpc_edge.heartbeats import Heartbeats
from dispatcher.grpc_edge.limits import (
    FIRST_PACKET_SECONDS,
    MAX_OPENING,
    MAX_SESSIONS,
    MAX_UNREAD_BYTES,
    REMEMBERED,
)
from dispatcher.grpc_edge.older import Numbering
from dispatcher.grpc_edge.patience import Patience
from dispatcher.grpc_edge.status import (
    DOES_NOT_READ,
    HANGS,
    SAYS_NOTHING,
    ServicerContext,
    StreamOver,
    closed,
    malformed,
    refused,
)
from dispatcher.grpc_edge.writer import StreamWriter
from dispatcher.live import ids
from dispatcher.live.desk import Desk
from dispatcher.live.pool import Member
from dispatcher.live.ports import Carried
from dispatcher.live.tasks import Tasks
from shared.envelope import MalformedPacketError, split
from shared.records import (
    MAX_NAME,
    TALK,
    Assignment,
    Downstream,
    DownstreamSignal,
    Drain,
    Open,
    Status,
    Stop,
    Unknown,
    Upstream,
)
from shared.sizes import oversize
from shared.turns import LoopTurn
from shared.wire import decode_upstream

logger = structlog.get_logger()

METADATA = (("midsentence-contract", "1"),)
AGE_FACTOR = 1.2  # the GOAWAY of a connection's age comes up to 10 % late, and must come before the drain
LARGE = 256  # bytes of a packet that is read ahead
COMES_IN = (Status, Open)  # what not everybody may send


class StreamKind(Enum):
    """What a stream is; its first packet tells."""

    POOL = auto()
    OWN = auto()
    OLDER = auto()


class Stream:
    """One ChatStream: one reader, one writer, and the sessions that are open on it."""

    def __init__(
        self,
        desk: Desk,
        context: ServicerContext,
        caller: Caller | None,
        speaks: Callable[["Stream"], None] = lambda stream: None,
        still: Callable[[], bool] = lambda: True,
    ) -> None:
        """caller: None: not known, so that it may be an older peer only. speaks: called with it at its first packet.
        still: whether it would be let in now.
        """
        self._desk, self._context, self._caller, self._speaks, self._still = desk, context, caller, speaks, still
        self._credential = caller.subject if caller else ""
        self._settings = desk.settings
        self._loop = asyncio.get_running_loop()
        self.kind: StreamKind | None = None
        self.alive = True
        self._heartbeats: Heartbeats | None = None
        self._own_id = ""
        self._carried: dict[str, Carried] = {}  # open on this stream
        self._doubted: set[Carried] = set()  # not named by the last status
        self._opening: set[str] = set()
        self._opens = asyncio.Semaphore(MAX_OPENING)
        self._left: dict[str, str] = {}  # open here once: the `closed` code for what still comes, "" for none any more
        self._numbering = Numbering()
        self._age: asyncio.TimerHandle | None = None
        self._first = Patience(FIRST_PACKET_SECONDS, partial(self.end, *SAYS_NOTHING))
        self._tasks = Tasks(self._task_failed)
        self._changed = asyncio.Event()  # a session left this stream, or all is written
        self._writer = StreamWriter(
            context.write,
            self._settings.write_timeout_seconds,
            partial(self.end, *DOES_NOT_READ),
            self._written,
            self._release,
            self._changed.set,
            self._roomy,
        )
        self._feeder = Feeder(self, self._writer.room, self._tasks.spawn)
        self._doom: asyncio.Future[None] = self._loop.create_future()
        self._unknown_logged = False

    # ---- life

    async def run(self) -> None:
        """Serve the stream to its end. Returns for OK; raises StreamOver."""
        await self._context.send_initial_metadata(METADATA)
        self._first.begin()
        reader = self._loop.create_task(self._read())
        writer = self._loop.create_task(self._writer.run())
        try:
            await self._first_of(reader, writer)
            await self._half_closed(writer)
        finally:
            self.alive = False
            self._let_go()
            reader.cancel()
            writer.cancel()
            if self._doom.done() and not self._doom.cancelled():
                self._doom.exception()  # seen
            await asyncio.gather(reader, writer, self._tasks.cancel(), return_exceptions=True)

    async def _first_of(self, *tasks: "asyncio.Task[Any]") -> None:
        """Return when one of them has ended; raises what it, or `end`, ended the stream with."""
        waited: set[asyncio.Future[Any]] = {*tasks, self._doom}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        for future in (self._doom, *tasks):
            if future.done():
                future.result()

    async def _half_closed(self, writer: "asyncio.Task[None]") -> None:
        """The peer has half-closed: OK once each session has its end logged and acked."""
        while True:
            self._changed.clear()
            for carried in list(self._carried.values()):
                if carried.answered_by_leaving:
                    self._let_go_of(carried)
            waits = self._opening and not self._carried
            if waits or not all(carried.done for carried in self._carried.values()):
                raise StreamOver(grpc.StatusCode.ABORTED, "The stream ended before its sessions did.")
            if not (self._carried or self._opening or self._writer.busy):
                return
            changed = self._loop.create_task(self._changed.wait())
            try:
                await self._first_of(changed, writer)
            finally:
                changed.cancel()

    def _let_go(self) -> None:
        """The stream is over: what is still open on it has its grace from now."""
        if self._age:
            self._age.cancel()
        self._first.close()
        self._writer.close()
        if self._heartbeats:
            self._heartbeats.close()
        every, self._carried = self._carried, {}
        for carried in every.values():  # a thousand here, and as many streams may be cut with this one
            self._desk.pace.take(partial(carried.detach, self))

    def end(self, code: grpc.StatusCode, text: str, kind: str = "") -> None:
        """End the stream with that status."""
        if not self._doom.done():
            self._doom.set_exception(StreamOver(code, text, kind))

    def drain(self, reason: str) -> None:
        """No assignment follows on this stream."""
        if self.kind is StreamKind.OLDER or self.kind is None:
            return
        if self._heartbeats:
            self._desk.pool.drain(self._heartbeats.member)
        self._queue(Downstream("", Drain(reason)))

    def _task_failed(self, error: BaseException) -> None:
        logger.error("stream_task_failed", exc_info=error)
        self.end(grpc.StatusCode.INTERNAL, "Internal error.")

    # ---- reading

    async def _read(self) -> None:
        """One permanent reader: a read that is cancelled loses messages."""
        while True:
            message = await self._context.read()
            if message is grpc.aio.EOF:
                return
            try:
                await self._take_message(message)
            except MalformedPacketError as error:
                raise malformed(f"The stream is malformed: {error}.") from None

    async def _take_message(self, message: bytes) -> None:
        batch, packets = split(message)
        if batch and self.kind is None:
            raise MalformedPacketError("a batch is never a stream's first message")
        if batch and self.kind is StreamKind.OLDER:
            raise MalformedPacketError("a batch needs a stream that began with status or open")
        turn = LoopTurn()  # stops and other streams need not wait for the whole message
        for each in packets:
            packet = decode_upstream(each)
            if isinstance(packet.payload, COMES_IN):
                self._check_right(packet.payload)
            if self.kind is None:
                self._begin(packet)
            if self.kind is StreamKind.OLDER:
                await self._older(packet)
                continue
            if packet.size > LARGE and (carried := self._carried.get(packet.session_id)):
                await carried.read_ahead(packet, turn)
            self._take(packet)
            if turn.over:
                await turn.step()

    def _check_right(self, payload: Status | Open) -> None:
        """Raises StreamOver for what this caller may not do, MalformedPacketError."""
        if isinstance(payload, Status) and (field := oversize(payload)):
            raise MalformedPacketError(f"the status's {field} is too large")
        if self._caller is None:
            raise unauthenticated()
        if isinstance(payload, Status) and not all(map(self._caller.may_use, payload.agents)):
            raise forbidden("This Commander may not offer that agent.")

    def _begin(self, first: Upstream) -> None:
        self._first.close()
        self._speaks(self)
        match first.payload:
            case Status() as status:
                self.kind = StreamKind.POOL
                member = Member(self, status, self._credential)
                seconds = self._settings.status_timeout_seconds
                self._heartbeats = Heartbeats(member, self._desk.pool, seconds, partial(self.end, *HANGS))
                age = self._settings.keepalive.max_connection_age_ms / 1000 * AGE_FACTOR
                self._age = self._loop.call_later(age, self.drain, "age")
                logger.info("commander_joined", **member.name._asdict(), agents=list(status.agents)[:20])
            case Open():
                self.kind = StreamKind.OWN
                self._own_id = first.session_id
            case _:
                self.kind = StreamKind.OLDER
                self._writer.batches = False
        if self._desk.pool.draining:
            self.drain("leaving")

    def _take(self, packet: Upstream) -> None:
        session_id, payload = packet.session_id, packet.payload
        if isinstance(payload, TALK) and (carried := self._carried.get(session_id)):  # as nearly always
            carried.receive(packet)
            return
        if isinstance(payload, Status):
            if self._heartbeats:
                if not (self._heartbeats.member.draining or self._still()):
                    self.drain("age")  # it may come again, if it may; what runs here ends here
                self._heartbeats.report(payload)
                self._look_for_dropped(payload)
            return
        if len(session_id) > MAX_NAME or (self.kind is StreamKind.OWN and session_id != self._own_id):
            self._refuse(session_id, "invalid")
            return
        if isinstance(payload, Open):
            self._open(session_id, payload)
            return
        if isinstance(payload, Unknown) and not self._understood(packet):
            return
        if carried := self._carried.get(session_id):
            carried.receive(packet)
        elif session_id not in self._opening and (code := self._left.get(session_id, "unknown_session")):
            self._refuse(session_id, code)

    def _look_for_dropped(self, status: Status) -> None:
        """What is open on the stream and not named was dropped."""
        held = {(running.session_id, running.generation) for running in status.running}
        for carried in self._carried.values():
            generation = carried.expected
            if generation and (carried.session_id, generation) not in held and carried not in self._doubted:
                self._doubted.add(carried)
                self._desk.pace.take(partial(self._dropped, carried, generation))

    def _dropped(self, carried: Carried, generation: int) -> None:
        self._doubted.discard(carried)
        if self._carried.get(carried.session_id) is carried and carried.expected == generation:
            logger.warning("session_dropped", session_id=carried.session_id)
            carried.lost()

    def _understood(self, packet: Upstream) -> bool:
        """What is not known is counted, and logged once for a stream; with a sequence it is appended."""
        if not packet.sequence:
            self._desk.metrics.packet_logged("unknown", 0.0)
        if not self._unknown_logged:
            self._unknown_logged = True
            logger.warning("unknown_packet", session_id=packet.session_id[:100], sequence=packet.sequence)
        return packet.sequence > 0

    def _open(self, session_id: str, opening: Open) -> None:
        if not session_id or oversize(opening):
            self._refuse(session_id, "invalid")
        elif session_id in self._opening:
            pass  # its answer is on its way
        elif len(self._opening) + len(self._carried) >= MAX_SESSIONS and session_id not in self._carried:
            self._desk.metrics.refused("chatstream", "sessions")
            self._refuse(session_id, "unavailable")
        else:
            beats = self._heartbeats
            given = beats is not None and beats.member.awaits(session_id, opening.generation)
            if not (given or self._still()):
                raise unauthenticated()
            self._opening.add(session_id)
            self._tasks.spawn(self._opened(session_id, opening, given))

    async def _opened(self, session_id: str, opening: Open, given: bool) -> None:
        try:
            async with self._opens:
                code = await self._desk.open(self, session_id, opening, given, self._credential)
        finally:
            self._opening.discard(session_id)
            self._changed.set()
        if code:
            logger.info("open_refused", session_id=session_id, code=code)
            self._refuse(session_id, code)
        elif (carried := self._carried.get(session_id)) and carried.over:
            self._release(carried)  # Welcome is all that an ended session gets

    def _refuse(self, session_id: str, code: str) -> None:
        self._tell_closed(session_id[:MAX_NAME], code)

    # ---- older peers

    async def _older(self, packet: Upstream) -> None:
        """One session, numbered here; read only as fast as it is logged."""
        if isinstance(packet.payload, Open | Status):
            raise malformed("This stream began without open or status.")
        if not self._own_id:
            await self._begin_older(packet)
        if isinstance(packet.payload, Unknown) and not self._understood(packet):
            return
        carried = self._carried.get(self._own_id)
        if carried is None:
            raise refused("ended")
        numbered = self._numbering.numbered(packet, self._own_id)
        if packet.size > LARGE:
            await carried.read_ahead(numbered, LoopTurn())
        carried.receive(numbered)
        await carried.room()

    async def _begin_older(self, packet: Upstream) -> None:
        if len(packet.session_id) > MAX_NAME:
            raise malformed("The session id is too long.")
        self._own_id = packet.session_id or ids.session_id()
        opened = await self._desk.open_older(self, self._own_id)
        if isinstance(opened, str):
            raise refused(opened)
        logger.info("older_peer", session_id=self._own_id)

    # ---- a session's link

    def attach(self, carried: Carried) -> None:
        """The session is open on this stream from now."""
        self._carried[carried.session_id] = carried
        self._left.pop(carried.session_id, None)
        if self._heartbeats:
            self._heartbeats.member.opened(carried.session_id)

    def send(self, session_id: str, signal: DownstreamSignal) -> None:
        """Queue a signal."""
        self._queue(Downstream("" if self.kind is StreamKind.OLDER else session_id, signal))

    def _queue(self, packet: Downstream) -> None:
        self._writer.queue(packet)
        if self._writer.unread > MAX_UNREAD_BYTES and not isinstance(packet.signal, Assignment):
            self.end(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too much waits for the peer to read it.", "unread")

    @property
    def full(self) -> bool:
        """Much waits to be read: nothing large is to be added."""
        return self._writer.full

    def wait_for_room(self, session_id: str, send: Send) -> None:
        """Call `send` when there is room again, until it says that nothing waits."""
        self._feeder.wait(session_id, send)

    def _roomy(self) -> None:
        if self._heartbeats:
            self._desk.pool.roomy()

    def send_ack(self, carried: Carried, at_once: bool) -> None:
        """Ack what is logged: at once, or soon together with others."""
        self._writer.ack(carried, at_once)

    def close(self, session_id: str, code: str) -> None:
        """The session is over on this stream, and its peer is told why."""
        self._forget(session_id)
        self._tell_closed(session_id, code)

    def leave(self, session_id: str, over: bool) -> None:
        """The session is no longer on this stream, as its peer knows."""
        if carried := self._forget(session_id):  # handed over: its Ack is waited for
            self._queue(self._writer.ack_packet(carried))
        if over:
            self._remember(session_id, "ended")

    def _forget(self, session_id: str) -> Carried | None:
        """It is not carried any more. Returns it if an Ack of it was due."""
        self._carried.pop(session_id, None)
        self._changed.set()
        return self._writer.forget_ack(session_id)

    def _tell_closed(self, session_id: str, code: str) -> None:
        """`closed`; to an older peer it is the status of the stream."""
        self._desk.metrics.refused("chatstream", code)
        if self.kind is StreamKind.OLDER:
            over = refused(code)
            self.end(over.code, over.text)
        else:
            self._remember(session_id, "")  # one is enough: the rest is dropped until it is opened again
            self._queue(Downstream(session_id, closed(code)))

    def _remember(self, session_id: str, code: str) -> None:
        self._left[session_id] = code
        if len(self._left) > REMEMBERED:
            del self._left[next(iter(self._left))]

    # ---- the pool's side

    def assign(self, assignment: Assignment) -> None:
        self._queue(Downstream(assignment.session_id, assignment))

    def _release(self, carried: Carried) -> None:
        """The end is acked. An older peer gets the results of tools that still run first."""
        if self._carried.get(carried.session_id) is not carried:
            return
        if self.kind is StreamKind.OLDER and carried.tools_run:
            self._tasks.spawn(self._release_later(carried))
        else:
            self._let_go_of(carried)

    async def _release_later(self, carried: Carried) -> None:
        await carried.tools_over()
        self._release(carried)

    def _let_go_of(self, carried: Carried) -> None:
        """It has ended, and its peer knows."""
        self.leave(carried.session_id, over=True)
        carried.detach(self)

    def _written(self, packets: list[Downstream], began: float) -> None:
        for packet in packets:
            if isinstance(packet.signal, Stop) and (found := self._carried.get(packet.session_id or self._own_id)):
                found.stop_written(began)

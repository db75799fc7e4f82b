"""`commander serve`: a worker of the pool. It offers slots, is handed sessions, and keeps a stream to carry them.

One stream is for work; one more may run out beside it, after a `drain`; never a third (rule 39).
"""

import asyncio
import secrets
from typing import Any

import grpc
import structlog

from commander.agent import Agent, can_continue, supported
from commander.metrics import Metrics
from commander.session import Session
from commander.settings import CommanderSettings
from commander.stream import DispatcherChannel, Stream, backoff
from commander.turn import from_assignment
from commander.waits import first_of
from shared.records import Assignment, Downstream, Drain, Running, Status, Support, Upstream

STATUS_SECONDS = 2.0  # a Dispatcher that hears none for 10 s takes the Commander for hung
LAG_SECONDS = 0.25  # between two looks at how late the loop is
GIVE_BACK_SECONDS = 5.0  # what handing over may take at the end of the drain time
STEADY_SECONDS = 5.0  # that a stream lasted whose end, or drain, is no reason to wait before the next
CLOSE_SECONDS = 2.0  # what the Dispatcher may take to end a half-closed stream

logger = structlog.get_logger()


class Worker:
    """Holds the sessions, and whatever streams there are: the last one is for work."""

    def __init__(self, settings: CommanderSettings, agent: Agent, channel: DispatcherChannel, metrics: Metrics) -> None:
        self.commander_id = secrets.token_hex(16)
        self._settings = settings
        self._agent = agent
        self._channel = channel
        self._metrics = metrics
        self._sessions: dict[str, Session] = {}
        self._busy: set[Session] = set()  # a slot each: from the assignment until the generator has ended
        self._streams: list[Stream] = []
        self._leaving = asyncio.Event()
        self._hurried = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._lag = self._lag_before = 0.0  # how late the loop was since the last regular status, and before that
        self._searching = False
        metrics.watch(
            unacked=lambda: sum(
                session.outbox.unacked for session in list(self._sessions.values())
            ),  # from another thread
            running=lambda: len(self._busy),
        )

    @property
    def still_running(self) -> int:
        """Agents that have not stopped yet. One that an assignment brought too late has not begun."""
        return sum(not session.generator_ended for session in self._busy)

    def leave(self) -> None:
        """Take no more sessions, and end when those that run have. Called again: hand them over now."""
        if self._leaving.is_set():
            self._hurried.set()
        self._leaving.set()

    async def serve(self) -> None:
        """Returns after `leave`."""
        tasks = [asyncio.create_task(part) for part in (self._stay_connected(), self._tick(), self._until_left())]
        try:
            done, _ = await asyncio.wait(tasks[1:], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            for stream in list(self._streams):
                stream.cut()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_left(self) -> None:
        await self._leaving.wait()
        logger.info("leaving", sessions=len(self._sessions))
        self._status_changed()
        await first_of(self._settings.drain_seconds, self._idle, self._hurried)
        for session in list(self._sessions.values()):
            session.hand_over()
        await first_of(GIVE_BACK_SECONDS, self._idle)
        if self._sessions:
            logger.error("sessions_left_behind", sessions=len(self._sessions))
        for stream in self._streams:
            stream.finish()
        if self._streams:
            await asyncio.wait([stream.ended for stream in self._streams], timeout=CLOSE_SECONDS)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        status_at = loop.time() + STATUS_SECONDS
        while True:
            due = loop.time() + LAG_SECONDS
            await asyncio.sleep(LAG_SECONDS)
            self._lag = max(self._lag, loop.time() - due)
            if loop.time() >= status_at:
                status_at = loop.time() + STATUS_SECONDS
                self._lag_before, self._lag = self._lag, 0.0  # it is made when the stream's writer comes to it
                self._status_changed()

    # ---- streams

    async def _stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            failures = 0
            while True:
                while len(self._streams) > 1:  # the oldest is cut: what it still carries moves to the new one
                    oldest = self._streams[0]
                    oldest.cut()
                    await oldest.ended
                    self._stream_ended(oldest)
                opened_at = loop.time()
                stream = self._connect()
                changes: tuple[asyncio.Future[Any], ...] = (stream.ended, stream.drained)
                await asyncio.wait(changes, return_when=asyncio.FIRST_COMPLETED)
                ended, steady = stream.ended.done(), loop.time() - opened_at >= STEADY_SECONDS
                failures = int(ended) if steady else failures + 1
                if ended or failures > 1:  # the first to drain a young stream is a replica that leaves
                    await asyncio.sleep(backoff(failures))
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("worker_failed")
            self.leave()

    def _connect(self) -> Stream:
        stream = self._channel.stream(self._receive, self._settings.flush_ms / 1000, self._status)
        stream.ended.add_done_callback(lambda _: self._stream_ended(stream))
        self._streams.append(stream)
        self._adopt()
        return stream

    def _stream_ended(self, stream: Stream) -> None:
        if stream not in self._streams:
            return
        self._streams.remove(stream)
        code = stream.ended.result()
        name = code.name if code else "CANCELLED"
        if code is not grpc.StatusCode.UNAVAILABLE or stream.answered:
            logger.info("stream_ended", status=name, details=stream.details)
            self._searching = False
        elif not self._searching:  # once, however often it is tried
            logger.warning("no_dispatcher", target=self._settings.dispatcher, details=stream.details)
            self._searching = True
        for session in list(self._sessions.values()):
            session.stream_ended(stream)
        self._adopt()

    def _adopt(self) -> None:
        """Open on the stream for work what has no stream, or has to leave the one that it has."""
        work = self._streams[-1] if self._streams else None
        if work and not work.drained.done():  # else the next one adopts
            for session in self._sessions.values():
                if self._homeless(session):
                    session.open_on(work)

    def _homeless(self, session: Session) -> bool:
        leaving = [stream for stream in self._streams if stream.leaving]
        return not session.being_opened and (session.stream is None or session.stream in leaving)

    def _drain(self, stream: Stream, reason: str) -> None:
        logger.info("drained", reason=reason)
        stream.leaving = stream.leaving or reason == "leaving"
        if not stream.drained.done():
            stream.drained.set_result(None)
        self._adopt()  # where there is one for work already
        stream.status_due()
        self._finish_if_empty(stream)

    def _finish_if_empty(self, stream: Stream) -> None:
        if stream.drained.done() and not any(session.carried_by(stream) for session in self._sessions.values()):
            stream.finish()

    def _status_changed(self) -> None:
        for stream in self._streams:
            stream.status_due()

    def _status(self, stream: Stream) -> Upstream:
        offers = not self._leaving.is_set() and not stream.drained.done()
        agents, features = (self._settings.agent,), supported(self._agent)
        status = Status(
            commander_id=self.commander_id,
            agents=agents,
            continues=agents if can_continue(self._agent) else (),
            free_slots=max(0, self._settings.capacity - len(self._busy)) if offers else 0,
            assignments_received=stream.assignments,
            running=tuple(Running(session.session_id, session.generation) for session in self._sessions.values()),
            loop_lag_micros=int(max(self._lag, self._lag_before) * 1e6),
            supports=() if features is None else tuple(Support(agent, features) for agent in agents),
        )
        return Upstream("", status)

    # ---- sessions

    def _receive(self, stream: Stream, packet: Downstream) -> None:
        session = self._sessions.get(packet.session_id)
        match packet.signal:
            case Assignment() as assignment:
                self._assigned(stream, assignment)
            case Drain(reason):
                self._drain(stream, reason)
            case signal if session:
                session.receive(stream, signal)
            case _:
                pass  # of a session that was let go

    def _assigned(self, stream: Stream, assignment: Assignment) -> None:
        stream.assignments += 1
        self._status_changed()
        held = self._sessions.get(assignment.session_id)
        if held and held.generation >= assignment.generation:
            return
        if held:
            held.give_up()  # a higher generation has fenced it off
        taken = len(self._busy) - (held in self._busy)
        if assignment.agent != self._settings.agent or taken >= self._settings.capacity:
            # The next status does not name it, so the Dispatcher gives it to another.
            logger.error("assignment_refused", agent=assignment.agent, taken=taken)
            return
        session = Session(
            assignment.session_id,
            assignment.generation,
            lambda call_tool: self._agent(from_assignment(assignment, call_tool)),
            self,
            self._metrics,
            history=assignment.history.sequence if assignment.history else None,
            token=assignment.token,
            client_tools=tuple([tool.name for tool in assignment.tools if tool.client]),
        )
        self._sessions[session.session_id] = session
        self._busy.add(session)
        self._idle.clear()
        if self._leaving.is_set():  # it crossed our last status
            session.hand_over()
        session.open_on(stream)

    def generator_ended(self, session: Session) -> None:
        self._busy.discard(session)
        self._status_changed()

    def let_go(self, session: Session) -> None:
        if self._sessions.get(session.session_id) is session:
            del self._sessions[session.session_id]
        if session.generator_ended:
            self._busy.discard(session)
        if not self._sessions:
            self._idle.set()
        self._status_changed()
        self.moved(session)

    def moved(self, session: Session) -> None:
        self._adopt()  # it may have been welcomed on a stream that it has to leave again
        for stream in self._streams:
            self._finish_if_empty(stream)

    def reopen(self, session: Session, delay: float) -> None:
        asyncio.get_running_loop().call_later(delay, self._reopen, session)

    def _reopen(self, session: Session) -> None:
        held = self._sessions.get(session.session_id) is session
        if held and self._homeless(session) and self._streams:  # else a stream that comes later adopts it
            session.open_on(self._streams[-1])

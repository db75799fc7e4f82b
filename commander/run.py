"""`commander run PROMPT`: one session of its own over ChatStream, against any Dispatcher that speaks the contract."""

import asyncio
import contextlib
import io
import secrets
import sys
import time
from collections.abc import Awaitable

import grpc
import structlog

from commander.agent import Agent, Thought
from commander.driver import HALT_SECONDS
from commander.metrics import Metrics
from commander.session import Session
from commander.settings import CommanderSettings
from commander.stream import DispatcherChannel, Stream, backoff
from commander.turn import from_prompt
from commander.worker import CLOSE_SECONDS, GIVE_BACK_SECONDS
from shared.records import Downstream, Stop
from shared.terminal import printable

FINISHED, FAILED, STOPPED, INTERRUPTED = 0, 1, 3, 130
JOIN_SECONDS = 5.0  # without any answer before the session is open: nobody is there
RESUME_SECONDS = 30.0  # without any answer after that: longer than the grace that a Dispatcher gives

# No matter how often it is tried again, the answer will be the same.
_FINAL = (
    grpc.StatusCode.OK,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
)

logger = structlog.get_logger()


class Run:
    """One session, under an unguessable id of its own; it can resume, and nobody takes it over."""

    def __init__(
        self, settings: CommanderSettings, agent: Agent, prompt: str, channel: DispatcherChannel, metrics: Metrics
    ) -> None:
        self.commander_id = secrets.token_hex(16)
        self._settings = settings
        self._channel = channel
        self._printer = _Printer()
        self._session = Session(
            secrets.token_urlsafe(24),
            0,
            lambda call_tool: agent(from_prompt(prompt, self._session.session_id, call_tool)),
            self,
            metrics,
            token=secrets.token_bytes(32),
            echo=self._printer.print,
        )
        self._stream: Stream | None = None
        self._legacy = False
        self._early: list[Stop] = []  # what an older Dispatcher said before it was known to be one
        self._interrupted = False
        self._trouble = ""
        self._over = asyncio.Event()
        self._agent_ended = asyncio.Event()
        metrics.watch(unacked=lambda: self._session.outbox.unacked, running=lambda: int(not self._agent_ended.is_set()))

    @property
    def still_running(self) -> bool:
        """The agent has not stopped yet."""
        return not self._session.generator_ended

    def leave(self) -> None:
        """End it here: the agent is halted and the Dispatcher told. Called again: without telling."""
        if self._interrupted or not self._session.stream:
            self._session.give_up()
        self._interrupted = True
        self._session.hand_over()
        asyncio.get_running_loop().call_later(GIVE_BACK_SECONDS, self._session.give_up)

    async def run(self) -> int:
        """Returns the exit status."""
        await self._until_over()
        if self._stream:
            await self._close(self._stream)
        if self.still_running:
            await _bounded(self._agent_ended.wait(), HALT_SECONDS)
        self._printer.end()
        return self._told()

    def _told(self) -> int:
        session = self._session
        if session.stop:
            return _say(STOPPED, f"stopped: {session.stop.reason}")
        if self._interrupted:
            return INTERRUPTED
        trouble = session.failure or self._trouble
        if session.closed:
            trouble = f"{session.closed.code}: {session.closed.message}"
        return _say(FAILED, f"failed: {trouble}") if trouble else FINISHED

    async def _until_over(self) -> None:
        answered_at = time.monotonic()
        failures = 0
        while not self._over.is_set():
            stream = self._connect()
            await self._watch(stream)
            if self._over.is_set():
                return
            code = stream.ended.result()
            self._session.stream_ended(stream)
            if stream.answered:
                answered_at, failures = time.monotonic(), 0
            failures += 1
            patience = RESUME_SECONDS if self._session.outbox.last or stream.answered else JOIN_SECONDS
            if self._legacy or code in _FINAL or time.monotonic() - answered_at > patience:
                name = code.name if code else "CANCELLED"
                self._trouble = (
                    f"the Dispatcher at {self._settings.dispatcher} ended the stream: {name} {stream.details}"
                )
                self._session.give_up()
                return
            logger.info("stream_ended", status=code.name if code else "CANCELLED")
            await _bounded(self._over.wait(), backoff(failures))

    def _connect(self) -> Stream:
        self._early.clear()
        self._stream = self._channel.stream(self._receive, self._settings.flush_ms / 1000)
        self._session.open_on(self._stream)
        return self._stream

    async def _watch(self, stream: Stream) -> None:
        """Until the stream has ended or the session is over. Meanwhile: is this an older Dispatcher?"""
        over = asyncio.create_task(self._over.wait())
        current = asyncio.create_task(stream.current_contract())
        try:
            ends = (stream.ended, over)
            await asyncio.wait(ends, timeout=self._settings.legacy_seconds, return_when=asyncio.FIRST_COMPLETED)
            announced = current.done() and current.result()
            if not (stream.ended.done() or over.done() or announced or self._session.stream):
                logger.warning("older_dispatcher", target=self._settings.dispatcher)
                self._legacy = True
                stream.batches = False
                self._session.welcome_legacy()
                for signal in self._early:
                    self._session.receive(stream, signal)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            current.cancel()

    async def _close(self, stream: Stream) -> None:
        """An older Dispatcher may still run what the session asked for: the session is over when the RPC is."""
        stream.finish()
        await _bounded(asyncio.shield(stream.ended), self._settings.drain_seconds if self._legacy else CLOSE_SECONDS)
        stream.cut()
        await stream.ended

    # ---- what the session asks for

    def _receive(self, stream: Stream, packet: Downstream) -> None:
        if packet.session_id not in ("", self._session.session_id):
            return
        if not self._session.stream and isinstance(packet.signal, Stop):
            self._early.append(packet.signal)
        else:
            self._session.receive(stream, packet.signal)

    def generator_ended(self, session: Session) -> None:
        self._agent_ended.set()

    def let_go(self, session: Session) -> None:
        self._over.set()

    def moved(self, session: Session) -> None:
        pass

    def reopen(self, session: Session, delay: float) -> None:
        asyncio.get_running_loop().call_later(delay, self._reopen)

    def _reopen(self) -> None:
        if self._stream and not self._stream.ended.done() and not self._session.being_opened:
            self._session.open_on(self._stream)


async def _bounded(waited: Awaitable[object], seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(waited, seconds)


def _say(status: int, text: str) -> int:
    print(printable(text), file=sys.stderr, flush=True)
    return status


class _Printer:
    """The agent's words on standard output as it says them; its thoughts, step by step, on standard error."""

    def __init__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        self._step: str | None = None
        self._line_open = False

    def print(self, item: str | Thought) -> None:
        if isinstance(item, str):
            self._end_step()
            sys.stdout.write(printable(item) if sys.stdout.isatty() else item)
            sys.stdout.flush()
            self._line_open = not item.endswith("\n") if item else self._line_open
        else:
            if item.step_name != self._step:
                self._end_step()
                self._step = item.step_name
                sys.stderr.write(printable(f"[{item.step_name}] "))
            sys.stderr.write(printable(item.delta))
            sys.stderr.flush()

    def end(self) -> None:
        """What is printed next stands on a line of its own."""
        self._end_step()
        if self._line_open:
            sys.stdout.write("\n")
            sys.stdout.flush()

    def _end_step(self) -> None:
        if self._step is not None:
            sys.stderr.write("\n")
            self._step = None

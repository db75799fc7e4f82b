"""The agent's side of `commander check`, in a process of its own: sessions, each stopped.

    python -m commander.check.trial CHANNEL STACKS     file descriptors: of a socket for messages; for a stack, where
                                                       the event loop is late

The session is the one of `commander serve` (`commander.session`, and in it the driver); this module is its host and,
in place of a stream, its Dispatcher. A process of its own, because an agent may hang, block the loop or print.
"""

import asyncio
import concurrent.futures.thread
import faulthandler
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import IO

import msgspec
import uvloop
from prometheus_client import CollectorRegistry

from commander import loading
from commander.agent import Agent, Thought, ToolCaller, Yielded
from commander.check.declared import honoured
from commander.check.messages import (
    EndedItself,
    FromAgent,
    Halted,
    Honoured,
    Left,
    Ready,
    ReportLeft,
    StartSession,
    Stopping,
    Task,
    TryDeclared,
    Unusable,
    encoded,
)
from commander.driver import HALT_SECONDS
from commander.metrics import Metrics
from commander.session import Session
from commander.settings import CommanderSettings
from commander.turn import from_assignment
from commander.waits import first_of
from shared import logs, records
from shared.config import load
from shared.errors import ConfigError
from shared.records import MAX_TEXT_BYTES

CREDIT_PACKETS, CREDIT_BYTES = 256, 262144  # as a Dispatcher gives it
SECOND_CANCEL_SECONDS = 1.0  # what an agent that is overdue gets after its second cancellation
TICK_SECONDS = 0.01  # between two looks at how late the loop is
STOP = records.Stop("UserCancel", "check")


def main() -> None:
    channel, stacks = socket.socket(fileno=int(sys.argv[1])), os.fdopen(int(sys.argv[2]), "wb")
    orders = channel.makefile("rb")
    task = msgspec.json.decode(orders.readline(), type=Task)
    logs.configure(level="WARNING", exception_text=True)
    try:
        settings = load(CommanderSettings).model_copy(update={"backend": task.agent})
        agent = loading.load(settings, source="MODULE:AGENT")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(task, agent, orders, channel, stacks))
    except ConfigError as error:
        channel.sendall(encoded(Unusable(str(error))))


async def _serve(task: Task, agent: Agent, orders: IO[bytes], channel: socket.socket, stacks: IO[bytes]) -> None:
    """One session after another, as they are ordered."""

    def tell(message: FromAgent) -> None:
        channel.sendall(encoded(message))

    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(loading.ready(agent))
        except Exception as error:
            raise ConfigError(f"it cannot be prepared: {type(error).__name__}: {error}") from error
        tell(Ready(threading.get_ident()))
        lag = Lag(task.lag_limit, stacks)
        watching = asyncio.create_task(lag.watch())
        before = TasksAndThreads()
        # In a thread, for the agent's event loop has to go on while an order is waited for.
        while line := await asyncio.to_thread(orders.readline):
            match msgspec.json.decode(line, type=StartSession | ReportLeft | TryDeclared):
                case StartSession(held):
                    before, lag.longest = TasksAndThreads(), 0.0
                    await AgentTrial(task, agent, tell, held=held).run()
                case ReportLeft():
                    tell(Left(*TasksAndThreads().since(before), loop_lag=lag.longest))
                case TryDeclared():
                    tell(Honoured(await honoured(agent, task)))
        watching.cancel()
        os._exit(0)  # what still runs may never end


class AgentTrial:
    """One session: what its Dispatcher would say, and what becomes of it."""

    commander_id = "check"

    def __init__(self, task: Task, agent: Agent, tell: Callable[[FromAgent], None], *, held: bool) -> None:
        self._task = task
        self._agent = agent
        self._tell = tell
        self._held = held
        self._after = 2 if held else task.after
        self._said = 0
        self._enough = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended_at: int | None = None
        self._generator: AsyncIterator[Yielded] | None = None
        self._assignment = records.Assignment(
            "check", 1, "check", (records.Message("user", task.prompt),), task.parameters_json
        )
        metrics = Metrics(CollectorRegistry())
        self._session = Session("check", 1, self._begin, self, metrics, echo=self._heard)

    async def run(self) -> None:
        """Run the agent and stop it after so many deltas, or when its time is over."""
        began = time.monotonic()
        self._session.open_on(self)
        await first_of(self._task.seconds, self._enough, self._ended)
        if self._enough.is_set() and not self._held:
            await first_of(self._task.pause, self._ended)
        if self._ended.is_set():
            self._tell(EndedItself(self._said, self._session.failure or ""))
            return
        self._tell(Stopping(time.monotonic_ns(), self._said, time.monotonic() - began))
        self._session.receive(self, STOP)
        await first_of(HALT_SECONDS + SECOND_CANCEL_SECONDS, self._ended)
        place = "" if self._ended_at else _place(self._generator)
        self._tell(Halted(self._ended_at, self._session.late_deltas, place))

    # ---- the agent

    def _begin(self, call_tool: ToolCaller) -> AsyncIterator[Yielded]:
        self._generator = self._agent(from_assignment(self._assignment, call_tool))
        return self._generator

    def _heard(self, item: str | Thought) -> None:
        if isinstance(item, str) and item:
            self._said += 1
            if self._said >= self._after:
                self._enough.set()

    # ---- the stream

    def queue(self, session: Session) -> None:
        if self._held:
            # At once: the next delta would join this one. Then the credit, one packet that is never acked, is used up.
            self._carry()
        else:
            asyncio.get_running_loop().call_soon(self._carry)

    def _carry(self) -> None:
        for packet in self._session.take(self, MAX_TEXT_BYTES):
            match packet.payload:
                case records.Open():
                    self._answer(records.Welcome(0, 1 if self._held else CREDIT_PACKETS, CREDIT_BYTES))
                case records.ToolCall(tool_name=name, call_id=call_id):
                    result = self._task.results.get(name, "{}")
                    self._answer(records.Ack(packet.sequence), records.ToolResult(name, result, call_id, "OK"))
                case records.Content(is_finish=False) if self._held:
                    pass
                case _:
                    self._answer(records.Ack(packet.sequence))

    def _answer(self, *signals: records.DownstreamSignal) -> None:
        for signal in signals:
            asyncio.get_running_loop().call_soon(self._session.receive, self, signal)

    # ---- what the session asks its host for

    def generator_ended(self, session: Session) -> None:
        self._ended_at = time.monotonic_ns()
        self._ended.set()

    def let_go(self, session: Session) -> None:
        pass

    def moved(self, session: Session) -> None:
        pass

    def reopen(self, session: Session, delay: float) -> None:
        pass  # it is never closed


class Lag:
    """How late the event loop is. longest: in seconds; one above the limit leaves the loop's stack in a file."""

    def __init__(self, limit: float, stacks: IO[bytes]) -> None:
        self.longest = 0.0
        self._limit = limit
        self._stacks = stacks

    async def watch(self) -> None:
        while True:
            faulthandler.dump_traceback_later(self._limit + TICK_SECONDS, file=self._stacks)
            began = time.monotonic()
            await asyncio.sleep(TICK_SECONDS)
            self.longest = max(self.longest, time.monotonic() - began - TICK_SECONDS)


class TasksAndThreads:
    """The tasks and threads that there are now."""

    def __init__(self) -> None:
        self._tasks = asyncio.all_tasks()
        self._threads = threading.enumerate()

    def since(self, before: "TasksAndThreads") -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the tasks and threads that are new and still work. The generator's own task is not one of them."""
        tasks = (_task_name(task) for task in self._tasks - before._tasks if not task.done())
        threads = (thread for thread in self._threads if thread not in before._threads and not _idle(thread))
        return tuple(sorted(name for name in tasks if name != DRIVER)), tuple(sorted(thread.name for thread in threads))


DRIVER = "Driver._run"


def _task_name(task: "asyncio.Task[object]") -> str:
    return str(getattr(task.get_coro(), "__qualname__", task.get_name()))


def _idle(thread: threading.Thread) -> bool:
    """It is of a pool and waits for work."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code.co_filename == concurrent.futures.thread.__file__


def _place(generator: object) -> str:
    """Where an async generator function's generator stands."""
    frame = getattr(generator, "ag_frame", None)
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else ""


if __name__ == "__main__":
    main()

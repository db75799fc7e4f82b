"""One agent, stopped: the provider and, in a process of its own, the agent; what both saw of it."""

import asyncio
import asyncio.runners
import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from commander import driver
from commander.check import answers
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
from commander.check.provider import Provider
from commander.check.trial import SECOND_CANCEL_SECONDS
from commander.check.verdict import STOPS, Measured, Metered, Tolerance, judge
from commander.driver import HALT_SECONDS
from shared.errors import ConfigError

LOAD_SECONDS = 120.0  # to import it, and to load a model
SLACK_SECONDS = 5.0  # beyond a time limit that the agent's process keeps itself, unless its event loop is blocked
CLOSE_SECONDS = 1.0  # from the generator's end, in which the provider's connection has to be closed
KEY = "sk-metered"
NOT_THE_AGENT = (driver.__file__, asyncio.runners.__file__)  # what calls the agent, or waits for it to be called


async def measure(task: Task, rate: float, tolerance: Tolerance) -> Measured:
    """What the agent does at a stop. Raises ConfigError where it cannot be loaded.

    An agent that stops is stopped once more, and that is what counts: a first session builds clients and loads code,
    which no later one waits for, and a stop must not spoil what comes after it.
    """
    async with Provider(rate).serving() as provider, _started(task, provider.base_url) as agent:
        main_thread = await _loaded(agent, task)
        first = await _stopped(agent, provider, task, main_thread, held=False)
        held = bool(first.finished and first.finished.said > 1 and not first.finished.failure)
        if held:
            first = await _stopped(agent, provider, task, main_thread, held=True)
        if judge(task.agent, first, tolerance).exit_status != STOPS:
            return first
        stopped = await _stopped(agent, provider, task, main_thread, held=held, warm=True)
        if judge(task.agent, stopped, tolerance).exit_status != STOPS:
            return stopped
        return msgspec.structs.replace(stopped, declared=await _declared(agent, task))


async def _loaded(agent: "_AgentProcess", task: Task) -> int:
    """The identity of its main thread."""
    match await agent.next(LOAD_SECONDS):
        case Ready(main_thread):
            return main_thread
        case Unusable(reason):
            raise ConfigError(reason)
        case _:
            died = await agent.died()
            why = f"it took longer than {LOAD_SECONDS:g} s" if died is None else f"exit status {died}"
            raise ConfigError(f"MODULE:AGENT: {task.agent} cannot be loaded: {why}")


async def _stopped(
    agent: "_AgentProcess", provider: Provider, task: Task, main_thread: int, *, held: bool, warm: bool = False
) -> Measured:
    """One session."""
    exchanges = len(provider.exchanges)
    agent.run(held=held)
    message = await agent.next(task.seconds + SLACK_SECONDS)
    stopping, halted, left = None, None, None
    if isinstance(message, Stopping):
        stopping = message
        halted = await agent.next(HALT_SECONDS + SECOND_CANCEL_SECONDS + SLACK_SECONDS)
        await provider.quiet(CLOSE_SECONDS)
    metered = _metered(provider, exchanges, stopping.at if stopping else time.monotonic_ns())
    if halted:
        agent.look()
        left = await agent.next(SLACK_SECONDS)
    return Measured(
        provider=metered,
        held=held,
        warm=warm,
        finished=message if isinstance(message, EndedItself) else None,
        stopping=stopping,
        halted=halted if isinstance(halted, Halted) else None,
        left=left if isinstance(left, Left) else None,
        blocked_at=places(agent.stacks(), main_thread),
        died=await agent.died(),
    )


async def _declared(agent: "_AgentProcess", task: Task) -> dict[str, str]:
    """What comes of the features that it declares."""
    agent.try_declared()
    match await agent.next(2 * task.seconds + SLACK_SECONDS):
        case Honoured(found):
            return found
        case _:
            return {"supports": "nothing was heard of it while what it declares was tried"}


def _metered(provider: Provider, first: int, at: int) -> Metered:
    """What the provider saw from that exchange on, around that moment."""
    exchanges = provider.exchanges[first:]
    after = sum(exchange.made_after(at) for exchange in exchanges)
    closed = [exchange.closed - at for exchange in exchanges if exchange.closed and exchange.closed > at]
    return Metered(
        requests=len(exchanges),
        before=sum(len(exchange.made) for exchange in exchanges) - after,
        after=after,
        open=sum(exchange.running for exchange in exchanges),
        closed_after=max(closed) / 1e9 if closed else None,
        unknown_paths=tuple(dict.fromkeys(provider.unknown_paths)),
    )


def environment(base_url: str) -> dict[str, str]:
    """This process's, but that an agent finds the metered provider wherever it looks for OpenAI's; and its key is of no
    worth. Nothing is asked of the real one."""
    named = {
        "OPENAI_BASE_URL": base_url,
        "OPENAI_API_BASE": base_url,  # its older name
        "OPENAI_API_KEY": KEY,
        "COMMANDER_OPENAI__BASE_URL": base_url,
        "COMMANDER_OPENAI__API_KEY": KEY,
        "COMMANDER_OPENAI__MODEL": answers.MODEL,
    }
    direct = ",".join(filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1"]))
    return {**os.environ, **named, "NO_PROXY": direct, "no_proxy": direct}


class _AgentProcess:
    """The process in which the agent runs."""

    def __init__(
        self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stacks: Path
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._stacks = stacks
        self._stacks_before = 0

    async def next(self, seconds: float) -> FromAgent | None:
        """What it says next. None: nothing within that time, or the process has ended."""
        try:
            line = await asyncio.wait_for(self._reader.readline(), seconds)
        except TimeoutError:
            return None
        return msgspec.json.decode(line, type=FromAgent) if line else None

    async def died(self) -> int | None:
        """The process's exit status; None: it runs."""
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(self._process.wait(), 0.5 if self._reader.at_eof() else 0)
        return None

    def run(self, *, held: bool) -> None:
        """Have it run a session."""
        self._stacks_before = self._stacks.stat().st_size
        self._writer.write(encoded(StartSession(held)))

    def look(self) -> None:
        """Have it say what is left of that session."""
        self._writer.write(encoded(ReportLeft()))

    def try_declared(self) -> None:
        """Have it run the sessions of what the agent declares."""
        self._writer.write(encoded(TryDeclared()))

    def stacks(self) -> str:
        """What it wrote down in that session while its event loop was late."""
        return self._stacks.read_bytes()[self._stacks_before :].decode(errors="replace")


@contextlib.asynccontextmanager
async def _started(task: Task, base_url: str) -> AsyncIterator[_AgentProcess]:
    """The agent's process, until the block ends: nothing of it outlives that."""
    ours, its = socket.socketpair()
    with tempfile.NamedTemporaryFile() as stacks, its:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "commander.check.trial", str(its.fileno()), str(stacks.fileno())),
            pass_fds=(its.fileno(), stacks.fileno()),
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,  # ours is for the verdict
            env=environment(base_url),
            start_new_session=True,  # Ctrl-C is for this process, which then ends that one
        )
        its.close()
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            writer.write(encoded(task))
            yield _AgentProcess(process, reader, writer, Path(stacks.name))
        finally:
            writer.close()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def places(stacks: str, main_thread: int) -> tuple[str, ...]:
    """Where the agent was in the last of the stacks that faulthandler wrote down and it was at work in: the innermost
    place, and the outermost if that is another. Empty: there is none, as where the machine alone was late."""
    for found in reversed(re.findall(rf"[Tt]hread 0x0*{main_thread:x}\b.*\n((?:  File .*\n)+)", stacks)):
        frames = re.findall(r'  File "(.*)", line (\d+) in (.*)', found)
        own = [
            f"{Path(file).name}:{line} {function}"
            for file, line, function in itertools.takewhile(lambda frame: frame[0] not in NOT_THE_AGENT, frames)
        ]
        if own:
            return tuple(dict.fromkeys((own[0], own[-1])))
    return ()

"""`dispatcher dev`: the server and one Commander process in one terminal, on the embedded defaults."""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Literal

import structlog
import uvloop

from dispatcher.app import Dispatcher, start
from dispatcher.settings import DispatcherSettings
from shared import logs
from shared.config import load
from shared.errors import ConfigError
from shared.terminal import fitted

logger = structlog.get_logger()

LOOK_SECONDS = 0.5  # between two looks at the files of an agent
NOT_WATCHED = ("venv", "env", "site-packages", "node_modules", "build")
CLOSE_SECONDS = 5.0  # for the Commander to leave; its sessions are handed over or ended by then


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Beside the settings."""
    parser.add_argument(
        "--reload", action="store_true", help="a new Commander whenever a Python file below the working folder changes"
    )


def run(options: argparse.Namespace) -> int:
    # Whoever runs it wrote the agent and the tools, and asks the questions: they see their faults whole.
    for program in ("DISPATCHER", "COMMANDER"):
        os.environ.setdefault(f"{program}_LOG_EXCEPTION_TEXT", "true")
    settings = load(DispatcherSettings)
    logs.configure(settings.log_json, settings.log_level, exception_text=settings.log_exception_text)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_reloading(settings) if options.reload else _dev(settings))


def _say(text: str) -> None:
    """To whoever started it. Where that cannot be written, as on a full device, it serves all the same."""
    with contextlib.suppress(OSError):
        print(fitted(text), flush=True)


async def _dev(settings: DispatcherSettings) -> int:
    leave = leaving()
    async with pair(settings) as (dispatcher, commander):
        _say(where_to_look(dispatcher))
        left = asyncio.ensure_future(leave.wait())
        died = asyncio.ensure_future(commander.wait())
        await asyncio.wait({left, died}, return_when=asyncio.FIRST_COMPLETED)
        left.cancel()
        if not died.done():
            died.cancel()
            return 0
        return died.result() or 1


async def _reloading(settings: DispatcherSettings) -> int:
    """One that cannot start says why; the next change may mend it."""
    left = asyncio.ensure_future(leaving().wait())
    async with contextlib.AsyncExitStack() as stack:
        dispatcher = await stack.enter_async_context(_server(settings))
        commander = await stack.enter_async_context(_commander(dispatcher))
        _say(where_to_look(dispatcher))
        while await _changed(Path.cwd(), left):
            logger.info("reloading")
            if commander.returncode is None:
                commander.terminate()  # it takes no more sessions, and ends once those that it has are over
            commander = await stack.enter_async_context(_commander(dispatcher))
    return 0


async def _changed(folder: Path, left: "asyncio.Future[Literal[True]]") -> bool:
    """Whether a file has changed; False: the program shall leave. A change counts once two looks see the same."""
    loaded = before = await asyncio.to_thread(_look, folder)
    while True:
        await asyncio.wait({left}, timeout=LOOK_SECONDS)
        if left.done():
            return False
        now = await asyncio.to_thread(_look, folder)
        if now == before and now != loaded:
            return True
        before = now


def _look(folder: Path) -> dict[str, tuple[int, int]]:
    """When each Python file below was changed, and its size."""
    found = {}
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__")) and name not in NOT_WATCHED]
        for name in files:
            if name.endswith(".py"):
                with contextlib.suppress(OSError):  # it has just gone
                    status = Path(parent, name).stat()
                    found[f"{parent}/{name}"] = status.st_mtime_ns, status.st_size
    return found


def leaving() -> asyncio.Event:
    """Set at SIGTERM, Ctrl-C, or the terminal's end (SIGHUP), unless `nohup` has it outlive that."""
    leave, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            loop.add_signal_handler(number, leave.set)
    return leave


@contextlib.asynccontextmanager
async def pair(
    settings: DispatcherSettings, commander_log: IO[bytes] | None = None
) -> AsyncIterator[tuple[Dispatcher, asyncio.subprocess.Process]]:
    """A server in this process and a Commander in one of its own, which takes `COMMANDER_…` from the environment.

    commander_log: where its logs go; None: to this process's standard error.
    """
    async with _server(settings) as dispatcher, _commander(dispatcher, commander_log) as commander:
        yield dispatcher, commander


@contextlib.asynccontextmanager
async def _server(settings: DispatcherSettings) -> AsyncIterator[Dispatcher]:
    dispatcher = await start(settings)
    try:
        yield dispatcher
    finally:
        await dispatcher.close()


@contextlib.asynccontextmanager
async def _commander(
    dispatcher: Dispatcher, commander_log: IO[bytes] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    target = f"dns:///127.0.0.1:{dispatcher.grpc_port}"
    environment = {"COMMANDER_METRICS_ADDRESS": "127.0.0.1:0"} | os.environ | {"COMMANDER_DISPATCHER": target}
    commander = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "commander", "serve", "--until-eof"),
        env=environment,
        stdin=asyncio.subprocess.PIPE,  # ends with this process, also where it is killed
        stderr=commander_log,
        start_new_session=True,
    )
    try:
        yield commander
    finally:
        await _end(commander)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    for number in (signal.SIGTERM, signal.SIGTERM):  # the second cuts its draining short
        process.send_signal(number)
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def where_to_look(dispatcher: Dispatcher) -> str:
    users, operators = dispatcher.http_port, dispatcher.operator_port
    return f"""
  users      http://127.0.0.1:{users}/v1/chat/completions   any OpenAI client; the model's name is `default`
             http://127.0.0.1:{users}/v1/sessions           native, with SSE
  operators  http://127.0.0.1:{operators}/operator/sessions     http://127.0.0.1:{operators}/metrics
  terminal   dispatcher chat --url http://127.0.0.1:{users} "Tell me a story."
  Ctrl-C ends it.
"""


async def until_agents(dispatcher: Dispatcher, commander: asyncio.subprocess.Process) -> None:
    """Return when a Commander offers its agent. Raises ConfigError if it ends instead."""
    while not dispatcher.sessions.pool.agents():
        if commander.returncode is not None:
            raise ConfigError(f"the Commander has ended with exit status {commander.returncode}")
        await asyncio.sleep(0.05)

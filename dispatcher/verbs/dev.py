"""`dispatcher dev`: the server and one Commander process in one terminal, on the embedded defaults."""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import IO

import uvloop

from dispatcher.app import Dispatcher
from dispatcher.settings import DispatcherSettings
from shared import logs
from shared.config import load
from shared.errors import ConfigError

CLOSE_SECONDS = 5.0  # for the Commander to leave; its sessions are handed over or ended by then


def add_arguments(_: argparse.ArgumentParser) -> None:
    """None but the settings."""


def run(_: argparse.Namespace) -> int:
    # Whoever runs it wrote the agent and the tools, and asks the questions: they see their faults whole.
    for program in ("DISPATCHER", "COMMANDER"):
        os.environ.setdefault(f"{program}_LOG_EXCEPTION_TEXT", "true")
    settings = load(DispatcherSettings)
    logs.configure(settings.log_json, settings.log_level, exception_text=settings.log_exception_text)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_dev(settings))


async def _dev(settings: DispatcherSettings) -> int:
    leave = leaving()
    async with pair(settings) as (dispatcher, commander):
        print(where_to_look(dispatcher))
        left = asyncio.ensure_future(leave.wait())
        died = asyncio.ensure_future(commander.wait())
        await asyncio.wait({left, died}, return_when=asyncio.FIRST_COMPLETED)
        left.cancel()
        if not died.done():
            died.cancel()
            return 0
        return died.result() or 1


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
    dispatcher = Dispatcher(settings)
    await dispatcher.start()
    try:
        target = f"dns:///127.0.0.1:{dispatcher.grpc_port}"
        environment = {"COMMANDER_METRICS_ADDRESS": "127.0.0.1:0"} | os.environ | {"COMMANDER_DISPATCHER": target}
        commander = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "commander", "serve"),
            env=environment,
            stderr=commander_log,
            start_new_session=True,
        )
        try:
            yield dispatcher, commander
        finally:
            await _end(commander)
    finally:
        await dispatcher.close()


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

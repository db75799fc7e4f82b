"""The command line: `commander serve`, `commander run PROMPT`, `commander check MODULE:AGENT`."""

import argparse
import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias, TypeVar

import structlog
import uvloop
from prometheus_client import CollectorRegistry, start_http_server

from commander import loading
from commander.agent import Agent
from commander.check import command
from commander.credentials import Credentials
from commander.metrics import Metrics
from commander.run import INTERRUPTED, Run
from commander.settings import CommanderSettings
from commander.stream import DispatcherChannel
from commander.worker import Worker
from shared import forks, logs
from shared.addresses import split_address
from shared.channel import client_options
from shared.config import load
from shared.errors import ConfigError
from shared.grpc_metrics import ClientMetrics
from shared.version import version

USAGE_ERROR = 2
EOF_SECONDS = 5.0  # to leave in, once nobody is there who asked for it

logger = structlog.get_logger()
_Result = TypeVar("_Result")
Verb: TypeAlias = Callable[[CommanderSettings, Agent, argparse.Namespace], Coroutine[Any, Any, int]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 2 for wrong settings, with one line that names them."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.verb(options)
        return status
    except ConfigError as error:
        print(error, file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="commander",
        description="Runs an agent for a Dispatcher. Settings are environment variables: COMMANDER_DISPATCHER, "
        "COMMANDER_BACKEND (local, openai, scripted or module:attribute), COMMANDER_CAPACITY and more.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version()}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    serve = verbs.add_parser("serve", help="join the pool and serve sessions until SIGTERM", description=_SERVE)
    serve.add_argument(
        "--until-eof", action="store_true", help="leave at once when standard input ends: whoever started it is gone"
    )
    serve.set_defaults(verb=partial(_with_agent, _serve))
    check = verbs.add_parser("check", help="does your agent stop? how late?", description=command.DESCRIPTION)
    command.add_arguments(check)
    run = verbs.add_parser("run", help="one session of your own, printed as it comes", description=_RUN)
    run.add_argument("prompt", metavar="PROMPT", help="what the agent is asked")
    run.set_defaults(verb=partial(_with_agent, _run))
    return parser


def _with_agent(verb: Verb, options: argparse.Namespace) -> int:
    settings = load(CommanderSettings)
    agent = loading.load(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(verb(settings, agent, options))


_SERVE = """Join the pool of the Dispatcher at COMMANDER_DISPATCHER and serve up to COMMANDER_CAPACITY sessions at once.
At SIGTERM running sessions get COMMANDER_DRAIN_SECONDS to finish, then they are handed over; a second signal hands them
over at once. Metrics: http://COMMANDER_METRICS_ADDRESS/metrics."""
_RUN = """Run one session straight over ChatStream, without the pool, against any Dispatcher that speaks the contract.
Words go to standard output, thoughts to standard error. Exit status: 0 finished, 1 failed, 3 stopped, 130 interrupted
by Ctrl-C."""


async def _serve(settings: CommanderSettings, agent: Agent, options: argparse.Namespace) -> int:
    logs.configure(level=settings.log_level, exception_text=settings.log_exception_text)
    if options.until_eof:
        threading.Thread(target=_leave_at_eof, name="eof", daemon=True).start()
    registry = CollectorRegistry()
    metrics, client_metrics = Metrics(registry), ClientMetrics(registry)
    metrics_port = _serve_metrics(settings.metrics_address, registry)
    with forks.withheld(ports=(metrics_port,)):
        async with loading.ready(agent):
            channel = _channel(settings, client_metrics)
            worker = Worker(settings, agent, channel, metrics)
            logger.info(
                "joining",
                target=settings.dispatcher,
                agent=settings.agent,
                backend=settings.backend,
                metrics_port=metrics_port,
            )
            await _until_signalled(worker, worker.serve)
            await channel.close()
    _leave_stuck_agents(worker.still_running, 0)
    return 0


async def _run(settings: CommanderSettings, agent: Agent, options: argparse.Namespace) -> int:
    logs.configure(level="WARNING", exception_text=True)  # who asks is who reads
    registry = CollectorRegistry()
    async with loading.ready(agent):
        channel = _channel(settings, ClientMetrics(registry))
        run = Run(settings, agent, options.prompt, channel, Metrics(registry))
        status = await _until_signalled(run, run.run)
        await channel.close()
    _leave_stuck_agents(run.still_running, status)
    return status


def _channel(settings: CommanderSettings, metrics: ClientMetrics) -> DispatcherChannel:
    credentials = Credentials(settings.dispatcher, settings.tls, settings.token, settings.token_file)
    options = client_options(settings.keepalive, proxy=settings.grpc_proxy)
    return DispatcherChannel(settings.dispatcher, options, metrics, credentials)


class _Leaves(Protocol):
    def leave(self) -> None: ...


async def _until_signalled(program: _Leaves, body: Callable[[], Awaitable[_Result]]) -> _Result:
    """SIGTERM and Ctrl-C ask the program to leave."""
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, program.leave)
    return await body()


def _leave_at_eof() -> None:
    """As at two SIGTERMs; a loop that an agent holds up is not waited for. In a thread of its own for that reason."""
    while os.read(0, 4096):
        pass
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(EOF_SECONDS)
    os._exit(1)


def _serve_metrics(address: str, registry: CollectorRegistry) -> int:
    """In a thread of its own, so it answers before the Commander has joined, and while the loop is late. The port."""
    host, port = split_address(address)
    try:
        server, _ = start_http_server(port, host, registry)
        return server.server_port
    except OSError as error:
        raise ConfigError(
            f"COMMANDER_METRICS_ADDRESS: cannot listen on {address}: {error.strerror or error}"
        ) from error


def _leave_stuck_agents(running: int, status: int) -> None:
    """An agent that swallows its cancellation would keep the loop from closing for ever."""
    if running:
        logger.error("agents_did_not_stop", agents=running)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

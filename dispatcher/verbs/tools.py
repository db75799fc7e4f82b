"""`dispatcher tools check|call|pin`: an operator's tools, tried before agents get them."""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop
from prometheus_client import CollectorRegistry

from dispatcher.files.document import FileError
from dispatcher.live import ids
from dispatcher.metrics import Metrics
from dispatcher.policy_tools.check import located
from dispatcher.settings import DispatcherSettings
from dispatcher.tools.context import Context
from dispatcher.tools.keeper import ToolFiles, ToolsetServer
from dispatcher.tools.pins import pinned
from shared import logs
from shared.config import load
from shared.errors import ConfigError
from shared.terminal import printable

RIGHT, WRONG, UNUSABLE = 0, 1, 2  # exit statuses
CONNECT_SECONDS = 30.0  # that toolsets' servers have; a command that is started may have to be fetched first

_CHECK = """Read the tools, connect to the toolsets, and list what agents would see. Exit status: 0 right; 1 a server
cannot be reached, or has tools that cannot be offered; 2 wrong: every error with its line on standard error."""
_CALL = """Run a tool once, as a session of the agent would, without rules and approvals. Exit status: 0 OK, and the
result on standard output; 1 any other status, on standard error; 2 a wrong file."""
_PIN = """Write what each toolset with `pin` offers now, for it to be looked at: names, descriptions and schemas. From
then on a tool that differs is not offered. Exit status: 0; 1 a server cannot be reached, and its pin stays; 2 a wrong
file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    checking = verbs.add_parser("check", help="are the tools right, and what are they?", description=_CHECK)
    calling = verbs.add_parser("call", help="run one", description=_CALL)
    pinning = verbs.add_parser("pin", help="approve of what toolsets offer now", description=_PIN)
    for verb, does in ((checking, _check), (calling, _call), (pinning, _pin)):
        verb.set_defaults(tools_verb=does)
    for verb in (checking, pinning):
        verb.add_argument("file", type=Path, metavar="FILE", help="the tools: a TOML file or a folder of them")
    calling.add_argument("name", metavar="NAME", help="the tool's, as agents see it")
    calling.add_argument("arguments", metavar="JSON", nargs="?", default="{}", help="its arguments, an object")
    calling.add_argument("--file", type=Path, help="the tools (default: DISPATCHER_TOOLS)")
    calling.add_argument("--agent", default="", help="who calls it (default: whoever may)")


def run(options: argparse.Namespace) -> int:
    """The exit status. Raises ConfigError for wrong settings."""
    logs.configure(level="ERROR")  # what the log would say of toolsets is printed
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            status: int = runner.run(options.tools_verb(options))
    except FileError as error:
        for fault in error.faults:
            print(printable(located(fault)), file=sys.stderr)
        return UNUSABLE
    return status


@asynccontextmanager
async def _connected(path: Path | None, *, pins: bool = True) -> AsyncIterator[ToolFiles]:
    """Raises FileError."""
    files = ToolFiles(path, Metrics(CollectorRegistry()), pins=pins)
    files.load()
    try:
        await files.start(CONNECT_SECONDS)
        yield files
    finally:
        await files.close()


async def _check(options: argparse.Namespace) -> int:
    async with _connected(options.file) as files:
        tools = files.registry.specs()
        print(printable(f"{options.file}: {_count(len(tools), 'tool')}"))
        for spec in tools:
            agents = f"; for {', '.join(sorted(spec.agents))}" if spec.agents else ""
            approval = f"; approved by {spec.approval}" if spec.approval else ""
            first = spec.description.strip().partition("\n")[0]
            print(printable(f"  {spec.name}  ({spec.kind}{agents}{approval})  {first}".rstrip()))
        wrong = [line for server in files.servers for line in _wrong(server)]
    for line in wrong:
        print(printable(line), file=sys.stderr)
    return WRONG if wrong else RIGHT


def _wrong(server: ToolsetServer) -> Iterator[str]:
    if not server.up:
        yield f"{server.name}: down: {server.error or 'no answer in time'}"
    yield from (f"{server.name}: left out: {reason}" for reason in server.left_out)


async def _call(options: argparse.Namespace) -> int:
    path = options.file or load(DispatcherSettings).tools
    async with _connected(path) as files:
        for line in (line for server in files.servers if not server.up for line in _wrong(server)):
            print(printable(line), file=sys.stderr)
        spec = next((spec for spec in files.registry.specs() if spec.name == options.name), None)
        agent = options.agent or (min(spec.agents) if spec and spec.agents else "")
        context = Context(ids.session_id(), "call-1", agent)
        output = await files.registry.run(options.name, options.arguments, context)
    if output.status == "OK":
        print(printable(output.result_json))
        return RIGHT
    print(printable(f"{output.status} {output.result_json}"), file=sys.stderr)
    return WRONG


async def _pin(options: argparse.Namespace) -> int:
    status = RIGHT
    async with _connected(options.file, pins=False) as files:
        named = [(server, server.pin_file) for server in files.servers if server.pin_file]
        if not named:
            raise ConfigError(f"{options.file}: no toolset with `pin`")
        for server, file in named:
            if server.up:
                await asyncio.to_thread(_write, file, pinned(tool.spec for tool in server.tools))
                print(printable(f"{file}: {_count(len(server.tools), 'tool')} of {server.name}"))
            for line in _wrong(server):
                print(printable(line), file=sys.stderr)
                status = WRONG
    return status


def _write(file: Path, text: str) -> None:
    """Whole, or not at all: a Dispatcher may read it at any moment."""
    beside = file.with_name(f"{file.name}.new")
    try:
        beside.write_text(text, "utf-8")
        beside.replace(file)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or 'cannot be written'}") from None


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

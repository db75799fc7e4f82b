"""Strangers' programs, each a process with stubs of its own, made from published.proto."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest

from tests import programs

HERE = Path(__file__).parent
METHOD = "/southwest.ai.agent.v1.AgentInteraction/ChatStream"
SECONDS = 60.0  # for each thing that is waited for

Packet: TypeAlias = dict[str, Any]


class Stranger:
    """A foreign program: packets in and out as lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin
        assert process.stdout
        self.process, self._in, self._out = process, process.stdin, process.stdout

    async def send(self, *packets: Packet) -> None:
        self._in.write(b"".join(json.dumps(packet).encode() + b"\n" for packet in packets))
        await self._in.drain()

    def half_close(self) -> None:
        self._in.close()

    async def line(self) -> Any:
        """What it says next."""
        line = await asyncio.wait_for(self._out.readline(), SECONDS)
        assert line, "the program ended"
        return json.loads(line)

    async def next(self, kind: str) -> Any:
        """Its next packet with that payload; packets without are skipped."""
        while kind not in (packet := await self.line()):
            assert packet is not None
            assert "status" not in packet, f"ended before {kind}: {packet}"
        return packet[kind]

    async def rest(self) -> list[Packet]:
        """All that it says until its RPC is over: packets, the last one the RPC's status."""
        packets = [await self.line()]
        while "status" not in packets[-1]:
            packets.append(await self.line())
        return packets


Start: TypeAlias = Callable[..., AbstractAsyncContextManager[Stranger]]


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    command = ["-m", "grpc_tools.protoc", f"-I{HERE}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    subprocess.run([sys.executable, *command, "published.proto"], check=True, timeout=60)
    return folder


@pytest.fixture
def stranger(stubs: Path) -> Start:
    """`stranger("client.py", ADDRESS)`: the program, until the block ends."""

    @contextlib.asynccontextmanager
    async def start(program: str, *arguments: str) -> AsyncIterator[Stranger]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(HERE / program),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(stubs)},
            limit=32 * 1024 * 1024,
        )
        try:
            yield Stranger(process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    return start


@pytest.fixture(scope="session")
def plain_dispatcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[programs.Dispatcher]:
    """With the settings that nobody chose, but in memory."""
    with programs.dispatcher(tmp_path_factory.mktemp("dispatcher") / "log") as ready:
        yield ready


@pytest.fixture
async def channel(plain_dispatcher: programs.Dispatcher) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(plain_dispatcher.grpc) as channel:
        yield channel

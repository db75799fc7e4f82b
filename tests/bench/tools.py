"""How long a user's stop takes to reach what runs a tool: a function of the Dispatcher's own, and another service.

The function says when it was cancelled, the service when its connection was closed; both by this machine's clock.
"""

import asyncio
import contextlib
import secrets
import statistics
import time
from collections.abc import AsyncIterator

import msgspec

from tests.bench.agents import Report, Spec, tell
from tests.bench.measures import Figures, Reports
from tests.bench.reading import SECONDS, Answer, ask
from tests.bench.systems import System

BETWEEN_SECONDS = 0.02  # two samples, as with a rule's stops


async def wait(report: str) -> None:
    """The tool `local`: waits to be stopped. Tells when it has begun, and when it was cancelled."""
    tell(Report(f"{report} begun", time.monotonic_ns(), b"", 0))
    try:
        await asyncio.Event().wait()
    finally:
        tell(Report(report, time.monotonic_ns(), b"", 0))


class Waiting:
    """What the tool `http` asks: it never answers."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.closed: asyncio.Queue[int] = asyncio.Queue()  # nanoseconds of the monotonic clock

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.begun.set()
        with contextlib.suppress(ConnectionError):
            while await reader.read(4096):
                pass
        self.closed.put_nowait(time.monotonic_ns())
        writer.close()


@contextlib.asynccontextmanager
async def _waiting(system: System) -> AsyncIterator[Waiting]:
    waiting = Waiting()
    async with await asyncio.start_server(waiting.serve, "127.0.0.1", system.tools_port):
        yield waiting


async def tool_stop(system: System, times: int, reports: Reports) -> Figures:
    """From a user's stop to the tool's knowledge of it; the two kinds in turn."""
    local, http = [], []
    async with _waiting(system) as waiting:
        for _ in range(times):
            name = secrets.token_hex(8)
            session_id = await _begin(system, "local", name)
            await reports.next(f"{name} begun")
            stopped = await _stop(system, session_id)
            local.append((await reports.next(name)).ended - stopped)
            waiting.begun.clear()
            async with asyncio.timeout(SECONDS):
                session_id = await _begin(system, "http", name)
                await waiting.begun.wait()
                stopped = await _stop(system, session_id)
                http.append(await waiting.closed.get() - stopped)
    found = {"local": statistics.median(local) / 1000, "http": statistics.median(http) / 1000}
    return {
        "tool_stop_local_p50_micros": found["local"],
        "tool_stop_http_p50_micros": found["http"],
        "tool_stop_http_p50_ratio": found["http"] / found["local"],
    }


async def _begin(system: System, tool: str, report: str) -> str:
    """The id of a session that calls the tool."""
    await asyncio.sleep(BETWEEN_SECONDS)
    spec = msgspec.json.encode(Spec("tool", report=report, tool=tool)).decode()
    status, body = await ask(system.address, "POST", "/v1/sessions", msgspec.json.encode({"prompt": spec}))
    assert status == 201, (status, body)
    return str(msgspec.json.decode(body)["session_id"])


async def _stop(system: System, session_id: str) -> int:
    """When it was asked for."""
    connection = await Answer.connected(system.address)
    await asyncio.sleep(BETWEEN_SECONDS)
    stopped = time.monotonic_ns()
    connection.request("POST", f"/v1/sessions/{session_id}/stop", b"{}")
    return stopped

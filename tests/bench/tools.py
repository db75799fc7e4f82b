"""How long a user's stop takes to reach what runs a tool: a function of the Dispatcher's own, and another service.

The function says when it was cancelled, the service when its connection was closed, its stream reset, or it was told
`cancelled`, whichever it saw first; both by this machine's clock.
"""

import asyncio
import secrets
import statistics
import time

import msgspec

from tests.bench.agents import Report, Spec, tell
from tests.bench.measures import Figures, Reports
from tests.bench.reading import Answer, ask
from tests.bench.services import SERVED
from tests.bench.systems import System

BETWEEN_SECONDS = 0.02  # two samples, as with a rule's stops


async def wait(line: str) -> None:
    """The tool `local`: waits to be stopped. Tells when it has begun, and when it was cancelled."""
    tell(Report(f"{line} begun", time.monotonic_ns(), b"", 0))
    try:
        await asyncio.Event().wait()
    finally:
        tell(Report(line, time.monotonic_ns(), b"", 0))


async def tool_stop(system: System, times: int, reports: Reports) -> Figures:
    """From a user's stop to the tool's knowledge of it; the kinds in turn."""
    took: dict[str, list[int]] = {kind: [] for kind in ("local", *SERVED)}
    for _ in range(times):
        for kind, samples in took.items():
            name = secrets.token_hex(8)
            arguments: dict[str, str | int] = {"line": name}
            if kind in SERVED:
                arguments |= {"number": 0, "millis": 0, "dies": ""}
            session_id = await _begin(system, Spec("tool", tool=SERVED.get(kind, kind), arguments=arguments))
            await reports.next(f"{name} begun")
            stopped = await _stop(system, session_id)
            samples.append((await reports.next(name)).ended - stopped)
    found = {kind: statistics.median(samples) / 1000 for kind, samples in took.items()}
    figures = {f"tool_stop_{kind}_p50_micros": micros for kind, micros in found.items()}
    return figures | {f"tool_stop_{kind}_p50_ratio": found[kind] / found["local"] for kind in SERVED}


async def _begin(system: System, spec: Spec) -> str:
    """The id of a session that calls the tool."""
    await asyncio.sleep(BETWEEN_SECONDS)
    prompt = msgspec.json.encode(spec).decode()
    status, body = await ask(system.address, "POST", "/v1/sessions", msgspec.json.encode({"prompt": prompt}))
    assert status == 201, (status, body)
    return str(msgspec.json.decode(body)["session_id"])


async def _stop(system: System, session_id: str) -> int:
    """When it was asked for."""
    connection = await Answer.connected(system.address)
    await asyncio.sleep(BETWEEN_SECONDS)
    stopped = time.monotonic_ns()
    connection.request("POST", f"/v1/sessions/{session_id}/stop", b"{}")
    return stopped

"""A stream beside what people do without one: they ask again and again for the answer so far.

The same sessions at 50 tokens/s on the same system, as event streams, and as responses in the background whose text so
far is asked for (`GET /v1/responses/{id}`, OpenAI's own way), every 100 ms and every second, on connections that are
kept.
"""

import asyncio
import statistics
import time

import httpx2
import msgspec

from tests.bench.agents import Spec
from tests.bench.measures import Figures, paced
from tests.bench.reading import SECONDS, PacedReader
from tests.bench.systems import System

SESSIONS = 16
RATE = 50.0
PERIODS = {"asked every 100 ms": 0.1, "asked every 1 s": 1.0}


async def polling(system: System, seconds: float) -> dict[str, list[Figures]]:
    """Way → figures. requests: a session and second."""
    streamed = await paced(system, SESSIONS, seconds, RATE)
    kept = ("p50_micros", "p99_micros", "cpu_micros_gateway")
    found = {"a stream": [{figure: streamed[figure] for figure in kept} | {"requests": 1 / seconds}]}
    for name, period in PERIODS.items():
        found[name] = [await _polled(system, seconds, period)]
    return found


async def _polled(system: System, seconds: float, period: float) -> Figures:
    asked = 0
    readers = [PacedReader() for _ in range(SESSIONS)]

    async def one(client: httpx2.AsyncClient, reader: PacedReader, spec: Spec) -> None:
        nonlocal asked
        prompt = msgspec.json.encode(spec).decode()
        body = {"model": "default", "input": prompt, "background": True}
        answer = (await client.post("/v1/responses", json=body)).raise_for_status().json()
        read = 0
        due = spec.begin + spec.begin % period  # not all at once
        while not reader.complete:
            due += period
            await asyncio.sleep(due - time.monotonic())
            answer = (await client.get(f"/v1/responses/{answer['id']}")).raise_for_status().json()
            asked += 1
            text = "".join(part["text"] for item in answer["output"] for part in item["content"])
            reader.read(text[read:].encode())
            read = len(text)
        await client.delete(f"/v1/responses/{answer['id']}")

    begin = time.monotonic() + 1
    specs = [Spec("paced", begin + i / SESSIONS / RATE, seconds, RATE) for i in range(SESSIONS)]
    async with httpx2.AsyncClient(base_url=f"http://{system.address}", timeout=SECONDS) as client:
        before = system.cpu_seconds()
        PacedReader.sampling = True
        async with asyncio.TaskGroup() as group:
            for reader, spec in zip(readers, specs, strict=True):
                group.create_task(one(client, reader, spec))
        PacedReader.sampling = False
        after = system.cpu_seconds()
    cuts = statistics.quantiles([latency for reader in readers for latency in reader.latencies], n=100)
    tokens = sum(reader.tokens for reader in readers)
    return {
        "p50_micros": cuts[49],
        "p99_micros": cuts[98],
        "cpu_micros_gateway": (after["gateway"] - before["gateway"]) * 1e6 / tokens,
        "requests": asked / SESSIONS / seconds,
    }

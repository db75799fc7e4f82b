"""How long a rule's stop takes, against what it cannot do without: a bare round trip and one append of that store.

Detection is the time that the stop's entry bears in the log: taken when the packet came, before a rule has read it; the
log has too when the stop's write began. The agent says when it had yielded the phrase, and when its generator had
ended. All are of this machine's clock. The bare round trip is of an echo on
`grpc.aio`, one stream, in a process of its own; the append is one entry for the same kind of store, in this process.
They are taken in turn with the idle stops.

    python -m tests.bench.stops            the echo; prints its address as JSON
"""

import asyncio
import contextlib
import json
import math
import secrets
import statistics
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import msgspec
import uvloop

from dispatcher.core.entries import Entry
from dispatcher.core.log import Acquire, Append, Applied, Assign, Head, Record, Request
from dispatcher.store.factory import open_store
from dispatcher.store.ports import Store
from shared.channel import ClientKeepalive, ServerKeepalive, client_options, server_options
from shared.pb import agent_pb2 as pb
from shared.pb import agent_pb2_grpc
from shared.records import Content
from tests.bench.agents import Report, Spec
from tests.bench.measures import Figures, Reports, Session, floods, open_session
from tests.bench.reading import FloodReader, PacedReader, Reader, ask
from tests.bench.systems import PHRASE, System

BETWEEN_SECONDS = 0.02  # two samples: what wakes for one sleeps before the next
PHRASE_SECONDS = 0.1  # from a session's begin until it says the phrase; the tokens before it are those of an answer


class Echo(agent_pb2_grpc.AgentInteractionServicer):
    async def ChatStream(self, request_iterator: Any, context: Any) -> None:  # noqa: N802
        while (await context.read()) is not grpc.aio.EOF:
            await context.write(pb.DownstreamPacket(ack=pb.Ack(sequence=1)))


async def echo() -> None:
    server = grpc.aio.server(options=server_options(ServerKeepalive()))
    agent_pb2_grpc.add_AgentInteractionServicer_to_server(Echo(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"grpc": f"127.0.0.1:{port}"}), flush=True)
    await server.wait_for_termination()


class Bare:
    """The least that a stop needs, in microseconds."""

    def __init__(self, call: Any, store: Store, session_id: str, epoch: int) -> None:
        self._call, self._store = call, store
        self._session_id, self._epoch = session_id, epoch
        self._sequence = 0

    async def round_trip(self) -> float:
        began = time.perf_counter()
        await self._call.write(pb.UpstreamPacket(content=pb.ContentChunk(text="w0 ")))
        await self._call.read()
        return (time.perf_counter() - began) * 1e6

    async def append(self) -> float:
        self._sequence += 1
        entry = Entry(Content("w0 "), time.time(), 1, self._sequence, "w0 ", 3 * self._sequence)
        began = time.perf_counter()
        outcome = await self._store.submit(self._session_id, Append(self._epoch, (entry,)))
        took = (time.perf_counter() - began) * 1e6
        assert isinstance(outcome, Applied), outcome
        return took


@contextlib.asynccontextmanager
async def bare(system: System, echo_address: str) -> AsyncIterator[Bare]:
    store = await open_store(system.store)
    try:
        async with grpc.aio.insecure_channel(echo_address, options=client_options(ClientKeepalive())) as channel:
            await channel.channel_ready()
            stub: Any = agent_pb2_grpc.AgentInteractionStub(channel)  # type: ignore[no-untyped-call]
            call = stub.ChatStream()
            now, session_id = time.time(), secrets.token_hex(8)
            await store.create(Record(session_id, Request("default", (), now), Head(since=now)))
            assigned = await store.submit(session_id, Assign("commander", "instance", False, now))
            assert isinstance(assigned, Applied), assigned
            opened = await store.submit(session_id, Acquire("commander", 1, "instance", now))
            assert isinstance(opened, Applied), opened
            yield Bare(call, store, session_id, opened.head.epoch)
            call.cancel()
    finally:
        await store.close()


async def policy_stop(system: System, count: int, times: int, reports: Reports, echo_address: str) -> Figures:
    """From a rule's detection to the generator's end. `count` 0: a session at 50 tokens/s, alone; else one of so many
    floods. Ratios are to the medians of the bare round trip, alone or with the append, taken just before.
    """
    trips, appends = [], []
    halts, ends, made, begun, yielded = [], [], [], [], []
    async with bare(system, echo_address) as least:
        for _ in range(times):
            await asyncio.sleep(BETWEEN_SECONDS)
            trips.append(await least.round_trip())
            await asyncio.sleep(BETWEEN_SECONDS)
            appends.append(await least.append())
    async with floods(system, count - 1) if count else contextlib.nullcontext():
        for _ in range(times):
            session, reader, report = await _stopped(system, flood=count > 0, reports=reports)
            detected, write_begun = await _logged(system, session.session_id)
            begun += [(write_begun - detected) / 1000] if write_begun else []
            yielded.append((report.ended - report.phrase) / 1000)
            halts.append((report.ended + report.clock - detected) / 1000)
            ends.append((reader.ended_unix - detected) / 1000)
            made.append(report.made_after(detected - report.clock))
            await session.delete()
    trip = statistics.median(trips)
    least_micros = trip + statistics.median(appends)
    cuts = statistics.quantiles(halts, n=100, method="inclusive")
    yields = statistics.quantiles(yielded, n=100, method="inclusive")
    return {
        "policy_halt_p50_micros": cuts[49],
        "policy_halt_p50_ratio": cuts[49] / least_micros,
        "policy_halt_p99_micros": cuts[98],
        "policy_halt_p99_ratio": cuts[98] / least_micros,
        "stop_begun_p50_micros": statistics.median(begun or [math.nan]),
        "yield_halt_p50_micros": yields[49],
        "yield_halt_p50_ratio": yields[49] / trip,
        "yield_halt_p99_micros": yields[98],
        "yield_halt_p99_ratio": yields[98] / trip,
        "last_event_p50_micros": statistics.median(ends),
        "tokens_after_p50": statistics.median(made),
        "tokens_after_max": max(made),
        "round_trip_p50_micros": trip,
        "round_trip_p99_micros": statistics.quantiles(trips, n=100, method="inclusive")[98],
        "append_p50_micros": statistics.median(appends),
        "append_p99_micros": statistics.quantiles(appends, n=100, method="inclusive")[98],
    }


async def _stopped(system: System, *, flood: bool, reports: Reports) -> tuple[Session, Reader, Report]:
    """A session that a rule has stopped."""
    name = secrets.token_hex(8)
    spec = Spec(
        "flood" if flood else "paced",
        begin=time.monotonic(),
        seconds=600,
        report=name,
        phrase=PHRASE,
        phrase_after=PHRASE_SECONDS,
    )
    session, reader = await open_session(system, FloodReader if flood else PacedReader, spec)
    report = await reports.next(name)
    await session.over()
    return session, reader, report


async def _logged(system: System, session_id: str) -> tuple[int, int]:
    """When it was detected, and when its write began, as Unix nanoseconds. 0: its answer was logged before that."""
    _, body = await ask(system.operator, "GET", f"/operator/sessions/{session_id}/events")
    stop, sent = _entry(body, b"stop"), _entry(body, b"stop_sent")
    assert stop, body
    assert stop["author"] == "policy", stop
    return int(stop["at"] * 1e9), int(sent["at"] * 1e9) if sent else 0


def _entry(events: bytes, name: bytes) -> dict[str, Any] | None:
    """The data of the event of that name."""
    for frame in events.split(b"\n\n"):
        if b"event: %b\n" % name in frame:
            return cast("dict[str, Any]", msgspec.json.decode(frame.partition(b"data: ")[2]))
    return None


if __name__ == "__main__":
    uvloop.run(echo())

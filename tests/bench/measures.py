"""What is measured, each on one system. Every text is checked to its end, or up to where it was stopped."""

import asyncio
import contextlib
import gc
import secrets
import socket
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from tests.bench.agents import Report, Spec
from tests.bench.reading import SECONDS, Answer, FloodReader, PacedReader, Reader, ask
from tests.bench.systems import System

AnyReader = TypeVar("AnyReader", bound=Reader)
Figures = dict[str, float]

OPENED_AT_ONCE = 32
RAMP_SECONDS = 0.5  # from here to a begin for all sessions together, and for each:
RAMP_SECONDS_EACH = 0.008
RAMPS = (1, 3, 9)  # times that, one after the other, where the machine is too busy for it
SETTLED_SECONDS = 0.3  # after the begin, before a paced window
REPORT_BYTES = 256 * 1024


class Session:
    """A session as its user has it: its event stream, and the id under which it is stopped."""

    def __init__(self, system: System, reader: Reader, session_id: str) -> None:
        self.system, self.reader, self.session_id = system, reader, session_id

    async def stopping(self) -> Answer | None:
        """What `stop` needs, made before the clock runs."""
        return None if self.system.direct else await Answer.connected(self.system.address)

    def stop(self, connection: Answer | None) -> None:
        """As a user stops it: by its route; a passed-through stream only by leaving it."""
        if connection is None:
            self.reader.close()
        else:
            connection.request("POST", f"/v1/sessions/{self.session_id}/stop", b"{}")

    async def over(self) -> None:
        """Until the stopped stream has ended. Raises what was wrong with its text."""
        async with asyncio.timeout(SECONDS):
            try:
                await self.reader.over
            except ConnectionError:
                if not self.system.direct:
                    raise
        assert self.system.direct or self.reader.end == "stopped", self.reader.end

    async def delete(self) -> None:
        """So that what is kept of it does not weigh on what comes next."""
        if self.session_id:
            await ask(self.system.address, "DELETE", f"/v1/sessions/{self.session_id}")


async def open_session(system: System, reader_class: type[AnyReader], spec: Spec) -> tuple[Session, AnyReader]:
    prompt = msgspec.json.encode({"prompt": msgspec.json.encode(spec).decode()})
    session_id = ""
    async with asyncio.timeout(SECONDS):
        if not system.direct:
            status, body = await ask(system.address, "POST", "/v1/sessions", prompt)
            assert status == 201, (status, body)
            session_id = msgspec.json.decode(body)["session_id"]
        reader = await reader_class.connected(system.address)
        if system.direct:
            reader.request("POST", "/v1/chat", prompt)
        else:
            reader.request("GET", f"/v1/sessions/{session_id}/events")
        assert await reader.status == 200, reader.status
    return Session(system, reader, session_id), reader


async def open_sessions(
    system: System, reader_class: type[AnyReader], specs: Sequence[Spec]
) -> tuple[list[Session], list[AnyReader]]:
    limit = asyncio.Semaphore(OPENED_AT_ONCE)

    async def one(spec: Spec) -> tuple[Session, AnyReader]:
        async with limit:
            return await open_session(system, reader_class, spec)

    opened = await asyncio.gather(*(one(spec) for spec in specs))
    return [session for session, _ in opened], [reader for _, reader in opened]


async def delete(sessions: Sequence[Session]) -> None:
    for session in sessions:
        await session.delete()


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """The reader's garbage collector would show as the systems' latency."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Late(Exception):
    """The sessions took longer to open than was planned for, each time, or none said anything: a measure would be of
    that.
    """


async def _begun(
    system: System, reader_class: type[AnyReader], count: int, seconds: float, specs_from: Callable[[float], list[Spec]]
) -> tuple[float, list[Session], list[AnyReader]]:
    """Sessions that are open before their common begin. Where they are not, they run out, and others get more time.

    specs_from: the sessions that begin then; seconds: how long they say something. Raises Late.
    """
    for ramp in RAMPS:
        begin = time.monotonic() + ramp * (RAMP_SECONDS + count * RAMP_SECONDS_EACH)
        sessions, readers = await open_sessions(system, reader_class, specs_from(begin))
        if time.monotonic() <= begin:
            return begin, sessions, readers
        await asyncio.gather(*(reader.finished(seconds + SECONDS) for reader in readers))
        await delete(sessions)
    raise Late(f"{count} sessions took longer to open than was planned for, {len(RAMPS)} times: the machine is busy")


def _cpu(before: dict[str, float], after: dict[str, float], tokens: int) -> Figures:
    each = {f"cpu_micros_{role}": (after[role] - before[role]) * 1e6 / tokens for role in before}
    return {"cpu_micros": sum(each.values()), **each}


async def flood(system: System, count: int, seconds: float) -> Figures:
    """Tokens per second of `count` sessions that say what they can, from their common begin to the last token read."""
    begin, sessions, readers = await _begun(
        system, FloodReader, count, seconds, lambda begin: [Spec("flood", begin=begin, seconds=seconds)] * count
    )
    before = system.cpu_seconds()
    with _no_collection():
        await asyncio.gather(*(reader.finished(seconds + SECONDS) for reader in readers))
    tokens = sum(reader.tokens for reader in readers)
    rate = tokens / (max(reader.last_at for reader in readers) - begin)
    figures = {"tokens_per_second": rate, **_cpu(before, system.cpu_seconds(), tokens)}
    await delete(sessions)
    return figures


async def paced(system: System, count: int, seconds: float, rate: float = 50.0) -> Figures:
    """Added latency (from the generator's `yield` to the reader, µs) and CPU a token, in a window of `seconds`.

    `pace_kept`: tokens that came, of those that were due; below 1 the generators were held up, which no latency shows.
    """
    whole = seconds + 2 * SETTLED_SECONDS

    def specs(begin: float) -> list[Spec]:
        return [Spec("paced", begin=begin + i / count / rate, seconds=whole, rate=rate) for i in range(count)]

    begin, sessions, readers = await _begun(system, PacedReader, count, whole, specs)
    with _no_collection():
        await asyncio.sleep(begin + SETTLED_SECONDS - time.monotonic())
        before, tokens = system.cpu_seconds(), -sum(reader.tokens for reader in readers)
        PacedReader.sampling = True
        await asyncio.sleep(seconds)
        PacedReader.sampling = False
        after, tokens = system.cpu_seconds(), tokens + sum(reader.tokens for reader in readers)
        await asyncio.gather(*(reader.finished(SECONDS) for reader in readers))
    latencies = sorted(latency for reader in readers for latency in reader.latencies)
    if len(latencies) < 2:
        await delete(sessions)
        raise Late(f"no tokens of {count} sessions came within {seconds:g} s: the machine is busy")
    cuts = statistics.quantiles(latencies, n=100)
    kept = tokens / (count * rate * seconds)
    figures = {"p50_micros": cuts[49], "p99_micros": cuts[98], "pace_kept": kept, **_cpu(before, after, tokens)}
    await delete(sessions)
    return figures


class Reports:
    """Hears of stopped generators."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    async def next(self, name: str) -> Report:
        """The report of that name."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(SECONDS):
            while True:
                report = msgspec.msgpack.decode(await loop.sock_recv(self._socket, REPORT_BYTES), type=Report)
                if report.name == name:
                    return report

    def close(self) -> None:
        self._socket.close()


@contextlib.asynccontextmanager
async def floods(system: System, count: int) -> AsyncIterator[None]:
    """Sessions that say what they can until the block ends."""
    sessions, readers = await open_sessions(system, FloodReader, [Spec("flood", seconds=3600)] * count)
    await asyncio.gather(*(reader.first for reader in readers))
    try:
        yield
    finally:
        for session in sessions:
            session.stop(await session.stopping())
        for session in sessions:
            await session.over()
        await delete(sessions)


async def stop(system: System, count: int, times: int, reports: Reports) -> Figures:
    """From a user's stop to the generator's end, and the tokens that it made meanwhile.

    `count` 0: a session at 50 tokens/s, alone. Else one of so many floods.
    """
    halts, made = [], []
    async with floods(system, count - 1) if count else contextlib.nullcontext():
        for _ in range(times):
            name = secrets.token_hex(8)
            kind, reader_class = ("flood", FloodReader) if count else ("paced", PacedReader)
            spec = Spec(kind, begin=time.monotonic(), seconds=3600, report=name)  # type: ignore[arg-type]
            session, reader = await open_session(system, reader_class, spec)
            await reader.first
            connection = await session.stopping()
            await asyncio.sleep(0.05 + secrets.randbelow(50) / 1000)
            moment = time.monotonic_ns()
            session.stop(connection)
            report = await reports.next(name)
            halts.append((report.ended - moment) / 1000)
            made.append(report.made_after(moment))
            await session.over()
            await session.delete()
    return {
        "halt_p50_micros": statistics.median(halts),
        "halt_max_micros": max(halts),
        "tokens_after_p50": statistics.median(made),
        "tokens_after_max": max(made),
    }


async def idle(system: System, count: int) -> Figures:
    """Resident memory that each session costs which has said one token and says no more."""
    before = system.resident_bytes()
    sessions, readers = await open_sessions(system, FloodReader, [Spec("idle")] * count)
    await asyncio.gather(*(reader.first for reader in readers))
    after = system.resident_bytes()
    for session in sessions:
        session.stop(await session.stopping())
    for session in sessions:
        await session.over()
    await delete(sessions)
    each = {f"kib_{role}": (after[role] - before[role]) / count / 1024 for role in before}
    return {"kib": sum(each.values()), **each}


async def warm_up(system: System) -> None:
    """First uses load code, open pools and fill caches; and the speaker may not have joined yet."""
    if system.operator:
        async with asyncio.timeout(SECONDS):
            while not msgspec.json.decode((await ask(system.address, "GET", "/v1/models"))[1])["data"]:  # noqa: ASYNC110 (nothing to await)
                await asyncio.sleep(0.05)
    sessions, readers = await open_sessions(system, FloodReader, [Spec("flood", seconds=0.2)] * 4)
    await asyncio.gather(*(reader.finished(SECONDS) for reader in readers))
    await delete(sessions)

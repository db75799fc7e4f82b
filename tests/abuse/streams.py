"""What broken or hostile Commanders do on ChatStream: with messages of their own making, and with frames."""

import asyncio
import contextlib
import itertools
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from typing import Any, NamedTuple

import grpc
import hpack
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

from dispatcher.grpc_edge.limits import MAX_WATCHES
from shared import records, wire
from shared.channel import MAX_CONCURRENT_STREAMS
from shared.records import Closed, Content, Open, Status, ToolCall, Upstream
from tests.abuse.house import House
from tests.abuse.http import ANSWER_SECONDS, PIECE, connected

METHOD = f"/{wire.SERVICE}/ChatStream"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECT = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
FLOOD_SECONDS = 3.0
_numbers = itertools.count()


class Peer:
    """One stream. What comes is not read unless `reads`."""

    def __init__(self, call: grpc.aio.StreamStreamCall[bytes, bytes], reads: bool) -> None:
        self._call = call
        self.read = 0  # messages
        self._came, self._refused = asyncio.Event(), asyncio.Event()
        self._reading = asyncio.create_task(self._read()) if reads else None

    async def _read(self) -> None:
        with contextlib.suppress(grpc.RpcError, asyncio.CancelledError):
            while isinstance(message := await self._call.read(), bytes):
                self.read += 1
                self._came.set()
                packets = wire.decode_downstream(wire.DownstreamMessage.FromString(message))
                if any(isinstance(packet.signal, Closed) for packet in packets):
                    self._refused.set()
        self._came.set()
        self._refused.set()

    async def send(self, *packets: Upstream) -> bool:
        """In one message. False: the stream is over."""
        return await self.send_bytes(wire.encode_upstream(packets))

    async def send_bytes(self, message: bytes) -> bool:
        try:
            await self._call.write(message)
        except (grpc.RpcError, asyncio.InvalidStateError):
            return False
        return True

    async def status(self) -> grpc.StatusCode:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await self._call.code()

    async def begun(self) -> None:
        """The Dispatcher serves it."""
        await self._call.initial_metadata()

    async def answered(self) -> None:
        """The first message has come, such as `welcome`, before which nothing is taken; or the stream is over. Who
        reads nothing reads this one.
        """
        async with asyncio.timeout(ANSWER_SECONDS):
            if self._reading:
                await self._came.wait()
            else:
                await self._call.read()

    @property
    def closed(self) -> bool:
        """A session was, or the stream is over."""
        return self._refused.is_set()

    async def refused(self) -> None:
        """Return then."""
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._refused.wait()

    async def close(self) -> None:
        self._call.cancel()
        if self._reading:
            await asyncio.wait([self._reading])


@contextlib.asynccontextmanager
async def peers(house: House, *, compressed: bool = False) -> AsyncIterator["Peers"]:
    """Streams of one connection."""
    options = [("abuse.channel", next(_numbers)), ("grpc.max_send_message_length", -1)]
    compression = grpc.Compression.Gzip if compressed else grpc.Compression.NoCompression
    async with grpc.aio.insecure_channel(f"127.0.0.1:{house.grpc}", options, compression) as channel:
        made = Peers(channel)
        try:
            yield made
        finally:
            await asyncio.gather(*(peer.close() for peer in made.all))


class Peers:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call = channel.stream_stream(METHOD, lambda message: message, lambda message: message)
        self.all: list[Peer] = []

    def stream(self, *, reads: bool = True) -> Peer:
        peer = Peer(self._call(), reads)
        self.all.append(peer)
        return peer


def opened(session_id: str, generation: int = 0) -> Upstream:
    return Upstream(session_id, Open(secrets.token_hex(4), generation))


def status(agents: tuple[str, ...] = ("nobody",), slots: int = 0) -> Upstream:
    return Upstream("", Status(secrets.token_hex(4), agents, (), slots))


async def unread(house: House) -> None:
    """Four workers ask for large results and read nothing."""

    async def answered() -> float:
        return (await house.gauges())['dispatcher_tool_calls_total{status="OK",tool="large"}']

    async def ask(made: Peers) -> None:
        peer, session_id = made.stream(reads=False), secrets.token_hex(16)
        await peer.send(opened(session_id))
        await peer.answered()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLOOD_SECONDS):
                for number in range(1, 4000):
                    call = ToolCall("large", "{}", f"{session_id}-{number}")
                    if not await peer.send(Upstream(session_id, call, number)):
                        return

    before = await answered()
    async with peers(house) as made:
        await asyncio.gather(*(ask(made) for _ in range(4)))
    assert await answered() - before >= 4


async def empty_packets(house: House) -> None:
    """16 MiB of empty packets in one message, which gzip makes 16 KB."""
    message = b"\x5a\x00" * (records.MAX_MESSAGE_BYTES // 2 - 8)
    async with peers(house, compressed=True) as made:
        streams = [made.stream() for _ in range(4)]
        for stream in streams:
            await stream.send(status())
            await stream.send_bytes(message)
        assert {await stream.status() for stream in streams} <= {
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        }


class Flooded(NamedTuple):
    """packets: that were taken. answers: messages that came meanwhile. lasted: the stream did, to the flood's end."""

    packets: int
    answers: int
    lasted: bool


async def _flood(house: House, packets: Iterable[Upstream], first: Upstream, batch: int = 1) -> Flooded:
    """As fast as they are taken, for a while."""
    async with peers(house) as made:
        peer, sent = made.stream(), 0
        lasted = await peer.send(first)
        if isinstance(first.payload, Open):
            await peer.answered()
        numbered = iter(packets)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLOOD_SECONDS):
                while lasted and (some := list(itertools.islice(numbered, batch))):
                    if lasted := await peer.send(*some):
                        sent += len(some)
        return Flooded(sent, peer.read, lasted)


async def unknown_opens(house: House) -> None:
    """`open` for sessions that are not there, a thousand in a message; anew where the stream was ended, as one is whose
    answers are read more slowly than they are made.
    """
    loop = asyncio.get_running_loop()
    ends, packets = loop.time() + FLOOD_SECONDS, 0
    while loop.time() < ends:
        flood = await _flood(house, (opened(secrets.token_hex(16), 7) for _ in itertools.count()), status(), 1000)
        assert flood.answers
        packets += flood.packets
    assert packets >= 10_000


async def own_sessions(house: House) -> None:
    """Sessions of generation 0, each of one packet and never ended, a hundred in a message."""
    flood = await _flood(house, (opened(secrets.token_hex(16)) for _ in range(20_000)), status(), 100)
    assert flood.lasted
    assert flood.answers


async def statuses(house: House) -> None:
    """As many agents in each status as it may have, as fast as they are taken, the same and ever others; then a
    thousand.
    """
    agents, numbers = tuple(f"agent {number}" for number in range(1000)), itertools.count()
    others = (
        status(tuple(f"agent of ever others {next(numbers)}" for _ in range(records.MAX_AGENTS))) for _ in numbers
    )
    assert (await _flood(house, others, status())).lasted
    flood = await _flood(house, (status(agents[: records.MAX_AGENTS], 1000) for _ in itertools.count()), status())
    assert flood.lasted
    assert flood.packets
    assert not (await _flood(house, (status(agents, 1000) for _ in itertools.count()), status())).lasted


async def long_names(house: House) -> None:
    """As much as a message may have in each field that is not a text, and 15 MB: whoever says it is told."""
    long, session_id = "x" * (records.MAX_UPSTREAM_BYTES - 1024), secrets.token_hex(16)
    for packet in (
        opened("x" * (15 * 1024**2)),
        opened(long),
        Upstream(session_id, Open(long, 7)),
        Upstream(session_id, Open("c", 7, (long,))),
        Upstream("", Status(long, ("nobody",))),
        Upstream("", Status("c", (long,))),
        Upstream("", Status("c", ("nobody",), running=(records.Running(long, 1),))),
        Upstream(secrets.token_hex(16), ToolCall(long, "{}", "call"), 1),
        Upstream(secrets.token_hex(16), ToolCall("large", "{}", long), 1),
    ):
        async with peers(house) as made:
            peer = made.stream()
            if isinstance(packet.payload, ToolCall):
                await peer.send(opened(packet.session_id))
                await peer.answered()
                assert not peer.closed
            await peer.send(packet)
            await peer.refused()


async def silent_streams(house: House) -> None:
    """4,096 streams of one connection that say nothing: it has as many as it may."""
    async with peers(house) as made:
        begun = [asyncio.ensure_future(made.stream(reads=False).begun()) for _ in range(4096)]
        async with asyncio.timeout(ANSWER_SECONDS):
            await asyncio.gather(*begun[:MAX_CONCURRENT_STREAMS])
        await asyncio.sleep(FLOOD_SECONDS)
        for each in begun:
            each.cancel()


async def own_flood(house: House) -> None:
    """Sessions of their own that say 60 KB at a time, without regard to their credit. When one is closed for that, the
    next begins.
    """

    async def flood(made: Peers) -> int:
        closed = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLOOD_SECONDS):
                while True:
                    peer, session_id = made.stream(), secrets.token_hex(16)
                    await peer.send(opened(session_id))
                    await peer.answered()
                    for number in itertools.count(1):
                        await peer.send(Upstream(session_id, Content("x" * 60_000), number))
                        if peer.closed:
                            break
                    closed += 1
        return closed

    async with peers(house) as made:
        assert min(await asyncio.gather(*(flood(made) for _ in range(4)))) > 0


# ---- frames


async def _frames(house: House, frames: Iterable[Frame], *, acknowledges: bool = True, **settings: int) -> None:
    """As fast as they are taken, for a while, or until the connection is cut. acknowledges: the server's settings."""
    async with connected(house.grpc) as (reader, writer):
        own = SettingsFrame(0, settings={getattr(SettingsFrame, name): value for name, value in settings.items()})
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + own.serialize())
        async with asyncio.timeout(ANSWER_SECONDS):
            assert await reader.read(PIECE), "it is not served"
        if acknowledges:
            writer.write(SettingsFrame(0, flags=["ACK"]).serialize())
        reading = asyncio.ensure_future(_read_out(reader))
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(FLOOD_SECONDS):
                numbered = iter(frames)
                while not reading.done() and (some := list(itertools.islice(numbered, 500))):
                    writer.write(b"".join(frame.serialize() for frame in some))
                    await writer.drain()
                    await asyncio.sleep(0)  # the other three have their turns
        reading.cancel()


async def _read_out(reader: asyncio.StreamReader) -> None:
    while await reader.read(PIECE):
        pass


def _head(path: str) -> bytes:
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"), ("te", "trailers")]
    return hpack.Encoder().encode([*fields, ("content-type", "application/grpc")], huffman=False)


def _resets() -> Iterable[Frame]:
    head = _head(METHOD)
    for number in itertools.count(1, 2):
        yield HeadersFrame(number, head, flags=["END_HEADERS"])
        yield RstStreamFrame(number, 8)


def _continuations() -> Iterable[Frame]:
    yield HeadersFrame(1, b"\x00\x01a\x01b")
    for _ in itertools.count():
        yield ContinuationFrame(1, b"\x00\x01a\x01b" * 3000)


async def frames(house: House) -> None:
    """Rapid resets, headers without end, PING and SETTINGS as fast as they are taken."""
    pings = (PingFrame(0, b"12345678") for _ in itertools.count())
    settings = (SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 1000}) for _ in itertools.count())
    await asyncio.gather(*(_frames(house, each) for each in (_resets(), _continuations(), pings, settings)))


def _long_head() -> Iterable[Frame]:
    """Almost as many headers as are taken of who has not acknowledged: 34 bytes each, and one on the wire."""
    yield HeadersFrame(1, b"\x40\x01a\x01b")
    for _ in range(30):
        yield ContinuationFrame(1, b"\xbe" * 16_000)


async def unacknowledged(house: House) -> None:
    """Headers without end, of who has not acknowledged the server's settings; and of four more a long head that does
    not end: they wait, and are cut.
    """

    async def hold() -> None:
        async with connected(house.grpc) as (reader, writer):
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize())
            writer.write(b"".join(frame.serialize() for frame in _long_head()))
            with contextlib.suppress(OSError):
                async with asyncio.timeout(ANSWER_SECONDS):
                    await _read_out(reader)

    await asyncio.gather(_frames(house, _continuations(), acknowledges=False), *(hold() for _ in range(4)))


# ---- health and reflection, which need no key


def _watching(number: int, resets: bool) -> Iterable[Frame]:
    """So many watches on one connection, each of which is reset at once, or none."""
    head, asked = _head(WATCH), health_pb2.HealthCheckRequest(service="").SerializeToString()
    message = b"\0" + len(asked).to_bytes(4, "big") + asked
    for stream in range(1, 2 * number, 2):
        yield HeadersFrame(stream, head, flags=["END_HEADERS"])
        yield DataFrame(stream, message, flags=["END_STREAM"])
        if resets:
            yield RstStreamFrame(stream, 8)


async def _deaf(house: House) -> None:
    """Watches whose windows are 0: none can be told anything."""
    await _frames(house, _watching(MAX_CONCURRENT_STREAMS, resets=False), INITIAL_WINDOW_SIZE=0)


async def _watch(house: House, name: str, key: str, number: int, all_told: asyncio.Barrier) -> Counter[grpc.StatusCode]:
    """What becomes of so many, all at once; OK: they were told a status, and go on until all others are answered."""
    metadata = (("authorization", f"Bearer {key}"),) if key else ()
    asked = health_pb2.HealthCheckRequest(service=name)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{house.grpc}", [("abuse.channel", next(_numbers))]) as channel:
        watch = channel.unary_stream(
            WATCH,
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        calls = [watch(asked, metadata=metadata) for _ in range(number)]

        async def told(call: grpc.aio.UnaryStreamCall[Any, Any]) -> grpc.StatusCode:
            try:
                if await call.read() is not grpc.aio.EOF:
                    return grpc.StatusCode.OK
            except grpc.RpcError:
                pass
            return await call.code()

        async with asyncio.timeout(ANSWER_SECONDS):
            answers = Counter(await asyncio.gather(*(told(call) for call in calls)))
            await all_told.wait()
        await asyncio.sleep(FLOOD_SECONDS)
        for call in calls:
            call.cancel()
        return answers


async def _reflect(house: House) -> None:
    """Asks for the largest answer, as fast as it is taken, and reads none."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{house.grpc}", [("abuse.channel", next(_numbers))]) as channel:
        call = channel.stream_stream(
            REFLECT,
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )()
        with contextlib.suppress(TimeoutError, grpc.RpcError, asyncio.InvalidStateError):
            async with asyncio.timeout(FLOOD_SECONDS):
                while True:
                    await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=wire.SERVICE))
        call.cancel()


async def watches(house: House) -> None:
    """More watches than may be, with a key and without, that read and that cannot, and that are reset at once; and
    reflection. A Commander joins all the same.
    """
    key = house.keys.commander or "no key"
    deaf = asyncio.gather(
        *(_deaf(house) for _ in range(2)),
        *(_frames(house, _watching(1_000_000, resets=True)) for _ in range(2)),
        *(_reflect(house) for _ in range(4)),
    )
    number, all_told = MAX_WATCHES // 4, asyncio.Barrier(8)
    watching = asyncio.gather(
        *(
            _watch(house, name, shown, number, all_told)
            for name in ("", "x" * records.MAX_NAME)
            for shown in ("", key) * 2
        )
    )
    async with house.commander("brief"):
        answers = sum(await watching, Counter[grpc.StatusCode]())
        await deaf
    codes = grpc.StatusCode  # gRPC drops some of those that wait to be begun, where a thousand do: CANCELLED
    assert answers.keys() - {codes.CANCELLED} == {codes.OK, codes.UNIMPLEMENTED}, answers
    assert answers[codes.OK] <= MAX_WATCHES, answers

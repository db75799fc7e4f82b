"""What broken or hostile Commanders do on ChatStream: with messages of their own making, and with frames."""

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator, Iterable

import grpc
import hpack
from hyperframe.frame import ContinuationFrame, Frame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

from shared import records, wire
from shared.records import Content, Open, Status, ToolCall, Upstream
from tests.abuse.house import House
from tests.abuse.http import connected

METHOD = f"/{wire.SERVICE}/ChatStream"
FLOOD_SECONDS = 3.0
_numbers = itertools.count()


class Peer:
    """One stream. What comes is not read unless `reads`."""

    def __init__(self, call: grpc.aio.StreamStreamCall[bytes, bytes], reads: bool) -> None:
        self._call = call
        self._reading = asyncio.create_task(self._read()) if reads else None

    async def _read(self) -> None:
        with contextlib.suppress(grpc.RpcError, asyncio.CancelledError):
            while await self._call.read() is not grpc.aio.EOF:
                pass

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
        async with asyncio.timeout(30):
            return await self._call.code()

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
    """Eight workers ask for large results and read nothing."""

    async def ask(made: Peers) -> None:
        peer, session_id = made.stream(reads=False), secrets.token_hex(16)
        await peer.send(opened(session_id))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLOOD_SECONDS):
                for number in range(1, 4000):
                    call = ToolCall("large", "{}", f"{session_id}-{number}")
                    if not await peer.send(Upstream(session_id, call, number)):
                        return

    async with peers(house) as made:
        await asyncio.gather(*(ask(made) for _ in range(8)))


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


async def _flood(house: House, packets: Iterable[Upstream], first: Upstream, batch: int = 1) -> None:
    """As fast as they are taken, for a while."""
    async with peers(house) as made:
        peer = made.stream()
        await peer.send(first)
        numbered = iter(packets)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLOOD_SECONDS):
                while some := list(itertools.islice(numbered, batch)):
                    if not await peer.send(*some):
                        return


async def unknown_opens(house: House) -> None:
    """`open` for sessions that are not there, a thousand in a message."""
    await _flood(house, (opened(secrets.token_hex(16), 7) for _ in itertools.count()), status(), 1000)


async def own_sessions(house: House) -> None:
    """Sessions of generation 0, each of one packet and never ended, a hundred in a message."""
    packets = (opened(secrets.token_hex(16)) for _ in range(20_000))
    await _flood(house, packets, status(), 100)


async def statuses(house: House) -> None:
    """A thousand agents in each status, as fast as they are taken."""
    agents = tuple(f"agent {number}" for number in range(1000))
    await _flood(house, (status(agents, 1000) for _ in itertools.count()), status(), 1)


async def long_names(house: House) -> None:
    """15 MB in each field that is not a text."""
    long = "x" * (15 * 1024**2)
    session_id = secrets.token_hex(16)
    for packet in (
        opened(long),
        Upstream(session_id, Open(long, 7)),
        Upstream(session_id, Open("c", 7, (long,))),
        Upstream("", Status(long, ("nobody",))),
        Upstream("", Status("c", (long,))),
        Upstream("", Status("c", ("nobody",), running=(records.Running(long, 1),))),
    ):
        async with peers(house) as made:
            peer = made.stream()
            await peer.send(packet)
            await peer.send(Upstream(session_id, ToolCall(long, "{}", long), 1))
            await asyncio.sleep(0.2)


async def silent_streams(house: House) -> None:
    """4,096 streams of one connection that say nothing."""
    async with peers(house) as made:
        for _ in range(4096):
            made.stream(reads=False)
        await asyncio.sleep(FLOOD_SECONDS)


async def own_flood(house: House) -> None:
    """A session of its own that says 60 KB at a time, without regard to its credit."""

    def packets(session_id: str) -> Iterable[Upstream]:
        return (Upstream(session_id, Content("x" * 60_000), number) for number in itertools.count(1))

    names = [secrets.token_hex(16) for _ in range(4)]
    await asyncio.gather(*(_flood(house, packets(name), opened(name)) for name in names))


# ---- frames


async def _frames(house: House, frames: Iterable[Frame]) -> None:
    """As fast as they are taken, for a while, or until the connection is cut."""
    async with connected(house.grpc) as (reader, writer):
        reading = asyncio.ensure_future(reader.read(-1))
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize())
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(FLOOD_SECONDS):
                numbered = iter(frames)
                while not reading.done() and (some := list(itertools.islice(numbered, 500))):
                    writer.write(b"".join(frame.serialize() for frame in some))
                    await writer.drain()
        reading.cancel()


def _resets() -> Iterable[Frame]:
    fields = [(":method", "POST"), (":scheme", "http"), (":path", METHOD), (":authority", "x"), ("te", "trailers")]
    head = hpack.Encoder().encode([*fields, ("content-type", "application/grpc")], huffman=False)
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

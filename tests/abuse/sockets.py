"""What strangers do over a WebSocket of Responses, from its handshake on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.abuse.house import House
from tests.abuse.http import ANSWER_SECONDS, MIB, PIECE, connected

SECONDS = 3.0  # that a flood lasts that is not ended before
IDLE = 1000
HALF_OPEN = 200
HANDSHAKE = (
    b"GET /v1/responses HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
)
NO_MASK = b"\0\0\0\0"
PING, PONG = b"\x89\x80" + NO_MASK, b"\x8a\x80" + NO_MASK
FIRST, NEXT, BYTE = b"\x01\x81" + NO_MASK + b"{", b"\x00\x80" + NO_MASK, b"\x00\x81" + NO_MASK + b" "
LARGE = b"\x01\xff" + (16 * MIB).to_bytes(8, "big") + NO_MASK
DEFLATED = b"\xc1\x81" + NO_MASK + b"x"
TOO_LARGE, BROKEN, TORN = 1009, 1002, 1008
OPEN, CUT = 0, -1


@contextlib.asynccontextmanager
async def opened(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with connected(port) as (reader, writer):
        writer.write(HANDSHAKE)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 101"), head
        assert b"sec-websocket-extensions" not in head
        yield reader, writer


async def _flood(port: int, first: bytes, again: bytes, seconds: float = SECONDS, *, reads: bool = True) -> int:
    """Send frames for so long, or until they are not taken any more; with which code it was closed."""
    async with opened(port) as (reader, writer):
        reading, cut = asyncio.ensure_future(reader.read(-1)) if reads else None, False
        try:
            async with asyncio.timeout(seconds):
                writer.write(first)
                while not (reading and reading.done()):
                    writer.write(again * (PIECE // len(again)))
                    await writer.drain()
                    await asyncio.sleep(0)
        except TimeoutError:
            pass
        except OSError:
            cut = True
        if reading is None or not reading.done() or reading.exception():
            if reading:
                reading.cancel()
            return CUT if cut else OPEN
        said = reading.result()
        return int.from_bytes(said[said.rindex(b"\x88") + 2 :][:2], "big")


async def _idle(port: int) -> None:
    """Sockets that say nothing, half a handshake each, and messages that break off with their connections."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(HALF_OPEN):
            _, writer = await stack.enter_async_context(connected(port))
            writer.write(HANDSHAKE[:-2])
        for _ in range(IDLE):
            await stack.enter_async_context(opened(port))
        for first in (FIRST, LARGE, b"\x88"):
            async with opened(port) as (_, writer):
                writer.write(first + b"x" * PIECE)
        await asyncio.sleep(SECONDS)


async def sockets(house: House) -> None:
    port = house.http
    codes = await asyncio.gather(
        _flood(port, LARGE, b" ", ANSWER_SECONDS),
        _flood(port, DEFLATED, PONG, ANSWER_SECONDS),
        _flood(port, FIRST, NEXT, ANSWER_SECONDS),
        _flood(port, FIRST, BYTE, ANSWER_SECONDS),
        *(_flood(port, b"", PING) for _ in range(2)),
        *(_flood(port, b"", PING, reads=False) for _ in range(4)),
        *(_flood(port, b"", PONG) for _ in range(2)),
        _idle(port),
    )
    assert codes[:4] == [TOO_LARGE, BROKEN, TORN, TORN], codes
    assert set(codes[4:-1]) == {OPEN}, codes

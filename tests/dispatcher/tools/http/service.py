"""A service over HTTP that says what it is told to, byte by byte, and tells what it saw."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeAlias

from tests.sockets import LEFT, listening

Says: TypeAlias = Callable[["Talk"], Awaitable[None]]


class Seen(NamedTuple):
    """A request. headers: names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Talk:
    """One connection, whose request has been read."""

    def __init__(self, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.seen, self._reader, self._writer = seen, reader, writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def reset(self) -> None:
        """The connection is torn down, not closed."""
        self._writer.transport.abort()

    async def closed(self) -> None:
        """Return when the client has closed it."""
        while await self._reader.read(4096):
            pass


class Service:
    """While it is entered, at `url`. A connection after which nothing is said is closed."""

    def __init__(self, says: Says, tls: ssl.SSLContext | None = None) -> None:
        self._says, self._tls = says, tls
        self.seen: list[Seen] = []
        self.connections = self.left = 0  # left: which the client closed before all was said
        self.url = ""

    @asynccontextmanager
    async def at(self, host: str = "127.0.0.1") -> AsyncIterator["Service"]:
        async with listening(self._serve, host, tls=self._tls) as port:
            self.url = f"{'https' if self._tls else 'http'}://{'localhost' if self._tls else host}:{port}"
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            seen = await _request(reader)
            self.seen.append(seen)
            await self._says(Talk(seen, reader, writer))
        except LEFT:
            self.left += 1


async def _request(reader: asyncio.StreamReader) -> Seen:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *lines = head.strip().split("\r\n")
    method, target, _ = line.split(" ")
    headers = {name.lower(): value for name, value in (re.split(r":\s*", each, maxsplit=1) for each in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Seen(method, target, headers, body)


def answer(body: bytes = b"{}", kind: str = "application/json", status: str = "200 OK", *headers: str) -> Says:
    """Says exactly that."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers, "", ""]

    async def says(talk: Talk) -> None:
        await talk.send("\r\n".join(lines).encode("latin-1") + body)

    return says


def raw(data: bytes) -> Says:
    """Says exactly these bytes, and closes."""

    async def says(talk: Talk) -> None:
        await talk.send(data)

    return says

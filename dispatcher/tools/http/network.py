"""Connections of tools to other services: only to addresses that were looked at."""

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore2
from httpcore2 import AnyIOBackend, AsyncNetworkBackend, AsyncNetworkStream

from dispatcher.tools.errors import ResultTooLargeError, ServiceError, UnreachableError
from dispatcher.tools.http import addresses

MAX_ADDRESSES = 4  # of a host that are tried
PIECE_BYTES = 4096
ADDRESS_SECONDS = 2.0  # for a connection to one of them, where there is another


async def checked(host: str, port: int, *, private: bool) -> list[str]:
    """The host's addresses that may be asked, the best first, never none. private: all may.

    Raises OSError, UnreachableError, and ServiceError: `blocked_address`.
    """
    found = await addresses.resolve(host, port)
    allowed = [address for address in found if private or addresses.is_public(address)][:MAX_ADDRESSES]
    if not allowed:
        message = "The tool's service has an address that may not be asked."
        raise ServiceError("blocked_address", message) if found else UnreachableError()
    return allowed


class CheckedNetwork(AsyncNetworkBackend):
    """Connects to an address that was looked at, and to no other: the name is resolved once. most: its stream's."""

    def __init__(self, private: bool, most: int | None = None) -> None:
        self._private, self._most = private, most
        self._backend = AnyIOBackend()
        self.stream: WatchedStream | None = None
        self._closed = False

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> AsyncNetworkStream:
        *others, last = await checked(host, port, private=self._private)
        for address in others:
            try:
                async with asyncio.timeout(ADDRESS_SECONDS):
                    return await self._connected(address, port)
            except (TimeoutError, httpcore2.NetworkError):
                continue
        return await self._connected(last, port)

    async def close(self) -> None:
        """Whatever became of the connection: a cancelled handshake leaves it open. One being made ends unused."""
        self._closed = True
        if self.stream:
            await self.stream.aclose()

    async def _connected(self, address: str, port: int) -> "WatchedStream":
        self.stream = WatchedStream(await self._backend.connect_tcp(address, port), self._most)
        if self._closed:
            await self.stream.aclose()
            raise httpcore2.ConnectError
        return self.stream


class WatchedStream(AsyncNetworkStream):
    """sent: of the request something may have left this program. ended: the service has closed the connection. most:
    bytes that it may bring, read in small pieces, for a piece may be a thousand events; None: any number.
    """

    def __init__(self, stream: AsyncNetworkStream, most: int | None) -> None:
        self._stream, self.most = stream, most
        self._received = 0
        self.sent = self.ended = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        piece = max_bytes if self.most is None else PIECE_BYTES
        try:
            data = await self._stream.read(piece, timeout)
        except httpcore2.NetworkError:
            self.ended = True
            raise
        self.ended = not data
        self._received += len(data)
        if self.most is not None and self._received > self.most:
            raise ResultTooLargeError
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.sent = True
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> "AsyncNetworkStream":
        # A handshake is no request: `sent` begins with what goes through it.
        self._stream = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        return self

    def get_extra_info(self, info: str) -> Any:
        try:
            return self._stream.get_extra_info(info)
        except AttributeError:  # the connection is over: uvloop has no socket of it any more, which anyio asks
            self.ended = True
            raise httpcore2.ConnectError from None

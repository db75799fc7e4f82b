"""One request and its answer, on a connection of its own: nothing is kept, so that a stop closes it for the service
too, and no request is written to a connection that the service is about to close.
"""

import asyncio
import contextlib
import ssl
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpcore2
from httpcore2 import AsyncHTTPConnection

from dispatcher.tools.errors import (
    BrokenAnswerError,
    CertificateError,
    ResultTooLargeError,
    ServiceError,
    UnknownOutcomeError,
    UnreachableError,
)
from dispatcher.tools.http.network import CheckedNetwork, WatchedStream
from dispatcher.tools.http.template import Origin
from shared.records import MAX_RESULT_BYTES

# That a connection may bring, whatever is left of it: hints, chunks and compression can say nothing at any length.
MAX_HEAD_BYTES = 32 * 1024
MAX_WIRE_BYTES = 2 * MAX_RESULT_BYTES


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """headers may hold secrets: nothing of them is shown."""

    origin: Origin
    method: str
    target: str = field(repr=False)
    headers: Sequence[tuple[str, str]] | Sequence[tuple[bytes, bytes]] = field(repr=False)
    body: bytes | None = field(repr=False)
    private: bool
    tls: ssl.SSLContext | None


class HttpResponse:
    """status, and headers with names in lower case; of those that come twice the first."""

    def __init__(self, response: httpcore2.Response, stream: AsyncGenerator[bytes, None]) -> None:
        self.status = response.status
        self.headers: dict[str, str] = {}
        for name, value in response.headers:
            self.headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
        self._stream = stream

    async def body(self, most: int) -> bytes:
        """After decompression. Raises ResultTooLargeError beyond that many bytes, ServiceError."""
        found = bytearray()
        await self._read(found, most)
        if len(found) > most:
            raise ResultTooLargeError
        return bytes(found)

    async def beginning(self, most: int, seconds: float) -> bytes:
        """What comes of the body in that time, up to that many bytes; whatever is wrong with it."""
        found = bytearray()
        with contextlib.suppress(TimeoutError, ResultTooLargeError, ServiceError):
            async with asyncio.timeout(seconds):
                await self._read(found, most)
        return bytes(found[:most])

    async def _read(self, found: bytearray, most: int) -> None:
        """To the body's end, or until it has more than that many bytes."""
        decoder = _decoder(self.headers.get("content-encoding", ""), most)
        try:
            async for raw in self._stream:
                found += decoder.decoded(raw)
                if len(found) > most:
                    return
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError):  # ssl.SSLError is one
            raise BrokenAnswerError("The answer of the tool's service was cut off.") from None
        decoder.end()


@asynccontextmanager
async def exchange(request: HttpRequest) -> AsyncIterator[HttpResponse]:
    """The answer, whose body has not been read. When the block is left, and when this is cancelled, the connection is
    closed.

    Raises as `asked`.
    """
    network = CheckedNetwork(request.private, MAX_HEAD_BYTES)
    try:
        response = await asked(request, network)
        if network.stream:
            network.stream.most = MAX_WIRE_BYTES
        stream: Any = response.stream
        async with aclosing(aiter(stream)) as parts:
            yield HttpResponse(response, parts)
    finally:
        await network.close()


async def asked(request: HttpRequest, network: CheckedNetwork) -> httpcore2.Response:
    """The answer's head. The network is the caller's to close, whatever happens.

    Raises UnreachableError, UnknownOutcomeError, and ServiceError: `blocked_address`, `certificate`, `broken_answer`,
    `redirect`.
    """
    origin = request.origin
    connection = AsyncHTTPConnection(
        httpcore2.Origin(origin.scheme.encode(), origin.host.encode(), origin.port),
        ssl_context=request.tls,
        network_backend=network,
    )
    url = httpcore2.URL(
        scheme=origin.scheme.encode(), host=origin.host.encode(), port=origin.port, target=request.target.encode()
    )
    sent = httpcore2.Request(request.method, url, headers=request.headers, content=request.body)
    try:
        response = await connection.handle_async_request(sent)
    except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
        raise _failure(error, network.stream) from None
    except ResultTooLargeError:
        raise BrokenAnswerError("The tool's service says too much before it answers.") from None
    if 300 <= response.status < 400:
        raise ServiceError("redirect", "The tool's service answered with a redirect, which is not followed.")
    return response


def _failure(error: Exception, stream: WatchedStream | None) -> ServiceError | UnknownOutcomeError:
    """Why there is no answer: what was sent decides."""
    if stream is None or not stream.sent:
        if _certificate(error):
            return CertificateError()
        return UnreachableError()
    if stream.ended or not isinstance(error, httpcore2.RemoteProtocolError):
        return UnknownOutcomeError()
    return BrokenAnswerError("The tool's service answered with what is not HTTP.")


def _certificate(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


class _Identity:
    def decoded(self, raw: bytes) -> bytes:
        return raw

    def end(self) -> None:
        """The body is over."""


class _Zlib:
    """gzip, of one member or more, or deflate; a part never becomes more than `most` bytes and one."""

    def __init__(self, most: int, window: int) -> None:
        self._most, self._window = most, window
        self._decoder = zlib.decompressobj(window)

    def decoded(self, raw: bytes) -> bytes:
        found = bytearray()
        try:
            while raw and len(found) <= self._most:
                if self._decoder.eof:
                    self._decoder = zlib.decompressobj(self._window)
                found += self._decoder.decompress(raw, self._most + 1 - len(found))
                raw = self._decoder.unused_data
        except zlib.error:
            raise BrokenAnswerError("The answer of the tool's service cannot be decompressed.") from None
        return bytes(found)

    def end(self) -> None:
        if not self._decoder.eof:
            raise BrokenAnswerError("The answer of the tool's service was cut off.")


def _decoder(encoding: str, most: int) -> _Identity | _Zlib:
    match encoding.strip().lower():
        case "" | "identity":
            return _Identity()
        case "gzip" | "x-gzip":
            return _Zlib(most, 16 + zlib.MAX_WBITS)
        case "deflate":
            return _Zlib(most, zlib.MAX_WBITS)
    raise encoding_error()


def encoding_error() -> ServiceError:
    return ServiceError("content_encoding", "The tool's service answered in a compression that nobody asked for.")

"""A connection to a gRPC server: to addresses that were looked at, and each call on it once."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import grpc
from grpc import StatusCode, aio

from dispatcher.tools.errors import (
    BrokenAnswerError,
    CertificateError,
    ResultTooLargeError,
    ServiceError,
    UnknownOutcomeError,
    UnreachableError,
)
from dispatcher.tools.http.network import checked
from dispatcher.tools.rpc.server import GrpcServer, Metadata
from shared.channel import Options
from shared.records import MAX_RESULT_BYTES
from shared.version import version

CONNECT_SECONDS = 10.0
MAX_REFLECTION_BYTES = 4 * 1024 * 1024  # of all that server reflection says
# What servers allow at most unless they say otherwise (gRPC A8: one ping in 5 minutes); more ends the connection.
KEEPALIVE_SECONDS = 310
KEEPALIVE_TIMEOUT_SECONDS = 20
REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")

# Statuses that speak against the server; of the others the call may be to blame. As HTTP's 429 and from 500 on:
# https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
_FAILING = {
    StatusCode.UNKNOWN, StatusCode.DEADLINE_EXCEEDED, StatusCode.RESOURCE_EXHAUSTED, StatusCode.UNIMPLEMENTED,
    StatusCode.INTERNAL, StatusCode.UNAVAILABLE, StatusCode.DATA_LOSS,
}  # fmt: skip
# C-core says so of a call that it ended by itself; a server's own status has the server's words. Whatever else is wrong
# with the connection leaves it in a state that is not READY.
_LOST = "Stream removed ("
_NOT_SENT = "failed to connect to all addresses"
_TOO_LARGE = "CLIENT: Received message larger than max"
_NO_TRAILERS = "Data frame with END_STREAM"
_MADE_BY_CORE = {
    StatusCode.UNAVAILABLE, StatusCode.INTERNAL, StatusCode.UNKNOWN, StatusCode.CANCELLED,
    StatusCode.RESOURCE_EXHAUSTED, StatusCode.DEADLINE_EXCEEDED, StatusCode.PERMISSION_DENIED,
}  # fmt: skip
_CERTIFICATE = ("CERTIFICATE_VERIFY_FAILED", "certificate verify failed", "Hostname Verification", "Peer name")


class GrpcConnection:
    """To one server, made again by itself to the same addresses as long as these can be reached."""

    def __init__(self, channel: aio.Channel, metadata: Metadata) -> None:
        self.channel, self.metadata = channel, metadata

    async def call(self, path: str, request: bytes, metadata: Metadata, seconds: float) -> bytes:
        """The answer to a unary call, made once. seconds: what the server is told of its time.

        Raises UnreachableError, UnknownOutcomeError, ServiceError, ResultTooLargeError.
        """
        await self.ready()
        method: aio.UnaryUnaryMultiCallable[bytes, bytes | None] = self.channel.unary_unary(path)
        try:
            call = method(request, metadata=aio.Metadata(*metadata, *self.metadata), timeout=seconds)
        except aio.UsageError:  # it was given up meanwhile
            raise UnreachableError from None
        try:
            answer = await call
        except aio.AioRpcError as error:
            raise self._failure(error) from None
        finally:
            call.cancel()
        if answer is None:
            raise BrokenAnswerError("The tool's service answered with no message.")
        return answer

    async def ready(self) -> None:
        """Return when there is a connection. Raises UnreachableError: there is none to be had."""
        while (state := self.channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
            if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
                raise UnreachableError
            try:
                await self.channel.wait_for_state_change(state)
            except aio.UsageError:  # it was given up meanwhile
                raise UnreachableError from None

    async def changed(self) -> None:
        """Return when the connection was lost, and there is another. Raises UnreachableError."""
        await self.channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        await self.ready()

    def _failure(self, error: aio.AioRpcError) -> Exception:
        code, details = error.code(), error.details() or ""
        lost = self.channel.get_state() is not grpc.ChannelConnectivity.READY
        if code in _MADE_BY_CORE and (details.startswith(_LOST) or (lost and code is StatusCode.UNAVAILABLE)):
            if _TOO_LARGE in details:
                return ResultTooLargeError()
            if _NO_TRAILERS in details:
                return BrokenAnswerError("The tool's service answered with what is not gRPC.")
            return UnreachableError() if details.startswith(_NOT_SENT) else UnknownOutcomeError()
        name = code.name.lower()
        return ServiceError(f"grpc_{name}", details or code.name, failing=code in _FAILING)


@asynccontextmanager
async def connected(server: GrpcServer, grace: float) -> AsyncIterator[GrpcConnection]:
    """Left, it takes no more calls; those under way have so many seconds, but for when this is cancelled.

    Raises UnreachableError, and ServiceError: `blocked_address`, `certificate`.
    """
    channel = _channel(server, await _addresses(server))
    connection = GrpcConnection(channel, server.metadata)
    try:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.ready()
        except TimeoutError:
            raise UnreachableError from None
        except UnreachableError:
            raise await _why(channel) from None
        yield connection
    except Exception:
        await channel.close(grace)
        raise
    finally:
        await channel.close()


async def _addresses(server: GrpcServer) -> str:
    """For the channel, which resolves no name by itself: `ipv4:1.2.3.4:5,6.7.8.9:5`."""
    target = server.target
    if target.path:
        return f"unix:{quote(target.path)}"
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            found = await checked(target.host, target.port, private=server.private)
    except OSError:  # TimeoutError is one
        raise UnreachableError from None
    if all(":" not in address for address in found):
        return "ipv4:" + ",".join(f"{address}:{target.port}" for address in found)
    # All are of one kind there, and a scope's % is written %25.
    mapped = [address if ":" in address else f"::ffff:{address}" for address in found]
    return "ipv6:" + ",".join(f"[{quote(address, safe=':')}]:{target.port}" for address in mapped)


def _channel(server: GrpcServer, addresses: str) -> aio.Channel:
    target = server.target
    config = {
        "methodConfig": [
            {"name": [{"service": name} for name in REFLECTION], "maxResponseMessageBytes": MAX_REFLECTION_BYTES},
            {"name": [{}], "maxResponseMessageBytes": MAX_RESULT_BYTES},
        ]
    }
    options: Options = [
        # On by default in C-core, on loopback too: a proxy meant for the web would be asked.
        ("grpc.enable_http_proxy", 0),
        # A call is made once. C-core repeats those too of which a server says that it has not looked at them.
        ("grpc.enable_retries", 0),
        ("grpc.service_config", json.dumps(config)),
        ("grpc.max_receive_message_length", MAX_REFLECTION_BYTES),
        # A message is measured as it comes: small ones that become large are not wanted, and not unpacked.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        ("grpc.per_message_decompression", 0),
        ("grpc.default_authority", target.authority),
        # Of its own: others' connections to the same address may have failed, and wait.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
        ("grpc.primary_user_agent", f"midsentence/{version()}"),
    ]
    if server.credentials is None:
        return aio.insecure_channel(addresses, options)
    options.append(("grpc.ssl_target_name_override", target.host or "localhost"))
    return aio.secure_channel(addresses, server.credentials, options)


async def _why(channel: aio.Channel) -> ServiceError:
    """There is no connection: of what fails at once for that, C-core says why."""
    try:
        method: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/grpc.health.v1.Health/Check")
        await method(b"", timeout=CONNECT_SECONDS)
    except aio.AioRpcError as error:
        if any(words in (error.details() or "") for words in _CERTIFICATE):
            return CertificateError()
    return UnreachableError()

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import h2.connection
import pytest
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import (
    reflection,
    reflection_pb2,
    reflection_pb2_grpc,
)
from prometheus_client import CollectorRegistry

from shared.channel import ClientKeepalive, ServerKeepalive, client_options, server_options
from shared.grpc_metrics import ClientMetrics, ServerMetrics, code_name
from tests.sockets import dialled

SERVICE = "test.Service"
SECONDS = 30  # no wait in these tests takes longer


class Handlers:
    """One handler for each thing that can happen to a stream."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def echo(self, _: object, context: Any) -> None:
        while (message := await context.read()) is not aio.EOF:
            await context.write(message)

    async def echo_requests(self, requests: AsyncIterator[bytes], context: Any) -> None:
        async for message in requests:
            await context.write(message)

    async def generate(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for message in requests:
            yield message

    async def abort(self, _: object, context: Any) -> None:
        await context.read()
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")

    async def set_code(self, _: object, context: Any) -> None:
        context.set_code(grpc.StatusCode.DATA_LOSS)

    async def fail(self, _: object, context: Any) -> None:
        raise ValueError("a bug")

    async def hang(self, _: object, context: Any) -> None:
        try:
            await context.write(b"ready")
            await asyncio.Event().wait()
        finally:
            self.ended.set()

    async def generate_until_cancelled(self, requests: object, context: Any) -> AsyncIterator[bytes]:
        try:
            yield b"ready"
            await asyncio.Event().wait()
        finally:
            self.ended.set()


def value(registry: CollectorRegistry, name: str, method: str, grpc_type: str = "bidi_stream", **labels: str) -> float:
    found = sample(registry, name, method, grpc_type, **labels)
    assert found is not None
    return found


def sample(registry: CollectorRegistry, name: str, method: str, grpc_type: str, **labels: str) -> float | None:
    """None: no such call has begun."""
    service, _, grpc_method = method.rpartition("/")
    return registry.get_sample_value(
        name,
        {"grpc_type": grpc_type, "grpc_service": service or SERVICE, "grpc_method": grpc_method, **labels},
    )


async def until(registry: CollectorRegistry, name: str, method: str, **labels: str) -> None:
    """The call's end reaches the metrics a few loop turns after the peer's, or our own, view of it."""
    async with asyncio.timeout(SECONDS):
        while not sample(registry, name, method, "bidi_stream", **labels):  # noqa: ASYNC110 (a counter has nothing to await)
            await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(handlers: Handlers) -> AsyncIterator[tuple[int, CollectorRegistry]]:
    """The server's port, and its metrics."""
    registry = CollectorRegistry()
    server = aio.server(interceptors=[ServerMetrics(registry)], options=server_options(ServerKeepalive()))
    behaviors = [name for name in dir(Handlers) if not name.startswith("_")]
    methods: dict[str, Any] = {
        name: grpc.stream_stream_rpc_method_handler(getattr(handlers, name)) for name in behaviors
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, methods)])
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    reflection.enable_server_reflection([SERVICE], server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port, registry
    finally:
        await server.stop(None)


@asynccontextmanager
async def connected(handlers: Handlers) -> AsyncIterator[tuple[aio.Channel, CollectorRegistry]]:
    options = client_options(ClientKeepalive())
    async with (
        serving(handlers) as (port, registry),
        aio.insecure_channel(f"ipv4:127.0.0.1:{port}", options=options) as channel,
    ):
        yield channel, registry


def open_stream(channel: aio.Channel, method: str) -> aio.StreamStreamCall[bytes, bytes]:
    make: Any = channel.stream_stream(f"/{SERVICE}/{method}")
    return cast("aio.StreamStreamCall[bytes, bytes]", make())


@pytest.mark.parametrize("method", ["echo", "echo_requests", "generate"])
async def test_messages_of_streams_are_counted(method: str) -> None:
    async with connected(Handlers()) as (channel, registry):
        call = open_stream(channel, method)
        for text in (b"a", b"b", b"c"):
            await call.write(text)
            assert await call.read() == text
        await call.done_writing()
        assert await call.read() is aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        await until(registry, "grpc_server_handled_total", method, grpc_code="OK")
        assert value(registry, "grpc_server_started_total", method) == 1
        assert value(registry, "grpc_server_msg_received_total", method) == 3
        assert value(registry, "grpc_server_msg_sent_total", method) == 3
        assert value(registry, "grpc_server_handling_seconds_count", method) == 1
        assert value(registry, "grpc_server_handling_seconds_bucket", method, le="3600.0") == 1
        assert value(registry, "grpc_server_handled_total", method, grpc_code="Canceled") == 0


def test_a_clients_call_is_counted_by_who_writes_and_reads() -> None:
    registry = CollectorRegistry()
    call = ClientMetrics(registry).began(f"/{SERVICE}/echo")
    assert value(registry, "grpc_client_started_total", "echo") == 1
    call.sent.inc()
    call.received.inc(2)
    call.ended(grpc.StatusCode.UNAVAILABLE)
    assert value(registry, "grpc_client_msg_sent_total", "echo") == 1
    assert value(registry, "grpc_client_msg_received_total", "echo") == 2
    assert value(registry, "grpc_client_handled_total", "echo", grpc_code="Unavailable") == 1
    assert value(registry, "grpc_client_handled_total", "echo", grpc_code="OK") == 0
    assert value(registry, "grpc_client_handling_seconds_count", "echo") == 1


@pytest.mark.parametrize(
    ("method", "code"),
    [
        ("abort", grpc.StatusCode.INVALID_ARGUMENT),
        ("set_code", grpc.StatusCode.DATA_LOSS),
        ("fail", grpc.StatusCode.UNKNOWN),
    ],
)
async def test_the_codes_of_failing_handlers(method: str, code: grpc.StatusCode) -> None:
    async with connected(Handlers()) as (channel, registry):
        call = open_stream(channel, method)
        await call.done_writing()
        assert await call.code() is code
        await until(registry, "grpc_server_handled_total", method, grpc_code=code_name(code))


@pytest.mark.parametrize("method", ["hang", "generate_until_cancelled"])
async def test_a_client_that_cancels(method: str) -> None:
    handlers = Handlers()
    async with connected(handlers) as (channel, registry):
        call = open_stream(channel, method)
        assert await call.read() == b"ready"
        call.cancel()
        async with asyncio.timeout(SECONDS):
            await handlers.ended.wait()
        await until(registry, "grpc_server_handled_total", method, grpc_code="Canceled")
        assert value(registry, "grpc_server_msg_sent_total", method) == 1


async def test_a_deadline_that_passes() -> None:
    """As of a client that waits for the server to say so: grpc's own resets the stream, and may be the first."""
    handlers = Handlers()
    async with serving(handlers) as (port, registry), dialled(port) as (_, writer):
        http2 = h2.connection.H2Connection()
        http2.initiate_connection()
        target = {":method": "POST", ":scheme": "http", ":authority": "x", ":path": f"/{SERVICE}/hang"}
        head = target | {"content-type": "application/grpc", "te": "trailers", "grpc-timeout": "200m"}
        http2.send_headers(1, list(head.items()))
        writer.write(http2.data_to_send())
        await until(registry, "grpc_server_handled_total", "hang", grpc_code="DeadlineExceeded")
        assert handlers.ended.is_set()
        assert value(registry, "grpc_server_handled_total", "hang", grpc_code="Canceled") == 0


async def test_a_deadline_of_the_clients_counts_once() -> None:
    async with connected(Handlers()) as (channel, registry):
        call: Any = channel.stream_stream(f"/{SERVICE}/hang")(timeout=0.2)
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(registry, "grpc_server_handling_seconds_count", "hang")
        codes = ("DeadlineExceeded", "Canceled")  # the server's own clock may be the first to say so, or the client
        assert sum(value(registry, "grpc_server_handled_total", "hang", grpc_code=code) for code in codes) == 1


async def test_health_and_reflection_work_and_are_counted() -> None:
    async with connected(Handlers()) as (channel, registry):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        unknown = stub.Check(health_pb2.HealthCheckRequest(service="x"))
        with pytest.raises(aio.AioRpcError):
            await unknown
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        reflected: Any = reflection_pb2_grpc.ServerReflectionStub
        names = reflected(channel).ServerReflectionInfo()
        await names.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        assert (await names.read()).list_services_response.service[0].name == SERVICE
        await names.done_writing()

        check = "grpc.health.v1.Health/Check"
        assert value(registry, "grpc_server_handled_total", check, "unary", grpc_code="OK") == 1
        assert value(registry, "grpc_server_handled_total", check, "unary", grpc_code="NotFound") == 1
        assert value(registry, "grpc_server_msg_received_total", check, "unary") == 2
        assert value(registry, "grpc_server_msg_sent_total", check, "unary") == 1
        # the channel itself watches the server's health too, by its service config
        watched = value(registry, "grpc_server_msg_sent_total", "grpc.health.v1.Health/Watch", "server_stream")
        assert watched == 2
        info = "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        assert value(registry, "grpc_server_msg_sent_total", info) == 1


async def test_methods_that_nobody_serves_are_not_counted() -> None:
    async with connected(Handlers()) as (channel, registry):
        call = open_stream(channel, "chosen_by_the_peer")
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
        samples = [sample for metric in registry.collect() for sample in metric.samples]
        assert not [sample for sample in samples if sample.labels.get("grpc_method") == "chosen_by_the_peer"]


def test_codes_are_spelled_as_in_go() -> None:
    assert {code_name(code) for code in grpc.StatusCode} == {
        "OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists",
        "PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented",
        "Internal", "Unavailable", "DataLoss", "Unauthenticated",
    }  # fmt: skip

"""What whoever asks is told, and what nobody may ask."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dispatcher.grpc_edge import health as module
from dispatcher.grpc_edge.health import Health
from shared.records import MAX_NAME

Request = health_pb2.HealthCheckRequest


class Watcher:
    """The RPC's side of a Watch. reads: else no write of it ever ends."""

    def __init__(self, health: Health, reads: bool = True) -> None:
        self._reads = reads
        self.told: asyncio.Queue[str] = asyncio.Queue()
        self.task = asyncio.create_task(health.Watch(Request(service=""), self))

    async def write(self, answer: health_pb2.HealthCheckResponse) -> None:
        self.told.put_nowait(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
        if not self._reads:
            await asyncio.Event().wait()

    async def next(self) -> str:
        async with asyncio.timeout(20):
            return await self.told.get()


async def test_who_watches_is_told_and_keeps_no_long_name_here() -> None:
    health = Health()
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    health.serves("served")
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            for name, status in (("served", "SERVING"), ("x" * MAX_NAME, "SERVICE_UNKNOWN")):
                call = stub.Watch(Request(service=name))
                told = await call.read()
                assert health_pb2.HealthCheckResponse.ServingStatus.Name(told.status) == status
                call.cancel()
            assert (await stub.Check(Request(service="served"))).status == health_pb2.HealthCheckResponse.SERVING
            for asked, code in (
                (stub.Watch(Request(service="x" * (MAX_NAME + 1))).read(), grpc.StatusCode.INVALID_ARGUMENT),
                (stub.Check(Request(service="other")), grpc.StatusCode.NOT_FOUND),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await asked
                assert refused.value.code() is code
    finally:
        await server.stop(None)


async def test_one_that_does_not_read_keeps_nobody_from_being_told() -> None:
    health = Health()
    deaf, other = Watcher(health, reads=False), Watcher(health)
    assert [await deaf.next(), await other.next()] == ["SERVING", "SERVING"]
    later = Watcher(health)
    assert await later.next() == "SERVING"
    health.leave()
    assert [await other.next(), await later.next()] == ["NOT_SERVING", "NOT_SERVING"]
    for watcher in (deaf, other, later):
        watcher.task.cancel()
    await asyncio.gather(deaf.task, other.task, later.task, return_exceptions=True)


async def test_of_too_many_who_watch_the_later_are_told_not_to_until_one_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_WATCHES", 2)
    health = Health()
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            watching = [stub.Watch(Request()) for _ in range(2)]
            for call in watching:
                await call.read()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Watch(Request()).read()
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
            watching.pop().cancel()
            async with asyncio.timeout(20):
                while health._watching == 2:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            assert await stub.Watch(Request()).read()
    finally:
        await server.stop(None)

"""What whoever asks is told, and what nobody may ask."""

from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dispatcher.grpc_edge.health import Health
from shared.records import MAX_NAME


async def test_who_watches_is_told_and_keeps_no_long_name_here() -> None:
    health = Health()
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await health.set("served", health_pb2.HealthCheckResponse.SERVING)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            for name, status in (("served", "SERVING"), ("x" * MAX_NAME, "SERVICE_UNKNOWN")):
                call = stub.Watch(health_pb2.HealthCheckRequest(service=name))
                told = await call.read()
                assert health_pb2.HealthCheckResponse.ServingStatus.Name(told.status) == status
                call.cancel()
            call = stub.Watch(health_pb2.HealthCheckRequest(service="x" * (MAX_NAME + 1)))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call.read()
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    finally:
        await server.stop(None)

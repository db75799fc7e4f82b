"""gRPC's health service, which answers whoever asks: nobody's question may cost much."""

from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from shared.records import MAX_NAME


class Health(health.aio.HealthServicer):
    """grpcio-health keeps the name that somebody watches while the stream is open, four times over: 250 streams with
    names of a message's size were 1 GiB, of a peer that had shown nothing.
    """

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: N802
        """As the protocol says; a name that is longer than any can be is INVALID_ARGUMENT."""
        if len(request.service) > MAX_NAME:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "No service has a name as long as this.")
        await super().Watch(request, context)

"""gRPC's health service, which answers whoever asks: nobody's question may cost much, or keep others waiting."""

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dispatcher.grpc_edge.limits import MAX_WATCHES
from shared.records import MAX_NAME

HealthAnswer = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):
    """Not that of grpcio-health, which keeps each name that is watched, and writes to one who watches under a lock of
    all who do: one that did not read kept Commanders from joining, and the Dispatcher from leaving.
    """

    def __init__(self) -> None:
        self._serving = {""}
        self._leaving = False
        self._watching = 0
        self._changed = asyncio.Event()

    def serves(self, service: str) -> None:
        """From now on, until it leaves."""
        self._serving.add(service)
        self._tell()

    def leave(self) -> None:
        """Nothing is served any more, whatever comes."""
        self._leaving = True
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _status(self, service: str) -> int | None:
        """None: it is not known."""
        if service not in self._serving:
            return None
        return int(HealthAnswer.NOT_SERVING if self._leaving else HealthAnswer.SERVING)

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:  # noqa: N802
        status = self._status(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "No service has this name.")
        return HealthAnswer(status=status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: N802
        """As the protocol says. A name that is longer than any can be is INVALID_ARGUMENT. Where too many watch,
        UNIMPLEMENTED, which Commanders take for healthy (gRFC A17): no flood keeps them away.
        """
        if len(request.service) > MAX_NAME:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "No service has a name as long as this.")
        if self._watching >= MAX_WATCHES:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Too many watch; ask once.")
        self._watching += 1
        try:
            await self._watch(request.service, context)
        finally:
            self._watching -= 1

    async def _watch(self, service: str, context: Any) -> None:
        told: int | None = None
        while True:
            changed, status = self._changed, self._status(service)
            status = HealthAnswer.SERVICE_UNKNOWN if status is None else status
            if status != told:
                await context.write(HealthAnswer(status=status))
                told = status
            await changed.wait()

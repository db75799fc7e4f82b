"""The gRPC service: keeps the streams, gives each its status, and tells them to drain."""

import asyncio
from typing import Any

import grpc
import structlog

from dispatcher.grpc_edge.status import StreamOver, abort
from dispatcher.grpc_edge.stream import Stream
from dispatcher.live.desk import Desk
from shared.pb import agent_pb2_grpc

logger = structlog.get_logger()


class AgentInteraction(agent_pb2_grpc.AgentInteractionServicer):
    """The service: keeps the streams, and tells them to drain."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._streams: set[Stream] = set()

    def register(self, server: grpc.aio.Server) -> None:
        """Let the server serve it."""
        agent_pb2_grpc.add_AgentInteractionServicer_to_server(self, server)  # type: ignore[no-untyped-call]

    async def ChatStream(self, request_iterator: Any, context: Any) -> None:  # noqa: N802 - the contract's name
        stream = Stream(self._desk, context)
        self._streams.add(stream)
        try:
            await stream.run()
        except StreamOver as over:
            logger.info("stream_ended", code=over.code.name, text=over.text)
            await abort(context, over.code, over.text)
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("stream_failed")
            await abort(context, grpc.StatusCode.INTERNAL, "Internal error.")
        finally:
            self._streams.discard(stream)

    def drain(self) -> None:
        """The replica leaves."""
        for stream in self._streams:
            stream.drain("leaving")

"""The gRPC service: keeps the streams, gives each its status, and tells them to drain."""

import asyncio
from functools import partial
from typing import Any

import grpc
import structlog

from dispatcher.access.audit import REFUSED, AuditLog
from dispatcher.access.rules import Caller
from dispatcher.access.watch import Access
from dispatcher.grpc_edge import callers
from dispatcher.grpc_edge.limits import MAX_SILENT_STREAMS
from dispatcher.grpc_edge.status import StreamOver, abort
from dispatcher.grpc_edge.stream import Stream
from dispatcher.live.desk import Desk
from shared.wire import SERVICE, DownstreamMessage

logger = structlog.get_logger()


class AgentInteraction:
    """The service: keeps the streams, and tells them to drain."""

    def __init__(self, desk: Desk, access: Access, audit: AuditLog | None = None) -> None:
        self._desk, self._access, self._audit = desk, access, audit
        self._streams: set[Stream] = set()
        self._silent: dict[Stream, None] = {}  # that have said nothing yet, the oldest first
        self._leaving = False

    def register(self, server: grpc.aio.Server) -> None:
        """Let the server serve it. Messages come as they are: `Stream` decodes no more of one than it takes."""
        handler: Any = grpc.stream_stream_rpc_method_handler(
            self._chat_stream, response_serializer=DownstreamMessage.SerializeToString
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"ChatStream": handler}),))

    async def _chat_stream(self, request_iterator: Any, context: Any) -> None:
        try:
            caller = callers.commander(self._access, context)
        except StreamOver as over:
            await self._over(context, over)
            return
        self._tell("stream_opened", caller, context)
        still = partial(callers.still, self._access, context, caller)
        stream = Stream(self._desk, context, caller, self._speaks, still)
        self._streams.add(stream)
        self._silent[stream] = None
        if len(self._silent) > MAX_SILENT_STREAMS:
            oldest = next(iter(self._silent))
            del self._silent[oldest]
            oldest.end(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many streams say nothing.", "silent")
        try:
            await stream.run()
        except StreamOver as over:
            await self._over(context, over, caller)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if self._leaving and isinstance(error, grpc.aio.BaseError):
                return  # the server was stopped, and the stream with it
            logger.exception("stream_failed")
            await abort(context, grpc.StatusCode.INTERNAL, "Internal error.")
        finally:
            self._streams.discard(stream)
            self._speaks(stream)

    async def _over(self, context: Any, over: StreamOver, caller: Caller | None = None) -> None:
        logger.info("stream_ended", code=over.code.name, text=over.text)
        if over.kind in ("unauthenticated", "forbidden"):
            self._tell(REFUSED, caller, context, status=over.code.name)
        self._desk.metrics.refused("chatstream", over.kind)
        await abort(context, over.code, over.text)

    def _tell(self, event: str, caller: Caller | None, context: Any, **fields: str) -> None:
        if self._audit:
            self._audit.write(event, caller, **{"edge": "grpc", "from": context.peer()}, **fields)

    def _speaks(self, stream: Stream) -> None:
        """It has said something, or is gone."""
        self._silent.pop(stream, None)

    def drain(self) -> None:
        """The replica leaves."""
        self._leaving = True
        for stream in self._streams:
            stream.drain("leaving")

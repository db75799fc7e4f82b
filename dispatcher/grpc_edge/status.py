"""How a stream ends: the statuses, and their way to the peer."""

import asyncio
from typing import Any, Protocol

import grpc
import structlog

log = structlog.get_logger()

STATUS_SECONDS = 1.0  # that a status may take to be sent

# A session that is refused on an older peer's stream, which is its session.
OLDER_STATUS = {
    "fenced": grpc.StatusCode.FAILED_PRECONDITION,
    "superseded": grpc.StatusCode.ABORTED,
    "gap": grpc.StatusCode.ABORTED,
    "ended": grpc.StatusCode.FAILED_PRECONDITION,
    "unknown_session": grpc.StatusCode.NOT_FOUND,
    "exists": grpc.StatusCode.ALREADY_EXISTS,
    "invalid": grpc.StatusCode.INVALID_ARGUMENT,
    "credit": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "unavailable": grpc.StatusCode.UNAVAILABLE,
}


class StreamOver(Exception):
    """The stream ends with this status; the text is fixed for the cause."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class Context(Protocol):
    """What a stream uses of grpc.aio's ServicerContext."""

    async def read(self) -> Any: ...
    async def write(self, message: Any) -> None: ...
    async def send_initial_metadata(self, initial_metadata: Any) -> None: ...
    async def abort(self, code: grpc.StatusCode, details: str = "") -> Any: ...


def malformed(text: str) -> StreamOver:
    return StreamOver(grpc.StatusCode.INVALID_ARGUMENT, text)


async def abort(context: Context, code: grpc.StatusCode, text: str) -> None:
    """End the RPC with that status. A peer that does not read holds up its status too, and may read it later."""
    try:
        async with asyncio.timeout(STATUS_SECONDS):
            await context.abort(code, text)
    except grpc.aio.AbortError:
        raise
    except Exception as error:  # it is gone, or does not read
        log.debug("status_not_sent", code=code.name, error=type(error).__name__)

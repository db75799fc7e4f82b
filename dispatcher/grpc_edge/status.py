"""How a stream ends: the statuses, and their way to the peer."""

import asyncio
from typing import Any, NamedTuple, Protocol

import grpc
import structlog

from shared.records import Closed

logger = structlog.get_logger()

STATUS_SECONDS = 1.0  # that a status may take to be sent


class Close(NamedTuple):
    """How a `closed` code is told. status: of an older peer's stream, which is its session."""

    message: str
    status: grpc.StatusCode


CLOSES = {
    "fenced": Close("A later assignment has this session.", grpc.StatusCode.FAILED_PRECONDITION),
    "superseded": Close("Another stream has opened this session since.", grpc.StatusCode.ABORTED),
    "gap": Close("A packet is missing before this one; open the session again.", grpc.StatusCode.ABORTED),
    "ended": Close("The session has ended.", grpc.StatusCode.FAILED_PRECONDITION),
    "unknown_session": Close("The session is not known, or not open on this stream.", grpc.StatusCode.NOT_FOUND),
    "exists": Close("The session id is taken.", grpc.StatusCode.ALREADY_EXISTS),
    "invalid": Close("The packet breaks the contract; the session has failed.", grpc.StatusCode.INVALID_ARGUMENT),
    "credit": Close(
        "More than the credit was sent without an Ack; the session has failed.", grpc.StatusCode.RESOURCE_EXHAUSTED
    ),
    "unavailable": Close("The session's log cannot be reached now; try again.", grpc.StatusCode.UNAVAILABLE),
}


# How a peer is given up that has been waited for in vain.
SAYS_NOTHING = grpc.StatusCode.DEADLINE_EXCEEDED, "No packet for too long.", "silent"
DOES_NOT_READ = grpc.StatusCode.UNAVAILABLE, "The peer does not read.", "unread"
HANGS = grpc.StatusCode.UNAVAILABLE, "No status for too long.", "hung"


def closed(code: str) -> Closed:
    return Closed(code, CLOSES[code].message)


class StreamOver(Exception):
    """The stream ends with this status; the text is fixed for the cause. kind: of `dispatcher.metrics.REFUSALS`, where
    it is one of them.
    """

    def __init__(self, code: grpc.StatusCode, text: str, kind: str = "") -> None:
        super().__init__(text)
        self.code, self.text, self.kind = code, text, kind


class ServicerContext(Protocol):
    """What a stream uses of grpc.aio's ServicerContext."""

    async def read(self) -> Any: ...
    async def write(self, message: Any) -> None: ...
    async def send_initial_metadata(self, initial_metadata: Any) -> None: ...
    async def abort(self, code: grpc.StatusCode, details: str = "") -> Any: ...


def refused(code: str) -> StreamOver:
    """The session is refused on an older peer's stream."""
    return StreamOver(CLOSES[code].status, CLOSES[code].message)


def malformed(text: str) -> StreamOver:
    return StreamOver(grpc.StatusCode.INVALID_ARGUMENT, text, "malformed")


async def abort(context: ServicerContext, code: grpc.StatusCode, text: str) -> None:
    """End the RPC with that status. A peer that does not read holds up its status too, and may read it later."""
    try:
        async with asyncio.timeout(STATUS_SECONDS):
            await context.abort(code, text)
    except grpc.aio.AbortError:
        raise
    except Exception as error:  # it is gone, or does not read
        logger.debug("status_not_sent", code=code.name, error=type(error).__name__)

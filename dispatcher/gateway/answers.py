"""A session answered on the connection that asked for it, in any of OpenAI's protocols."""

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Protocol, TypeAlias

from starlette.types import Receive, Send

from dispatcher.core.events import Entry
from dispatcher.core.log import Record
from dispatcher.gateway import sse
from dispatcher.gateway.errors import HttpError
from dispatcher.gateway.ports import Sessions
from dispatcher.metrics import Metrics

Last: TypeAlias = Callable[[], Awaitable[None]]  # sends the last that is sent


class Sending(Protocol):
    """How a protocol tells of a session. It is given the log from its first entry on."""

    streamed: bool

    async def begin(self) -> None:
        """Send what comes before the log."""

    async def take(self, entries: list[Entry]) -> Last | None:
        """Send what these entries let the user read. Where the session's end is among them: how to send that."""

    async def silence(self) -> None:
        """Nothing came for a while."""

    async def lost(self) -> None:
        """Send, at last, that the log, or part of what was read of it, is gone."""

    async def interrupted(self) -> None:
        """Send, at last, that the server drains; the session goes on."""


class Answers:
    def __init__(self, sessions: Sessions, metrics: Metrics, connections: sse.Connections) -> None:
        self._sessions, self._metrics, self._connections = sessions, metrics, connections

    async def require(self, agent: str) -> None:
        """Raises HttpError 404 where no Commander offers that agent."""
        if agent not in await self._sessions.agents():
            raise HttpError(404, "No such model is offered.", code="model_not_found", param="model")

    async def send(self, record: Record, sending: Sending, receive: Receive, *, stop_when_left: bool) -> None:
        """The session from its first entry to its end.

        stop_when_left: a client that goes away before the end stops it. A server that drains never does.
        """
        ended = done = False
        with self._metrics.event_streams.track_inprogress() if sending.streamed else nullcontext():
            try:
                async with self._connections.watch(receive) as watch:
                    await sending.begin()
                    last = await self._follow(sse.LogReader(self._sessions.store, record.session_id, 0), sending)
                    ended = True
                    await last()
                    done = True
                if watch.closing and not done:
                    await sending.interrupted()
            finally:
                if stop_when_left and not ended and not watch.closing:
                    await self._sessions.stop(record.session_id, "UserCancel", "user")

    async def _follow(self, reader: sse.LogReader, sending: Sending) -> Last:
        """Read on until the answer has an end."""
        with reader:
            while True:
                entries = await reader.next()
                if entries:
                    if last := await sending.take(entries):
                        return last
                elif await reader.intact():
                    await sending.silence()
                else:
                    return sending.lost


async def send_json(send: Send, body: bytes, extra_headers: list[tuple[bytes, bytes]] | None = None) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *(extra_headers or [])]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await sse.write(send, body, last=True)

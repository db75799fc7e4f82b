"""A session answered on the connection that asked for it, in any of OpenAI's protocols."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Protocol, TypeAlias

from starlette.types import Receive, Send

from dispatcher.access.rules import Caller
from dispatcher.core.entries import Call, Entry, Started
from dispatcher.gateway import sse
from dispatcher.gateway.errors import HttpError
from dispatcher.gateway.fields import not_honoured
from dispatcher.gateway.ports import Sessions
from dispatcher.metrics import Metrics

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
NO_RETRY = {"x-should-retry": "false"}  # OpenAI's clients ask again by themselves, and the tool would run again
Last: TypeAlias = Callable[[], Awaitable[None]]  # sends the last that is sent


class Sending(Protocol):
    """How a protocol tells of a session. It is given the log from its first entry on."""

    streamed: bool

    async def begin(self) -> None:
        """Send what comes before the log."""

    async def take(self, entries: list[Entry]) -> Last | None:
        """Send what these entries let the user read. Where the session's end is among them: how to send that."""

    async def silence(self) -> None:
        """It has taken KEEP_ALIVE_SECONDS, or as long again. Once it has begun, an answer does not fall silent."""

    async def lost(self) -> None:
        """Send, at last, that the log, or part of what was read of it, is gone."""

    async def interrupted(self) -> None:
        """Send, at last, that the server drains; the session goes on."""


class Answers:
    """early: see `Json`."""

    def __init__(self, sessions: Sessions, metrics: Metrics, connections: sse.Connections, early: bool) -> None:
        self._sessions, self._metrics, self.connections, self.early = sessions, metrics, connections, early

    async def require(self, agent: str, caller: Caller, needs: Mapping[str, str] | None = None) -> tuple[str, ...]:
        """Raises HttpError 404 where no Commander offers that agent, or it is none of the caller's; 400 where it does
        not honour what a field needs. needs: feature → the field's path; answers with the features, as `Request` has
        them.
        """
        features = await self._sessions.features(agent) if caller.may_use(agent) else None
        if features is None:
            raise HttpError(404, "No such model is offered.", code="model_not_found", param="model")
        for feature, where in (needs or {}).items():
            if feature not in features:
                raise not_honoured(agent, feature, where)
        return tuple(sorted(needs or ()))

    async def send(self, session_id: str, sending: Sending, receive: Receive, *, stop_when_left: bool) -> None:
        """The session from its first entry to its end.

        stop_when_left: a client that goes away before the end stops it. A server that drains never does.
        """
        ended = done = False
        seen = _Seen()
        counted = self._metrics.event_streams.track_inprogress() if sending.streamed else nullcontext()
        with counted, seen.errors():
            try:
                async with self.connections.watch(receive) as watch:
                    await sending.begin()
                    last = await self._follow(session_id, sending, seen)
                    ended = True
                    await last()
                    done = True
                if watch.closing and not done:
                    await sending.interrupted()
            finally:
                if stop_when_left and not ended and not watch.closing:
                    await self._sessions.stop(session_id, "UserCancel", "user")

    async def _follow(self, session_id: str, sending: Sending, seen: "_Seen") -> Last:
        """Read on until the answer has an end."""
        with sse.LogReader.open(self._sessions.store, session_id, 0) as reader:
            while True:
                entries = await reader.next()
                if entries:
                    seen.tool_ran = seen.tool_ran or any(map(_may_have_run, entries))
                    if last := await sending.take(entries):
                        return last
                    continue
                await sending.silence()
                if not await reader.intact():
                    return sending.lost


class _Seen:
    """Of a session's log, so far."""

    tool_ran = False  # or it may have

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Where a tool ran, an error says that asking again would run it again."""
        try:
            yield
        except HttpError as error:
            if self.tool_ran:
                error.headers |= NO_RETRY
            raise


def _may_have_run(entry: Entry) -> bool:
    body = entry.body
    if isinstance(body, Call):
        return not (body.refused or body.denied or body.approval)
    return isinstance(body, Started)


class Json:
    """One JSON object, when it is there; until then a failure can be a status.

    early: if that takes KEEP_ALIVE_SECONDS, its headers go ahead, and white space until it comes. A failure after that
    has status 200 and an `error` in its body.
    """

    def __init__(self, send: Send, early: bool, headers: Headers = ()) -> None:
        self._send, self._early, self._headers = send, early, [(b"content-type", b"application/json"), *headers]
        self._started = False

    async def silence(self) -> None:
        if self._early and not self._started:
            self._started = True
            await self._send({"type": "http.response.start", "status": 200, "headers": self._headers, "filler": b" "})
            await sse.write(self._send, b" ")

    async def end(self, body: bytes) -> None:
        if not self._started:
            headers = [*self._headers, (b"content-length", b"%d" % len(body))]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await sse.write(self._send, body, last=True)

    async def fail(self, error: HttpError) -> None:
        if not self._started:
            raise error
        await sse.end(self._send, error.body)

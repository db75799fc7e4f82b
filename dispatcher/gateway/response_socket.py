"""Responses over a WebSocket: every message is a request of its own, whose events come back as text frames.

As OpenAI's guide and the Open Responses specification have it: `response.create` is answered after those before it in
its lane, which `stream_id` names. It goes through the application as `POST /v1/responses` does, so who asks, what a
body may be and what the audit log says of it is the same. The handshake is HTTP's; `exchange` lets the connection go.

wsproto frames: it has no I/O, and gives a message in pieces as they come, so that `bodies` counts them before they are
in memory, where `websockets` holds each frame until it is whole. No extension is agreed on, so nothing is inflated.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import CloseReason

from dispatcher.core.entries import Entry
from dispatcher.core.log import Record
from dispatcher.gateway import limits, sse
from dispatcher.gateway.answers import Last
from dispatcher.gateway.bodies import SMALL_BYTES
from dispatcher.gateway.conversations import MAX_EARLIER_BYTES
from dispatcher.gateway.errors import HttpError, shutting_down
from dispatcher.gateway.response_events import ID_PREFIX, Object, ResponseView
from dispatcher.gateway.upgrades import handshake
from dispatcher.gateway.views import FAILURES

CONNECTION_SECONDS = 3600.0  # as OpenAI has it
MAX_MESSAGES = 16  # of a connection: answered, or waiting for their turn
# Of a message, or instead of one (pings): each costs the same, if it brings nothing. Clients send one, or some KiB in
# each, and a ping now and then. In how many pieces the line brings one is not the client's doing.
MAX_FRAMES = 4096
# Of frames, or pieces of such, one socket has so many read in a turn of the loop, which takes a millisecond; then it
# rests, so that new sessions, which take many turns, wait for no flood. 8 MiB in frames of 8 KiB take 1.6 s.
FRAMES_A_TURN = 64
REST_SECONDS = 0.1
MAX_KEPT = 16  # responses that are not stored, to go on from; of MAX_EARLIER_BYTES in all

_PING = b"\x89\x00"  # a frame, between any two others: any client answers it by itself
_SAID = frozenset(
    {b"authorization", b"host", b"origin", b"sec-fetch-site", b"traceparent", b"tracestate"}
)  # again, of each message
_TOLD = ("retry-after", "x-should-retry")  # of an answer's headers, in its error
_OLD = HttpError(
    400,
    f"A connection lasts {CONNECTION_SECONDS / 60:.0f} minutes: make another one, and go on there.",
    code="websocket_connection_limit_reached",
)
_LATE = HttpError(408, "The message did not come in time.", code="request_timeout")
_TORN = HttpError(400, f"More than {MAX_FRAMES} frames without a whole message.", code="too_many_frames")


class Envelope(msgspec.Struct, frozen=True):
    """What is looked at of a small message before it is taken."""

    type: str = ""
    response_id: str | None = None
    stream_id: str | None = None


class ResponseSocket:
    """A connection. Client and server take turns in no way: both speak as they like.

    kept: what was answered here and is not stored, by the response's id, to go on from.
    """

    def __init__(self, http: HttpRequest) -> None:
        self.requests: list[SocketRequest] = []
        self.kept: dict[str, ResponseView] = {}
        self.draining = False
        self._headers = handshake(http)
        self._scope: Scope = http.scope
        self._app: ASGIApp = http.scope["app"]
        self._protocol = Connection(ConnectionType.SERVER)
        self._ending: CloseConnection | None = None
        self._lanes: dict[str | None, asyncio.Lock] = {}
        self._coming: SocketRequest | None = None  # that has not come whole
        self._piece = bytearray()  # of a message that may be small
        self._frames = 0  # since the last whole message
        self._events = 0
        self._leaving: asyncio.Task[None] | None = None  # waits beside the last answers
        self._pace: tuple[float, int] | None = None  # since when a message comes, and how much of it has

    async def run(self, connections: sse.Connections, receive: Receive, send: Send) -> None:
        self._send = send
        start = {"type": "http.response.start", "status": 101, "headers": self._headers, "filler": _PING}
        await send(start)
        await self._rest()
        async with asyncio.TaskGroup() as self._tasks:
            async with connections.watch(_never) as watch:
                try:
                    async with asyncio.timeout(CONNECTION_SECONDS) as self.limit:
                        await self._read(receive)
                except TimeoutError:
                    self._end(CloseReason.NORMAL_CLOSURE)
                    await self.tell(error_event(_OLD.status, _OLD.body))
                    self._leaving = self._tasks.create_task(self._until_gone(receive))
                    self._answered_all()
                else:  # the client has closed, is gone, or may not go on
                    self._leave()
                    await self._close()
            if watch.closing:
                self.draining = True
                self._end(CloseReason.GOING_AWAY)
            if self._coming:  # nobody reads the rest of it
                self._coming.leave()
        await self._close()
        await sse.end(send)

    # ---- what comes

    async def _read(self, receive: Receive) -> None:
        """Until the client has closed, is gone, or may not go on."""
        while not self._ended():
            try:
                async with asyncio.timeout_at(self._due()):
                    message = await receive()
            except TimeoutError:
                await self._refuse(_LATE)
                return
            if message["type"] == "http.disconnect":
                return
            self._protocol.receive_data(message["body"])
            for event in self._protocol.events():
                self._frames += not isinstance(event, TextMessage) or event.frame_finished  # it may come in pieces
                await (self._refuse(_TORN) if self._frames > MAX_FRAMES else self._on(event))
                if self._ended():
                    return
                self._events += 1
                if self._events % FRAMES_A_TURN == 0:  # tens of thousands may have come at once
                    await asyncio.sleep(REST_SECONDS)
            due = self._due()
            if due is not None and asyncio.get_running_loop().time() >= due:  # frames without content come in time
                await self._refuse(_LATE)

    async def _refuse(self, error: HttpError) -> None:
        """What comes is no message that is taken, and nothing else is."""
        await self.tell(error_event(error.status, error.body))
        self._end(CloseReason.POLICY_VIOLATION)

    async def _until_gone(self, receive: Receive) -> None:
        """Nothing more is taken in, but that the client leaves."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        for request in self.requests:
            request.leave()

    async def _on(self, event: Event) -> None:
        match event:
            case TextMessage():
                await self._take(event.data.encode(), whole=event.message_finished)
            case BytesMessage():
                self._end(CloseReason.UNSUPPORTED_DATA)
            case Ping():
                await self._frame(event.response())
            case CloseConnection():
                self._ending = event.response()

    def _due(self) -> float | None:
        """When a message that has begun is late (loop time), by the pace of a body."""
        if self._pace is None:
            return None
        since, size = self._pace
        return since + limits.BODY_GRACE_SECONDS + size / limits.BODY_BYTES_A_SECOND

    async def _take(self, data: bytes, *, whole: bool) -> None:
        """A piece of a message; whole: the last one."""
        loop = asyncio.get_running_loop()
        since, size = self._pace or (loop.time(), 0)
        self._piece += data
        if whole or len(self._piece) > SMALL_BYTES:  # not each byte by itself
            begun = loop.time()
            await self._feed(whole)
            since += loop.time() - begun  # it is the route that was slow
        self._pace = None if whole else (since, size + len(data))
        self._frames = 0 if whole else self._frames

    async def _feed(self, whole: bool) -> None:
        data, self._piece = bytes(self._piece), bytearray()
        request = self._coming
        if request is None:
            if whole and len(data) <= SMALL_BYTES and (cancelled := self._to_cancel(data)):
                request = self._begin(f"/v1/responses/{cancelled}/cancel", 0, tells=False)
                data = b""
            else:
                request = self._begin("/v1/responses", len(data) if whole else None)
        self._coming = None if whole else request
        await request.feed(data, whole)
        if whole:
            await request.placed.wait()
        elif request.over:  # refused for what had come
            too_large = request.status == 413
            self._end(CloseReason.MESSAGE_TOO_BIG if too_large else CloseReason.TRY_AGAIN_LATER)

    def _to_cancel(self, data: bytes) -> str:
        """The id of the response that a message says to cancel; empty: it is no such message."""
        try:
            envelope = msgspec.json.decode(data, type=Envelope)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return ""  # which its decoding says better
        if envelope.type != "response.cancel":
            return ""
        for request in self.requests:
            named = envelope.response_id in (None, request.response_id)
            if request.response_id and named and (envelope.response_id or request.lane == envelope.stream_id):
                return request.response_id
        return "none"

    def _begin(self, path: str, size: int | None, *, tells: bool = True) -> "SocketRequest":
        headers = [(name, value) for name, value in self._scope["headers"] if name in _SAID]
        if size is not None:
            headers.append((b"content-length", b"%d" % size))
        request = SocketRequest(self, tells)
        scope = {**self._scope, "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
        scope |= {"headers": headers, "socket": request, "send": request.send}
        self.requests.append(request)
        self._tasks.create_task(self._answer(scope, request))
        return request

    async def _answer(self, scope: Scope, request: "SocketRequest") -> None:
        try:
            await self._rest()
            await self._app(scope, request.receive, request.send)
        finally:
            self.requests.remove(request)
            request.end()
            if all(other.lane != request.lane for other in self.requests):
                self._lanes.pop(request.lane, None)
        await self._rest()
        self._answered_all()

    # ---- for requests

    def lane(self, request: "SocketRequest") -> asyncio.Lock:
        """Held by the request that is answered in it. Raises HttpError 429."""
        lane = self._lanes.setdefault(request.lane, asyncio.Lock())
        waiting = sum(other.size for other in self.requests if other.waits) + request.size
        if len(self.requests) > MAX_MESSAGES or (lane.locked() and waiting > limits.AHEAD_BYTES):
            message = f"More than {MAX_MESSAGES} messages, or {limits.AHEAD_BYTES} bytes of such that wait, at once."
            raise HttpError(429, message, code="too_many_messages")
        return lane

    def keep(self, view: ResponseView) -> None:
        self.kept[view.id] = view
        while len(self.kept) > MAX_KEPT or sum(view.size for view in self.kept.values()) > MAX_EARLIER_BYTES:
            del self.kept[next(iter(self.kept))]

    def forget(self, previous: str | None) -> None:
        """What could not be gone on from, as OpenAI's guide has it: it may be asked for again where it is stored."""
        self.kept.pop(previous or "", None)

    async def tell(self, event: bytes) -> None:
        await self._frame(TextMessage(event.decode()))

    # ---- what goes

    async def _frame(self, event: Event) -> None:
        if self._protocol.state is ConnectionState.OPEN:
            await sse.write(self._send, self._protocol.send(event))

    def _answered_all(self) -> None:
        """After the last answer nobody has to be waited for."""
        if self._leaving and not self.requests:
            self._leaving.cancel()

    async def _rest(self) -> None:
        await self._send({"type": "http.response.rest", "idle": not self.requests})

    def _ended(self) -> bool:
        return self._ending is not None

    def _end(self, code: CloseReason) -> None:
        self._ending = self._ending or CloseConnection(code)

    async def _close(self) -> None:
        """Say so, if it was not said. A client that does not read is not waited for."""
        if self._ending and self._protocol.state in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(sse.END_SECONDS):
                    await sse.write(self._send, self._protocol.send(self._ending))


class SocketRequest:
    """A message, until it is answered: as `receive` and `send` the application's. Its scope has it as `socket`.

    tells: what it is answered with goes to the client, and not its errors alone.
    """

    def __init__(self, socket: ResponseSocket, tells: bool) -> None:
        self.lane: str | None = None
        self.response_id = ""  # once there is one
        self._previous: str | None = None  # what it goes on from
        self.size = 0  # bytes that have come
        self.status = 0
        self.waits = self.over = False
        self.placed = asyncio.Event()  # it has its place in its lane, or is over
        self._socket, self._tells = socket, tells
        self._body = bytearray()
        self._whole = self._left = False
        self._news, self._taken = asyncio.Event(), asyncio.Event()
        self._held: asyncio.Lock | None = None
        self._headers: Sequence[tuple[bytes, bytes]] = ()
        self._error = b""

    # ---- for the socket

    async def feed(self, data: bytes, whole: bool) -> None:
        """Return when it is taken, or nobody takes it any more."""
        self._body += data
        self.size += len(data)
        self._whole = whole
        self._news.set()
        if not self.over:
            self._taken.clear()
            await self._taken.wait()

    def leave(self) -> None:
        """The client is gone."""
        self._left = True
        self._news.set()

    def end(self) -> None:
        self.over = True
        self._taken.set()
        self.placed.set()
        if self._held:
            self._held.release()

    # ---- for the routes

    @property
    def kept(self) -> dict[str, ResponseView]:
        return self._socket.kept

    async def enter(self, lane: str | None, previous: str | None) -> None:
        """Wait for those before it. previous: what it goes on from. Raises HttpError 429, 503, ClientDisconnect."""
        self.lane, self._previous = lane, previous
        lock = self._socket.lane(self)
        self.waits = True
        self.placed.set()
        await lock.acquire()
        self._held, self.waits = lock, False
        if self._left:
            raise ClientDisconnect
        if self._socket.draining:
            raise HttpError(503, "The server is shutting down.", code="shutting_down")

    def response(self, record: Record, send: Send) -> "SocketResponse":
        self.response_id = f"{ID_PREFIX}{record.session_id}"
        return SocketResponse(record, self._socket, self.lane, send)

    # ---- ASGI

    async def receive(self) -> Message:
        await self._news.wait()
        self._news.clear()
        if self._left:
            self._news.set()
            return {"type": "http.disconnect"}
        body, self._body = bytes(self._body), bytearray()
        self._taken.set()
        return {"type": "http.request", "body": body, "more_body": not self._whole}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self._headers = message["status"], message["headers"]
            return
        body = message.get("body", b"")
        if self.status < 400:
            if body and self._tells:
                await self._socket.tell(body)
            return
        self._error += body
        if not message.get("more_body", False):
            self._socket.forget(self._previous)
            await self._socket.tell(error_event(self.status, self._error, self.lane, self._headers))


class SocketResponse:
    """Sends a response's events, each by itself."""

    streamed = True

    def __init__(self, record: Record, socket: ResponseSocket, lane: str | None, send: Send) -> None:
        self._session_id, self._view = record.session_id, ResponseView(record)
        self._socket, self._lane, self._send = socket, lane, send

    async def begin(self) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": []})
        await self._tell(self._view.begin())

    async def take(self, entries: list[Entry]) -> Last | None:
        for entry in entries:
            events = self._view.take(entry)
            if self._view.ended:
                return lambda: self._end(events)
            await self._tell(events)
        return None

    async def _end(self, events: list[Object]) -> None:
        if self._view.failed:
            self._socket.forget(self._view.echo.previous_response_id)
        if not self._view.echo.store:
            self._socket.keep(self._view)
        await self._tell(events)
        await sse.end(self._send)

    async def silence(self) -> None:
        """The connection does not fall silent."""

    async def lost(self) -> None:
        await self._fail(HttpError(502, FAILURES["data_loss"], code="data_loss"))

    async def interrupted(self) -> None:
        await self._fail(shutting_down(self._session_id))

    async def _tell(self, events: list[Object]) -> None:
        lane = {} if self._lane is None else {"stream_id": self._lane}
        for event in events:
            await sse.write(self._send, msgspec.json.encode(event | lane))

    async def _fail(self, error: HttpError) -> None:
        self._socket.forget(self._view.echo.previous_response_id)
        await sse.end(self._send, error_event(error.status, error.body, self._lane))


def error_event(
    status: int, body: bytes, lane: str | None = None, headers: Sequence[tuple[bytes, bytes]] = ()
) -> bytes:
    """An answer that is an error, as an event. body: as `errors` makes it."""
    said = {name.decode().lower(): value.decode("latin-1") for name, value in headers}
    error: dict[str, Any] = msgspec.json.decode(body)["error"]
    if told := {name: said[name] for name in _TOLD if name in said}:
        error["headers"] = told
    event: dict[str, Any] = {"type": "error", "status": status, "error": error}
    return msgspec.json.encode(event if lane is None else event | {"stream_id": lane})


async def _never() -> Message:
    """The end of the connection is read, where all else that comes is."""
    never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    return await never

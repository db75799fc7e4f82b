"""One request and its answer, as ASGI has them."""

import asyncio
import http
import re
from typing import Protocol

import structlog
from starlette.types import ASGIApp, Message, Scope

from dispatcher.gateway import limits
from dispatcher.gateway.errors import internal_error
from shared.flags import Flag

logger = structlog.get_logger()

STATUS_LINES = {int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n".encode() for status in http.HTTPStatus}
# No browser takes an answer for something else than it says, nor tells others the ids that stand in addresses here.
ON_ALL_ANSWERS = b"x-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\n"
_UNFIT = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # in a header's value: could begin another header
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Wire(Protocol):
    """The connection, as its exchange needs it."""

    def write(self, data: bytes) -> None: ...

    @property
    def full(self) -> bool:
        """The client has to read before more may be written."""

    async def drain(self) -> None:
        """Wait until it has."""

    def read_on(self) -> None:
        """More of the request may come."""

    def date(self) -> bytes: ...

    def switched(self) -> None:
        """Whatever comes from now on is fed to the exchange."""

    def rests(self, *, idle: bool) -> None:
        """idle: it may be closed where another connection needs room."""

    def answered(self, *, last: bool) -> None:
        """The answer is written. last: nothing more is answered on this connection."""

    def abort(self) -> None:
        """Cut it, so that the client sees that its answer is not whole."""


class Exchange:
    """`disconnected`: the client is gone, and what is sent goes nowhere.

    An answer's `http.response.start` may hold, beyond ASGI, `filler`: bytes that mean nothing wherever they stand
    between two writes of its body. They are sent whenever nothing else was for KEEP_ALIVE_SECONDS, whatever the
    application waits for, and where the client has closed its side, to see whether it is there. And `scope["send"]` is
    the server's own `send`, without what the application puts around it; `scope["send_now"]` is of these `send_now`.

    With status 101 the connection is the application's until it sends the last of its body: what comes is received as
    more of the request's, what it sends goes out as it is. `http.response.rest` with `idle` says whether there is
    nothing to do on it.
    """

    def __init__(self, wire: Wire, scope: Scope, *, keep_alive: bool, expects_continue: bool) -> None:
        self.scope = scope
        self.started = self.complete = self.disconnected = self.switched = False
        self.body = bytearray()  # of the request, not read yet
        self.whole = False  # all of the request's body has come
        self._wire = wire
        self._keep_alive, self._expects_continue = keep_alive, expects_continue
        self._modern = scope["http_version"] == "1.1"
        self._news = Flag()
        self._bodiless = self._chunked = False
        self._unsent: int | None = None  # of the body, as `content-length` says
        self._filler = b""
        self._wrote = 0.0  # loop time
        self._loop = asyncio.get_running_loop()
        self._silence: asyncio.TimerHandle | None = None

    def last(self) -> None:
        """No further request is taken on this connection."""
        self._keep_alive = False

    def feed(self, data: bytes) -> None:
        """More of the request's body."""
        self.body += data
        self._news.set()

    def end_of_body(self) -> None:
        self.whole = True
        self._news.set()

    def disconnect(self) -> None:
        self.disconnected = not self.complete
        self._ended()

    async def run(self, app: ASGIApp) -> None:
        """Answer. Whatever the application does, the client gets an answer's end, or sees that it has none."""
        self.scope["send"], self.scope["send_now"] = self.send, self.send_now
        try:
            await app(self.scope, self.receive, self.send)
        except Exception:
            logger.exception("http_request_failed", method=self.scope["method"])
        finally:
            del self.scope["send"], self.scope["send_now"]  # else a circle, for the garbage collector
            if not (self.complete or self.disconnected):
                if not self.started:
                    self.last()
                    await internal_error().response()(self.scope, self.receive, self.send)
                else:
                    self._ended()
                    self._wire.abort()

    async def receive(self) -> Message:
        if self._expects_continue:
            self._expects_continue = False
            if not (self.started or self.whole or self.disconnected):
                self._wire.write(_CONTINUE)
        if not (self.disconnected or self.complete):
            self._wire.read_on()
            await self._news.wait()
            self._news.clear()
        if self.disconnected or self.complete:
            return {"type": "http.disconnect"}
        body, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": not self.whole}

    async def send(self, message: Message) -> None:
        if self._wire.full:
            await self._wire.drain()
        if self.disconnected:
            return
        if self.complete:
            raise RuntimeError("the answer is complete")
        if message["type"] == "http.response.body" and self.started:
            self._write_body(message.get("body", b""), more=message.get("more_body", False))
        elif message["type"] == "http.response.start" and not self.started:
            self._write_head(message)
        elif message["type"] == "http.response.rest" and self.switched:
            self._wire.rests(idle=message["idle"])
        else:
            raise RuntimeError(f"{message['type']} is not expected now")

    def send_now(self, body: bytes) -> bool:
        """More of the body, without a task. False: it has to be sent as any, for the client has to read first, or is
        gone.
        """
        if self._wire.full or self.disconnected or self.complete or not self.started:
            return False
        self._write_body(body, more=True)
        return True

    def _write_head(self, message: Message) -> None:
        status: int = message["status"]
        self._bodiless = self.scope["method"] == "HEAD" or status in (204, 304)
        self.switched = status == http.HTTPStatus.SWITCHING_PROTOCOLS
        lines = [STATUS_LINES[status], b"date: ", self._wire.date(), b"\r\n", ON_ALL_ANSWERS]
        for name, value in message["headers"]:
            if _UNFIT.search(value):
                raise RuntimeError(f"the header {name!r} has a value that is none")
            match name.lower():
                case b"content-length":
                    self._unsent = int(value)
                case b"connection" if value.lower() == b"close":
                    self.last()
                    continue
            lines += [name, b": ", value, b"\r\n"]
        if self.switched:
            self.last()
        elif self._unsent is None and not self._bodiless:
            if self._modern:
                self._chunked = True
                lines.append(b"transfer-encoding: chunked\r\n")
            else:  # an HTTP/1.0 client knows no chunks: the answer ends with the connection
                self.last()
        if not self.whole:  # the rest of the request is not waited for
            self.last()
        if not (self._keep_alive or self.switched):
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        self.started, self._expects_continue = True, False
        self._filler = message.get("filler", b"")
        self._wire.write(b"".join(lines))
        self._wrote = self._loop.time()
        if self.switched:
            self._wire.switched()
        if self._filler and not self._bodiless:
            self._silence = self._loop.call_later(limits.KEEP_ALIVE_SECONDS, self._fill)

    def _write_body(self, body: bytes, *, more: bool) -> None:
        if self._bodiless:
            body = b""
        elif self._chunked:
            if body:
                body = b"%x\r\n%b\r\n" % (len(body), body)
            if not more:
                body += b"0\r\n\r\n"
        elif self._unsent is not None:
            self._unsent -= len(body)
            if self._unsent < 0 or (self._unsent and not more):
                raise RuntimeError("the body's length is not what its header says")
        if body:
            self._wire.write(body)
            self._wrote = self._loop.time()
        if not more:
            self.complete = True
            self._ended()
            self._wire.answered(last=not self._keep_alive)

    def _fill(self) -> None:
        """Nothing may have been sent for a while. Without waiting: what a slow client has not read is no silence."""
        due = self._wrote + limits.KEEP_ALIVE_SECONDS - self._loop.time()
        if due <= 0:
            self._write_body(self._filler, more=True)
            due = limits.KEEP_ALIVE_SECONDS
        self._silence = self._loop.call_later(due, self._fill)

    def probe(self) -> None:
        """Send what any client passes over, if there is such a thing now."""
        if self.started and self._filler:
            self._write_body(self._filler, more=True)
        elif not self.started and self._modern:
            self._wire.write(_CONTINUE)  # RFC 9110, 15.2: a client must expect it before any answer

    def _ended(self) -> None:
        self._news.set()
        if self._silence:
            self._silence.cancel()
            self._silence = None

"""The metered provider: an OpenAI-compatible server on loopback that makes tokens at a steady rate and counts them.

It makes them whether they are read or not, as a model that is paid for does, until the answer is complete or the
client has closed the connection. Connections may be pooled: one serves requests one after another.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import httptools

from commander.check import answers

TOKENS = 6000  # of an answer: two minutes at the usual rate, so that the stop comes first
MAX_BODY_BYTES = 16 * 1024 * 1024  # of a request; conversations with images are large

_ANSWERED = ("/chat/completions", "/responses")
_HEAD = b"HTTP/1.1 %b\r\nContent-Type: %b\r\n%b\r\n"


class ProviderExchange:
    """One request for an answer. Times are nanoseconds of the machine's monotonic clock.

    made      when each token was made
    complete  the whole answer was made
    closed    when the client had closed the connection in the middle of it; None: it did not
    """

    def __init__(self, path: str, *, streamed: bool) -> None:
        self.path = path
        self.streamed = streamed
        self.made: list[int] = []
        self.complete = False
        self.closed: int | None = None

    @property
    def running(self) -> bool:
        """Tokens are made for it."""
        return not self.complete and self.closed is None

    def made_after(self, moment: int) -> int:
        return sum(made > moment for made in self.made)


class Provider:
    """Use `serving`. `rate`: tokens a second."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.exchanges: list[ProviderExchange] = []
        self.unknown_paths: list[str] = []
        self.base_url = ""
        self._changed = asyncio.Event()
        self._connections: set[_Connection] = set()
        self._closed = False

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Provider"]:
        """Listens until the block ends, on a port that the system chooses."""
        server = await asyncio.get_running_loop().create_server(lambda: _Connection(self), "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield self
        finally:
            server.close()
            self._closed = True
            for connection in list(self._connections):
                connection.cut()

    async def quiet(self, seconds: float) -> bool:
        """Wait until no tokens are made any more. False: after so long they still are."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while any(exchange.running for exchange in self.exchanges):
                    self._changed.clear()
                    await self._changed.wait()
                return True
        return False

    def begun(self, connection: "_Connection") -> None:
        self._connections.add(connection)
        if self._closed:  # it was accepted while the block ended
            connection.cut()

    def over(self, connection: "_Connection") -> None:
        self._connections.discard(connection)

    def changed(self) -> None:
        """An exchange has ended."""
        self._changed.set()


class _Connection(asyncio.Protocol):
    """A client's connection."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._parser = httptools.HttpRequestParser(self)
        self._path = ""
        self._body = bytearray()
        self._waiting: list[tuple[str, str, bytes]] = []  # requests that were sent before the last was answered
        self._exchange: ProviderExchange | None = None
        self._answering: asyncio.Task[None] | None = None

    def cut(self) -> None:
        self._transport.abort()

    # ---- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so
        self._provider.begun(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def eof_received(self) -> None:
        self._closed()
        self._transport.abort()  # nothing is left to say

    def connection_lost(self, error: Exception | None) -> None:
        self._closed()
        if self._answering:
            self._answering.cancel()
        self._provider.over(self)

    def _closed(self) -> None:
        if self._exchange and self._exchange.running:
            self._exchange.closed = time.monotonic_ns()
            self._provider.changed()

    # ---- the parser's side

    def on_url(self, url: bytes) -> None:
        self._path = httptools.parse_url(url).path.decode(errors="replace")
        self._body.clear()

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > MAX_BODY_BYTES:
            self._transport.abort()

    def on_message_complete(self) -> None:
        self._waiting.append((self._parser.get_method().decode(), self._path, bytes(self._body)))
        if self._answering is None:
            self._answering = asyncio.get_running_loop().create_task(self._answer_all())

    # ---- answering

    async def _answer_all(self) -> None:
        while self._waiting:
            await self._answer(*self._waiting.pop(0))
        self._answering = None

    async def _answer(self, method: str, path: str, raw: bytes) -> None:
        route = path.removeprefix("/v1")
        if method == "GET" and route == "/models":
            self._send(b"200 OK", answers.models())
            return
        if method != "POST" or route not in _ANSWERED:
            self._provider.unknown_paths.append(path)
            self._send(b"404 Not Found", answers.error(f"the metered provider has no {method} {path}"))
            return
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            self._send(b"400 Bad Request", answers.error("the body is no JSON object"))
            return
        await self._make(route, body)

    async def _make(self, route: str, body: dict[str, Any]) -> None:
        streamed = body.get("stream") is True
        exchange = self._exchange = ProviderExchange(route, streamed=streamed)
        self._provider.exchanges.append(exchange)
        answer = _form(route, body)
        if streamed:
            self._transport.write(_HEAD % (b"200 OK", b"text/event-stream", b"Transfer-Encoding: chunked\r\n"))
            self._chunk(answer.begin())
        if short := answers.asked(body):
            exchange.made.append(time.monotonic_ns())
            said = answer.call(short.name, short.arguments) if short.name else answer.token(short.text)
            if streamed:
                self._chunk(said)
        else:
            await self._tokens(exchange, answer)
        exchange.complete = True
        self._provider.changed()
        tokens = len(exchange.made)
        if streamed:
            self._chunk(answer.end(tokens))
            self._transport.write(b"0\r\n\r\n")
        else:
            text = short.text if short else "".join(map(answers.word, range(tokens)))
            self._send(b"200 OK", answer.whole(text, tokens))

    async def _tokens(self, exchange: ProviderExchange, answer: answers.AnswerForm) -> None:
        """At a steady rate: one that is late does not delay the next."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for index in range(TOKENS):
            await asyncio.sleep(begin + index / self._provider.rate - loop.time())
            exchange.made.append(time.monotonic_ns())
            if exchange.streamed:
                self._chunk(answer.token(answers.word(index)))

    def _chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))  # never waits for the reader: see above

    def _send(self, status: bytes, body: bytes) -> None:
        self._transport.write(_HEAD % (status, b"application/json", b"Content-Length: %d\r\n" % len(body)) + body)


def _form(route: str, body: dict[str, Any]) -> answers.AnswerForm:
    if route == "/responses":
        return answers.Response()
    options = body.get("stream_options")
    return answers.ChatCompletion(isinstance(options, dict) and options.get("include_usage") is True)

"""The users' side of the load: sessions over HTTP whose every character is checked as it comes."""

import asyncio
import re
import time
from typing import Self, cast

import httptools

from tests.bench.agents import CLOCK_MODULO, FLOOD_WIDTH, PACED_WIDTH

SECONDS = 60.0  # for any answer; far more than a healthy system takes
_TEXT = re.compile(rb'"text": ?"([^"]*)"')
_END = re.compile(rb"^event: ?(finished|stopped|failed)$", re.MULTILINE)


class TextWrong(Exception):
    """What came is not what was said."""


class Exchange(asyncio.Protocol):
    """One HTTP/1.1 request and its answer on a connection of its own."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.status: asyncio.Future[int] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()
        self._parser = httptools.HttpResponseParser(self)

    @classmethod
    async def connected(cls, address: str) -> Self:
        host, _, port = address.rpartition(":")
        self = cls()
        await asyncio.get_running_loop().create_connection(lambda: self, host, int(port))
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so

    def request(self, method: str, path: str, body: bytes = b"") -> None:
        head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        self._transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_headers_complete(self) -> None:
        self.status.set_result(self._parser.get_status_code())

    def on_body(self, body: bytes) -> None:
        raise NotImplementedError

    def on_message_complete(self) -> None:
        if not self.over.done():
            self.over.set_result(None)
        self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        for waiting in (self.status, self.over):
            if not waiting.done():
                waiting.set_exception(error or ConnectionError("closed before the answer was complete"))
                waiting.exception()  # some are never asked for

    def close(self) -> None:
        self._transport.abort()


class Answer(Exchange):
    """An answer as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.body = b""

    def on_body(self, body: bytes) -> None:
        self.body += body


async def ask(address: str, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """Status and body of a request."""
    async with asyncio.timeout(SECONDS):
        answer = await Answer.connected(address)
        answer.request(method, path, body)
        await answer.over
        return answer.status.result(), answer.body


class Reader(Exchange):
    """One session's event stream. `end` is its last event's name; `first` is done at the first text."""

    def __init__(self) -> None:
        super().__init__()
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.end = ""
        self.ended_unix = 0  # when that event was read: nanoseconds
        self.last_at = 0.0
        self.tokens = 0
        self.complete = False
        self._frames = b""

    def on_body(self, body: bytes) -> None:
        self._frames += body
        cut = self._frames.rfind(b"\n\n") + 2
        if cut < 2:
            return
        frames, self._frames = self._frames[:cut], self._frames[cut:]
        text = b"".join(_TEXT.findall(frames))
        if text:
            if self.complete:
                raise TextWrong(f"after the last token: {text[:40]!r}")
            self.last_at = time.monotonic()
            self.read(text)
            if not self.first.done():
                self.first.set_result(None)
        if b"\nevent" in frames or frames.startswith(b"event"):
            ends = _END.findall(frames)
            if ends:
                self.end, self.ended_unix = ends[-1].decode(), time.time_ns()

    def read(self, text: bytes) -> None:
        """Check the text and count its tokens. Raises TextWrong."""
        raise NotImplementedError

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        if not self.first.done():
            self.first.set_exception(error or ConnectionError("closed before the first text"))
            self.first.exception()

    async def finished(self, seconds: float) -> None:
        """Wait for the stream's end. Raises TextWrong if any of the text is missing."""
        async with asyncio.timeout(seconds):
            await self.over
        if not self.complete or self.end != "finished":
            raise TextWrong(f"ended by {self.end or 'nothing'!r} after {self.tokens} tokens, without the last one")


class _Numbers:
    """The text of all floods, made as far as it is needed."""

    def __init__(self) -> None:
        self._text = b""

    def part(self, start: int, end: int) -> bytes:
        if end > len(self._text):
            have = len(self._text) // FLOOD_WIDTH
            more = max(end // FLOOD_WIDTH + 1, have + 100_000)
            self._text += b"".join(b"%07d " % number for number in range(have, more))
        return self._text[start:end]


_numbers = _Numbers()


class FloodReader(Reader):
    """Reads a flood (or an idle session, which says one token of it)."""

    def __init__(self) -> None:
        super().__init__()
        self._position = 0

    def read(self, text: bytes) -> None:
        end = self._position + len(text)
        if text.endswith(b"."):
            self.complete = True
            text = text[:-1] + b" "
        if text != _numbers.part(self._position, end):
            raise TextWrong(f"at character {self._position}: {text[:40]!r} …")
        self._position = end
        self.tokens = end // FLOOD_WIDTH


class PacedReader(Reader):
    """Reads a paced session; while `sampling`, keeps how late each token is (microseconds)."""

    sampling = False

    def __init__(self) -> None:
        super().__init__()
        self.latencies: list[int] = []
        self._rest = b""

    def read(self, text: bytes) -> None:
        now = time.monotonic_ns() // 1000
        text = self._rest + text
        whole = len(text) - len(text) % PACED_WIDTH
        self._rest = text[whole:]
        for start in range(0, whole, PACED_WIDTH):
            token = text[start : start + PACED_WIDTH]
            if int(token[:6]) != self.tokens or token[-1:] not in (b" ", b".") or self.complete:
                raise TextWrong(f"token {self.tokens}: {token!r}")
            self.tokens += 1
            self.complete = token.endswith(b".")
            if PacedReader.sampling:
                self.latencies.append((now - int(token[6:15])) % CLOCK_MODULO)

"""HTTP/1.1 as bytes on real sockets: what a connection answers, what it refuses, and when it ends."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp, Receive, Scope, Send

from dispatcher.gateway import limits, sse
from dispatcher.gateway.connection import Connection
from dispatcher.gateway.server import HttpServer, bind
from tests.dispatcher.gateway.fakes import eventually

HOST = b"Host: x\r\n"
GET = b"GET /some/path HTTP/1.1\r\n" + HOST + b"\r\n"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Says what was asked, in chunks unless the client knows none."""
    body = await HttpRequest(scope, receive).body()
    said = {name: scope[name] for name in ("method", "path", "http_version")}
    said["query"] = scope["query_string"].decode()
    said["body"] = body.decode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(said).encode(), "more_body": False})


class Held:
    """An application whose answers wait. `gone`: a client was seen to leave."""

    def __init__(self, *, stream: bool) -> None:
        self.stream = stream
        self.asked, self.go, self.gone = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await HttpRequest(scope, receive).body()
        if self.stream:
            await sse.start(send)
            await sse.write(send, b"data: 1\n\n")
        self.asked.set()
        left = asyncio.create_task(self._leaves(receive))
        await self.go.wait()
        left.cancel()
        if self.stream:
            await sse.end(send, b"data: 2\n\n")
        else:
            await echo(scope, _empty, send)

    async def _leaves(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone.set()


async def _empty() -> dict[str, object]:
    return {"type": "http.request", "body": b"", "more_body": False}


@asynccontextmanager
async def serving(app: ASGIApp, **bounds: Any) -> AsyncIterator[HttpServer]:
    server = HttpServer(app, bind("TEST", "127.0.0.1:0"), **bounds)
    await server.start()
    try:
        async with asyncio.timeout(20):
            yield server
    finally:
        await server.close()


@asynccontextmanager
async def connected(server: HttpServer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """The next answer on the connection: status, headers, body without its chunks' lengths."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    if "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    elif " 100 " in head[0]:
        body = b""
    elif headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    else:
        body = await reader.read()
    return int(head[0].split()[1]), headers, body


async def talk(server: HttpServer, data: bytes) -> bytes:
    """All that one connection answers to these bytes, to its end."""
    async with connected(server) as (reader, writer):
        writer.write(data)
        return await reader.read()


async def error(reader: asyncio.StreamReader) -> tuple[int, str]:
    """A refusal: its status and code. The connection ends with it."""
    status, headers, body = await answer(reader)
    assert headers["connection"] == "close"
    assert await reader.read() == b""
    told = json.loads(body)["error"]
    assert set(told) == {"message", "type", "param", "code"}
    return status, told["code"]


# ---- what is answered


async def test_requests_are_answered_in_order_on_one_connection() -> None:
    async with serving(echo) as server, connected(server) as (reader, writer):
        for n in range(3):
            writer.write(b"POST /a%%20b?n=%d HTTP/1.1\r\n%bContent-Length: 2\r\n\r\nab" % (n, HOST))
            status, headers, body = await answer(reader)
            assert (status, headers["transfer-encoding"]) == (200, "chunked")
            assert headers["date"].endswith("gmt")
            assert json.loads(body) == {
                "method": "POST", "path": "/a b", "http_version": "1.1", "query": f"n={n}", "body": "ab",
            }  # fmt: skip


CHUNKED = (
    b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2;x=y\r\n\r\n\r\n0\r\nTrailer: t\r\n\r\n"
)
REQUESTS = [
    GET,
    b"\r\n" * 8 + GET,
    b"POST /p?q HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /e HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    CHUNKED,
]
BODIES = ["", "", "hello", "", "abc\r\n"]


@hypothesis_settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_however_the_bytes_are_split_the_answers_are_the_same(data: st.DataObject) -> None:
    asked = [*data.draw(st.lists(st.integers(0, 3), max_size=3)), data.draw(st.integers(0, 4))]
    sent = b"".join(REQUESTS[n] for n in asked)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(sent) - 1), max_size=6)))
    async with serving(echo) as server, connected(server) as (reader, writer):
        for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
            if end - start:
                writer.write(sent[start:end])
                await asyncio.sleep(0)
        for n in asked:
            assert json.loads((await answer(reader))[2])["body"] == BODIES[n]


async def test_what_comes_in_one_piece_behind_a_body_in_chunks_is_left_to_another_connection() -> None:
    async with serving(echo) as server, connected(server) as (reader, writer):
        writer.write(CHUNKED + GET)
        status, headers, body = await answer(reader)
        assert (status, headers["connection"], json.loads(body)["body"]) == (200, "close", BODIES[-1])
        assert await reader.read() == b""


async def test_pipelined_requests_take_their_turn_and_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REST_SECONDS", 0.0)
    count = 1000
    async with serving(echo) as server, connected(server) as (reader, writer):
        sending = asyncio.create_task(_send_all(writer, GET * count))
        for _ in range(count):
            assert (await answer(reader))[0] == 200
        await sending


async def test_a_connection_rests_after_eight_requests_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    resting = asyncio.Queue[Connection]()
    loop = asyncio.get_running_loop()
    later = loop.call_later

    def call_later(delay: float, callback: Callable[..., object], *given: Any) -> asyncio.TimerHandle:
        if delay == limits.REST_SECONDS:
            resting.put_nowait(callback.__self__)  # type: ignore[attr-defined]
            delay = 3600.0
        return later(delay, callback, *given)

    monkeypatch.setattr(loop, "call_later", call_later)
    async with serving(echo) as server, connected(server) as (reader, writer):
        for _ in range(3 * limits.AHEAD_REQUESTS):  # each waits for its answer
            writer.write(GET)
            assert (await answer(reader))[0] == 200
        assert resting.empty()
        writer.write(GET * (2 * limits.AHEAD_REQUESTS + 1))
        writer.write_eof()  # it reads on
        for _ in range(2):
            for _ in range(limits.AHEAD_REQUESTS):
                assert (await answer(reader))[0] == 200
            connection = await resting.get()
            await eventually(lambda: connection._half_closed)  # noqa: B023
            connection._go_on()
        assert (await answer(reader))[0] == 200
        assert await reader.read() == b""
    assert resting.empty()


class Line(asyncio.Transport):
    """Takes what is written, and says whether it is read."""

    def __init__(self) -> None:
        super().__init__({"sockname": ("127.0.0.1", 80)})
        self.written = b""
        self._reads = True

    def is_reading(self) -> bool:
        return self._reads

    def pause_reading(self) -> None:
        self._reads = False

    def resume_reading(self) -> None:
        self._reads = True

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data


async def test_nothing_more_is_read_while_eight_requests_wait_their_turn() -> None:
    app, line = Held(stream=False), Line()
    async with serving(app) as server:
        connection = Connection(server)
        connection.connection_made(line)
        connection.data_received(GET)
        await app.asked.wait()
        for _ in range(limits.AHEAD_REQUESTS):
            assert line.is_reading()
            connection.data_received(GET)
        assert not line.is_reading()
        app.go.set()
        while line.written.count(b"HTTP/1.1 200 OK") < 1 + limits.AHEAD_REQUESTS:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert line.is_reading()
        connection.connection_lost(None)


async def _send_all(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def test_a_body_that_is_waited_for_with_100_continue() -> None:
    async with serving(echo) as server, connected(server) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ab")
        assert json.loads((await answer(reader))[2])["body"] == "ab"


@pytest.mark.parametrize("body", [b"", b"hello"])
async def test_an_offer_to_upgrade_is_passed_over_and_the_body_read(body: bytes) -> None:
    """Java's HttpClient offers h2c with its first request on each connection."""
    head = (
        b"POST / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: %d\r\nHost: x\r\n"
        b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\n\r\n" % len(body)
    )
    async with serving(echo) as server, connected(server) as (reader, writer):
        for _ in range(2):
            writer.write(head + body)
            status, _, answered = await answer(reader)
            assert (status, json.loads(answered)["body"]) == (200, body.decode())


async def test_http_1_0_gets_no_chunks_and_the_connections_end() -> None:
    async with serving(echo) as server:
        received = await talk(server, b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()
    assert json.loads(body)["http_version"] == "1.0"


async def test_head_has_headers_and_no_body() -> None:
    async with serving(echo) as server:
        received = await talk(server, b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.endswith(b"\r\n\r\n")
    assert received.count(b"\r\n\r\n") == 1


async def test_an_answer_before_the_bodys_end_reaches_a_client_that_sends_on() -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"no"})

    async with serving(refuse) as server, connected(server) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n")
        for _ in range(9):
            writer.write(b"x" * 1_000_000)
            await writer.drain()
        status, headers, body = await answer(reader)
        assert (status, headers["connection"], body) == (413, "close", b"no")


# ---- what is refused


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"\r\n" * 9 + GET,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/3.7\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no Host, and then two
        b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
        b"GET / HTTP/1.0\r\n" + HOST + HOST + b"\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c: d\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_no_valid_request(sent: bytes) -> None:
    async with serving(echo) as server, connected(server) as (reader, writer):
        writer.write(sent)
        assert await error(reader) == (400, "invalid_http")


@pytest.mark.parametrize("whole", [True, False])
async def test_a_head_of_32_kib_is_taken_and_one_byte_more_is_not(whole: bool) -> None:
    room = limits.HEAD_BYTES - len(b"GET / HTTP/1.1\r\n" + HOST + b"A: \r\n\r\n")
    refused: list[str] = []
    async with serving(echo, refused=refused.append) as server:
        async with connected(server) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"a" * room + b"\r\n\r\n")
            assert (await answer(reader))[0] == 200
        async with connected(server) as (reader, writer):
            writer.write(
                b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"a" * (room + 1) + (b"\r\n\r\n" if whole else b"aaaa")
            )
            assert await error(reader) == (431, "headers_too_large")
        async with connected(server) as (reader, writer):
            writer.write(b"GET /" + b"a" * limits.HEAD_BYTES + (b" HTTP/1.1\r\n\r\n" if whole else b""))
            assert await error(reader) == (414, "url_too_long")
    assert refused == ["headers_too_large", "url_too_long"]


async def test_the_bound_counts_for_each_request_anew() -> None:
    head = b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"a" * 20_000 + b"\r\n\r\n"
    async with serving(echo) as server, connected(server) as (reader, writer):
        writer.write(head * 5)
        for _ in range(5):
            assert (await answer(reader))[0] == 200


async def test_an_endless_head_is_refused_while_it_comes() -> None:
    async with serving(echo) as server, connected(server) as (reader, writer):
        sending = asyncio.create_task(_send_all(writer, b"GET / HTTP/1.1\r\nA: " + b"a" * 40_000_000))
        assert (await answer(reader))[0] == 431
        sending.cancel()


# ---- time


@pytest.mark.parametrize(
    ("sent", "told"), [(b"GET / HT", (408, "request_timeout")), (GET + b"GET / HT", (408, "request_timeout"))]
)
async def test_a_head_that_does_not_come_whole(sent: bytes, told: tuple[int, str]) -> None:
    async with serving(echo, head_seconds=0.05) as server, connected(server) as (reader, writer):
        writer.write(sent)
        if sent.startswith(GET):
            assert (await answer(reader))[0] == 200
        assert await error(reader) == told


async def test_a_connection_on_which_nothing_comes_is_closed() -> None:
    async with serving(echo, head_seconds=0.05) as server, connected(server) as (reader, _):
        assert await reader.read() == b""


async def test_a_connection_without_requests_is_kept_for_a_while() -> None:
    async with serving(echo, idle_seconds=0.05) as server, connected(server) as (reader, writer):
        writer.write(GET)
        assert (await answer(reader))[0] == 200
        assert await reader.read() == b""


@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
async def test_a_body_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch, framing: bytes) -> None:
    monkeypatch.setattr(limits, "BODY_GRACE_SECONDS", 0.05)
    ended: asyncio.Queue[type[Exception]] = asyncio.Queue()

    async def reads(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await HttpRequest(scope, receive).body()
        except ClientDisconnect as error:
            ended.put_nowait(type(error))

    async with serving(reads) as server, connected(server) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n1")
        assert await error(reader) == (408, "request_timeout")
        assert await ended.get() is ClientDisconnect


async def test_a_body_that_keeps_its_pace_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_GRACE_SECONDS", 0.01)
    monkeypatch.setattr(limits, "BODY_BYTES_A_SECOND", 10)
    judged = asyncio.Semaphore(0)
    judge = Connection._body_is_late

    def judging(connection: Connection) -> None:
        judge(connection)
        judged.release()

    monkeypatch.setattr(Connection, "_body_is_late", judging)
    async with serving(echo) as server, connected(server) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200\r\n\r\n" + b"x" * 100)
        await judged.acquire()  # the grace is over; ten seconds' worth has come
        writer.write(b"x" * 100)
        assert (await answer(reader))[0] == 200


# ---- half-closed, and gone


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_client_that_closed_its_side_gets_its_answer(stream: bool, version: bytes) -> None:
    app = Held(stream=stream)
    async with serving(app) as server, connected(server) as (reader, writer):
        writer.write(b"GET / HTTP/" + version + b"\r\nHost: x\r\n\r\n")
        writer.write_eof()
        await app.asked.wait()
        received = b""
        look = sse.FILLER if stream else b"HTTP/1.1 100 Continue\r\n\r\n" if version == b"1.1" else b""
        for _ in range(3 if look else 0):  # whether the client is there
            received += await reader.readuntil(look)
        assert not app.gone.is_set()
        app.go.set()
        received += await reader.read()
    if not stream:
        received = received.replace(look, b"")
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert (b"data: 2\n\n" if stream else b'"http_version"') in received


async def test_all_that_was_asked_before_the_side_was_closed_is_answered() -> None:
    async with serving(echo) as server, connected(server) as (reader, writer):
        writer.write(GET * 3 + b"GET /cut HTTP")
        writer.write_eof()
        assert (await reader.read()).count(b"HTTP/1.1 200 OK") == 3


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("reset", [True, False])
async def test_a_client_that_left_is_noticed(stream: bool, reset: bool) -> None:
    app = Held(stream=stream)
    async with serving(app) as server:
        async with connected(server) as (reader, writer):
            writer.write(GET)
            if stream:
                await reader.readuntil(b"data: 1\n\n")
            await app.asked.wait()
            if reset:
                linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await app.gone.wait()
        app.go.set()


async def test_a_client_that_closed_its_side_and_left_later_is_noticed() -> None:
    app = Held(stream=True)
    async with serving(app) as server:
        async with connected(server) as (reader, writer):
            writer.write(GET)
            writer.write_eof()
            await reader.readuntil(b"data: 1\n\n")
            await reader.readuntil(sse.FILLER)
        await app.gone.wait()
        app.go.set()


async def test_a_client_that_left_while_its_second_request_is_answered_is_noticed() -> None:
    first, held = Held(stream=False), Held(stream=False)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (first if scope["path"] == "/first" else held)(scope, receive, send)

    async with serving(app) as server:
        async with connected(server) as (reader, writer):
            writer.write(b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
            writer.write_eof()
            await reader.readuntil(b" 100 Continue\r\n\r\n")  # it was seen to have closed its side
            first.go.set()
            while (await answer(reader))[0] == 100:
                pass
            await held.asked.wait()
        await held.gone.wait()
        held.go.set()


# ---- many


async def test_the_longest_idle_makes_room_and_who_is_served_does_not() -> None:
    app = Held(stream=True)
    async with serving(app, connections=3) as server, connected(server) as busy:
        busy[1].write(GET)
        await busy[0].readuntil(b"data: 1\n\n")
        async with connected(server) as first, connected(server) as second, connected(server) as third:
            assert await first[0].read() == b""
            third[1].write(GET)
            await third[0].readuntil(b"data: 1\n\n")
            second[1].write(GET)
            await second[0].readuntil(b"data: 1\n\n")
            async with connected(server) as (reader, _):
                assert await error(reader) == (503, "too_many_connections")
        app.go.set()


async def test_what_an_application_does_wrong_is_seen_by_the_client() -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/late":
            await sse.start(send)
            await sse.write(send, b"data: 1\n\n")
        raise RuntimeError("SECRET")

    async with serving(breaks) as server:
        async with connected(server) as (reader, writer):
            writer.write(GET)
            assert await error(reader) == (500, "internal_error")
        async with connected(server) as (reader, writer):
            writer.write(b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n")
            received = await reader.read()
    assert received.endswith(b"data: 1\n\n\r\n")  # and no last chunk: an answer that has no end


async def _headers(send: Send, header: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [header]})


async def _short(send: Send) -> None:
    await _headers(send, (b"content-length", b"5"))
    await send({"type": "http.response.body", "body": b"four"})


@pytest.mark.parametrize(
    "wrong",
    [
        lambda send: send({"type": "http.response.body", "body": b"x"}),
        lambda send: _headers(send, (b"a", b"b\r\nc: d")),
        _short,
    ],
)
async def test_an_answer_that_is_none_is_cut(wrong: Callable[[Send], Awaitable[None]]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await wrong(send)

    async with serving(app) as server, connected(server) as (reader, writer):
        writer.write(GET)
        try:
            status, _, _ = await answer(reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        assert status == 500

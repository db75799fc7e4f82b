"""The server in the running loop."""

import asyncio
import signal
import socket

import pytest
import uvloop
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from dispatcher.gateway.connection import Connection
from dispatcher.gateway.server import ACCEPTS, HttpServer, bind
from shared.errors import ConfigError


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("hello")(scope, receive, send)


def test_a_port_in_use_is_one_line_that_names_the_setting() -> None:
    with bind("DISPATCHER_HTTP_ADDRESS", "127.0.0.1:0") as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError) as raised:
            bind("DISPATCHER_HTTP_ADDRESS", address)
    assert str(raised.value) == f"DISPATCHER_HTTP_ADDRESS: cannot listen on {address}: address already in use"


@pytest.mark.parametrize("address", ["192.0.2.1:0", "no-such-host.invalid:80"])
def test_an_address_that_is_not_ours(address: str) -> None:
    with pytest.raises(ConfigError, match=rf"^DISPATCHER_HTTP_ADDRESS: cannot listen on {address}: .+$"):
        bind("DISPATCHER_HTTP_ADDRESS", address)


def test_a_port_is_free_again_at_once() -> None:
    with bind("X", "127.0.0.1:0") as first:
        port = first.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            first.accept()[0].close()  # leaves the server's side in TIME_WAIT
    bind("X", f"127.0.0.1:{port}").close()


async def test_signals_stay_the_programs() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    server = HttpServer(hello, bind("X", "127.0.0.1:0"))
    await server.start()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    await server.close()
    await server.close()


async def test_requests_are_answered_when_start_returns_and_not_after_close() -> None:
    server = HttpServer(hello, bind("X", "127.0.0.1:0"))
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(30):
        answer = await reader.readuntil(b"hello")
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"server:" not in answer.lower()
    await server.close()
    assert await reader.read() == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_an_answer_that_never_ends_is_cut() -> None:
    begun = asyncio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await asyncio.Event().wait()

    server = HttpServer(endless, bind("X", "127.0.0.1:0"))
    await server.start()
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await begun.wait()
    async with asyncio.timeout(30):
        await server.close()
    writer.close()


async def test_a_server_that_was_never_started_lets_its_port_go() -> None:
    server = HttpServer(hello, bind("X", "127.0.0.1:0"))
    await server.close()
    bind("X", f"127.0.0.1:{server.port}").close()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_many_are_taken_in_one_turn_of_the_loop(new_loop, monkeypatch: pytest.MonkeyPatch) -> None:
    turn, taken_in, nodelay = 0, list[int](), set[int]()
    made = Connection.connection_made

    def connection_made(self: Connection, transport: asyncio.BaseTransport) -> None:
        taken_in.append(turn)
        nodelay.add(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        made(self, transport)

    async def serve() -> None:
        nonlocal turn
        server = HttpServer(hello, bind("X", "127.0.0.1:0"))
        waiting = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2 * ACCEPTS)]
        await server.start()
        async with asyncio.timeout(30):
            while len(taken_in) < len(waiting):
                turn += 1
                await asyncio.sleep(0)
        for each in waiting:
            each.close()
        await server.close()

    monkeypatch.setattr(Connection, "connection_made", connection_made)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve())
    assert max(taken_in.count(each) for each in taken_in) == ACCEPTS
    assert nodelay == {1}

"""Connections before they are requests: how many there are, and how long their TLS may take."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse
from structlog.testing import capture_logs

from dispatcher.gateway import server as http_server
from dispatcher.gateway.server import HttpServer, bind
from shared.tls import read
from tests.certificates import Authority
from tests.dispatcher.gateway.fakes import eventually

SECONDS = 30.0  # for each thing that is waited for
HELLO = PlainTextResponse("hello")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def tls(authority: Authority) -> Callable[[], ssl.SSLContext]:
    files = authority.issue("edge")
    context = read(files.cert, files.key).server_context()
    return lambda: context


async def answered(connection: socket.socket, authority: Authority | None) -> None:
    """It is served. authority: of the server's certificate, where it speaks TLS."""
    secure, name = (authority.client(), "localhost") if authority else (None, None)
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection(sock=connection, ssl=secure, server_hostname=name)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"hello")
    writer.close()


async def ended(connection: socket.socket) -> None:
    """The server has let go of it."""
    async with asyncio.timeout(SECONDS):
        assert await asyncio.get_running_loop().sock_recv(connection, 1) == b""
    connection.close()


def connected(server: HttpServer) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.setblocking(False)
    return connection


@pytest.mark.parametrize("secure", [False, True])
async def test_a_burst_keeps_to_the_bound(
    authority: Authority, tls: Callable[[], ssl.SSLContext], secure: bool
) -> None:
    """All come within one turn of the loop: for each one beyond the bound another makes room."""
    server = HttpServer(HELLO, bind("X", "127.0.0.1:0"), head_seconds=3600, connections=2, tls=tls if secure else None)
    connections = [connected(server) for _ in range(6)]  # they wait to be accepted
    await server.start()
    for each in connections[:4]:
        await ended(each)
    for each in connections[4:]:
        await answered(each, authority if secure else None)
    await server.close()


async def test_a_handshake_has_the_time_of_a_head(tls: Callable[[], ssl.SSLContext]) -> None:
    server = HttpServer(HELLO, bind("X", "127.0.0.1:0"), head_seconds=0.01, tls=tls)
    await server.start()
    await ended(connected(server))
    await server.close()


async def test_a_server_that_closes_waits_for_no_handshake(
    tls: Callable[[], ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "CLOSE_SECONDS", 3600)
    server = HttpServer(HELLO, bind("X", "127.0.0.1:0"), head_seconds=3600, tls=tls)
    await server.start()
    silent = connected(server)
    await eventually(lambda: bool(server._open))
    async with asyncio.timeout(SECONDS):
        await server.close()
    await ended(silent)


async def test_a_refusal_arrives_and_ends_the_connection(
    authority: Authority, tls: Callable[[], ssl.SSLContext]
) -> None:
    """TLS has no half of a connection that could be closed behind it."""
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
    server = HttpServer(HELLO, bind("X", "127.0.0.1:0"), head_seconds=3600, tls=tls)
    await server.start()
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection("localhost", server.port, ssl=authority.client())
        writer.write(b"nonsense\r\n\r\n")
        answer = await reader.read()
    writer.close()
    await server.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert not failures


class Failing(socket.socket):
    """Listens; each of these errors comes once instead of a connection."""

    errors: tuple[OSError, ...] = ()

    def accept(self) -> tuple[socket.socket, object]:
        if self.errors:
            first, *rest = self.errors
            self.errors = tuple(rest)
            raise first
        return super().accept()


async def test_a_connection_that_cannot_be_accepted_costs_no_other(
    authority: Authority, tls: Callable[[], ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "ACCEPT_AGAIN_SECONDS", 0.01)
    listening = Failing(fileno=bind("X", "127.0.0.1:0").detach())
    listening.errors = (ConnectionAbortedError(), OSError(errno.EMFILE, "Too many open files"))
    server = HttpServer(HELLO, listening, head_seconds=3600, tls=tls)
    with capture_logs() as logs:
        await server.start()
        await answered(connected(server), authority)
    assert [(each["event"], each["error"]) for each in logs] == [("accept_failed", "Too many open files")]
    await server.close()

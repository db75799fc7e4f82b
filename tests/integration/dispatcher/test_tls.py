"""TLS on all three edges, over real sockets; certificates that change, and break, while streams run."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest

from dispatcher import app
from dispatcher.gateway import limits
from dispatcher.settings import DispatcherSettings, MutualTls, ServerTls
from shared.pb import agent_pb2_grpc
from tests.certificates import Authority, Files
from tests.integration.dispatcher.peer import SECONDS, Peer, until


class Edges:
    """A Dispatcher whose edges all show `edge`, of `authority`; Commanders and operators have to show one too."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.files = self.authority.issue("edge")
        self.own = self.authority.issue("own")
        shown = {"cert": self.files.cert, "key": self.files.key}
        mutual = MutualTls(**shown, client_ca=self.authority.ca)
        self.settings = DispatcherSettings(
            store="memory://",
            grpc_address="127.0.0.1:0",
            http_address="127.0.0.1:0",
            operator_address="127.0.0.1:0",
            grpc_tls=mutual,
            http_tls=ServerTls(**shown),
            operator_tls=mutual,
        )
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> "Edges":
        self.dispatcher = await app.start(self.settings)
        self._stack.push_async_callback(self.dispatcher.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.dispatcher.sessions.closing.set()
        await self._stack.aclose()

    async def client(self, port: int, own: Files | None = None) -> httpx2.AsyncClient:
        client = httpx2.AsyncClient(
            base_url=f"https://localhost:{port}", verify=self.authority.client(own), timeout=SECONDS
        )
        return await self._stack.enter_async_context(client)

    async def stream(self, own: Files | None) -> Peer:
        ca = self.authority.ca.read_bytes()
        shown = (own.key.read_bytes(), own.cert.read_bytes()) if own else (None, None)
        channel = grpc.aio.secure_channel(
            f"localhost:{self.dispatcher.grpc_port}",
            grpc.ssl_channel_credentials(ca, *shown),
            options=[("grpc.use_local_subchannel_pool", 1)],
        )
        self._stack.push_async_callback(channel.close)
        peer = Peer(agent_pb2_grpc.AgentInteractionStub(channel).ChatStream())  # type: ignore[no-untyped-call]
        self._stack.push_async_callback(peer.cut)
        return peer

    async def shown(self, port: int) -> int:
        """The serial number of the certificate that a new connection gets there."""

        def ask() -> Any:
            context = self.authority.client(self.own)
            context.set_alpn_protocols(["h2", "http/1.1"])
            with (
                socket.create_connection(("localhost", port), SECONDS) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as secure,
            ):
                return secure.getpeercert()

        return int((await asyncio.to_thread(ask))["serialNumber"], 16)


@pytest.fixture
async def edges(tmp_path: Path) -> AsyncIterator[Edges]:
    async with Edges(tmp_path) as edges:
        yield edges


async def test_a_session_over_tls_outlives_its_edges_certificates(edges: Edges) -> None:
    """Rotated twice, once to files that are broken: no stream is cut, and new connections get what is there."""
    dispatcher = edges.dispatcher
    ports = (dispatcher.grpc_port, dispatcher.http_port, dispatcher.operator_port)
    users, operators = await edges.client(ports[1]), await edges.client(ports[2], edges.own)
    member = await edges.stream(edges.own)
    await member.report(1)
    await until(lambda: dispatcher.sessions.pool.members, "joined")
    session = (await users.post("/v1/sessions", json={"prompt": "hello"})).json()
    assignment = await member.serve()
    first = {await edges.shown(port) for port in ports}
    assert len(first) == 1

    async with users.stream("GET", session["events"]) as events:
        lines = events.aiter_lines()

        async def told(text: str) -> None:
            async with asyncio.timeout(SECONDS):
                while text not in await anext(lines):
                    pass

        await member.say(assignment.session_id, "before")
        await told("before")

        edges.authority.issue("edge")
        await _reload(edges)
        second = {await edges.shown(port) for port in ports}
        assert len(second) == 1
        assert second != first
        await member.say(assignment.session_id, "between")
        await told("between")

        edges.files.key.write_text("broken")
        await _reload(edges)
        assert {await edges.shown(port) for port in ports} == second
        metrics = (await operators.get("/metrics")).text
        assert 'dispatcher_tls_reload_success{edge="grpc"} 0.0' in metrics
        assert 'dispatcher_tls_certificate_expiry_seconds{edge="http"}' in metrics
        await member.finish(assignment.session_id, "after")
        await told("after")


async def _reload(edges: Edges) -> None:
    await asyncio.gather(*(each.reload() for each in edges.dispatcher._certificates.values()))


async def test_changed_files_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.files.watch.LOOK_SECONDS", 0.02)
    async with Edges(tmp_path) as edges:
        port = edges.dispatcher.http_port
        before = await edges.shown(port)
        edges.authority.issue("edge")
        async with asyncio.timeout(SECONDS):
            while await edges.shown(port) == before:
                pass  # until they were read


async def test_who_shows_no_certificate_is_not_let_in(edges: Edges, tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    for own in (None, Authority(tmp_path / "others").issue("own")):
        peer = await edges.stream(own)
        assert (await peer.status()).name == "UNAVAILABLE"
        client = await edges.client(edges.dispatcher.operator_port, own)
        with pytest.raises(httpx2.TransportError):
            await client.get("/operator/sessions")
    assert not edges.dispatcher.sessions.pool.members


async def test_no_tls_older_than_1_2_and_nothing_in_the_clear(edges: Edges) -> None:
    for port in (edges.dispatcher.http_port, edges.dispatcher.operator_port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(SECONDS):
            answer = await reader.read()
        writer.close()
        assert b"HTTP" not in answer
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="deprecated"):
            context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with pytest.raises(OSError):  # noqa: PT011 - an alert, or a reset
            await asyncio.open_connection("localhost", port, ssl=context)
        without_aead = edges.authority.client(edges.own)
        without_aead.maximum_version = ssl.TLSVersion.TLSv1_2
        without_aead.set_ciphers("ECDHE+AES:!AESGCM:!AESCCM")
        with pytest.raises(OSError):  # noqa: PT011 - the same
            await asyncio.open_connection("localhost", port, ssl=without_aead)


async def test_handshakes_that_are_never_finished_make_room(edges: Edges, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are idle connections: the one that has been there for longest goes."""
    monkeypatch.setattr(limits, "connections", lambda: (2, 2))
    own = edges.settings
    dispatcher = await app.start(own.model_copy(update={"grpc_tls": MutualTls(), "operator_tls": MutualTls()}))
    try:
        silent = [await asyncio.open_connection("127.0.0.1", dispatcher.http_port) for _ in range(3)]
        async with asyncio.timeout(SECONDS):
            assert await silent[0][0].read() == b""
        client = await edges.client(dispatcher.http_port)
        assert (await client.get("/healthz")).status_code == 200
        for _, writer in silent:
            writer.close()
    finally:
        await dispatcher.close()

"""The rig's own proxy: what passes, what waits and what is lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.faults.proxy import Proxy

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Peers:
    """A server behind the proxy, and clients in front of it."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.accepted: asyncio.Queue[Pair] = asyncio.Queue()
        self._clients: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[Pair, Pair]:
        client = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        self._clients.append(client[1])
        return client, await self.accepted.get()

    def close(self) -> None:
        for writer in self._clients:
            writer.transport.abort()


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    accepted: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        made.accepted.put_nowait((reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    proxy = await Proxy(("127.0.0.1", server.sockets[0].getsockname()[1])).start()
    made = Peers(proxy)
    yield made
    made.close()
    await proxy.close()
    server.close()
    for writer in accepted:
        writer.transport.abort()


async def passes(pair: tuple[Pair, Pair], data: bytes = b"ping") -> bool:
    """Whether the data comes through; False: nothing comes for a while."""
    (_, writer), (reader, _) = pair
    writer.write(data)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            return await reader.readexactly(len(data)) == data
    return False


def back(pair: tuple[Pair, Pair]) -> tuple[Pair, Pair]:
    return pair[1], pair[0]


async def test_both_directions_pass(peers: Peers) -> None:
    pair = await peers.connect()
    assert await passes(pair)
    assert await passes(back(pair))
    assert peers.proxy.connections == 1


async def test_it_tells_what_has_passed(peers: Peers) -> None:
    told: list[tuple[str, bytes]] = []
    peers.proxy.passed = lambda direction, data: told.append((direction, data))
    pair = await peers.connect()
    peers.proxy.freeze(["down"])
    assert await passes(pair)
    assert not await passes(back(pair), b"pong")
    assert told == [("up", b"ping")]
    peers.proxy.thaw()
    assert await pair[0][0].readexactly(4) == b"pong"
    assert told[1:] == [("down", b"pong")]


async def test_a_half_close_passes_and_the_other_direction_stays(peers: Peers) -> None:
    pair = await peers.connect()
    pair[0][1].write_eof()
    assert await pair[1][0].read() == b""
    assert await passes(back(pair))


async def test_a_cut_resets_both_ends(peers: Peers) -> None:
    client, served = await peers.connect()
    peers.proxy.cut()
    for reader, _ in (client, served):
        with pytest.raises(ConnectionResetError):
            await reader.read()
    assert await passes(await peers.connect()), "new connections pass"


async def test_one_frozen_direction_waits_and_loses_nothing(peers: Peers) -> None:
    pair = await peers.connect()
    peers.proxy.freeze(["down"])
    assert await passes(pair)
    assert not await passes(back(pair), b"late")
    peers.proxy.thaw()
    assert await pair[0][0].readexactly(4) == b"late"


async def test_what_waited_is_lost_when_it_is_cut(peers: Peers) -> None:
    client, served = pair = await peers.connect()
    peers.proxy.freeze(["down"])
    assert not await passes(back(pair), b"ack")
    peers.proxy.cut()
    peers.proxy.thaw()
    with pytest.raises(ConnectionResetError):
        await client[0].read()


async def test_a_limit_cuts_after_exactly_so_many_bytes(peers: Peers) -> None:
    peers.proxy.limits = lambda: 5
    client, served = await peers.connect()
    served[1].write(b"0123456789")
    assert await client[0].readexactly(5) == b"01234"
    with pytest.raises(ConnectionResetError):
        await client[0].read()


async def test_nobody_behind_it_is_a_connection_that_breaks(peers: Peers) -> None:
    peers.proxy.upstream = None
    reader, writer = await asyncio.open_connection("127.0.0.1", peers.proxy.port)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_a_proxy_that_refuses_keeps_its_port_and_loses_no_socket(peers: Peers) -> None:
    """Whoever connects at that moment is refused, or served and closed."""
    proxy, port = peers.proxy, peers.proxy.port
    for _ in range(50):
        connecting = asyncio.create_task(asyncio.open_connection("127.0.0.1", port))
        await asyncio.sleep(0)
        proxy.refuse()
        (came,) = await asyncio.gather(connecting, return_exceptions=True)
        if isinstance(came, tuple):
            came[1].transport.abort()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        proxy.listen()
    assert proxy.port == port

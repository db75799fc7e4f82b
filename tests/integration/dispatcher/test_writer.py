"""The one writer of a stream, with a peer that reads when the test lets it."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from dispatcher.access.rules import Caller
from dispatcher.grpc_edge.limits import FULL_BYTES, MAX_UNREAD_BYTES
from dispatcher.grpc_edge.status import StreamOver
from dispatcher.grpc_edge.stream import Stream
from dispatcher.grpc_edge.writer import PACKET_BYTES
from shared import records, wire
from shared.records import (
    MAX_OPEN_CALLS,
    Ack,
    Assignment,
    Closed,
    Content,
    Downstream,
    Open,
    Stop,
    ToolCall,
    ToolResult,
    Upstream,
    Welcome,
)
from tests.integration.dispatcher.peer import SECONDS, World, serving, until


class SlowPeer:
    """grpc.aio's context, and the peer behind it. `written`: messages, each when the peer has taken it."""

    def __init__(self) -> None:
        self.written: list[list[Downstream]] = []
        self.writing = asyncio.Event()  # a write is under way
        self._permits = asyncio.Semaphore(0)
        self._messages: asyncio.Queue[Any] = asyncio.Queue()
        self.metadata: Any = None

    async def send_initial_metadata(self, metadata: Any) -> None:
        self.metadata = metadata

    async def read(self) -> Any:
        return await self._messages.get()

    async def write(self, message: wire.DownstreamMessage) -> None:
        assert not self.writing.is_set(), "two writes at once"
        self.writing.set()
        await self._permits.acquire()
        self.writing.clear()
        self.written.append(wire.decode_downstream(message))

    async def abort(self, code: grpc.StatusCode, details: str = "") -> None:
        raise AssertionError("the service's, not the stream's")

    def send(self, *packets: Upstream) -> None:
        self._messages.put_nowait(wire.encode_upstream(packets))

    def half_close(self) -> None:
        self._messages.put_nowait(grpc.aio.EOF)

    def read_on(self, messages: int = 1_000_000) -> None:
        for _ in range(messages):
            self._permits.release()

    def came(self, kind: type) -> list[Downstream]:
        return [packet for message in self.written for packet in message if isinstance(packet.signal, kind)]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with serving(max_unacked_bytes=8_000_000) as world:
        yield world


@pytest.fixture
async def peer(world: World) -> AsyncIterator[SlowPeer]:
    slow = SlowPeer()
    serving_it = asyncio.create_task(Stream(world.sessions.desk, slow, Caller("commander")).run())
    yield slow
    slow.read_on(10_000)
    slow.half_close()
    async with asyncio.timeout(SECONDS):
        await asyncio.gather(serving_it, return_exceptions=True)


async def opened(world: World, peer: SlowPeer, count: int) -> list[str]:
    """Sessions of its own on that stream, their Welcomes read."""
    ids = [secrets.token_hex(8) for _ in range(count)]
    peer.send(Upstream("", records.Status("c")))
    peer.send(*(Upstream(each, Open("c", token=each.encode())) for each in ids))
    peer.read_on(count)
    await until(lambda: len(peer.came(Welcome)) == count, "welcomed")
    peer._permits = asyncio.Semaphore(0)
    return ids


def answered(world: World, session_id: str) -> int:
    """The session's calls that have a result in the log."""
    session = world.sessions.runners.by_session[session_id].session
    return len(session._calls._used) - len(session.head.calls)


async def test_a_stop_is_first_in_the_next_message_whatever_is_queued(world: World, peer: SlowPeer) -> None:
    session_id, neighbour = await opened(world, peer, 2)
    # Answered with their own long names: 50 results of 60 kB are a dozen messages.
    peer.send(*(Upstream(neighbour, ToolCall("x" * 60_000, "{}", f"c{n}"), n + 1) for n in range(50)))
    await until(lambda: answered(world, neighbour) == 50, "answered")
    await asyncio.wait_for(peer.writing.wait(), SECONDS)
    before = len(peer.written) + 1
    peer.read_on(1)
    await until(lambda: peer.writing.is_set() and len(peer.written) == before)
    await world.sessions.stop(session_id, "UserCancel", "user")
    peer.read_on(10_000)
    await until(lambda: len(peer.came(ToolResult)) == 50)
    position = [number for number, message in enumerate(peer.written) if isinstance(message[0].signal, Stop)]
    assert position == [before + 1], "the message that was under way, then the stop"
    peer.send(Upstream(session_id, records.Stopped(peer.came(Stop)[0].signal.stop_id), 1))  # type: ignore[union-attr]
    await until(lambda: session_id not in world.sessions.runners.by_session)


async def test_a_long_message_leaves_others_their_turns(
    world: World, peer: SlowPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    [session_id] = await opened(world, peer, 1)
    runner, order = world.sessions.runners.by_session[session_id], list[str]()
    receive = runner.receive

    def received(packet: Upstream) -> None:
        if not order:
            asyncio.get_running_loop().call_soon(order.append, "another")
        order.append("packet")
        receive(packet)

    monkeypatch.setattr(runner, "receive", received)
    monkeypatch.setattr("shared.turns.TURN_SECONDS", 0)
    peer.send(*(Upstream(session_id, Content("x" * 1000), number) for number in range(1, 21)))
    await until(lambda: order.count("packet") == 20)
    assert order.index("another") < 10


@pytest.mark.parametrize("before", [0, 3])
async def test_a_rules_stop_is_being_written_in_the_turn_of_its_packet(tmp_path: Path, before: int) -> None:
    """Nothing else that follows from the packet comes before: no reader, no other session."""
    rules = tmp_path / "rules.toml"
    rules.write_text('[[policy]]\nname = "secret"\nkind = "phrases"\nphrases = ["dragon"]\n')
    async with serving(policies=rules) as world:
        peer = SlowPeer()
        stream = asyncio.create_task(Stream(world.sessions.desk, peer, Caller("commander")).run())
        [session_id] = await opened(world, peer, 1)
        await until(lambda: not peer.writing.is_set())
        receive = world.sessions.runners.by_session[session_id].receive
        for sequence in range(1, before + 1):  # each is on its way to the log
            receive(Upstream(session_id, Content("a "), sequence))
        assert not peer.writing.is_set()
        receive(Upstream(session_id, Content("dragon"), before + 1))
        assert peer.writing.is_set()
        peer.read_on()
        await until(lambda: peer.came(Stop))
        assert isinstance(peer.written[1][0].signal, Stop)
        stop = peer.came(Stop)[0].signal
        assert isinstance(stop, Stop)
        peer.send(Upstream(session_id, records.Stopped(stop.stop_id), before + 2))
        await until(lambda: session_id not in world.sessions.runners.by_session)
        peer.half_close()
        await asyncio.wait_for(stream, SECONDS)


async def test_a_stop_never_comes_before_its_welcome(world: World, peer: SlowPeer) -> None:
    [session_id] = await opened(world, peer, 1)
    await world.sessions.stop(session_id, "UserCancel", "user")
    again = Upstream(session_id, Open("c", token=session_id.encode()))
    peer.send(again, again)
    await until(lambda: not peer._messages.qsize())
    peer.read_on(100)
    await until(lambda: len(peer.came(Stop)) >= 2)
    kinds = [type(packet.signal) for message in peer.written for packet in message]
    order = [kind for kind in kinds if kind in (Welcome, Stop)]
    assert order[0] is Welcome
    assert order[-2:] == [Welcome, Stop]


async def test_acks_are_cumulative_for_a_peer_that_is_slow(world: World, peer: SlowPeer) -> None:
    [session_id] = await opened(world, peer, 1)
    for number in range(1, 6):
        peer.send(Upstream(session_id, ToolCall("nothing", "{}", f"c{number}"), number))
    await until(lambda: answered(world, session_id) == 5, "answered")
    peer.read_on(100)
    await until(lambda: len(peer.came(ToolResult)) == 5)
    acks = [packet.signal.sequence for packet in peer.came(Ack)]  # type: ignore[union-attr]
    assert acks == sorted(set(acks))
    assert len(acks) <= 2
    assert acks[-1] == 5


async def test_the_ack_of_a_hand_over_comes_though_the_session_is_gone(world: World, peer: SlowPeer) -> None:
    peer.send(Upstream("", records.Status("c", ("default",), ("default",), 2)))
    await until(lambda: world.sessions.pool.members)
    session_id = await world.create()
    peer.read_on(1)
    await until(lambda: peer.came(Assignment))
    peer.send(Upstream(session_id, Open("c", 1)))
    peer.read_on(1)
    await until(lambda: peer.came(Welcome))
    peer.send(Upstream("unknown", Content("x"), 1))  # its refusal keeps the writer busy
    await asyncio.wait_for(peer.writing.wait(), SECONDS)
    peer.send(Upstream("", records.Status("c", ("default",), ("default",), 0, 1, (records.Running(session_id, 1),))))
    peer.send(Upstream(session_id, records.Error(retryable=True), 1))
    await world.waits(session_id)
    await until(lambda: session_id not in world.sessions.runners.by_session)
    peer.read_on(100)
    await until(lambda: [packet for packet in peer.came(Ack) if packet.session_id == session_id], "its Ack")


async def test_refusals_that_nobody_reads_end_the_stream(world: World) -> None:
    deaf = SlowPeer()
    stream = asyncio.create_task(Stream(world.sessions.desk, deaf, Caller("commander")).run())
    deaf.send(Upstream("", records.Status("c")))
    for start in range(0, 2 * MAX_UNREAD_BYTES // PACKET_BYTES, 1024):
        deaf.send(*(Upstream(f"stranger-{number}", Content("x"), 1) for number in range(start, start + 1024)))
    with pytest.raises(StreamOver) as caught:
        await asyncio.wait_for(stream, SECONDS)
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "waits for the peer to read" in caught.value.text
    assert not deaf.came(Closed)


async def test_the_results_of_a_worker_that_does_not_read_wait_in_the_log(world: World, peer: SlowPeer) -> None:
    [session_id] = await opened(world, peer, 1)
    long = "x" * 60_000  # answered with it: no tool has such a name
    many = 2 * MAX_OPEN_CALLS
    for number in range(1, many + 1):
        peer.send(Upstream(session_id, ToolCall(long, "{}", f"c{number}"), number))
    session = world.sessions.runners.by_session[session_id].session
    await until(lambda: session.waits and session._calls.unsent and not session.head.calls)
    (stream,) = {runner.link for runner in world.sessions.runners.by_session.values()}
    assert isinstance(stream, Stream)
    assert stream.full
    assert stream._writer.unread < 2 * FULL_BYTES
    peer.read_on(10_000)
    await until(lambda: len(peer.came(ToolResult)) == many)
    assert not stream.full

"""How a stream begins and ends: its status, and what becomes of the sessions on it."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from dispatcher.grpc_edge.limits import MAX_OPENING
from shared import records, wire
from shared.pb import agent_pb2 as pb
from shared.records import Ack, Closed, Content, Stop, Thought, ToolCall, Upstream, Welcome
from tests.integration.dispatcher.peer import SECONDS, Peer, World, serving, until

METHOD = "/southwest.ai.agent.v1.AgentInteraction/ChatStream"
SAY = pb.UpstreamPacket(session_id="x", content=pb.ContentChunk(text="abc"), sequence=1)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with serving() as world:
        yield world


def raw(world: World) -> Peer:
    """A stream whose messages are bytes upwards."""
    call: Any = world.channel().stream_stream(METHOD, None, pb.DownstreamPacket.FromString)()
    peer = Peer(call)
    world.peers.append(peer)
    return peer


async def refused(peer: Peer, *messages: bytes) -> str:
    for message in messages:
        await asyncio.wait_for(peer.call.write(message), SECONDS)
    name = (await peer.status()).name
    details = await peer.details()
    assert not [word for word in ("Error", "Traceback", ".py", "Exception", "protobuf") if word in details], details
    return name


STATUS = wire.encode_upstream([Upstream("", records.Status("c", ("a",)))])
NESTED = pb.UpstreamPacket(batch=[pb.UpstreamPacket(batch=[SAY, SAY])])
LOADED = pb.UpstreamPacket(batch=[SAY, SAY], content=pb.ContentChunk(text="x"))
NUMBERED = pb.UpstreamPacket(batch=[SAY, SAY], sequence=1)
NAMED = pb.UpstreamPacket(batch=[SAY, SAY], session_id="x")
NOT_UTF8 = SAY.SerializeToString().replace(b"abc", b"a\xffc")
HUGE = pb.UpstreamPacket(session_id="x", content=pb.ContentChunk(text="x" * 1024 * 1024))

BAD = {
    "a nested batch": ("INVALID_ARGUMENT", NESTED.SerializeToString()),
    "a batch with a payload": ("INVALID_ARGUMENT", LOADED.SerializeToString()),
    "a batch with a sequence": ("INVALID_ARGUMENT", NUMBERED.SerializeToString()),
    "a batch with a session": ("INVALID_ARGUMENT", NAMED.SerializeToString()),
    "malformed bytes": ("INVALID_ARGUMENT", b"\xff\xff\xff"),
    "text that is not UTF-8": ("INVALID_ARGUMENT", NOT_UTF8),
    "a message above 1 MiB": ("RESOURCE_EXHAUSTED", HUGE.SerializeToString()),
}


@pytest.mark.parametrize(("status", "message"), BAD.values(), ids=BAD)
async def test_a_bad_message_ends_its_stream_and_the_sessions_resume(world: World, status: str, message: bytes) -> None:
    peer = raw(world)
    await peer.call.write(STATUS.replace(b"\x01c", b"\x01c"))
    ids = [secrets.token_hex(8) for _ in range(3)]

    async def send(*packets: Upstream) -> None:
        await peer.call.write(wire.encode_upstream(packets))

    for session_id in ids:
        await send(Upstream(session_id, records.Open("c", token=session_id.encode())))
        await peer.next(Welcome, session_id)
    await send(*(Upstream(each, Content("one "), 1) for each in ids))
    assert await refused(peer, message) == status
    again = await world.join(slots=0, commander_id="c")
    for session_id in ids:
        assert (await again.open(session_id)).sequence == 1, "what came before the bad message is logged"
        await again.finish(session_id, "two")
        assert await world.text(session_id) == "one two"


@pytest.mark.parametrize("message", [pb.UpstreamPacket(batch=[SAY]), pb.UpstreamPacket(batch=[SAY, SAY])])
async def test_a_batch_is_no_first_message(world: World, message: pb.UpstreamPacket) -> None:
    assert await refused(raw(world), message.SerializeToString()) == "INVALID_ARGUMENT"
    assert await world.sessions.store.load("x") is None


async def test_a_batch_on_an_older_peers_stream(world: World) -> None:
    batch = pb.UpstreamPacket(batch=[SAY, SAY])
    assert await refused(raw(world), SAY.SerializeToString(), batch.SerializeToString()) == "INVALID_ARGUMENT"


async def test_a_status_on_an_older_peers_stream(world: World) -> None:
    assert await refused(raw(world), SAY.SerializeToString(), STATUS) == "INVALID_ARGUMENT"


async def test_a_stream_without_a_packet_ends_ok(world: World) -> None:
    peer = world.stream()
    await peer.half_close()
    assert (await peer.status()).name == "OK"


async def test_a_member_without_sessions_ends_ok(world: World) -> None:
    member = await world.join()
    await member.half_close()
    assert (await member.status()).name == "OK"
    assert not world.sessions.pool.members


# ---- the end of a stream


async def test_ok_only_when_each_end_is_logged_and_acked(world: World) -> None:
    member, session_id, _ = await world.served(slots=2)
    await world.create()
    second = (await member.serve()).session_id
    await member.say(second, "a")
    await member.finish(second)
    await member.say(session_id, "Hello", Content("", True))
    await member.half_close()
    assert (await member.status()).name == "OK"
    await member.acked(session_id, 2)
    assert await world.state(session_id) == "finished"


async def test_ok_when_the_others_were_closed(world: World) -> None:
    member, session_id, _ = await world.served()
    await member.send(Upstream(session_id, Content("x"), 0))
    await member.closed(session_id)
    await member.half_close()
    assert (await member.status()).name == "OK"


async def test_half_closed_with_an_open_session_is_aborted_and_its_grace_runs(world: World) -> None:
    member, session_id, generation = await world.served()
    await member.say(session_id, "one ")
    await member.half_close()
    assert (await member.status()).name == "ABORTED"
    assert await world.state(session_id) == "running"
    again = await world.join(slots=0, commander_id=member.commander_id)
    assert (await again.open(session_id, generation)).sequence == 1
    await again.finish(session_id, "two")
    assert await world.text(session_id) == "one two"


async def test_half_closed_while_opening_is_aborted(world: World) -> None:
    peer = world.stream()
    session_id = secrets.token_hex(8)
    await peer.request(session_id)
    await peer.half_close()
    assert (await peer.status()).name == "ABORTED"


async def test_a_cut_logs_what_had_come(world: World) -> None:
    member, session_id, generation = await world.served()
    await member.say(session_id, "one ", Thought("a", "b"))
    await member.acked(session_id)
    await member.cut()
    again = await world.join(slots=0, commander_id=member.commander_id)
    assert (await again.open(session_id, generation)).sequence == 2
    await again.finish(session_id, "two")
    assert await world.text(session_id) == "one two"


async def test_an_own_session_resumes_under_its_commander_id(world: World) -> None:
    peer, session_id = await world.own()
    await peer.say(session_id, "one ")
    await peer.acked(session_id)
    await peer.cut()
    again = world.stream()
    again.commander_id = peer.commander_id
    assert (await again.open(session_id)).sequence == 1
    await again.finish(session_id, "two")
    await again.half_close()
    assert (await again.status()).name == "OK"
    assert await world.text(session_id) == "one two"


async def test_an_own_session_is_never_taken_over() -> None:
    async with serving() as world:
        await world.join(slots=1)
        peer, session_id = await world.own()
        await peer.cut()
        assert await world.forsaken(session_id) == "failed commander_lost"


async def test_cut_while_many_sessions_open() -> None:
    """An `open` that has been logged when its stream breaks belongs to nobody: its grace must run all the same."""
    async with serving() as world:
        for _ in range(5):
            peer = await world.join(slots=0)
            ids = [secrets.token_hex(8) for _ in range(10)]
            await peer.send(*(Upstream(each, records.Open(peer.commander_id)) for each in ids))
            await peer.next(Welcome)
            await peer.cut()
            for session_id in ids:
                if await world.sessions.store.load(session_id):
                    assert await world.forsaken(session_id) == "failed commander_lost"


# ---- older peers


async def test_an_older_peer_is_numbered_and_acked(world: World) -> None:
    peer, session_id = world.stream(), secrets.token_hex(16)
    await peer.send(Upstream(session_id, Thought("plan", "secret")))
    await peer.send(Upstream("", Content("Hello ")))
    await peer.send(Upstream(session_id, Content("world", True)))
    await peer.half_close()
    assert (await peer.status()).name == "OK"
    assert not peer.has(Welcome)
    assert all(packet.session_id == "" for packet in peer.inbox)
    assert max(ack.sequence for ack in peer.has(Ack)) == 3
    assert all(len(message) == 1 for message in peer.messages), "no batches for one that does not know them"
    assert await world.text(session_id) == "Hello world"


async def test_an_older_peer_without_an_end_is_lost_at_once(world: World) -> None:
    peer, session_id = world.stream(), secrets.token_hex(16)
    await peer.send(Upstream(session_id, Content("Hello")))
    await peer.half_close()
    assert (await peer.status()).name == "ABORTED"
    assert await world.ended(session_id) == "failed commander_lost"
    assert await world.text(session_id) == "Hello"


async def test_an_older_peer_that_is_cut_is_lost_at_once(world: World) -> None:
    peer, session_id = world.stream(), secrets.token_hex(16)
    await peer.send(Upstream(session_id, Content("Hello")))
    await peer.next(Ack)
    await peer.cut()
    assert await world.ended(session_id) == "failed commander_lost"


async def test_an_older_peer_may_answer_a_stop_by_half_closing(world: World) -> None:
    peer, session_id = world.stream(), secrets.token_hex(16)
    await peer.send(Upstream(session_id, Content("Hello")))
    await peer.next(Ack)
    await world.sessions.stop(session_id, "UserCancel", "user")
    await peer.next(Stop)
    await peer.half_close()
    assert (await peer.status()).name == "OK"
    assert await world.state(session_id) == "stopped UserCancel"


async def test_an_older_peers_fault_in_its_session_is_an_end(world: World) -> None:
    peer, session_id = world.stream(), secrets.token_hex(16)
    await peer.send(Upstream(session_id, records.Error("boom", "text", retryable=True)))
    await peer.half_close()
    assert (await peer.status()).name == "OK"
    assert await world.state(session_id) == "failed boom"


# ---- what is not known


def unknown(session_id: str, sequence: int) -> bytes:
    """A packet with a payload of number 12, which is planned."""
    return pb.UpstreamPacket(session_id=session_id, sequence=sequence).SerializeToString() + b"\x62\x02\x08\x01"


async def test_unknown_payloads(world: World) -> None:
    peer = raw(world)
    session_id = secrets.token_hex(8)
    await peer.call.write(STATUS)
    await peer.call.write(wire.encode_upstream([Upstream(session_id, records.Open("c"))]))
    await peer.next(Welcome)
    say = wire.encode_upstream([Upstream(session_id, Content("x"), 1)])
    for message in (say, unknown(session_id, 2), unknown(session_id, 0), unknown("", 0), unknown(session_id, 3)):
        await peer.call.write(message)
    end = wire.encode_upstream([Upstream(session_id, Content("y", True), 4)])
    await peer.call.write(end)
    await peer.acked(session_id, 4)
    assert not peer.has(Closed)
    assert await world.text(session_id) == "xy"
    assert len(await world.bodies(session_id, records.Unknown)) == 2
    assert (await world.metrics())['dispatcher_packets_total{kind="unknown"}'] == 4


# ---- heartbeats, and a peer that does not read


async def test_a_member_without_a_status_is_hung() -> None:
    async with serving(status_timeout_seconds=0.2) as world:
        member, session_id, _ = await world.served()
        await member.say(session_id, "alive? ")
        own, own_id = await world.own()
        assert (await member.status()).name == "UNAVAILABLE"
        assert await world.forsaken(session_id) == "failed commander_lost"
        await own.finish(own_id, "other streams are not judged by it")


async def test_a_status_in_time_keeps_a_member() -> None:
    async with serving(status_timeout_seconds=1.5) as world:
        member, session_id, generation = await world.served()
        for _ in range(5):
            await member.report(0, {session_id: generation})
            await asyncio.sleep(0.4)  # the heartbeat's own pace, far from its limit
        await member.finish(session_id)
        assert (await member.status()).name == "UNAVAILABLE"


async def test_a_peer_that_never_reads_is_cut_and_hurts_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as world:
        member = await world.join()
        service = world.dispatcher.service
        # For who comes from now on: whoever reads has as long as a busy machine needs.
        hasty = service._desk.settings.model_copy(update={"write_timeout_seconds": 0.3})
        monkeypatch.setattr(service._desk, "settings", hasty)
        deaf = world.stream(reads=False)
        session_id = secrets.token_hex(8)
        await deaf.request(session_id)
        await until(lambda: session_id in world.sessions.runners.by_session)

        async def call_tools() -> None:
            # Each is answered with its long name: no tool is called so.
            with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
                for number in range(1000):
                    await deaf.send(deaf.packet(session_id, ToolCall("x" * 60000, "{}", f"call-{number}")))

        calling = asyncio.create_task(call_tools())
        await until(lambda: len(service._streams) == 1, "the stream is over at the server")
        calling.cancel()
        await world.create()
        assignment = await member.serve()
        await member.finish(assignment.session_id, "fine")
        assert await world.ended(session_id) in ("failed commander_lost", "failed protocol_error")


# ---- initial metadata


async def test_the_contract_is_announced_before_the_store_is_touched(world: World) -> None:
    trouble = world.trouble()
    for answers in (trouble.answers, trouble.reads):
        answers.clear()
    for payload in (Content("x", True), records.Open("c"), records.Status("c")):
        peer = world.stream()
        await peer.send(Upstream(secrets.token_hex(8), payload))
        async with asyncio.timeout(SECONDS):
            assert ("midsentence-contract", "1") in list(await peer.call.initial_metadata())
    for answers in (trouble.answers, trouble.reads):
        answers.set()


async def test_operators_are_told_once_of_a_commander_whose_loop_is_held_up(world: World) -> None:
    peer = await world.join()
    with capture_logs() as logs:
        for micros in (999_999, 1_500_000, 1_500_000, 0):
            status = records.Status(peer.commander_id, peer.agents, free_slots=1, loop_lag_micros=micros)
            await peer.send(Upstream("", status))
            await until(lambda: {micros} == {m.status.loop_lag_micros for m in world.sessions.pool.members}, "told")  # noqa: B023
    assert [entry["seconds"] for entry in logs if entry["event"] == "loop_lag"] == [1.5]


# ---- limits


async def test_a_stream_that_says_nothing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.grpc_edge.stream.FIRST_PACKET_SECONDS", 0.1)
    async with serving() as world:
        member = await world.join()
        assert (await world.stream().status()).name == "DEADLINE_EXCEEDED"
        assert (await world.metrics())['dispatcher_refusals_total{edge="chatstream",kind="silent"}'] == 1
        await world.create()
        assignment = await member.serve()
        await member.finish(assignment.session_id)


async def test_of_too_many_that_say_nothing_the_oldest_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.grpc_edge.service.MAX_SILENT_STREAMS", 1)
    async with serving() as world:
        await world.join()
        silent = world.stream()
        await until(lambda: len(world.dispatcher.service._silent) == 1)
        newest = world.stream()
        assert (await silent.status()).name == "RESOURCE_EXHAUSTED"
        session_id = secrets.token_hex(8)
        await newest.open(session_id)
        assert not world.dispatcher.service._silent
        await newest.finish(session_id)


async def test_who_opens_too_many_sessions_is_to_come_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.grpc_edge.stream.MAX_SESSIONS", 2)
    member = await world.join(slots=0)
    await member.open("one")
    await member.open("two")
    await member.request("three")
    assert await member.closed("three") == "unavailable"
    assert (await world.metrics())['dispatcher_refusals_total{edge="chatstream",kind="sessions"}'] == 1
    assert (await member.open("two")).sequence == 0, "it is there already"
    await member.finish("one")
    await member.open("three")
    await member.finish("two")
    await member.finish("three")


async def test_a_crowded_instance_takes_users_sessions_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.live.desk.MAX_LIVE", 1)
    member, session_id = await world.own()
    await member.open(session_id)
    another, older = world.stream(), world.stream()
    await another.request("another")
    assert await another.closed("another") == "unavailable"
    await older.send(Upstream("", Content("text")))
    assert (await older.status()).name == "UNAVAILABLE"
    pool, of_a_user, _ = await world.served()
    await pool.finish(of_a_user)
    await member.finish(session_id)


async def test_few_sessions_are_opened_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    desk, under_way, most = world.sessions.desk, 0, 0
    opens = desk.open

    async def counted(*asked: Any) -> str | None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await opens(*asked)
        finally:
            under_way -= 1

    monkeypatch.setattr(desk, "open", counted)
    member = await world.join(slots=0)
    ids = [secrets.token_hex(8) for _ in range(3 * MAX_OPENING)]
    await member.send(*(Upstream(each, records.Open("c")) for each in ids))
    for each in ids:
        await member.next(Welcome, each)
        member.sequences[each] = 0
    assert most == MAX_OPENING
    for each in ids:
        await member.finish(each)


LONG = "x" * (records.MAX_NAME + 1)


@pytest.mark.parametrize(
    "status",
    [
        records.Status(LONG),
        records.Status("c", (LONG,)),
        records.Status("c", tuple(map(str, range(records.MAX_AGENTS + 1)))),
        records.Status("c", ("a",), (LONG,)),
        records.Status("c", running=(records.Running(LONG, 1),)),
    ],
    ids=["commander_id", "agent", "agents", "continues", "running"],
)
async def test_a_status_beyond_its_sizes_ends_its_stream(world: World, status: records.Status) -> None:
    peer = world.stream()
    await peer.send(Upstream("", status))
    assert (await peer.status()).name == "INVALID_ARGUMENT"
    assert "too large" in await peer.details()
    assert (await world.metrics())['dispatcher_refusals_total{edge="chatstream",kind="malformed"}'] == 1
    assert not world.sessions.pool.members


@pytest.mark.parametrize("opening", [records.Open(LONG), records.Open("c", 0, (LONG,))])
async def test_an_open_beyond_its_sizes_is_invalid(world: World, opening: records.Open) -> None:
    member = await world.join(slots=0)
    await member.send(Upstream("s", opening), Upstream("y" * 100_000, records.Open("c")))
    assert await member.closed("s") == "invalid"
    assert await member.closed("y" * records.MAX_NAME) == "invalid"
    assert await world.sessions.store.load("s") is None

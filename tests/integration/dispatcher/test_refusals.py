"""How a session is refused: its `closed` code, what the log holds then, and that its neighbours notice nothing."""

import secrets
from collections.abc import AsyncIterator

import pytest

from dispatcher.core.entries import Failed
from shared.records import (
    MAX_NAME,
    MAX_TEXT_BYTES,
    Ack,
    Closed,
    Content,
    Error,
    Open,
    Stop,
    Stopped,
    Thought,
    ToolCall,
    Upstream,
)
from tests.integration.dispatcher.peer import TOKENS, Peer, World, serving


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with serving(max_unacked_packets=8, max_unacked_bytes=4096) as world:
        yield world


async def two(world: World) -> tuple[Peer, str, str, int]:
    """A member with a session and its neighbour: (member, session, neighbour, session's generation)."""
    member, session_id, generation = await world.served(slots=2)
    await world.create()
    neighbour = (await member.serve()).session_id
    return member, session_id, neighbour, generation


async def unharmed(world: World, member: Peer, neighbour: str) -> None:
    """The neighbour on the stream goes on to its end."""
    await member.say(neighbour, "still ")
    await member.finish(neighbour, "here")
    assert await world.text(neighbour) == "still here"
    assert await world.state(neighbour) == "finished"


# ---- fenced


async def test_a_lower_generation_is_fenced(world: World) -> None:
    member, session_id, generation = await world.served()
    await member.cut()
    assert await world.forsaken(session_id) == "waiting"
    successor = await world.join()
    assignment = await successor.serve()
    assert assignment.generation == generation + 1
    late = world.stream()
    late.commander_id = member.commander_id
    await late.request(session_id, generation)
    assert await late.closed(session_id) == "fenced"
    await successor.finish(session_id, "mine")
    assert await world.text(session_id) == "mine"


async def test_the_same_generation_of_another_commander_is_fenced(world: World) -> None:
    member, session_id, generation = await world.served()
    thief = await world.join(slots=0)
    await thief.request(session_id, generation)
    assert await thief.closed(session_id) == "unknown_session", "a token is of one Commander"
    await member.finish(session_id)


@pytest.mark.parametrize("token", [b"", b"x" * 32])
@pytest.mark.parametrize("ahead", [0, 1, 7])
async def test_who_only_knows_the_id_opens_nothing(world: World, token: bytes, ahead: int) -> None:
    """Nor who knows the Commander's too, as the log has them."""
    member, session_id, generation = await world.served()
    thief = await world.join(slots=0, commander_id=member.commander_id)
    thief.token = token
    await thief.request(session_id, generation + ahead)
    assert await thief.closed(session_id) == "unknown_session"
    await member.finish(session_id, "the owner's")
    assert await world.text(session_id) == "the owner's"


async def test_who_only_knows_the_id_opens_nothing_that_a_commander_brought(world: World) -> None:
    member = await world.join(slots=0)
    session_id = secrets.token_hex(8)
    await member.open(session_id)
    thief = await world.join(slots=0, commander_id=member.commander_id)
    for thief.token in (b"", b"x" * 32):
        await thief.request(session_id)
        assert await thief.closed(session_id) == "exists"
    await member.finish(session_id, "the owner's")
    assert await world.text(session_id) == "the owner's"


async def test_a_commander_of_an_earlier_contract_opens_what_was_assigned_on_that_stream_once(world: World) -> None:
    member = await world.join()
    member.token = b""
    session_id = await world.create()
    assignment = await member.serve()
    again = await world.join(slots=0, commander_id=member.commander_id)
    again.token = b""
    await again.request(session_id, assignment.generation)
    assert await again.closed(session_id) == "unknown_session"
    await member.finish(session_id)


async def test_without_tokens_where_the_operator_allows_it() -> None:
    async with serving(tokenless_opens=True) as world:
        member, session_id, generation = await world.served()
        await member.cut()
        again = await world.join(slots=0, commander_id=member.commander_id)
        again.token = b""
        await again.open(session_id, generation)
        again.token = b"wrong"
        await again.request(session_id, generation)
        assert await again.closed(session_id) == "unknown_session", "a wrong one is wrong there too"


async def test_no_token_is_logged_or_shown(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    member, session_id, generation = await world.served()
    token, key = TOKENS[session_id, generation], (await world.record(session_id)).request.assignment_key
    assert token
    assert key
    shown = capfd.readouterr()
    said = shown.out + shown.err
    for secret in (token, key):
        assert secret.hex() not in said
        assert repr(secret)[2:-1] not in said
    await member.finish(session_id)


async def test_a_commander_that_does_not_answer_a_stop_is_fenced(world: World) -> None:
    member, session_id, neighbour, generation = await two(world)
    await member.say(session_id, "Hello ")
    await member.acked(session_id)
    await world.sessions.stop(session_id, "UserCancel", "user")
    await member.next(Stop, session_id)
    await member.say(session_id, "never stops")
    await world.passes(session_id, "stop")
    assert await member.closed(session_id) == "fenced"
    await member.say(session_id, "still")
    await member.say(session_id, Stopped("too late"))
    await member.barrier()
    assert not member.has(Closed), "what comes after `closed` is dropped"
    await member.request(session_id, generation)
    assert await member.closed(session_id) == "fenced"
    assert await world.text(session_id) == "Hello "
    assert (await world.record(session_id)).head.over
    await unharmed(world, member, neighbour)


async def test_an_own_session_that_does_not_answer_a_stop_is_fenced(world: World) -> None:
    member, session_id = await world.own()
    await world.sessions.stop(session_id, "UserCancel", "user")
    await member.next(Stop)
    await world.passes(session_id, "stop")
    assert await member.closed(session_id) == "fenced"
    await member.request(session_id)
    assert await member.closed(session_id) == "fenced"
    await member.half_close()
    assert (await member.status()).name == "OK"


# ---- superseded


async def test_a_second_stream_supersedes_the_first(world: World) -> None:
    member, session_id, neighbour, generation = await two(world)
    await member.say(session_id, "one ")
    await member.acked(session_id)
    second = await world.join(slots=0, commander_id=member.commander_id)
    welcome = await second.open(session_id, generation)
    assert welcome.sequence == 1
    assert await member.closed(session_id) == "superseded"
    await member.say(session_id, "from the old stream ")
    await member.barrier()
    assert not member.has(Closed), "what comes after `closed` is dropped"
    await second.finish(session_id, "two")
    assert await world.text(session_id) == "one two"
    await unharmed(world, member, neighbour)


async def test_opening_again_on_the_same_stream_supersedes_nothing(world: World) -> None:
    member, session_id, generation = await world.served()
    await member.say(session_id, "one ")
    assert (await member.open(session_id, generation)).sequence == 1
    await member.finish(session_id, "two")
    assert not member.has(Closed)
    assert await world.text(session_id) == "one two"


# ---- gap


async def test_a_gap_closes_the_session_once_and_it_is_opened_again(world: World) -> None:
    member, session_id, neighbour, generation = await two(world)
    await member.say(session_id, "one ")
    late = [Upstream(session_id, Content(text), number) for number, text in ((3, "three "), (4, "four "), (5, "."))]
    await member.send(*late)
    await member.send(Upstream(session_id, Content("!"), 6))
    assert await member.closed(session_id) == "gap"
    await member.barrier()
    assert not member.has(Closed), "one `closed` for all that was under way"
    welcome = await member.open(session_id, generation)
    assert welcome.sequence == 1
    await member.say(session_id, "two ", "three ")
    await member.finish(session_id)
    assert await world.text(session_id) == "one two three "
    await unharmed(world, member, neighbour)


async def test_after_a_gap_the_grace_runs(world: World) -> None:
    member, session_id, _ = await world.served()
    await member.say(session_id, "one ")
    await member.send(Upstream(session_id, Content("three "), 3))
    assert await member.closed(session_id) == "gap"
    assert await world.forsaken(session_id) == "failed commander_lost"


# ---- ended


async def test_a_packet_after_the_end(world: World) -> None:
    member, session_id, neighbour, _ = await two(world)
    await member.finish(session_id, "done")
    await member.say(session_id, "more")
    await member.say(session_id, "and more")
    assert await member.closed(session_id) == "ended"
    await member.barrier()
    assert not member.has(Closed), "one `closed` is enough"
    assert await world.text(session_id) == "done"
    assert (await world.record(session_id)).head.sequence == 1
    await unharmed(world, member, neighbour)


async def test_a_packet_after_the_end_in_one_message(world: World) -> None:
    member, session_id, neighbour, _ = await two(world)
    await member.say(session_id, Content("done", True), "more", "and more")
    assert await member.closed(session_id) == "ended"
    await member.barrier()
    assert not member.has(Closed)
    assert await world.ended(session_id) == "finished"
    assert await world.text(session_id) == "done"
    await unharmed(world, member, neighbour)


async def test_an_ended_session_answers_its_last_generation_with_welcome(world: World) -> None:
    member, session_id, generation = await world.served()
    await member.finish(session_id, "done")
    again = await world.join(slots=0, commander_id=member.commander_id)
    assert (await again.open(session_id, generation)).sequence == 1
    await again.half_close()
    assert (await again.status()).name == "OK"


# ---- unknown_session, exists


async def test_a_generation_for_an_unknown_session(world: World) -> None:
    member, _, neighbour, _ = await two(world)
    await member.request("nobody", 1)
    assert await member.closed("nobody") == "unknown_session"
    assert await world.sessions.store.load("nobody") is None
    await unharmed(world, member, neighbour)


async def test_a_packet_for_a_session_that_is_not_open_on_this_stream(world: World) -> None:
    member, session_id, neighbour, _ = await two(world)
    other = await world.join(slots=0)
    await other.say(session_id, "not mine", "not mine either")
    assert await other.closed(session_id) == "unknown_session"
    await other.barrier()
    assert not other.has(Closed), "one `closed` is enough"
    assert (await world.record(session_id)).head.sequence == 0, "its log is not touched"
    await member.finish(session_id)
    await unharmed(world, member, neighbour)


async def test_a_generation_for_a_commanders_own_session(world: World) -> None:
    member, session_id = await world.own()
    other = await world.join(slots=0)
    await other.request(session_id, 1)
    assert await other.closed(session_id) == "unknown_session"
    await member.finish(session_id)


async def test_an_own_id_of_another_commander_exists(world: World) -> None:
    owner, session_id = await world.own()
    thief = world.stream()
    await thief.request(session_id)
    assert await thief.closed(session_id) == "exists"
    await thief.half_close()
    assert (await thief.status()).name == "OK"
    await owner.finish(session_id)


async def test_a_users_session_is_no_commanders_own(world: World) -> None:
    member, session_id, _ = await world.served()
    thief = world.stream()
    await thief.request(session_id)
    assert await thief.closed(session_id) == "exists"
    await member.finish(session_id)


# ---- invalid


@pytest.mark.parametrize(
    "bad",
    [
        Upstream("", Content("x"), 0),
        Upstream("", Content("x" * (MAX_TEXT_BYTES + 1)), 2),
        Upstream("", Thought("", "é" * (MAX_TEXT_BYTES // 2 + 1)), 2),
        Upstream("", Thought("x" * (MAX_TEXT_BYTES + 1), ""), 2),
        Upstream("", ToolCall("x" * (MAX_TEXT_BYTES + 1), "{}", "c"), 2),
        Upstream("", ToolCall("t", "{}", "x" * (MAX_NAME + 1)), 2),
        Upstream("", Error("x" * (MAX_NAME + 1)), 2),
        Upstream("", Content("", True, "x" * (MAX_NAME + 1)), 2),
    ],
    ids=["", "text", "delta", "step_name", "tool_name", "call_id", "code", "finish_reason"],
)
async def test_an_invalid_packet_fails_its_session(bad: Upstream, request: pytest.FixtureRequest) -> None:
    field = request.node.callspec.id
    async with serving() as world:
        member, session_id, neighbour, generation = await two(world)
        await member.say(session_id, "one ")
        await member.send(Upstream(session_id, bad.payload, bad.sequence), Upstream(session_id, Content("two"), 2))
        assert await member.closed(session_id) == "invalid"
        assert await world.state(session_id) == "failed protocol_error", "logged before `closed` is sent"
        assert await world.bodies(session_id, Failed) == [
            Failed("protocol_error", f"invalid: {field} is too large" if field else "invalid")
        ]
        await member.barrier()
        assert not member.has(Closed)
        assert await world.text(session_id) == "one "
        assert (await member.open(session_id, generation)).sequence == 1
        await unharmed(world, member, neighbour)


async def test_a_text_of_the_largest_size_is_taken() -> None:
    async with serving() as world:
        member, session_id, _ = await world.served()
        await member.say(session_id, Thought("é" * (MAX_TEXT_BYTES // 2), "é" * (MAX_TEXT_BYTES // 2)))
        await member.finish(session_id, "x" * MAX_TEXT_BYTES)
        assert await world.text(session_id) == "x" * MAX_TEXT_BYTES


async def test_an_own_stream_carries_one_id(world: World) -> None:
    member, session_id = await world.own()
    await member.request("another")
    await member.say("a third", "text")
    assert await member.closed("another") == "invalid"
    assert await member.closed("a third") == "invalid"
    for other in ("another", "a third"):
        assert await world.sessions.store.load(other) is None, "nothing is logged"
    await member.finish(session_id, "mine")
    await member.half_close()
    assert (await member.status()).name == "OK"


@pytest.mark.parametrize("session_id", ["", "x" * 257])
async def test_an_id_that_is_none(world: World, session_id: str) -> None:
    member = world.stream()
    await member.request(session_id)
    assert (await member.next(Closed)).code == "invalid"
    assert await world.sessions.store.load(session_id) is None


# ---- credit


async def test_more_than_the_credit_in_packets(world: World) -> None:
    member, session_id, neighbour, _ = await two(world)
    await member.say(session_id, *["x"] * 9)
    assert await member.closed(session_id) == "credit"
    assert await world.state(session_id) == "failed protocol_error"
    assert await world.text(session_id) == "x" * 8
    await member.barrier()
    assert not member.has(Closed)
    await unharmed(world, member, neighbour)


async def test_more_than_the_credit_in_bytes(world: World) -> None:
    member, session_id, neighbour, _ = await two(world)
    await member.say(session_id, "x" * 3000, "y" * 1500)
    assert await member.closed(session_id) == "credit"
    assert await world.text(session_id) == "x" * 3000
    await unharmed(world, member, neighbour)


async def test_one_packet_may_be_under_way_whatever_its_size(world: World) -> None:
    member, session_id, _ = await world.served()
    await member.say(session_id, "x" * 5000)
    await member.acked(session_id)
    await member.finish(session_id, "y" * 5000)
    assert await world.text(session_id) == "x" * 5000 + "y" * 5000


async def test_ends_are_outside_the_credit(world: World) -> None:
    member, session_id, neighbour, _ = await two(world)
    await member.say(session_id, *["x"] * 8, Content("", True))
    await member.acked(session_id)
    assert await world.state(session_id) == "finished"
    await member.say(neighbour, *["x"] * 7)
    await member.acked(neighbour)
    await world.sessions.stop(neighbour, "UserCancel", "user")
    stop = await member.next(Stop)
    await member.say(neighbour, *["x"] * 8, Stopped(stop.stop_id))
    await member.acked(neighbour)
    assert not member.has(Closed)


async def test_the_credit_is_for_each_session(world: World) -> None:
    member, session_id, neighbour, _ = await two(world)
    await member.send(*(member.packet(each, Content("x")) for _ in range(8) for each in (session_id, neighbour)))
    await member.acked(session_id)
    await member.acked(neighbour)
    assert not member.has(Closed)
    await member.finish(session_id)
    await member.finish(neighbour)


# ---- an older peer gets the status


LOST, FAULT = "failed commander_lost", "failed protocol_error"


async def older(world: World, *packets: Upstream) -> Peer:
    peer = world.stream()
    for packet in packets:
        await peer.send(packet)
    return peer


async def test_an_older_peers_id_must_be_new(world: World) -> None:
    _, taken = await world.own()
    peer = await older(world, Upstream(taken, Content("x")))
    assert (await peer.status()).name == "ALREADY_EXISTS"
    assert (await world.record(taken)).head.sequence == 0


@pytest.mark.parametrize(
    ("status", "state", "packets"),
    [
        ("ABORTED", LOST, [Upstream("", Content("x"), 1), Upstream("", Content("x"), 3)]),
        ("FAILED_PRECONDITION", "finished", [Upstream("", Content("x", True)), Upstream("", Content("x"))]),
        ("INVALID_ARGUMENT", FAULT, [Upstream("", Content("x"), 1), Upstream("", Content("x"), 0)]),
        ("INVALID_ARGUMENT", FAULT, [Upstream("", Content("x")), Upstream("another", Content("x"))]),
        ("INVALID_ARGUMENT", FAULT, [Upstream("", Content("x" * (MAX_TEXT_BYTES + 1)))]),
        ("INVALID_ARGUMENT", LOST, [Upstream("", Content("x")), Upstream("", Open("c"))]),
    ],
    ids=["gap", "ended", "sequence 0 after numbers", "another id", "oversize", "open on an older stream"],
)
async def test_an_older_peer_gets_the_status(world: World, status: str, state: str, packets: list[Upstream]) -> None:
    session_id = secrets.token_hex(16)
    first = Upstream(session_id, packets[0].payload, packets[0].sequence)
    peer = await older(world, first, *packets[1:])
    assert (await peer.status()).name == status
    assert not [word for word in ("Error", "Traceback", ".py") if word in await peer.details()]
    assert await world.forsaken(session_id) == state


async def test_an_older_peer_that_does_not_answer_a_stop_is_fenced(world: World) -> None:
    session_id = secrets.token_hex(16)
    peer = await older(world, Upstream(session_id, Content("x")))
    await peer.next(Ack)
    await world.sessions.stop(session_id, "UserCancel", "user")
    assert (await peer.next(Stop)).reason == "UserCancel"
    await world.passes(session_id, "stop")
    assert (await peer.status()).name == "FAILED_PRECONDITION"


async def test_an_older_peer_is_read_as_fast_as_its_session_is_logged(world: World) -> None:
    peer = await older(world, *[Upstream("", Content("x"))] * 100, Upstream("", Content("", True)))
    await peer.half_close()
    assert (await peer.status()).name == "OK"

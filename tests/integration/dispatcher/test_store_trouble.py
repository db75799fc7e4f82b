"""The store is away for a while, or does not answer: nothing is acked before it is stored, and nothing gets stuck."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from dispatcher.core.entries import Failed
from dispatcher.core.log import Acquire, Append, Assign, Record, Settle
from dispatcher.store.memory import MemoryStore
from dispatcher.store.ports import StoreUnavailable
from shared.errors import ConfigError
from shared.records import Ack, Assignment, Content, Stop, Stopped, ToolCall, ToolResult, Upstream, Welcome
from tests.integration.dispatcher.peer import SECONDS, World, serving, until


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with serving() as world:
        yield world


async def test_appends_wait_and_are_retried(world: World) -> None:
    member, session_id, _ = await world.served()
    trouble = world.trouble()
    trouble.away = True
    await member.say(session_id, "one ")
    await until(lambda: trouble.asked)
    await member.say(session_id, "two ", Content("three", True))
    runner = world.sessions.runners.by_session[session_id]
    await until(lambda: runner.appends.backlog == 3)
    before = trouble.asked
    await until(lambda: trouble.asked > before, "tried again")
    assert not member.has(Ack), "nothing is acked before it is stored"
    assert (await world.metrics())["dispatcher_backlog_packets"] == 3
    trouble.away = False
    await member.acked(session_id)
    assert await world.text(session_id) == "one two three"


async def test_a_lost_answer_stores_nothing_twice(world: World) -> None:
    member, session_id, _ = await world.served()
    trouble = world.trouble()
    trouble.mute = Append
    await member.say(session_id, "one ", ToolCall("calculate", '{"expression": "6*7"}', "c1"))
    await until(lambda: trouble.asked >= 2)
    trouble.mute = None
    result = await member.next(ToolResult)
    assert (result.call_id, result.status) == ("c1", "OK")
    await member.acked(session_id)
    await member.finish(session_id, "two")
    assert not member.has(ToolResult)
    assert await world.text(session_id) == "one two"
    assert (await world.metrics())['dispatcher_packets_total{kind="content"}'] == 2


async def test_opening_is_refused_while_the_log_cannot_be_reached(world: World) -> None:
    member = await world.join(slots=2)
    await world.create()
    assignment = await member.next(Assignment)
    trouble = world.trouble()
    trouble.away = True
    own = secrets.token_hex(8)
    await member.request(assignment.session_id, assignment.generation)
    await member.request(own)
    assert await member.closed(assignment.session_id) == "unavailable"
    assert await member.closed(own) == "unavailable"
    trouble.away = False
    await member.open(assignment.session_id, assignment.generation)
    await member.open(own)
    await member.finish(assignment.session_id)
    await member.finish(own)


async def test_an_older_peer_is_told_to_come_back(world: World) -> None:
    world.trouble().away = True
    peer = world.stream()
    await peer.send(Upstream("", Content("x")))
    assert (await peer.status()).name == "UNAVAILABLE"
    world.sessions.store.away = False  # type: ignore[attr-defined]


async def test_a_stream_that_breaks_in_the_middle_of_an_open(world: World) -> None:
    """The log gave the session to a stream that is gone: its grace runs all the same."""
    member, session_id, generation = await world.served()
    other = await world.join(slots=0, commander_id=member.commander_id)
    trouble = world.trouble()
    trouble.answers.clear()
    await other.request(session_id, generation)
    await until(lambda: trouble.asked)
    await other.cut()
    await member.cut()
    trouble.answers.set()
    assert await world.forsaken(session_id) == "waiting"


async def test_an_older_peer_that_breaks_in_the_middle_of_its_beginning(world: World) -> None:
    peer, session_id = world.stream(), secrets.token_hex(8)
    trouble = world.trouble()
    trouble.answers.clear()
    await peer.send(Upstream(session_id, Content("x")))
    await world.becomes(session_id, "running")
    await peer.cut()
    trouble.answers.set()
    assert await world.ended(session_id) == "failed commander_lost"


async def test_an_open_whose_answer_is_lost_and_nobody_comes_again(world: World) -> None:
    member, session_id, generation = await world.served()
    await member.cut()
    other = await world.join(slots=0, commander_id=member.commander_id)
    trouble = world.trouble()
    trouble.mute = Acquire
    await other.request(session_id, generation)
    assert await other.closed(session_id) == "unavailable"
    trouble.mute = None
    await other.cut()
    assert await world.forsaken(session_id) == "waiting"


async def test_an_assignment_while_the_store_is_away(world: World) -> None:
    await world.create()
    trouble = world.trouble()
    trouble.away = True
    member = await world.join(slots=1)
    await until(lambda: trouble.asked or not world.sessions.pool.waiting)
    trouble.away = False
    assignment = await member.serve()
    assert assignment.generation == 1
    await member.finish(assignment.session_id)


async def test_an_assignment_whose_answer_is_lost_is_made_again(world: World) -> None:
    session_id = await world.create()
    trouble = world.trouble()
    trouble.mute = Assign
    member = await world.join(slots=1)
    await until(lambda: trouble.lost)
    trouble.mute = None
    await world.forsaken(session_id)
    assignment = await member.serve()
    assert (assignment.session_id, assignment.generation) == (session_id, 2)
    await member.finish(session_id)


async def test_a_stop_in_the_middle_of_an_assignment(world: World) -> None:
    """Between the assignment's entry and its being sent: the Commander gets both, or nothing."""
    session_id = await world.create()
    trouble = world.trouble()
    trouble.reads.clear()
    await world.join(slots=1)
    await until(lambda: trouble.asked or trouble)
    stopping = asyncio.create_task(world.sessions.stop(session_id, "UserCancel", "user"))
    await world.becomes(session_id, "stopped")
    trouble.reads.set()
    async with asyncio.timeout(SECONDS):
        await stopping
    assert await world.state(session_id) == "stopped UserCancel"
    metrics = await world.metrics()
    assert metrics['dispatcher_stops_total{reason="UserCancel"}'] == 1
    assert metrics['dispatcher_sessions_total{outcome="stopped"}'] == 1
    await until(lambda: session_id not in world.sessions.runners.by_session, "its runner is gone")


async def test_a_stop_whose_answer_is_lost_reaches_the_commander(world: World) -> None:
    member, session_id, _ = await world.served()
    trouble = world.trouble()
    trouble.mute = Settle
    with pytest.raises(StoreUnavailable):
        await world.sessions.stop(session_id, "UserCancel", "user")
    trouble.mute = None
    stop = await member.next(Stop)
    await member.say(session_id, Stopped(stop.stop_id))
    await member.acked(session_id)
    assert (await world.metrics())['dispatcher_stops_total{reason="UserCancel"}'] == 1


async def test_a_result_whose_answer_is_lost_is_sent(world: World) -> None:
    member, session_id, _ = await world.served()
    trouble = world.trouble()
    trouble.mute = Settle
    await member.say(session_id, ToolCall("calculate", '{"expression": "6*7"}', "c1"))
    await until(lambda: trouble.asked >= 3)
    trouble.mute = None
    assert "42" in (await member.next(ToolResult)).result_json
    assert len(await world.bodies(session_id, ToolResult)) == 1
    await member.finish(session_id)


async def test_the_queue_time_runs_out_while_the_store_is_away() -> None:
    async with serving(queue_seconds=0.1) as world:
        session_id = await world.create()
        trouble = world.trouble()
        trouble.away = True
        await until(lambda: not world.sessions.pool.waiting)
        trouble.away = False
        assert await world.ended(session_id) == "failed no_commander"


async def test_a_session_whose_creation_was_not_answered_is_found() -> None:
    async with serving(queue_seconds=0.3) as world:
        trouble = world.trouble()
        trouble.mute = Record
        with pytest.raises(StoreUnavailable):
            await world.create()
        trouble.mute = None
        [record] = await trouble.select(["waiting"], 10)
        assert await world.ended(record.session_id) == "failed no_commander"


async def test_an_end_under_way_when_another_stream_opens_the_session(world: World) -> None:
    member, session_id, generation = await world.served()
    other = await world.join(slots=0, commander_id=member.commander_id)
    trouble = world.trouble()
    trouble.answers.clear()
    await member.say(session_id, Content("done", True))
    await until(lambda: trouble.asked)
    await other.request(session_id, generation)
    await until(lambda: trouble.asked == 2)
    trouble.answers.set()
    assert (await other.next(Welcome, session_id)).sequence == 1
    assert (await world.metrics())['dispatcher_sessions_total{outcome="finished"}'] == 1
    assert (await world.metrics())['dispatcher_packets_total{kind="content"}'] == 1


async def test_an_older_peers_end_after_a_stop_is_waited_for(world: World) -> None:
    """It has said its end before it half-closed: it was not lost."""
    peer, session_id = world.stream(), secrets.token_hex(8)
    await peer.send(Upstream(session_id, Content("x")))
    await peer.next(Ack)
    await world.sessions.stop(session_id, "UserCancel", "user")
    await peer.next(Stop)
    trouble = world.trouble()
    trouble.answers.clear()
    await peer.send(Upstream("", Content("late")))
    await until(lambda: trouble.asked)
    await peer.send(Upstream("", Content("", True)))
    await peer.half_close()
    try:
        await until(lambda: world.sessions.runners.by_session[session_id].appends.backlog == 2)
        await world.metrics()  # meanwhile the half-close is seen
    finally:
        trouble.answers.set()
    assert (await peer.status()).name == "OK"
    await until(lambda: session_id not in world.sessions.runners.by_session, "its runner is gone")
    assert await world.state(session_id) == "stopped UserCancel"
    assert not await world.bodies(session_id, Failed)


async def test_a_session_whose_log_was_rolled_back_is_not_left_to_nobody(world: World) -> None:
    """Its Commander does not come back either: the grace begins anew, under the epoch that the log has now."""
    store = world.sessions.store
    assert isinstance(store, MemoryStore)
    session_id = await world.create()
    member = await world.join()
    assignment = await member.next(Assignment)
    before = store._records[session_id]
    await member.open(session_id, assignment.generation)
    await member.say(session_id, "lost")
    await member.acked(session_id)
    await member.cut()
    store._records[session_id], store._entries[session_id] = before, store._entries[session_id][:1]
    assert await world.forsaken(session_id) == "waiting"
    other = await world.join()
    again = await other.serve()
    assert (again.session_id, again.history) == (session_id, None)
    await other.finish(session_id, "said")
    assert await world.text(session_id) == "said"


async def test_a_store_that_is_lost_while_starting_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(*_: object) -> None:
        raise StoreUnavailable("the connection was reset")

    monkeypatch.setattr(MemoryStore, "select", lost)
    with pytest.raises(ConfigError, match=r"^DISPATCHER_STORE: the store was lost .*: the connection was reset$"):
        async with serving():
            pass

"""A Commander is lost, or hands over: another goes on from the history, or the session has failed."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from dispatcher.core.entries import Assigned, Entry, StopEntry
from dispatcher.core.log import Settle
from shared.records import (
    Assignment,
    ClientCall,
    Closed,
    Content,
    Drain,
    Error,
    Message,
    Said,
    Stop,
    Stopped,
    Support,
    Thought,
    ToolCall,
    ToolResult,
)
from tests.integration.dispatcher import waiting_tools
from tests.integration.dispatcher.peer import SECONDS, World, serving, sqlite, until

POLICY = '[[policy]]\nname = "names"\nkind = "phrases"\nphrases = ["Project Nightingale"]\naction = "stop"\n'
TOOL = '[[tool]]\nname = "wait"\nkind = "local"\nuse = "tests.integration.dispatcher.waiting_tools:wait"\n'
CONTINUES = ("default",)


@pytest.fixture(params=["memory", "sqlite"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    waiting_tools.reset()
    (tmp_path / "policies.toml").write_text(POLICY)
    (tmp_path / "tools.toml").write_text(TOOL)
    store = "memory://" if request.param == "memory" else sqlite(tmp_path)
    async with serving(store, policies=tmp_path / "policies.toml", tools=tmp_path / "tools.toml") as world:
        yield world


async def test_a_naive_agents_session_fails(world: World) -> None:
    member, session_id, _ = await world.served()
    await world.join()
    await member.say(session_id, "said ")
    await member.acked(session_id)
    await member.cut()
    assert await world.forsaken(session_id) == "failed commander_lost"
    assert (await world.metrics())["dispatcher_takeovers_total"] == 0


async def test_nothing_logged_is_assigned_again_to_anyone(world: World) -> None:
    member, session_id, _ = await world.served()
    await member.cut()
    assert await world.forsaken(session_id) == "waiting"
    other = await world.join()
    assignment = await other.serve()
    assert (assignment.session_id, assignment.generation, assignment.history) == (session_id, 2, None)
    await other.finish(session_id, "said once")
    assert await world.text(session_id) == "said once"
    assert (await world.metrics())["dispatcher_takeovers_total"] == 1


async def test_a_takeover_has_the_whole_history_and_nothing_is_said_twice(world: World) -> None:
    member, session_id, _ = await world.served(continues=CONTINUES)
    await member.say(
        session_id, Thought("plan", "secret"), "It is ", "sunny and ", ToolCall("wait", '{"name": "a"}', "c1")
    )
    waiting_tools.answer.set()
    result = await member.next(ToolResult)
    await member.say(session_id, "warm", ToolCall("nothing", "{}", "c2"), " in Proj")
    await member.acked(session_id)
    await member.cut()
    assert await world.forsaken(session_id) == "waiting"
    other = await world.join(continues=CONTINUES)
    assignment = await other.next(Assignment)
    assert assignment.generation == 2
    assert assignment.history
    assert assignment.history.sequence == 7
    said, call, outcome, more, bad, refusal, last = assignment.history.entries
    assert (said, more, last) == (Said("It is sunny and "), Said("warm"), Said(" in Proj"))
    assert (call, outcome) == (ToolCall("wait", '{"name": "a"}', "c1"), result)
    assert isinstance(bad, ToolCall)
    assert isinstance(refusal, ToolResult)
    assert refusal.status == "UNKNOWN_TOOL"
    welcome = await other.open(session_id, 2)
    assert welcome.sequence == 7
    await other.finish(session_id, "ect Paris.")
    assert await world.text(session_id) == "It is sunny and warm in Project Paris."
    assert waiting_tools.begun == ["a"]


async def test_who_takes_over_has_the_clients_tools_and_honours_them(world: World) -> None:
    able = (Support("default", ("tools",)),)
    member = await world.join(continues=CONTINUES, supports=able)
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    call = {"id": "c1", "type": "function", "function": {"name": "mine", "arguments": "{}"}}
    history = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]
    tools = [{"type": "function", "function": {"name": "mine", "description": "My own.", "parameters": schema}}]
    asked = {"messages": history, "tools": tools, "tool_choice": "required"}
    session_id = (await world.ask("/v1/sessions", asked)).json()["session_id"]
    first = await member.serve()
    await member.say(session_id, "It rains, ")
    await member.acked(session_id)
    await member.cut()
    assert await world.forsaken(session_id) == "waiting"
    unable = await world.join(continues=CONTINUES)
    await unable.barrier()
    assert not unable.has(Assignment)
    other = await world.join(continues=CONTINUES, supports=able)
    assignment = await other.serve()
    assert (assignment.messages, assignment.parameters_json) == (first.messages, '{"tool_choice":"required"}')
    assert assignment.messages[1:] == (
        Message("assistant", "", (ClientCall("c1", "mine", "{}"),)),
        Message("tool", "rain", (), "c1"),
    )
    (mine,) = (tool for tool in assignment.tools if tool.client)
    assert (mine.name, mine.description) == ("mine", "My own.")
    await other.say(
        session_id, Content("so: ", True, "tool_calls", None, (ClientCall("c2", "mine", '{"city":"Oslo"}'),))
    )
    await other.acked(session_id)
    events = (await world.ask(f"/v1/sessions/{session_id}/events")).text
    assert await world.text(session_id) == "It rains, so: "
    assert 'event: client_call\ndata: {"call_id":"c2","name":"mine","arguments":"{\\"city\\":\\"Oslo\\"}"}\n' in events
    assert (await world.ask(f"/v1/sessions/{session_id}/events")).text == events


async def test_a_policy_sees_across_a_takeover(world: World) -> None:
    member, session_id, _ = await world.served(continues=CONTINUES)
    await member.say(session_id, "Ask Project Night")
    await member.acked(session_id)
    await member.cut()
    assert await world.forsaken(session_id) == "waiting"
    assert (await world.metrics())["dispatcher_held_characters"] == 0
    other = await world.join(continues=CONTINUES)
    await other.serve()
    await other.say(session_id, "ingale")
    await other.next(Stop)
    assert await world.text(session_id) == "Ask "


async def test_at_most_two_takeovers(world: World) -> None:
    session_id = await world.create()
    for generation, state in ((1, "waiting"), (2, "waiting"), (3, "failed commander_lost")):
        member = await world.join(continues=CONTINUES)
        assert (await member.serve()).generation == generation
        await member.say(session_id, f"{generation} ")
        await member.acked(session_id)
        await member.cut()
        assert await world.forsaken(session_id) == state
    assert await world.text(session_id) == "1 2 3 "
    assert (await world.metrics())["dispatcher_takeovers_total"] == 2


async def test_a_takeover_waits_for_the_results_of_tools(world: World) -> None:
    member, session_id, _ = await world.served(continues=CONTINUES)
    await member.say(session_id, ToolCall("wait", '{"name": "a"}', "c1"))
    await member.acked(session_id)
    await member.cut()
    other = await world.join(continues=CONTINUES)
    await world.passes(session_id, "grace")
    await other.barrier()
    assert not other.has(Assignment)
    waiting_tools.answer.set()
    assignment = await other.serve()
    assert assignment.history
    assert [type(entry) for entry in assignment.history.entries] == [ToolCall, ToolResult]
    await other.finish(session_id)


async def test_back_within_the_grace_it_is_nobody_elses(world: World) -> None:
    member, session_id, generation = await world.served(continues=CONTINUES)
    await member.say(session_id, "one ")
    await member.acked(session_id)
    other = await world.join(continues=CONTINUES)
    for _ in range(3):
        await member.cut()
        member_id = member.commander_id
        member = await world.join(slots=0, continues=CONTINUES, commander_id=member_id)
        assert (await member.open(session_id, generation)).sequence == 1
    await member.finish(session_id, "two")
    await other.barrier()
    assert not other.has(Assignment)
    assert len(await world.bodies(session_id, Assigned)) == 1


# ---- hand-over


async def test_a_hand_over_is_assigned_again_now(world: World) -> None:
    member, session_id, _ = await world.served(continues=CONTINUES)
    await member.say(session_id, "one ", Error("", "leaving", retryable=True))
    await member.acked(session_id)
    await member.half_close()
    assert (await member.status()).name == "OK"
    other = await world.join(continues=CONTINUES)
    assignment = await other.serve()
    assert assignment.generation == 2
    assert assignment.history
    assert (assignment.history.sequence, assignment.history.entries) == (2, (Said("one "),))
    await other.finish(session_id, "two")
    assert await world.text(session_id) == "one two"
    assert (await world.metrics())["dispatcher_takeovers_total"] == 0, "a hand-over does not count"


async def test_hand_overs_have_no_limit(world: World) -> None:
    session_id = await world.create()
    for generation in range(1, 6):
        member = await world.join(continues=CONTINUES)
        assert (await member.serve()).generation == generation
        await member.say(session_id, "x", Error(retryable=True))
        await member.acked(session_id)
        await member.cut()
    last = await world.join(continues=CONTINUES)
    await last.serve()
    await last.finish(session_id)
    assert await world.text(session_id) == "xxxxx"


async def test_a_hand_over_before_anything_was_said_needs_no_continues(world: World) -> None:
    member, session_id, _ = await world.served()
    await member.say(session_id, Error(retryable=True))
    await member.acked(session_id)
    await member.cut()
    other = await world.join()
    assert (await other.serve()).session_id == session_id
    await other.finish(session_id)


async def test_a_naive_agents_hand_over_is_its_end(world: World) -> None:
    member, session_id, _ = await world.served()
    await member.say(session_id, "one ", Error(retryable=True))
    assert await world.ended(session_id) == "failed commander_lost"
    await member.acked(session_id)
    await member.half_close()
    assert (await member.status()).name == "OK"


async def test_the_ack_of_a_hand_over_is_not_lost_behind_a_busy_writer(world: World) -> None:
    """The session leaves the stream at once; its Ack must come all the same, for the Commander waits for it."""
    member, session_id, _ = await world.served(slots=3, continues=CONTINUES)
    await world.create()
    neighbour = (await member.serve()).session_id
    calls = [ToolCall("x" * 50000, "{}", f"c{number}") for number in range(4)]
    await member.say(neighbour, *calls)
    await member.say(session_id, "one ", Error(retryable=True))
    await member.acked(session_id)


async def test_a_stop_in_the_middle_of_a_hand_over(world: World) -> None:
    member, session_id, _ = await world.served(continues=CONTINUES)
    await member.say(session_id, ToolCall("wait", '{"name": "a"}', "c1"), Error(retryable=True))
    await member.acked(session_id)
    await world.sessions.stop(session_id, "UserCancel", "user")
    await member.half_close()
    assert (await member.status()).name == "OK"
    assert await world.state(session_id) == "stopped UserCancel"
    await until(lambda: session_id not in world.sessions.runners.by_session)


async def test_an_own_sessions_retryable_error_is_its_end(world: World) -> None:
    peer, session_id = await world.own()
    await peer.say(session_id, Error("boom", "text", retryable=True))
    await peer.acked(session_id)
    assert await world.state(session_id) == "failed boom"


async def test_a_packet_after_a_hand_over(world: World) -> None:
    member, session_id, _ = await world.served(continues=CONTINUES)
    await member.say(session_id, Error(retryable=True), "more", "and more")
    assert await member.closed(session_id) == "ended"
    await member.barrier()
    assert not member.has(Closed)
    other = await world.join(continues=CONTINUES)
    await other.serve()
    await other.finish(session_id, "mine")
    assert await world.text(session_id) == "mine"


# ---- a restart


async def test_after_a_restart_the_grace_runs_and_sessions_resume(tmp_path: Path) -> None:
    async with serving(sqlite(tmp_path), clean=False) as world:
        member, session_id, generation = await world.served(slots=2)
        lost = await world.create()
        await member.serve()
        waiting = await world.create("nobody")
        await member.say(session_id, "one ")
        await member.say(lost, "never more")
        await member.acked(session_id)
        await member.acked(lost)
        own, own_id = await world.own()
        await own.say(own_id, "mine ")
        await own.acked(own_id)
        older = world.stream()
        await older.send(older.packet("older-session", Content("x"), 0))
        await world.becomes("older-session", "running")
    async with serving(sqlite(tmp_path), grace_seconds=0.5) as world:
        assert await world.ended("older-session") == "failed commander_lost"
        assert world.sessions.pool.waiting == 1
        again = await world.join(slots=0, commander_id=member.commander_id)
        assert (await again.open(session_id, generation)).sequence == 1
        await again.finish(session_id, "two")
        assert await world.text(session_id) == "one two"
        mine = world.stream()
        mine.commander_id = own.commander_id
        assert (await mine.open(own_id)).sequence == 1
        await mine.finish(own_id)
        assert await world.ended(lost) == "failed commander_lost"
        assert await world.state(waiting) == "waiting"


async def test_a_stop_outlives_a_restart(tmp_path: Path) -> None:
    # It shall not be over before its Commander is back.
    async with serving(sqlite(tmp_path), clean=False) as world:
        member, session_id, generation = await world.served()
        await world.sessions.stop(session_id, "UserCancel", "user")
    async with serving(sqlite(tmp_path)) as world:
        again = await world.join(slots=0, commander_id=member.commander_id)
        await again.open(session_id, generation)
        stop = await again.next(Stop)
        await again.say(session_id, Stopped(stop.stop_id))
        await again.acked(session_id)


async def test_a_stop_that_nobody_answers_is_over_after_a_restart(tmp_path: Path) -> None:
    (tmp_path / "tools.toml").write_text(TOOL)
    tools = tmp_path / "tools.toml"
    waiting_tools.reset()
    async with serving(sqlite(tmp_path), tools=tools, clean=False) as world:
        member, session_id, _ = await world.served()
        await member.say(session_id, ToolCall("wait", '{"name": "a"}', "call"))
        await member.acked(session_id)
        instance = world.sessions.runners.instance
        # It dies between the stop's entry and all that would follow from it.
        await world.sessions.store.submit(
            session_id, Settle(Entry(StopEntry("stop", "UserCancel", "user"), time.time()))
        )
    async with serving(sqlite(tmp_path), tools=tools, grace_seconds=0.2, stop_seconds=0.3) as world:
        await world.over(session_id)
        assert world.sessions.runners.instance != instance
        [result] = await world.bodies(session_id, ToolResult)
        assert result.status == "UNKNOWN_OUTCOME"


# ---- draining


async def test_a_replica_that_leaves_moves_its_sessions() -> None:
    async with serving(drain_seconds=60, clean=False) as world:
        member, session_id, generation = await world.served(continues=CONTINUES)
        await world.create("nobody")
        draining = asyncio.create_task(world.dispatcher.drain())
        assert (await member.next(Drain)).reason == "leaving"
        waiting = await world.create()
        late = world.stream()
        assert await late.status() is grpc.StatusCode.UNAVAILABLE, "no stream begins where it leaves"
        await member.report(1, {session_id: generation})
        await member.barrier()
        assert not member.has(Assignment), "no assignment while it leaves"
        assert await world.state(waiting) == "waiting"
        await member.finish(session_id, "to its end here")
        await asyncio.wait_for(draining, SECONDS)
        assert await world.state(waiting) == "stopped Shutdown", "the log of the memory store ends with it"


async def test_the_memory_stores_sessions_are_stopped_at_the_drains_end() -> None:
    async with serving(drain_seconds=0.1, clean=False) as world:
        member, session_id, _ = await world.served()
        draining = asyncio.create_task(world.dispatcher.drain())
        stop = await member.next(Stop)
        assert stop.reason == "Shutdown"
        assert not draining.done(), "its Commander gets the time to halt"
        await member.say(session_id, Stopped(stop.stop_id))
        await member.acked(session_id)
        await asyncio.wait_for(draining, SECONDS)
        assert await world.state(session_id) == "stopped Shutdown"


async def test_a_store_that_outlives_the_process_is_not_stopped(tmp_path: Path) -> None:
    async with serving(sqlite(tmp_path), drain_seconds=0.1, clean=False) as world:
        member, session_id, _ = await world.served()
        await world.dispatcher.drain()
        await member.barrier()
        assert not member.has(Stop)
        assert await world.state(session_id) == "running"


async def test_an_aged_stream_drains() -> None:
    async with serving(keepalive={"max_connection_age_ms": 100}) as world:
        member, session_id, _ = await world.served(slots=3)
        assert (await member.next(Drain)).reason == "age"
        waiting = await world.create()
        await member.report(slots=3, running={session_id: 1})
        await member.finish(session_id, "to its end here")
        assert not member.has(Assignment), "no assignment follows on it"
        assert await world.state(waiting) == "waiting"
        assert (await world.metrics())["dispatcher_free_slots"] == 0
        other = await world.join(slots=1)
        assert (await other.serve()).session_id == waiting
        await other.finish(waiting)
        await member.half_close()
        assert (await member.status()).name == "OK"


async def test_an_assignment_under_way_does_not_follow_a_drain() -> None:
    async with serving(keepalive={"max_connection_age_ms": 100}) as world:
        trouble = world.trouble()
        member = await world.join(slots=1)
        trouble.reads.clear()
        session_id = await world.create()
        await member.next(Drain)
        trouble.reads.set()
        other = await world.join(slots=1)
        assert (await other.serve()).session_id == session_id
        await other.finish(session_id)
        assert not member.has(Assignment)

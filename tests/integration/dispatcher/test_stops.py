"""A stop on its way to the Commander: ahead of all else, again after each Welcome, until it is answered."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dispatcher.core.entries import StopEntry, StopSent
from shared.records import Closed, Content, Error, Stop, Stopped, Thought, ToolCall, ToolResult, Welcome
from tests.integration.dispatcher.peer import World, serving

POLICIES = """
[[policy]]
name = "names"
kind = "phrases"
phrases = ["Project Nightingale"]
reads = ["content", "thoughts", "arguments"]
action = "stop"

[[policy]]
name = "limits"
kind = "budget"
max_characters = 100
"""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    (tmp_path / "policies.toml").write_text(POLICIES)
    async with serving(policies=tmp_path / "policies.toml") as world:
        yield world


async def test_a_user_stops(world: World) -> None:
    member, session_id, _ = await world.served()
    await member.say(session_id, "Hello ")
    await member.acked(session_id)
    await world.sessions.stop(session_id, "UserCancel", "user", "pressed Ctrl-C")
    assert await world.state(session_id) == "stopped UserCancel", "the user does not wait for the Commander"
    stop = await member.next(Stop)
    assert (stop.reason, stop.detail) == ("UserCancel", "pressed Ctrl-C")
    await member.say(session_id, "what was under way", Stopped(stop.stop_id, 2, 1, 500))
    await member.acked(session_id)
    assert await world.text(session_id) == "Hello "
    await member.half_close()
    assert (await member.status()).name == "OK"
    metrics = await world.metrics()
    assert metrics['dispatcher_stops_total{reason="UserCancel"}'] == 1
    assert metrics['dispatcher_stop_seconds_count{stage="sent"}'] == 1
    assert metrics['dispatcher_stop_seconds_count{stage="halted"}'] == 1
    assert metrics["dispatcher_deltas_after_stop_total"] == 1
    assert metrics['dispatcher_sessions_total{outcome="stopped"}'] == 1


async def test_a_second_stop_adds_nothing_and_is_answered_like_the_first(world: World) -> None:
    member, session_id, _ = await world.served()
    first = await world.sessions.stop(session_id, "UserCancel", "user")
    second = await world.sessions.stop(session_id, "RiskControl", "operator")
    assert first
    assert second
    assert second.head.reason == first.head.reason == "UserCancel"
    assert len(await world.bodies(session_id, StopEntry)) == 1
    stop = await member.next(Stop)
    await member.barrier()
    assert not member.has(Stop)
    await member.say(session_id, Stopped(stop.stop_id))
    await member.acked(session_id)
    assert (await world.sessions.stop(session_id, "UserCancel", "user")) is not None
    assert await world.sessions.stop("nobody", "UserCancel", "user") is None


async def test_when_a_stop_was_sent_is_logged_once(world: World) -> None:
    member, session_id, generation = await world.served()
    await world.sessions.stop(session_id, "UserCancel", "user")
    stop = await member.next(Stop)
    await member.cut()
    again = await world.join(commander_id=member.commander_id)
    await again.open(session_id, generation)
    assert (await again.next(Stop)).stop_id == stop.stop_id
    await again.say(session_id, Stopped(stop.stop_id))
    await again.acked(session_id)
    stopped, sent, halted = [
        entry for entry in await world.log(session_id) if isinstance(entry.body, StopEntry | StopSent | Stopped)
    ]
    assert isinstance(sent.body, StopSent)
    assert sent.body.stop_id == stop.stop_id
    assert stopped.at <= sent.body.logged_at <= sent.at <= halted.at


async def test_a_stop_that_its_lost_commander_cannot_answer_is_over_all_the_same(world: World) -> None:
    """Else its log would never end for operators, and every instance to come would take it over again."""
    member, session_id, _ = await world.served()
    await world.sessions.stop(session_id, "UserCancel", "user")
    await member.next(Stop)
    await member.cut()
    await world.passes(session_id, "stop")
    await world.over(session_id)
    assert session_id not in world.sessions.runners.by_session


async def test_a_session_that_is_stopped_within_its_grace_is_over_at_its_end(world: World) -> None:
    member, session_id, _ = await world.served()
    await member.say(session_id, "Hello ")
    await member.acked(session_id)
    await member.cut()
    await world.sessions.stop(session_id, "UserCancel", "user")
    await world.passes(session_id, "grace")
    await world.over(session_id)


async def test_the_stop_comes_again_after_each_welcome_until_it_is_answered(world: World) -> None:
    member, session_id, generation = await world.served()
    await world.sessions.stop(session_id, "UserCancel", "user")
    first = await member.next(Stop)
    again = await world.join(slots=0, commander_id=member.commander_id)
    await again.request(session_id, generation)
    stop = await again.next(Stop)
    assert stop == first
    [message] = [message for message in again.messages if any(isinstance(each.signal, Stop) for each in message)]
    kinds = [type(packet.signal) for message in again.messages for packet in message]
    assert kinds.index(Welcome) < kinds.index(Stop)
    await again.open(session_id, generation)
    assert await again.next(Stop) == first
    await again.say(session_id, Stopped(first.stop_id))
    await again.acked(session_id)
    await again.open(session_id, generation)
    await again.barrier()
    assert not again.has(Stop), "it has been answered"
    assert (await world.metrics())['dispatcher_stop_seconds_count{stage="sent"}'] == 1


async def test_the_stop_is_first_in_the_next_message(world: World) -> None:
    member, session_id, _ = await world.served(slots=2)
    await world.create()
    neighbour = (await member.serve()).session_id
    calls = [ToolCall("nothing", "{}", f"c{number}") for number in range(50)]
    await member.say(neighbour, *calls)
    await world.sessions.stop(session_id, "UserCancel", "user")
    await member.next(Stop)
    position = [
        [type(packet.signal) for packet in message].index(Stop)
        for message in member.messages
        if any(isinstance(packet.signal, Stop) for packet in message)
    ]
    assert position == [0]
    for number in range(50):
        assert (await member.next(ToolResult)).call_id == f"c{number}"


@pytest.mark.parametrize("end", [Content("", True), Error("boom")])
async def test_an_end_that_crosses_the_stop_answers_it(world: World, end: Content | Error) -> None:
    member, session_id, _ = await world.served()
    await world.sessions.stop(session_id, "UserCancel", "user")
    await member.say(session_id, end)
    await member.acked(session_id)
    assert (await world.record(session_id)).head.over
    assert await world.state(session_id) == "stopped UserCancel"
    await member.half_close()
    assert (await member.status()).name == "OK"


async def test_a_session_that_is_given_back_when_it_is_stopped_is_over(world: World) -> None:
    member, session_id, _ = await world.served()
    await world.sessions.stop(session_id, "UserCancel", "user")
    await member.next(Stop)
    await member.say(session_id, Error("", "leaving", retryable=True))
    await member.acked(session_id)
    await member.half_close()
    assert (await member.status()).name == "OK"
    assert (await world.record(session_id)).head.over
    assert await world.state(session_id) == "stopped UserCancel"


async def test_stopped_without_a_stop_breaks_the_contract(world: World) -> None:
    member, session_id, _ = await world.served()
    await member.say(session_id, Stopped("invented"))
    await member.acked(session_id)
    assert await world.state(session_id) == "failed protocol_error"


# ---- policies


async def test_a_policy_stops_in_mid_sentence(world: World) -> None:
    member, session_id, _ = await world.served()
    await member.say(session_id, "Ask about Proj", "ect Nightin", "gale, please", " and more")
    stop = await member.next(Stop)
    assert (stop.reason, stop.detail) == ("PolicyViolation", "phrase 1 in content")
    assert await world.state(session_id) == "stopped PolicyViolation"
    await member.say(session_id, Stopped(stop.stop_id))
    await member.acked(session_id)
    assert await world.text(session_id) == "Ask about "
    metrics = await world.metrics()
    assert metrics['dispatcher_policy_hits_total{action="stop",policy="names"}'] == 1
    assert metrics['dispatcher_stops_total{reason="PolicyViolation"}'] == 1
    assert metrics["dispatcher_deltas_after_stop_total"] == 1
    assert metrics['dispatcher_stop_seconds_count{stage="sent"}'] == 1


async def test_a_thought_and_arguments_are_read_too(world: World) -> None:
    member, session_id, _ = await world.served(slots=2)
    await world.create()
    second = (await member.serve()).session_id
    await member.say(session_id, Thought("plan", "Project "), Thought("plan", "Nightingale"))
    assert (await member.next(Stop, session_id)).reason == "PolicyViolation"
    await member.say(second, ToolCall("calculate", '{"expression": "Project \\u004eightingale"}', "c1"))
    assert (await member.next(Stop, second)).reason == "PolicyViolation"
    assert (await member.next(ToolResult, second)).status == "CANCELLED", "it never ran"


async def test_what_is_held_is_counted_and_let_out(world: World) -> None:
    member, session_id, _ = await world.served()
    await member.say(session_id, "about Proj")
    await member.acked(session_id)
    assert (await world.metrics())["dispatcher_held_characters"] == 4
    assert await world.text(session_id) == "about "
    await member.finish(session_id)
    assert await world.text(session_id) == "about Proj"
    assert (await world.metrics())["dispatcher_held_characters"] == 0


async def test_what_is_held_survives_a_resume(world: World) -> None:
    member, session_id, generation = await world.served()
    await member.say(session_id, "about Proj")
    await member.acked(session_id)
    await member.cut()
    again = await world.join(slots=0, commander_id=member.commander_id)
    await again.open(session_id, generation)
    await again.say(session_id, "ect Night", "ingale")
    await again.next(Stop)
    assert await world.text(session_id) == "about "
    assert (await world.metrics())["dispatcher_held_characters"] == 0


async def test_a_budget_of_characters(world: World) -> None:
    member, session_id, _ = await world.served()
    await member.say(session_id, "x" * 90, "y" * 20)
    assert (await member.next(Stop)).reason == "PolicyViolation"
    assert await world.text(session_id) == "x" * 90 + "y" * 10


async def test_a_budget_of_time(tmp_path: Path) -> None:
    (tmp_path / "policies.toml").write_text('[[policy]]\nname = "time"\nkind = "budget"\nmax_seconds = 0.2\n')
    async with serving(policies=tmp_path / "policies.toml") as world:
        member, session_id, _ = await world.served()
        await member.say(session_id, "Hello")
        stop = await member.next(Stop)
        assert await world.state(session_id) == f"stopped {stop.reason}"
        await member.say(session_id, Stopped(stop.stop_id))
        await member.acked(session_id)
        assert await world.text(session_id) == "Hello"


async def test_a_budget_of_time_while_nobody_has_the_session(tmp_path: Path) -> None:
    (tmp_path / "policies.toml").write_text('[[policy]]\nname = "time"\nkind = "budget"\nmax_seconds = 0.2\n')
    async with serving(policies=tmp_path / "policies.toml") as world:
        member, session_id, generation = await world.served()
        await member.cut()
        assert (await world.ended(session_id)).startswith("stopped")
        again = await world.join(slots=0, commander_id=member.commander_id)
        await again.open(session_id, generation)
        stop = await again.next(Stop)
        await again.say(session_id, Stopped(stop.stop_id))
        await again.acked(session_id)
        assert not again.has(Closed)


async def test_a_stop_that_is_not_answered_over_a_cut_stream() -> None:
    async with serving() as world:
        member, session_id, generation = await world.served()
        await world.sessions.stop(session_id, "UserCancel", "user")
        await member.next(Stop)
        await member.cut()
        again = await world.join(slots=0, commander_id=member.commander_id)
        await again.open(session_id, generation)
        await again.next(Stop)
        await world.passes(session_id, "stop")
        assert await again.closed(session_id) == "fenced"

"""Waiting sessions and free slots: who gets what, in which order, and what happens when it is not taken up."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from dispatcher.core.entries import Assigned, Failed
from dispatcher.live.outliers import CONSECUTIVE_FAILURES
from dispatcher.live.pool import QueueFull
from shared.records import Assignment, Error, Stop
from tests.integration.dispatcher.peer import SECONDS, Peer, World, serving, until


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with serving() as world:
        yield world


async def free(world: World) -> float:
    return (await world.metrics())["dispatcher_free_slots"]


def all_free(world: World) -> int:
    return sum(member.free for member in world.sessions.pool.members)


async def finish(member: Peer, assignment: Assignment) -> None:
    await member.open(assignment.session_id, assignment.generation)
    await member.finish(assignment.session_id)


async def test_the_oldest_first(world: World) -> None:
    ids = [await world.create() for _ in range(5)]
    assert (await world.metrics())['dispatcher_sessions{state="waiting"}'] == 5
    member = await world.join(slots=3)
    first = [await member.next(Assignment) for _ in range(3)]
    assert [assignment.session_id for assignment in first] == ids[:3]
    await member.barrier()
    assert not member.has(Assignment), "not more than there are slots"
    for assignment in first:
        await finish(member, assignment)
    await member.report(slots=3)
    rest = [await member.next(Assignment) for _ in range(2)]
    assert [assignment.session_id for assignment in rest] == ids[3:]
    for assignment in rest:
        await finish(member, assignment)


async def test_an_assignment_says_what_was_asked(world: World) -> None:
    member = await world.join()
    session_id = await world.create(prompt="What is it?")
    assignment = await member.next(Assignment)
    assert (assignment.session_id, assignment.generation, assignment.agent) == (session_id, 1, "default")
    assert [(message.role, message.content) for message in assignment.messages] == [("user", "What is it?")]
    assert {tool.name for tool in assignment.tools} == {"current_time", "calculate"}
    assert assignment.history is None
    await finish(member, assignment)


async def test_spread_over_the_members_with_most_free_slots(world: World) -> None:
    members = [await world.join(slots=2) for _ in range(3)]
    for _ in range(3):
        await world.create()
    for member in members:
        await finish(member, await member.next(Assignment))
        assert not member.has(Assignment)


async def test_an_agent_goes_to_those_who_offer_it(world: World) -> None:
    poet = await world.join(slots=1, agents=("poet",))
    clerk = await world.join(slots=2, agents=("clerk", "default"))
    await world.create("clerk")
    await world.create("poet")
    await world.create("nobody")
    assert (await poet.next(Assignment)).agent == "poet"
    assert (await clerk.next(Assignment)).agent == "clerk"
    await clerk.barrier()
    assert not clerk.has(Assignment)
    assert not poet.has(Assignment)
    assert world.sessions.pool.waiting == 1


async def test_slots_are_counted_from_what_was_sent_and_received(world: World) -> None:
    """free = free_slots - (sent - received): a status that crosses an assignment on the wire frees nothing."""
    member = await world.join(slots=2)
    await world.create()
    assignment = await member.next(Assignment)
    assert all_free(world) == 1
    await member.report(slots=2, received=0)
    await member.barrier()
    assert all_free(world) == 1, "sent, not received"
    await member.report(slots=1, running={assignment.session_id: 1})
    await member.barrier()
    assert all_free(world) == 1, "received, and it took a slot"
    await member.report(slots=0, running={assignment.session_id: 1})
    await member.barrier()
    assert all_free(world) == 0
    await finish(member, assignment)
    await member.report(slots=2)
    await member.barrier()
    assert await free(world) == 2
    assert (await world.metrics())["dispatcher_commanders"] == 1


async def test_two_streams_of_one_commander_are_one_commander(world: World) -> None:
    first = await world.join(slots=1)
    await world.join(slots=0, commander_id=first.commander_id)
    assert (await world.metrics())["dispatcher_commanders"] == 1


async def test_a_dropped_assignment_is_made_again_at_once(world: World) -> None:
    member = await world.join(slots=1)
    session_id = await world.create()
    assert (await member.next(Assignment)).generation == 1
    await member.report(slots=1)  # received, and not among what runs
    again = await member.next(Assignment)
    assert (again.session_id, again.generation) == (session_id, 2)
    await finish(member, again)
    assert (await world.metrics())["dispatcher_takeovers_total"] == 1


async def test_an_assignment_that_is_held_is_not_made_again(world: World) -> None:
    member = await world.join(slots=2)
    session_id = await world.create()
    assignment = await member.next(Assignment)
    await member.report(slots=1, running={session_id: 1})
    await member.report(slots=1, running={session_id: 1})
    await member.barrier()
    assert not member.has(Assignment)
    await finish(member, assignment)


async def test_a_session_that_is_dropped_after_it_was_opened(world: World) -> None:
    member, session_id, _ = await world.served()
    await member.report(slots=1)
    again = await member.next(Assignment)
    assert (again.session_id, again.generation) == (session_id, 2)
    await finish(member, again)


async def test_an_assignment_that_is_not_opened_in_the_grace_is_made_again() -> None:
    async with serving() as world:
        member = await world.join(slots=2)
        session_id = await world.create()
        assert (await member.next(Assignment)).generation == 1
        await world.forsaken(session_id)
        again = await member.next(Assignment)
        assert (again.session_id, again.generation) == (session_id, 2)
        await finish(member, again)


async def test_a_prompt_that_kills_its_commanders_does_not_kill_them_all(world: World) -> None:
    session_id = await world.create()
    for _ in range(3):
        member = await world.join(slots=1)
        assert (await member.next(Assignment)).session_id == session_id
        await member.report(slots=0)
        await member.barrier()
        await member.cut()
    assert await world.ended(session_id) == "failed commander_lost"
    assert len(await world.bodies(session_id, Assigned)) == 3
    assert (await world.metrics())["dispatcher_takeovers_total"] == 2


async def test_a_member_that_goes_before_its_assignment_opened() -> None:
    async with serving() as world:
        member = await world.join()
        session_id = await world.create()
        await member.next(Assignment)
        await member.cut()
        await world.forsaken(session_id)
        other = await world.join()
        assignment = await other.serve()
        assert (assignment.session_id, assignment.generation) == (session_id, 2)
        await other.finish(session_id)


# ---- the queue's limits


async def test_the_queue_has_a_limit() -> None:
    async with serving(queue_limit=2) as world:
        await world.create()
        await world.create()
        with pytest.raises(QueueFull) as caught:
            await world.create()
        assert caught.value.retry_after > 0
        member = await world.join(slots=3)
        for _ in range(2):
            await finish(member, await member.next(Assignment))
        await world.create()
        await finish(member, await member.next(Assignment))


async def test_without_a_queue_a_free_slot_is_enough() -> None:
    async with serving(queue_limit=0) as world:
        with pytest.raises(QueueFull):
            await world.create()
        member = await world.join(slots=2)
        await world.create()
        await finish(member, await member.next(Assignment))
        with pytest.raises(QueueFull):
            await world.create("another")


async def test_prompts_that_come_at_once_keep_to_the_limit() -> None:
    async with serving(queue_limit=2) as world:
        await world.join(slots=1)
        trouble = world.trouble()
        trouble.answers.clear()
        making = [asyncio.create_task(world.create()) for _ in range(6)]
        await until(lambda: sum(task.done() for task in making) == 3)
        trouble.answers.set()
        async with asyncio.timeout(SECONDS):
            outcomes = await asyncio.gather(*making, return_exceptions=True)
        assert sum(isinstance(outcome, QueueFull) for outcome in outcomes) == 3


async def test_the_queue_time() -> None:
    async with serving(queue_seconds=0.1) as world:
        session_id = await world.create()
        assert await world.ended(session_id) == "failed no_commander"
        assert await world.bodies(session_id, Failed) == [Failed("no_commander")]
        metrics = await world.metrics()
        assert metrics['dispatcher_sessions_total{outcome="failed"}'] == 1
        member = await world.join()
        await member.barrier()
        assert not member.has(Assignment)


async def test_a_waiting_session_is_stopped(world: World) -> None:
    session_id = await world.create()
    assert await world.sessions.stop(session_id, "UserCancel", "user")
    assert await world.state(session_id) == "stopped UserCancel"
    assert world.sessions.pool.waiting == 0
    member = await world.join()
    await member.barrier()
    assert not member.has(Assignment), "a stopped session is never assigned"
    metrics = await world.metrics()
    assert metrics['dispatcher_stops_total{reason="UserCancel"}'] == 1
    assert metrics['dispatcher_sessions_total{outcome="stopped"}'] == 1


async def test_an_assigned_session_is_stopped_before_it_is_opened(world: World) -> None:
    member = await world.join()
    session_id = await world.create()
    assignment = await member.next(Assignment)
    await world.sessions.stop(session_id, "UserCancel", "user")
    await member.barrier()
    assert not member.has(Stop), "never before its Welcome"
    await member.request(session_id, assignment.generation)
    stop = await member.next(Stop)
    assert [type(packet.signal).__name__ for packet in member.inbox][:1] == ["Welcome"]
    assert stop.reason == "UserCancel"


# ---- which agents are offered


async def test_agents_stay_known_for_the_queue_time() -> None:
    async with serving(queue_seconds=0.5) as world:
        assert await world.sessions.agents() == []
        member = await world.join(agents=("poet", "clerk"))
        assert await world.sessions.agents() == ["clerk", "poet"]
        await member.cut()
        await until(lambda: not world.sessions.pool.members)
        await until(lambda: not world.sessions.runners._tasks)
        assert await world.sessions.agents() == ["clerk", "poet"], "also of one that was there for a moment"
        async with asyncio.timeout(SECONDS):
            while await world.sessions.agents():  # noqa: ASYNC110 - nothing tells of a name that is forgotten
                await asyncio.sleep(0.01)


async def test_a_status_without_a_stream_of_the_pool_is_nothing(world: World) -> None:
    peer, session_id = await world.own()
    await peer.report(slots=5)
    await peer.finish(session_id)
    assert not world.sessions.pool.members


async def test_no_slots_of_a_commander_that_goes(world: World) -> None:
    member = await world.join(slots=7)
    assert await free(world) == 7
    await member.half_close()
    await member.status()
    await until(lambda: not world.sessions.pool.members)
    assert await free(world) == 0
    await world.create()
    assert world.sessions.pool.waiting == 1


async def test_odd_statuses_harm_nobody(world: World) -> None:
    member = await world.join(slots=1)
    await member.report(slots=2**32 - 1, received=2**63)
    await member.report(slots=0, received=2**63, running={"x": 2**64 - 1, "": 0})
    await member.barrier()
    assert all_free(world) == 0
    await member.report(slots=1, received=2**63)
    await member.barrier()
    assert all_free(world) == 1, "more than was sent frees nothing"
    await member.report(slots=1, received=0)
    await member.barrier()
    session_id = await world.create()
    assert (await member.serve()).session_id == session_id
    await member.finish(session_id)


async def test_an_assignment_that_could_not_be_sent_counts_as_none() -> None:
    async with serving(takeovers=0) as world:
        session_id = await world.create()
        trouble = world.trouble()
        trouble.answers.clear()
        member = await world.join(slots=1)
        await until(lambda: trouble.asked)
        await member.cut()
        await until(lambda: not world.sessions.pool.members)
        trouble.answers.set()
        await world.waits(session_id)
        other = await world.join(slots=1)
        assert (await other.serve()).session_id == session_id
        await other.finish(session_id)
        assert (await world.metrics())["dispatcher_takeovers_total"] == 0


# ---- Commanders that fail


async def test_one_that_fails_at_once_beside_one_that_serves(world: World) -> None:
    """As with a wrong key: its slots are always free, and would draw all sessions."""
    broken, whole = await world.join(slots=8), await world.join(slots=2)
    failed, served = 0, 0
    for _ in range(3 * CONSECUTIVE_FAILURES):
        session_id = await world.create()
        await until(lambda: broken.has(Assignment) or whole.has(Assignment))
        if broken.has(Assignment):
            await broken.serve()
            await broken.say(session_id, Error("agent_error", "401"))
            assert await world.ended(session_id) == "failed agent_error"
            await broken.report(slots=8)
            await broken.barrier()
            failed += 1
        else:
            await whole.serve()
            await whole.finish(session_id)
            assert await world.ended(session_id) == "finished"
            await whole.report(slots=2)
            await whole.barrier()
            served += 1
    assert failed <= CONSECUTIVE_FAILURES, (failed, served)


async def test_what_one_drops_goes_to_another(world: World) -> None:
    broken, whole = await world.join(slots=8), await world.join(slots=1)
    session_id = await world.create()
    assert (await broken.next(Assignment)).session_id == session_id
    await broken.report(slots=8)
    again = await whole.next(Assignment)
    assert (again.session_id, again.generation) == (session_id, 2)
    await finish(whole, again)

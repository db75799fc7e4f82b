"""Several Dispatchers over one log: assignment, stops, takeovers and tools across instances (session rules)."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterator
from pathlib import Path

import pytest

from dispatcher.core.entries import Assigned, Call, Entry, StopEntry
from dispatcher.core.log import Acquire, Append, Applied, Assign, Change, Outcome, Record, Settle, TakeOver
from dispatcher.live.pool import QueueFull
from dispatcher.store.ports import Created, StoreUnavailable
from dispatcher.tools.identity import NOT_AT_HAND
from shared.records import Assignment, Closed, Content, Error, Stop, Stopped, ToolCall, ToolResult, Upstream
from tests.integration.dispatcher import waiting_tools
from tests.integration.dispatcher.peer import World, serving, until
from tests.shared_store import SharedStore, View

TOOL = """
[[tool]]
name = "wait"
kind = "local"
use = "tests.integration.dispatcher.waiting_tools:wait"

[[tool]]
name = "as_the_user"
kind = "http"
description = "Never reached."
url = "https://shop.example/"
forward_token = true
"""
CONTINUES = ("default",)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> SharedStore:
    for name in ("LEASE_SECONDS", "RENEW_SECONDS", "LOOK_SECONDS"):
        monkeypatch.setattr(f"dispatcher.live.neighbours.{name}", 0.02)
    return SharedStore()


@pytest.fixture
async def worlds(shared: SharedStore, tmp_path: Path) -> AsyncIterator[tuple[World, World]]:
    waiting_tools.reset()
    (tmp_path / "tools.toml").write_text(TOOL)
    before = asyncio.all_tasks()
    async with contextlib.AsyncExitStack() as stack:
        made = [
            await stack.enter_async_context(serving(shared=shared, tools=tmp_path / "tools.toml", queue_limit=2))
            for _ in range(2)
        ]
        await until(lambda: len(shared.leases) == 2, "leases")
        yield made[0], made[1]
    await until(lambda: not asyncio.all_tasks() - before - {asyncio.current_task()}, "tasks left")


def view(world: World) -> View:
    replicas = world.sessions.store.replicas
    assert isinstance(replicas, View)
    return replicas


@contextlib.contextmanager
def lapsed(shared: SharedStore, world: World) -> Iterator[None]:
    """The world's lease has ended, and it does not know yet."""
    view(world).running.clear()
    shared.leases.discard(view(world).instance)
    yield
    view(world).running.set()


async def test_a_prompt_runs_at_a_commander_of_another_instance(worlds: tuple[World, World]) -> None:
    a, b = worlds
    member = await b.join()
    session_id = await a.create()
    assignment = await member.serve()
    assert (assignment.session_id, assignment.generation) == (session_id, 1)
    await member.finish(session_id, "said at b")
    assert await a.ended(session_id) == "finished"
    assert await a.text(session_id) == "said at b"


async def test_the_oldest_is_taken_first_wherever_it_came_in(worlds: tuple[World, World], shared: SharedStore) -> None:
    a, b = worlds
    shared.lossy = True  # both learn of the other's sessions by looking
    first, second = await a.create(), await b.create()
    await until(lambda: a.sessions.pool.waiting == b.sessions.pool.waiting == 2, "both known")
    member = await b.join()
    assert (await member.serve()).session_id == first
    await member.finish(first)
    await member.report(1)
    assert (await member.serve()).session_id == second
    await member.finish(second)


async def test_who_hears_nothing_of_the_others_is_not_ready(worlds: tuple[World, World]) -> None:
    a, b = worlds
    view(a).trouble = "no rights to its channel"
    assert a.sessions.trouble() == ["deaf to other instances: no rights to its channel"]
    assert b.sessions.trouble() == []
    view(a).trouble = ""
    assert a.sessions.trouble() == []


async def test_the_queues_limit_is_the_stores(worlds: tuple[World, World]) -> None:
    a, b = worlds
    await a.create()
    await b.create()
    for world in worlds:
        with pytest.raises(QueueFull):
            await world.create()
    await until(lambda: a.sessions.pool.in_store == b.sessions.pool.in_store == 2, "counted")
    await until(lambda: a.sessions.pool.waiting == 2, "heard of")
    metrics = [await world.metrics() for world in worlds]
    assert [each["dispatcher_waiting_sessions"] for each in metrics] == [2, 2]
    assert [each['dispatcher_sessions{state="waiting"}'] for each in metrics] == [1, 1]  # of each instance


async def test_a_session_that_nobody_takes_ends_once(shared: SharedStore) -> None:
    async with (
        serving(shared=shared, queue_seconds=0.1) as a,
        serving(shared=shared, queue_seconds=0.1) as b,
    ):
        session_id = await a.create()
        assert await b.ended(session_id) == "failed no_commander"
        assert [await world.state(session_id) for world in (a, b)] == ["failed no_commander"] * 2


async def test_any_instance_stops_and_the_commander_hears_at_once(worlds: tuple[World, World]) -> None:
    a, b = worlds
    member, session_id, _ = await a.served()
    await member.say(session_id, "said ")
    await member.acked(session_id)
    assert await b.sessions.stop(session_id, "UserCancel", "user")
    stop = await member.next(Stop, session_id)
    assert stop.reason == "UserCancel"
    await member.say(session_id, Content("too late"), Stopped(stop.stop_id, 1, 1, 10))
    await member.acked(session_id)
    assert await b.text(session_id) == "said "
    metrics = [await world.metrics() for world in worlds]
    assert [each['dispatcher_stops_total{reason="UserCancel"}'] for each in metrics] == [1, 0]  # counted once
    assert metrics[0]['dispatcher_stop_seconds_count{stage="halted"}'] == 1


async def test_a_commander_moves_to_another_instance_and_the_first_lets_go(worlds: tuple[World, World]) -> None:
    a, b = worlds
    member, session_id, generation = await a.served()
    await member.say(session_id, "said at a, ")
    await member.acked(session_id)
    moved = await b.join(commander_id=member.commander_id)
    assert (await moved.open(session_id, generation)).sequence == 1
    assert await member.closed(session_id) == "superseded"
    await moved.finish(session_id, "and at b")
    assert await a.text(session_id) == "said at a, and at b"
    await until(lambda: not a.sessions.runners.by_session, "a has let go")


async def test_one_that_left_without_a_word_is_not_waited_for(worlds: tuple[World, World]) -> None:
    """Its stream broke at the first, which has begun its grace; the other's open ends that."""
    a, b = worlds
    member, session_id, generation = await a.served()
    await member.say(session_id, "said at a, ")
    await member.acked(session_id)
    await member.cut()
    moved = await b.join(commander_id=member.commander_id)
    await moved.open(session_id, generation)
    await until(lambda: not a.sessions.runners.by_session, "a has let go")
    await moved.finish(session_id, "and at b")
    assert await b.ended(session_id) == "finished"


async def test_a_dead_instances_sessions_are_taken_over(worlds: tuple[World, World], shared: SharedStore) -> None:
    a, b = worlds
    member, session_id, _ = await a.served(continues=CONTINUES)
    await member.say(session_id, "said at a, ")
    await member.acked(session_id)
    other = await b.join(continues=CONTINUES)
    view(a).away = True  # as good as dead
    shared.leases.discard(view(a).instance)
    await b.forsaken(session_id)
    assignment = await other.serve()
    assert (assignment.session_id, assignment.generation) == (session_id, 2)
    assert assignment.history
    view(a).away = False
    assert await member.closed(session_id) == "superseded"
    await other.finish(session_id, "and at b")
    assert await b.text(session_id) == "said at a, and at b"


async def test_an_instance_that_was_paused_takes_its_sessions_back(
    worlds: tuple[World, World], shared: SharedStore
) -> None:
    a, b = worlds
    member, session_id, generation = await a.served()
    await member.say(session_id, "before, ")
    await member.acked(session_id)
    with lapsed(shared, a):
        await until(lambda: session_id in b.sessions.runners.by_session, "b has taken it over")
    await until(lambda: session_id not in b.sessions.runners.by_session, "b has let go")
    head = (await a.record(session_id)).head
    assert (head.instance, head.generation) == (a.sessions.runners.instance, generation)
    await member.report(0, {session_id: generation})
    await member.say(session_id, "between, ")
    await member.acked(session_id)
    await member.finish(session_id, "after")
    assert await b.text(session_id) == "before, between, after"


async def test_a_paused_instance_that_comes_too_late_lets_the_commander_open_again(
    worlds: tuple[World, World], shared: SharedStore
) -> None:
    a, b = worlds
    member, session_id, generation = await a.served(continues=CONTINUES)
    await member.say(session_id, "before, ")
    await member.acked(session_id)
    view(a).listener, listener = None, view(a).listener  # it hears of nothing
    with lapsed(shared, a):
        assert await b.forsaken(session_id) == "waiting"
    view(a).listener = listener
    assert await member.closed(session_id) == "gap"
    welcome = await member.open(session_id, generation)
    assert welcome.sequence == 1
    await member.finish(session_id, "after")
    assert await b.text(session_id) == "before, after"
    await until(lambda: not b.sessions.pool.waiting, "b knows")


async def test_a_tool_runs_on_where_its_call_was_logged(worlds: tuple[World, World]) -> None:
    a, b = worlds
    member, session_id, generation = await a.served()
    await member.say(session_id, ToolCall("wait", '{"name": "t"}', "c1"))
    await member.acked(session_id)
    moved = await b.join(commander_id=member.commander_id)
    await moved.open(session_id, generation, "c1")
    waiting_tools.answer.set()
    result = await moved.next(ToolResult, session_id)
    assert (result.call_id, result.status) == ("c1", "OK")
    assert waiting_tools.begun == ["t"]
    await moved.finish(session_id)
    await until(lambda: not a.sessions.runners.by_session, "a has let go")


async def test_a_users_token_stays_where_its_session_was_asked_for(worlds: tuple[World, World]) -> None:
    """After a takeover a call that needs it is not made without it, and says why."""
    a, b = worlds
    member, session_id, generation = await a.served()
    a.sessions.runners.tokens.keep(session_id, "its.own.token")
    moved = await b.join(commander_id=member.commander_id)
    await moved.open(session_id, generation)
    await moved.say(session_id, ToolCall("as_the_user", "{}", "c1"))
    result = await moved.next(ToolResult, session_id)
    error = {"message": NOT_AT_HAND, "code": "user_unknown"}
    assert (result.status, json.loads(result.result_json)["error"]) == ("TOOL_ERROR", error)
    await moved.finish(session_id)
    await until(lambda: not a.sessions.runners.by_session, "a has let go")


async def test_a_stop_cancels_a_tool_that_runs_elsewhere(worlds: tuple[World, World]) -> None:
    a, b = worlds
    member, session_id, generation = await a.served()
    await member.say(session_id, ToolCall("wait", '{"name": "t"}', "c1"))
    await member.acked(session_id)
    moved = await b.join(commander_id=member.commander_id)
    await moved.open(session_id, generation, "c1")
    assert await b.sessions.stop(session_id, "UserCancel", "user")
    assert (await moved.next(ToolResult, session_id)).status == "CANCELLED"
    stop = await moved.next(Stop, session_id)
    await moved.say(session_id, Stopped(stop.stop_id, 1, 0, 10))
    await moved.acked(session_id)
    await until(lambda: not a.sessions.runners.by_session, "a has let go")


async def test_a_call_whose_instance_is_gone_gets_unknown_outcome(
    worlds: tuple[World, World], shared: SharedStore
) -> None:
    a, b = worlds
    member, session_id, generation = await a.served()
    await member.say(session_id, ToolCall("wait", '{"name": "t"}', "c1"))
    await member.acked(session_id)
    moved = await b.join(commander_id=member.commander_id)
    await moved.open(session_id, generation, "c1")
    await moved.barrier()
    assert not moved.has(ToolResult), "a lives: its answer is waited for"
    view(a).away = True
    shared.leases.discard(view(a).instance)
    assert (await moved.next(ToolResult, session_id)).status == "UNKNOWN_OUTCOME"
    view(a).away = False
    waiting_tools.answer.set()
    await moved.finish(session_id)
    assert [result.status for result in await b.bodies(session_id, ToolResult)] == ["UNKNOWN_OUTCOME"]


async def test_a_stop_that_was_not_answered_takes_the_session_from_nobody(worlds: tuple[World, World]) -> None:
    a, b = worlds
    member, session_id, _ = await a.served()
    trouble = b.trouble()
    trouble.away = True
    with pytest.raises(StoreUnavailable):
        await b.sessions.stop(session_id, "UserCancel", "user")
    trouble.away = False
    await until(lambda: not b.sessions.runners._tasks, "b has looked what became of it")
    assert session_id not in b.sessions.runners.by_session, "it is a's: b has no silence to conclude from"
    await member.finish(session_id)


async def test_a_grace_that_ends_as_another_stops_the_session(worlds: tuple[World, World], shared: SharedStore) -> None:
    a, b = worlds
    member, session_id, _ = await a.served(continues=CONTINUES)
    await member.say(session_id, "said")
    await member.acked(session_id)
    shared.lossy = True  # a learns of the stop only as it would put the session among the waiting
    await member.cut()
    assert await b.sessions.stop(session_id, "UserCancel", "user")
    await a.passes(session_id, "grace")
    await a.passes(session_id, "grace")  # of the stopped one, as the log has it
    await a.over(session_id)
    await until(lambda: not a.sessions.runners.by_session, "a has let go")


async def test_a_session_that_was_taken_over_without_an_answer_is_not_left_to_nobody(
    worlds: tuple[World, World], shared: SharedStore
) -> None:
    a, b = worlds
    _, session_id, _ = await a.served()
    other = await b.join()
    trouble = b.trouble()
    trouble.mute = TakeOver
    view(a).away = True  # as good as dead
    shared.leases.discard(view(a).instance)
    await until(lambda: trouble.lost, "b has it, and does not know")
    trouble.mute = None
    await b.forsaken(session_id)
    assert (await other.serve()).session_id == session_id
    view(a).away = False
    await other.finish(session_id)


async def test_a_grace_that_ends_while_a_call_is_open_begins_anew(shared: SharedStore) -> None:
    async with serving(shared=shared) as a, serving(shared=shared, grace_seconds=600) as b:
        member, session_id, generation = await a.served(continues=CONTINUES)
        other = await b.join(continues=CONTINUES)
        shared.lossy = True
        with lapsed(shared, a):
            await until(lambda: session_id in b.sessions.runners.by_session, "b has taken it over")
            runner = b.sessions.runners.by_session[session_id]
            call = Entry(Call("wait", "{}", "c1", a.sessions.runners.instance), time.time(), generation, 1)
            # It was on its way, and b is not told.
            await shared.memory.submit(session_id, Append(runner.session.epoch, (call,)))
            runner.deadlines.come("grace")
            await until(
                lambda: isinstance(shared.memory._entries[session_id][-1].body, ToolResult), "the call's result"
            )
            await until(lambda: "grace" in runner.deadlines, "it begins anew")
            assert [result.status for result in await b.bodies(session_id, ToolResult)] == ["UNKNOWN_OUTCOME"]
            runner.deadlines.come("grace")
            assert (await other.serve()).session_id == session_id
        shared.lossy = False
        await other.finish(session_id)
        assert await member.closed(session_id) == "superseded"


async def test_a_call_of_a_session_that_is_over_gets_its_result_too(worlds: tuple[World, World]) -> None:
    """Its Commander had answered the stop before the call's instance was known to be gone."""
    a, _ = worlds
    session_id, now = await a.create("nobody"), time.time()
    call, stop = Call("wait", "{}", "c1", "gone"), StopEntry("stop", "UserCancel", "user")
    for change in (
        Assign("c1", "gone", False, now),
        Acquire("c1", 1, "gone", now, excused=True),
        Append(2, (Entry(call, now, 1, 1),)),
        Settle(Entry(stop, now)),
        Append(2, (Entry(Stopped("stop"), now, 1, 2),)),
    ):
        assert isinstance(await a.sessions.store.submit(session_id, change), Applied), change
    await a.over(session_id)
    assert [result.status for result in await a.bodies(session_id, ToolResult)] == ["UNKNOWN_OUTCOME"]


async def test_no_lease_is_judged_soon_after_the_store_was_away(
    worlds: tuple[World, World], shared: SharedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = worlds
    _, session_id, _ = await a.served()
    neighbours = b.sessions.neighbours
    assert neighbours
    await until(lambda: neighbours._may_judge, "b judges leases")
    monkeypatch.setattr("dispatcher.live.neighbours.LEASE_SECONDS", 3600)
    view(b).away = True
    await until(lambda: not neighbours._may_judge, "b knows")
    view(b).away = False
    with lapsed(shared, a):
        for _ in range(5):  # b renews, and looks
            shared.leases.discard(b.sessions.runners.instance)
            await until(lambda: b.sessions.runners.instance in shared.leases, "renewed")
        assert session_id not in b.sessions.runners.by_session


async def test_a_commander_that_gives_a_session_back_is_replaced_elsewhere(worlds: tuple[World, World]) -> None:
    a, b = worlds
    member, session_id, _ = await a.served(continues=CONTINUES)
    await member.say(session_id, "said ", Error("commander_lost", "leaves", retryable=True))
    other = await b.join(continues=CONTINUES)
    assignment = await other.serve()
    assert (assignment.session_id, assignment.generation) == (session_id, 2)
    await other.finish(session_id, "and done")
    assert await a.text(session_id) == "said and done"
    assert (await a.record(session_id)).head.takeovers == 0


async def test_two_instances_do_not_assign_one_session_twice(worlds: tuple[World, World]) -> None:
    members = [await world.join(slots=2) for world in worlds]
    session_ids = [await worlds[n % 2].create() for n in range(4)]
    await until(lambda: sum(len(member.has(Assignment)) for member in members) == 4, "assigned")
    served = [assignment.session_id for member in members for assignment in member.has(Assignment)]
    assert sorted(served) == sorted(session_ids)
    for member in members:
        for _ in range(2):
            assignment = await member.serve()
            await member.finish(assignment.session_id)
        assert not member.has(Closed)
    assert [await world.metrics() for world in worlds]


async def test_an_instance_that_leaves_gives_its_sessions_away(shared: SharedStore) -> None:
    async with serving(shared=shared) as b:
        other = await b.join(continues=CONTINUES)
        async with serving(shared=shared, clean=False) as a:
            await other.report(0)
            await until(lambda: not b.sessions.pool.free("default"), "b is full")
            member, session_id, _ = await a.served(continues=CONTINUES)
            await member.say(session_id, "said ")
            await member.acked(session_id)
        assert a.sessions.runners.instance not in shared.leases
        assert await b.forsaken(session_id) == "waiting"
        await other.report(1)
        assert (await other.serve()).session_id == session_id
        await other.finish(session_id)


async def test_a_session_whose_end_a_failover_lost_ends_again(worlds: tuple[World, World], shared: SharedStore) -> None:
    """Its instance lives, and has nothing to do with it any more."""
    a, _ = worlds
    member, session_id, _ = await a.served()
    await member.say(session_id, "half")
    await member.acked(session_id)
    roll_back = shared.keep(session_id)
    await member.finish(session_id)
    await until(lambda: session_id not in a.sessions.runners.by_session, "a has forgotten it")
    roll_back()
    assert await a.forsaken(session_id) == "failed commander_lost"
    assert await a.text(session_id) == "half"


def until_looked(world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Awaitable[None]]:
    """Call what is returned to wait until the instance has looked for sessions that are nobody's."""
    looks, orphans = 0, view(world).orphans

    async def looked(held: Container[str]) -> list[Record]:
        nonlocal looks
        looks += 1
        return await orphans(held)

    async def wait() -> None:
        before = looks
        await until(lambda: looks > before + 1, "a look begun after it")

    monkeypatch.setattr(view(world), "orphans", looked)
    return wait


async def test_an_older_peers_session_is_not_found_before_it_is_open(
    worlds: tuple[World, World], shared: SharedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = worlds
    wait, create = until_looked(a, monkeypatch), view(a).create

    async def created(record: Record) -> Created:
        made = await create(record)
        await wait()
        return made

    monkeypatch.setattr(view(a), "create", created)
    peer = a.stream()
    await peer.send(Upstream("older", Content("said", is_finish=True)))
    await until(lambda: "older" in shared.memory._records, "created")
    assert await a.ended("older") == "finished"


@pytest.mark.parametrize("taking", [Assign, Acquire])
async def test_a_session_is_not_found_while_it_is_being_taken(
    worlds: tuple[World, World], monkeypatch: pytest.MonkeyPatch, taking: type
) -> None:
    """It is this instance's in the log, and nothing runs for it yet."""
    a, b = worlds
    held = await a.served() if taking is Acquire else None
    wait, submit = until_looked(b, monkeypatch), view(b).submit

    def submitted(asked_for: str, change: Change) -> "asyncio.Future[Outcome]":
        return (
            asyncio.ensure_future(late(submit(asked_for, change)))
            if type(change) is taking
            else submit(asked_for, change)
        )

    async def late(answer: "asyncio.Future[Outcome]") -> Outcome:
        await wait()
        return await answer

    monkeypatch.setattr(view(b), "submit", submitted)
    if held:
        holder, session_id, generation = held
        member = await b.join(commander_id=holder.commander_id)
        await member.open(session_id, generation)
    else:
        member, session_id, _ = await b.served()
    await member.finish(session_id)
    assert await b.ended(session_id) == "finished"
    assert len(await b.bodies(session_id, Assigned)) == 1


async def test_news_that_is_lost_is_found_by_looking(worlds: tuple[World, World], shared: SharedStore) -> None:
    a, b = worlds
    shared.lossy = True
    session_id = await a.create()
    member = await b.join()
    assert (await member.serve()).session_id == session_id
    await asyncio.sleep(0)
    await member.finish(session_id)
    await until(lambda: not a.sessions.pool.waiting, "a knows")

"""The pool without sockets: whose turn it is, and how many slots are free."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from dispatcher.core.log import CommanderName, Head, Record, Request
from dispatcher.live.outliers import BASE_EJECTION_SECONDS, CONSECUTIVE_FAILURES
from dispatcher.live.pool import MAX_ASSIGNING, MAX_SLOTS, ConnectedCommander, Member, Pool
from dispatcher.metrics import Metrics
from dispatcher.store.ports import Waiting
from shared.records import Assignment, Running, Status, Support


class Stream:
    def __init__(self) -> None:
        self.assigned: list[str] = []
        self.full = False

    def assign(self, assignment: Assignment) -> None:
        self.assigned.append(assignment.session_id)


class Desk:
    """Gives every session away, when the test lets it."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []
        self.known: list[tuple[str, ...]] = []
        self.go = asyncio.Event()
        self.go.set()
        self.refused: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def assign(
        self, session_id: str, commander: CommanderName, continues: Callable[[str], bool]
    ) -> Assignment | None:
        await self.go.wait()
        return None if session_id in self.refused else Assignment(session_id, 1, "a")

    async def unserved(self, session_id: str) -> None:
        self.events.append(("unserved", session_id))

    def lost(self, session_id: str, generation: int, sent: bool = True) -> None:
        self.events.append(("lost", session_id, generation, sent))

    async def keep_known(self, agents: Iterable[str]) -> None:
        self.known.append(tuple(agents))

    def spawn(self, work: Coroutine[Any, Any, Any]) -> object:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        return task

    async def idle(self) -> None:
        """Return when all that was spawned has ended."""
        while waiting := {task for task in self._tasks if not task.done()}:
            await asyncio.wait(waiting, timeout=30)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def pool(desk: Desk) -> Pool:
    return Pool(desk, Metrics(CollectorRegistry()), queue_seconds=60)


def record(session_id: str, agent: str = "a", since: float = 0, lost_by: str = "", tenant: str = "") -> Record:
    """since: seconds from now."""
    at = time.time() + since
    return Record(session_id, Request(agent, (), at, tenant=tenant), Head(since=at, commander_id=lost_by))


def member(slots: int, *agents: str, commander_id: str = "c", credential: str = "") -> tuple[Member, Stream]:
    stream = Stream()
    return Member(stream, Status(commander_id, agents or ("a",), (), slots), credential), stream


async def test_who_is_connected(pool: Pool) -> None:
    busy, _ = member(2, commander_id="busy", credential="key")
    idle, _ = member(3, "b", "a", commander_id="idle")
    pool.join(idle)
    pool.join(busy)
    pool.hold([("busy", None)])
    assert pool.connected() == [
        ConnectedCommander("busy", "key", ("a",), 0, 2, held=True, ejected=False, draining=False),
        ConnectedCommander("idle", "", ("b", "a"), 0, 3, held=False, ejected=False, draining=False),
    ]


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_free_slots(offered: int, sent: int, reserved: int, received: int) -> None:
    each, _ = member(offered)
    each.sent, each.reserved = sent, reserved
    each.status = Status("c", ("a",), (), offered, received)
    assert each.free == max(0, offered - reserved - max(0, sent - received))
    each.draining = True
    assert each.free == 0
    each.draining, each.gone = False, True
    assert each.free == 0


async def test_a_commander_that_is_held_gets_none_until_it_is_not(pool: Pool, desk: Desk) -> None:
    held, stream = member(1, commander_id="held")
    pool.hold({("held", None)})
    pool.join(held)
    pool.enlist(record("s1"))
    await desk.idle()
    assert (stream.assigned, pool.free("a")) == ([], 0)
    pool.hold(())
    await desk.idle()
    assert stream.assigned == ["s1"]


async def test_a_commander_that_takes_anothers_id_takes_nothing_else_of_it(pool: Pool, desk: Desk) -> None:
    """Neither its hold nor its failures, nor what another lost; and it keeps the id that it came with."""
    honest, stream = member(2, commander_id="c", credential="honest")
    thief, none = member(9, commander_id="c", credential="thief")
    for each in (honest, thief):
        pool.join(each)
    pool.hold({("c", "thief")})
    for _ in range(CONSECUTIVE_FAILURES):
        pool.ended(CommanderName("c", "thief"), well=False)
    pool.report(thief, Status("x", ("a",), (), 9))
    assert pool.free("a") == 2
    pool.enlist(record("s1"))
    pool.enlist(Record("s2", Request("a", (), time.time()), Head(commander_id="c", credential="thief")))
    await desk.idle()
    assert (stream.assigned, none.assigned) == (["s1", "s2"], [])


async def test_the_oldest_of_all_agents_first(pool: Pool, desk: Desk) -> None:
    for session_id, agent, since in (("s1", "a", 1.0), ("s2", "b", 2.0), ("s3", "a", 3.0), ("s4", "c", 0.5)):
        pool.enlist(record(session_id, agent, since))
    assert pool.waiting == 4
    each, stream = member(2, "a", "b")
    pool.join(each)
    await desk.idle()
    assert stream.assigned == ["s1", "s2"]
    assert pool.waiting == 2


async def served(pool: Pool, desk: Desk, slots: int, *agents: str) -> list[str]:
    """Those that get the slots of one more Commander, in order."""
    each, stream = member(0, *agents)
    pool.join(each)
    for number in range(slots):
        pool.report(each, Status("c", agents or ("a",), (), 1, number))
        await desk.idle()
    pool.leave(each)
    return stream.assigned


async def test_tenants_take_turns(pool: Pool, desk: Desk) -> None:
    """However many of one wait, and for however long."""
    for number in range(20):
        pool.enlist(record(f"flood{number}", since=-20.0 + number, tenant="flood"))
    pool.enlist(record("x1", since=1.0, tenant="x"))
    pool.enlist(record("y1", since=2.0, tenant="y"))
    assert await served(pool, desk, 4) == ["flood0", "x1", "y1", "flood1"]
    pool.enlist(record("x2", since=3.0, tenant="x"))
    pool.enlist(record("x3", since=4.0, tenant="x"))
    assert await served(pool, desk, 4) == ["x2", "flood2", "x3", "flood3"]


async def test_a_tenant_that_trickles_does_not_pass_all_others(pool: Pool, desk: Desk) -> None:
    for number in range(3):
        pool.enlist(record(f"a{number}", since=number, tenant="a"))
    got = []
    for number in range(3):
        pool.enlist(record(f"b{number}", since=10.0 + number, tenant="b"))
        got += await served(pool, desk, 1)
    assert got == ["a0", "b0", "a1"]


async def test_a_turn_is_of_all_agents_together(pool: Pool, desk: Desk) -> None:
    for agent in ("a", "b"):
        pool.enlist(record(f"flood {agent}", agent, -10.0, tenant="flood"))
    pool.enlist(record("x", "b", tenant="x"))
    assert await served(pool, desk, 3, "a", "b") == ["flood a", "x", "flood b"]


async def test_a_tenant_without_a_slot_for_it_holds_up_nobody(pool: Pool, desk: Desk) -> None:
    pool.enlist(record("none", "of nobody", -10.0, tenant="x"))
    pool.enlist(record("a1", since=-5.0, tenant="y"))
    pool.enlist(record("a2", tenant="x"))
    assert await served(pool, desk, 2) == ["a1", "a2"]


async def test_turns_are_forgotten_of_those_whose_last_is_longest_ago(
    pool: Pool, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatcher.live.pool.MAX_TURNS", 2)
    for tenant in ("x", "y", "z"):
        pool.enlist(record(tenant, tenant=tenant))
        assert await served(pool, desk, 1) == [tenant]
    for tenant in ("z", "y", "x"):
        pool.enlist(record(f"{tenant}2", since=1.0, tenant=tenant))
    assert await served(pool, desk, 3) == ["x2", "y2", "z2"]


async def test_how_many_of_a_tenant_wait(pool: Pool) -> None:
    for name, agent, tenant in (("s1", "a", "x"), ("s2", "b", "x"), ("s3", "a", "y")):
        each = record(name, agent, tenant=tenant)
        pool.enlist(replace(each, request=replace(each.request, prompt_bytes=10)))
    pool.heard(Waiting("elsewhere", "a", time.time(), "x"))
    assert pool.waiting_of("x") == (3, 20)
    pool.withdraw("s1")
    assert (pool.waiting_of("x"), pool.waiting_of("none")) == ((2, 10), (0, 0))


async def test_what_a_session_needs_its_commander_has(pool: Pool, desk: Desk) -> None:
    needy = record("s1")
    needy = replace(needy, request=replace(needy.request, needs=("structured", "tools")))
    pool.enlist(needy)
    pool.enlist(record("s2", since=1))
    (plain, plain_stream), (able, able_stream) = member(2), member(2, commander_id="able")
    able.status = replace(able.status, supports=(Support("a", ("tools", "images", "structured")),))
    pool.join(plain)
    await desk.idle()
    assert (plain_stream.assigned, pool.free(needy.request.wanted)) == (["s2"], 0)
    pool.join(able)
    await desk.idle()
    assert able_stream.assigned == ["s1"]
    assert (pool.waiting, pool.free(needy.request.wanted), pool.free("a")) == (0, 1, 2)
    pool.enlist(replace(needy, head=replace(needy.head, commander_id="able")))
    await desk.idle()
    assert able_stream.assigned == ["s1", "s1"], "no other has what it needs"


async def test_what_is_offered_is_known_with_what_it_honours(pool: Pool) -> None:
    each, _ = member(1, "a", "b", "c")
    supports = (Support("a", ("tools", "sampling", "x" * 200)), Support("b", ()))
    each.status = replace(each.status, supports=supports)
    pool.join(each)
    assert pool.agents() == {"a", "b", "c"}
    assert pool.offers() == {"a", "a\0sampling,tools", "b", "b\0", "c", "c\0sampling"}


async def test_few_are_on_their_way_to_one_at_once(pool: Pool, desk: Desk) -> None:
    desk.go.clear()
    one, stream = member(100)
    pool.join(one)
    for number in range(2 * MAX_ASSIGNING):
        pool.enlist(record(f"s{number}"))
    assert one.reserved == MAX_ASSIGNING
    desk.go.set()
    await desk.idle()
    assert stream.assigned == [f"s{number}" for number in range(2 * MAX_ASSIGNING)]


async def test_who_does_not_read_gets_nothing_more(pool: Pool, desk: Desk) -> None:
    one, stream = member(2)
    stream.full = True
    pool.join(one)
    pool.enlist(record("s"))
    await desk.idle()
    assert not stream.assigned
    stream.full = False
    pool.roomy()
    await desk.idle()
    assert stream.assigned == ["s"]


async def test_a_slot_is_reserved_while_the_log_is_asked(pool: Pool, desk: Desk) -> None:
    desk.go.clear()
    each, stream = member(1)
    pool.join(each)
    pool.enlist(record("s1"))
    pool.enlist(record("s2"))
    assert each.free == 0
    assert pool.waiting == 1
    desk.refused = {"s1"}
    desk.go.set()
    await desk.idle()
    assert stream.assigned == ["s2"], "what is refused costs no slot"
    assert each.free == 0


async def test_most_free_slots_first(pool: Pool, desk: Desk) -> None:
    (small, first), (large, second) = member(1, commander_id="c1"), member(3, commander_id="c2")
    for each in (small, large):
        pool.join(each)
    for number in range(4):
        pool.enlist(record(f"s{number}"))
    await desk.idle()
    assert len(first.assigned) == 1
    assert len(second.assigned) == 3


async def test_enlisting_twice_is_enlisting_once(pool: Pool, desk: Desk) -> None:
    for _ in range(2):
        pool.enlist(record("s1"))
    assert pool.waiting == 1
    pool.withdraw("s1")
    pool.withdraw("s1")
    assert pool.waiting == 0
    each, stream = member(1)
    pool.join(each)
    await desk.idle()
    assert not stream.assigned


async def test_a_long_list_is_counted_once(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time for each that is new in it, or not in it any more, would be the square of a queue that peers fill."""
    counted = Mock()
    listed = [Waiting(f"s{number}", "a", time.time()) for number in range(100)]
    monkeypatch.setattr(pool, "_count", counted)
    pool.agree(listed, 1000)
    assert (pool.waiting, counted.call_count) == (100, 1)
    monkeypatch.setattr("dispatcher.live.pool.SETTLED_SECONDS", -1.0)
    pool.agree([], 1000)
    assert (pool.waiting, counted.call_count) == (0, 2)


async def test_the_queue_time(desk: Desk) -> None:
    pool = Pool(desk, Metrics(CollectorRegistry()), queue_seconds=0)
    pool.enlist(record("s1"))
    async with asyncio.timeout(30):
        while not desk.events:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert desk.events == [("unserved", "s1")]
    assert pool.waiting == 0


@pytest.mark.parametrize("how", ["gone", "draining"])
async def test_what_could_not_be_sent_is_given_back(pool: Pool, desk: Desk, how: str) -> None:
    desk.go.clear()
    each, stream = member(1)
    pool.join(each)
    pool.enlist(record("s1"))
    if how == "gone":
        pool.leave(each)
    else:
        pool.drain(each)
    desk.go.set()
    await desk.idle()
    assert ("lost", "s1", 1, False) in desk.events
    assert not stream.assigned


async def test_what_was_dropped(pool: Pool, desk: Desk) -> None:
    each, stream = member(3)
    pool.join(each)
    for session_id in ("s1", "s2", "s3"):
        pool.enlist(record(session_id))
    await desk.idle()
    assert (each.awaits("s1", 1), each.awaits("s1", 2), each.awaits("s4", 1)) == (True, False, False)
    each.opened("s1")
    assert not each.awaits("s1", 1)
    pool.report(each, Status("c", ("a",), (), 0, 2, (Running("s1", 1),)))
    assert desk.events == [("lost", "s2", 1, True)], "s1 was opened, s3 is on its way"
    pool.report(each, Status("c", ("a",), (), 0, 3, (Running("s3", 1),)))
    assert len(desk.events) == 1


async def test_no_assignment_while_the_replica_drains(pool: Pool, desk: Desk) -> None:
    pool.draining = True
    each, stream = member(1)
    pool.join(each)
    pool.enlist(record("s1"))
    await desk.idle()
    assert not stream.assigned
    assert pool.waiting == 1
    pool.withdraw("s1")


async def test_agents(pool: Pool, desk: Desk) -> None:
    first, _ = member(1, "a", "b")
    second, _ = member(2, "b")
    pool.join(first)
    pool.join(second)
    assert pool.agents() == {"a", "b"}
    assert (pool.free("a"), pool.free("b"), pool.free("c")) == (1, 3, 0)
    await desk.idle()
    assert desk.known == [("a", "a\0sampling", "b", "b\0sampling"), ("b", "b\0sampling")]
    pool.leave(first)
    await desk.idle()
    assert pool.agents() == {"b"}
    assert desk.known[2:] == desk.known[:1]


# ---- those that fail


async def test_a_session_goes_to_who_has_just_lost_it_only_where_no_other_is_there(pool: Pool, desk: Desk) -> None:
    (loser, first), (other, second) = member(9, commander_id="c1"), member(1, commander_id="c2")
    for each in (loser, other):
        pool.join(each)
    pool.enlist(record("s1", lost_by="c1"))
    pool.enlist(record("s2", since=1, lost_by="c1"))
    pool.enlist(record("s3", since=2))
    await desk.idle()
    assert second.assigned == ["s1"], "however many slots the loser has free"
    assert first.assigned == ["s3"], "s2 waits for another, and holds up nobody"
    pool.leave(other)
    pool.report(loser, Status("c1", ("a",), (), 9, 1))
    await desk.idle()
    assert first.assigned == ["s3", "s2"]


async def test_who_fails_gets_less_then_none_for_a_while(
    pool: Pool, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, over = asyncio.get_running_loop(), list[Callable[[], object]]()
    call_later = loop.call_later

    def noted(seconds: float, callback: Callable[..., object], *arguments: object) -> asyncio.TimerHandle:
        if seconds == BASE_EJECTION_SECONDS:
            over.append(partial(callback, *arguments))
        return call_later(seconds, callback, *arguments)

    monkeypatch.setattr(loop, "call_later", noted)
    (broken, first), (whole, second) = member(8, commander_id="c1"), member(3, commander_id="c2")
    for each in (broken, whole):
        pool.join(each)
    for _ in range(CONSECUTIVE_FAILURES - 1):
        pool.ended(CommanderName("c1"), well=False)
    pool.enlist(record("s0"))
    await desk.idle()
    assert second.assigned == ["s0"], "8 slots, of which a fifth counts"
    with capture_logs() as logs:
        pool.ended(CommanderName("c1"), well=False)
    assert [(each["event"], each["commander_id"]) for each in logs] == [("commander_ejected", "c1")]
    assert pool.free("a") == 2
    for number in range(1, 4):
        pool.enlist(record(f"s{number}"))
    await asyncio.sleep(0)
    assert pool.waiting == 1, "it waits rather than go to the broken one"
    assert not first.assigned
    over.pop()()
    await desk.idle()
    assert (first.assigned, second.assigned) == (["s3"], ["s0", "s1", "s2"])


async def test_ejections_are_counted(desk: Desk) -> None:
    registry = CollectorRegistry()
    pool = Pool(desk, Metrics(registry), queue_seconds=60)
    for commander_id in ("c1", "c2"):
        pool.join(member(2, commander_id=commander_id)[0])
    for _ in range(CONSECUTIVE_FAILURES):
        pool.ended(CommanderName("c1"), well=False)
        pool.ended(CommanderName("a stranger"), well=False)
    found = {name: registry.get_sample_value(f"dispatcher_{name}") for name in ("ejected_commanders", "free_slots")}
    assert found == {"ejected_commanders": 1, "free_slots": 2}
    assert registry.get_sample_value("dispatcher_commander_ejections_total") == 1


def test_nobody_is_believed_to_have_any_number_of_slots() -> None:
    assert member(2**31 - 1)[0].free == MAX_SLOTS

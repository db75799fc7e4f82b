"""The fleet's stop: one order at one instance, over a log that several share."""

import asyncio
import json
import time
from typing import Any

import pytest
from msgspec.structs import replace

from dispatcher.core.holds import Fits, Hold
from dispatcher.core.log import Head, Record, Request, State
from dispatcher.live import fleet
from dispatcher.live.fleet import FleetDone, FleetProgress, FleetStop, OnHold, SessionHalted, new_hold
from dispatcher.store.ports import Created, Place
from shared.records import Content, Stop, Stopped, Upstream
from tests.integration.dispatcher.peer import SECONDS, Peer, World, until
from tests.integration.dispatcher.test_replicas import shared, view, worlds

__all__ = ["shared", "worlds"]

ALL = Fits()


async def outcome(order: FleetStop) -> tuple[set[str], FleetDone]:
    """The sessions that halted, and its last word."""
    halted = set()
    async with asyncio.timeout(SECONDS):
        async for told in order.news():
            if isinstance(told, SessionHalted):
                halted.add(told.session_id)
            if isinstance(told, FleetDone):
                return halted, told
    raise AssertionError


async def halts(member: Peer, session_id: str) -> None:
    stop = await member.next(Stop, session_id)
    await member.say(session_id, Stopped(stop.stop_id))


async def test_all_that_fit_halt_wherever_they_are_and_those_that_wait_too(worlds: tuple[World, World]) -> None:
    a, b = worlds
    here, first, _ = await a.served(agents=("mine",))
    there, second, _ = await b.served(agents=("mine",))
    other, spared, _ = await b.served(agents=("other",))
    waits = await b.create("mine")
    order = a.sessions.stop_fleet(Fits(agent="mine"), "RiskControl", "they run away")
    await asyncio.gather(halts(here, first), halts(there, second))
    assert await outcome(order) == ({first, second, waits}, FleetDone(3, 0, True))
    for session_id in (first, second, waits):
        assert await b.state(session_id) == "stopped RiskControl"
    assert await a.state(spared) == "running"
    await other.finish(spared)


@pytest.mark.parametrize("by", ["commander", "conversation_id"])
async def test_those_of_a_commander_or_a_conversation(worlds: tuple[World, World], by: str) -> None:
    a, b = worlds
    member, session_id, _ = await b.served()
    other, spared, _ = await a.served()
    record = await b.record(session_id)
    fits = Fits(commander=record.head.commander_id) if by == "commander" else Fits(conversation_id="thread")
    order = a.sessions.stop_fleet(fits, "Timeout")
    if by == "commander":
        await halts(member, session_id)
    found = {session_id} if by == "commander" else set()
    assert await outcome(order) == (found, FleetDone(len(found), 0, True))
    await other.finish(spared)
    if not found:
        await member.finish(session_id)


@pytest.mark.parametrize("fits", [Fits(tenant="theirs"), Fits(tenant="theirs", agent="default")])
async def test_those_of_a_tenant(worlds: tuple[World, World], fits: Fits) -> None:
    a, b = worlds
    theirs, ours = [
        (await b.sessions.create(Request("default", (), time.time(), tenant=tenant))).record.session_id
        for tenant in ("theirs", "ours")
    ]
    assert await outcome(a.sessions.stop_fleet(fits, "RiskControl")) == ({theirs}, FleetDone(1, 0, True))
    assert await a.state(ours) == "waiting"


def test_a_commander_has_what_runs_and_not_what_it_lost() -> None:
    lost = Record("s", Request("a", (), 0.0), Head(commander_id="c"))
    runs = replace(lost, head=replace(lost.head, state="running"))
    assert (Fits(commander="c")(runs), Fits(commander="c")(lost), Fits(commander="d")(runs)) == (True, False, False)
    named = replace(runs, head=replace(runs.head, credential="key"))
    both = [Fits(commander="c", credential=each) for each in ("key", "another's", "")]
    assert [fits(named) for fits in (Fits(commander="c"), *both)] == [True, True, False, False]


async def test_one_that_moves_between_the_pages_is_found(
    worlds: tuple[World, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits behind the first page; when that was read it runs, and stands before it."""
    monkeypatch.setattr(fleet, "PAGE", 1)
    a, b = worlds
    moves = await a.create()
    later = await a.create("other")
    member, page = asyncio.Queue[Peer](), a.sessions.store.page
    pages = 0

    async def paged(states: tuple[State, ...], limit: int, before: Place | None) -> list[Record]:
        nonlocal pages
        found = await page(states, limit, before)
        pages += 1
        if pages == 1:
            joined = await b.join()
            await joined.serve()
            member.put_nowait(joined)
        return found

    monkeypatch.setattr(view(a), "page", paged, raising=False)
    order = a.sessions.stop_fleet(ALL, "RiskControl")
    await halts(await asyncio.wait_for(member.get(), SECONDS), moves)
    assert await outcome(order) == ({moves, later}, FleetDone(2, 0, True))


async def test_a_commander_that_does_not_answer_is_given_up_and_counts_as_halted(worlds: tuple[World, World]) -> None:
    a, b = worlds
    member, session_id, _ = await b.served()
    order = a.sessions.stop_fleet(ALL, "RiskControl")
    await member.next(Stop, session_id)
    await b.passes(session_id, "stop")
    assert await outcome(order) == ({session_id}, FleetDone(1, 0, True))


async def test_what_has_not_halted_in_time_is_said(worlds: tuple[World, World]) -> None:
    a, b = worlds
    member, session_id, _ = await b.served()
    order = a.sessions.stop_fleet(ALL, "RiskControl")
    async with asyncio.timeout(SECONDS):
        async for told in order.news():
            if told == FleetProgress(1, 1):
                break
    order.limit.reschedule(0)  # its time is over
    assert await outcome(order) == (set(), FleetDone(1, 1, False))
    await b.sessions.stop(session_id, "RiskControl", "operator")
    await halts(member, session_id)
    await b.over(session_id)


async def test_the_store_is_waited_for(worlds: tuple[World, World]) -> None:
    a, b = worlds
    member, session_id, _ = await b.served()
    view(a).away = True
    order = a.sessions.stop_fleet(ALL, "RiskControl")
    await asyncio.sleep(0)
    view(a).away = False
    await halts(member, session_id)
    assert await outcome(order) == ({session_id}, FleetDone(1, 0, True))


async def test_it_is_carried_out_where_nobody_listens(worlds: tuple[World, World]) -> None:
    a, b = worlds
    member, session_id, _ = await b.served()
    answer = asyncio.create_task(a.ask("/operator/stop", {"all": True}))
    stop = await member.next(Stop, session_id)
    answer.cancel()
    await asyncio.gather(answer, return_exceptions=True)
    await member.say(session_id, Stopped(stop.stop_id))
    await b.over(session_id)


async def test_as_events(worlds: tuple[World, World]) -> None:
    a, b = worlds
    member, session_id, _ = await b.served()
    await member.say(session_id, Content("said"))
    asking = asyncio.create_task(a.ask("/operator/stop", {"agent": "default", "detail": "runs away"}))
    await halts(member, session_id)
    answer = (await asyncio.wait_for(asking, SECONDS)).text
    events = [dict(line.split(": ", 1) for line in frame.splitlines()) for frame in answer.split("\n\n") if frame]
    assert [event["event"] for event in events] == ["progress", "halted", "progress", "done"]
    assert json.loads(events[1]["data"]) == {"session_id": session_id, "state": "stopped", "reason": "RiskControl"}
    assert json.loads(events[-1]["data"]) == {"found": 1, "running": 0, "whole": True}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "all"),
        ({"all": False}, "all"),
        ({"all": True, "agent": "a"}, "all"),
        ({"agent": ""}, "agent"),
        ({"tenant": ""}, "tenant"),
        ({"agent": "a", "hold_seconds": -1}, "hold_seconds"),
        ({"agent": "a", "hold_seconds": 86401}, "hold_seconds"),
        ({"commander": "c", "agent": "a", "hold_seconds": 1}, "commander"),
        ({"agent": "a", "reason": "Whim"}, "reason"),
    ],
)
async def test_what_is_refused_stops_nothing(worlds: tuple[World, World], body: dict[str, object], param: str) -> None:
    a, _ = worlds
    waits = await a.create()
    answer = await a.ask("/operator/stop", body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert await a.state(waits) == "waiting"


async def test_so_many_orders_at_once(worlds: tuple[World, World], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.live.sessions.MAX_ORDERS", 1)
    a, b = worlds
    member, session_id, _ = await b.served()
    order = a.sessions.stop_fleet(ALL, "RiskControl")
    answer = await a.ask("/operator/stop", {"all": True})
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_orders")
    assert (await a.metrics())['dispatcher_refusals_total{edge="http",kind="too_many_orders"}'] == 1
    await halts(member, session_id)
    assert (await outcome(order))[1].running == 0
    async with asyncio.timeout(SECONDS):
        while a.sessions._orders:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.001)


# ---- holds


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "SETTLE_SECONDS", 0.0)


async def held(world: World, fits: Fits, seconds: float = 600.0) -> Hold:
    """It is in force, and the order that placed it is over."""
    hold = await new_hold(world.sessions.store, fits, seconds, "RiskControl", "they run away")
    await outcome(world.sessions.stop_fleet(fits, "RiskControl", hold=hold))
    return hold


@pytest.mark.usefixtures("settled")
async def test_a_hold_keeps_others_from_beginning_at_every_instance_until_it_is_lifted(
    worlds: tuple[World, World],
) -> None:
    a, b = worlds
    await b.join(agents=("mine",), slots=0)
    await b.join(agents=("other",), slots=0)
    answer = await a.ask("/operator/stop", {"agent": "mine", "hold_seconds": 600})
    placed = json.loads(answer.text.split("\n\n")[0].removeprefix("event: hold\ndata: "))
    for path, body in (
        ("/v1/sessions", {"agent": "mine", "prompt": "hi"}),
        ("/v1/chat/completions", {"model": "mine", "messages": [{"role": "user", "content": "hi"}]}),
    ):
        refused = await b.ask(path, body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "on_hold")
        assert 0 < int(refused.headers["retry-after"]) <= 600
    assert (await b.metrics())['dispatcher_refusals_total{edge="http",kind="on_hold"}'] == 2
    assert (await b.ask("/v1/sessions", {"agent": "other", "prompt": "hi"})).status_code == 201

    (listed,) = (await b.ask("/operator/holds")).json()["holds"]
    assert listed == {
        "hold_id": placed["hold_id"],
        "agent": "mine",
        "tenant": None,
        "conversation_id": None,
        "commander": None,
        "credential": None,
        "placed_at": placed["ends_at"] - 600,
        "ends_at": placed["ends_at"],
        "reason": "RiskControl",
        "detail": "",
    }
    lifting = [await b.ask(f"/operator/holds/{placed['hold_id']}", method="DELETE") for _ in range(2)]
    assert [each.status_code for each in lifting] == [204, 404]
    assert lifting[1].json()["error"]["code"] == "hold_not_found"
    assert (await a.ask("/v1/sessions", {"agent": "mine", "prompt": "hi"})).status_code == 201


@pytest.mark.usefixtures("settled")
async def test_whoever_fits_two_holds_waits_for_the_longer(worlds: tuple[World, World]) -> None:
    a, b = worlds
    await held(a, Fits(tenant="t"), 600)
    await held(a, Fits(agent="default"), 60)
    request = Request("default", (), time.time())
    for each, seconds in ((replace(request, tenant="t"), range(100, 601)), (request, range(1, 61))):
        with pytest.raises(OnHold) as refused:
            await b.sessions.create(each)
        assert refused.value.retry_after in seconds
    assert (await b.sessions.create(replace(request, agent="other"))).fresh


@pytest.mark.usefixtures("settled")
async def test_commanders_bring_none_while_all_are_held(worlds: tuple[World, World]) -> None:
    a, b = worlds
    hold = await held(a, ALL)
    bringing, older = b.stream(), b.stream()
    await bringing.request("brought")
    assert await bringing.closed("brought") == "unavailable"
    await older.send(Upstream("", Content("text")))
    assert (await older.status()).name == "UNAVAILABLE"
    assert await a.sessions.store.lift(hold.hold_id)
    member, session_id = await b.own()
    await held(a, Fits(agent="default"))
    await member.finish(session_id)


async def test_a_commander_that_is_held_gets_none_at_any_instance_and_what_it_has_goes_on(
    worlds: tuple[World, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "HELD_SECONDS", 0.001)
    a, b = worlds
    member, session_id, _ = await b.served(slots=2, commander_id="drained")
    placed = await a.ask("/operator/holds", {"commander": "drained", "hold_seconds": 600, "reason": "Shutdown"})
    assert (placed.status_code, placed.json()["commander"]) == (201, "drained")
    await until(lambda: b.sessions.pool.free("default") == 0, "held")
    assert (await b.metrics())["dispatcher_free_slots"] == 0
    waits = await b.create()
    assert (await b.state(waits), await b.state(session_id)) == ("waiting", "running")
    await member.request("brought")
    assert await member.closed("brought") == "unavailable"
    other = await a.join()
    assert (await other.serve()).session_id == waits

    later = await a.create()
    assert (await a.ask(f"/operator/holds/{placed.json()['hold_id']}", method="DELETE")).status_code == 204
    assert (await member.serve()).session_id == later
    for peer, each in ((member, session_id), (other, waits), (member, later)):
        await peer.finish(each)


async def test_one_that_was_let_in_before_the_hold_is_stopped_when_it_comes(
    worlds: tuple[World, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = worlds
    page, create, on_its_way, may_come = view(a).page, view(b).create, asyncio.Event(), asyncio.Event()

    async def late(*asked: Any) -> Created:
        on_its_way.set()
        await may_come.wait()
        made: Created = await create(*asked)
        return made

    async def paged(*asked: Any) -> list[Record]:
        found: list[Record] = await page(*asked)
        may_come.set()  # behind the first look
        return found

    monkeypatch.setattr(view(b), "create", late)
    monkeypatch.setattr(view(a), "page", paged, raising=False)
    creating = asyncio.create_task(b.create())
    await asyncio.wait_for(on_its_way.wait(), SECONDS)
    hold = await new_hold(a.sessions.store, ALL, 600, "RiskControl", "")
    halted, done = await outcome(a.sessions.stop_fleet(ALL, "RiskControl", hold=hold))
    assert (halted, done) == ({await creating}, FleetDone(1, 0, True))


async def test_so_many_holds_at_once(worlds: tuple[World, World], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "MAX_HOLDS", 0)
    a, _ = worlds
    waits = await a.create()
    answer = await a.ask("/operator/stop", {"all": True, "hold_seconds": 1})
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_holds")
    assert await a.state(waits) == "waiting"

"""The fleet's stop: one order at one instance, over a log that several share."""

import asyncio
import json
import time

import pytest
from msgspec.structs import replace

from dispatcher.core.log import Head, Record, Request, State
from dispatcher.live import fleet
from dispatcher.live.fleet import Fits, FleetDone, FleetStop, SessionHalted
from dispatcher.store.ports import Place
from shared.records import Content, Stop, Stopped
from tests.integration.dispatcher.peer import SECONDS, Peer, World
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


async def test_what_has_not_halted_in_time_is_said(
    worlds: tuple[World, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "ORDER_SECONDS", 0.05)
    a, b = worlds
    member, session_id, _ = await b.served()
    assert await outcome(a.sessions.stop_fleet(ALL, "RiskControl")) == (set(), FleetDone(1, 1, False))
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
        ({"agent": "a", "hold_seconds": 5}, "hold_seconds"),
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

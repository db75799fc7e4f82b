"""The live sessions as operators' consoles are told of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing

import httpx2
import pytest

from dispatcher.core.log import Record, State
from dispatcher.gateway import live_list
from dispatcher.store.memory import MemoryStore
from dispatcher.store.ports import Place, StoreUnavailable
from tests.dispatcher.gateway.fakes import FakeSessions, Seen
from tests.dispatcher.gateway.test_events import stream


class WatchedStore(MemoryStore):
    """looks: at its first page. away: it cannot be reached. hidden: sessions that a look misses."""

    def __init__(self) -> None:
        super().__init__()
        self.looks, self.away, self.hidden = 0, False, set[str]()

    async def page(self, states: object, limit: int, before: Place | None = None) -> list[Record]:
        self.looks += before is None
        if self.away:
            raise StoreUnavailable
        wanted: tuple[State, ...] = states  # type: ignore[assignment]
        return [each for each in await super().page(wanted, limit, before) if each.session_id not in self.hidden]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_list, "LOOK_SECONDS", 0.01)


@pytest.fixture
def store(sessions: FakeSessions) -> WatchedStore:
    sessions.store = store = WatchedStore()
    return store


@pytest.fixture
async def events(operator: httpx2.AsyncClient, store: WatchedStore) -> AsyncIterator["Events"]:
    async with aclosing(stream(operator, "/operator/live")) as told:
        yield Events(told)


class Events:
    def __init__(self, told: AsyncIterator[Seen]) -> None:
        self._told = told

    async def until(self, event: str) -> list[Seen]:
        """All up to the next of that name, with it."""
        found: list[Seen] = []
        async with asyncio.timeout(30):
            while not found or found[-1].event != event:
                found.append(await anext(self._told))
        return found

    async def news(self) -> list[tuple[str, str]]:
        """Of the next look that has some: the sessions, and their states."""
        while True:
            *news, _ = await self.until("looked")
            found = [row for each in news if each.event == "sessions" for row in each.data["sessions"]]  # type: ignore[attr-defined]
            if found:
                return [(row["session_id"], row["state"]) for row in found]


async def test_first_all_then_what_changes(sessions: FakeSessions, store: WatchedStore, events: Events) -> None:
    one = await sessions.begin()
    assert await events.news() == [(one.session_id, "running")]
    other = await sessions.begin()
    assert await events.news() == [(other.session_id, "running")]
    await one.say("word")
    assert await events.news() == [(one.session_id, "running")]
    await one.finish()
    assert await events.news() == [(one.session_id, "finished")]
    assert (await events.until("looked"))[-1].data["live"] == 1


async def test_one_that_a_look_missed_is_no_less_there(
    sessions: FakeSessions, store: WatchedStore, events: Events
) -> None:
    """It changes its place while the pages are read."""
    one = await sessions.begin()
    await events.news()
    store.hidden.add(one.session_id)
    looks = store.looks + 2
    while store.looks < looks:
        (looked,) = await events.until("looked")
        assert looked.data["live"] == 1


async def test_one_that_was_dropped_is_gone(sessions: FakeSessions, store: WatchedStore, events: Events) -> None:
    one = await sessions.begin()
    await events.news()
    await one.finish()
    await store.delete(one.session_id)
    assert (await events.until("gone"))[-1].data == {"id": one.session_id}


async def test_a_store_that_is_away_is_told(sessions: FakeSessions, store: WatchedStore, events: Events) -> None:
    await events.until("looked")
    store.away = True
    await events.until("unavailable")
    store.away = False
    one = await sessions.begin()
    assert await events.news() == [(one.session_id, "running")]


async def test_many_are_told_in_parts_and_looked_at_once(
    operator: httpx2.AsyncClient, sessions: FakeSessions, store: WatchedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_list, "LOOK_SECONDS", 60.0)
    monkeypatch.setattr(live_list, "PAGE", 2)
    monkeypatch.setattr(live_list, "TOLD", 3)
    ids = {(await sessions.begin()).session_id for _ in range(7)}

    async def parts() -> list[set[str]]:
        async with aclosing(stream(operator, "/operator/live")) as told:
            *news, looked = await Events(told).until("looked")
            assert looked.data["live"] == 7
            return [{row["session_id"] for row in each.data["sessions"]} for each in news]  # type: ignore[attr-defined]

    asked: list[Awaitable[list[set[str]]]] = [parts(), parts()]
    for found in await asyncio.gather(*asked):
        assert [len(part) for part in found] == [3, 3, 1]
        assert set.union(*found) == ids
    assert store.looks == 1


async def test_it_ends_when_the_server_drains(sessions: FakeSessions, store: WatchedStore, events: Events) -> None:
    await events.until("looked")
    sessions.closing.set()
    with pytest.raises(StopAsyncIteration):
        await events.until("never")

"""Responses that may take long, interrupted when the server drains; and how readers go on where the loop is late."""

import asyncio
from typing import Any

import pytest

from dispatcher.core.entries import Entry
from dispatcher.gateway import sse
from dispatcher.gateway.sse import Connections, LogReader, Watch
from dispatcher.store.memory import MemoryStore
from dispatcher.store.ports import Feed, LogPart
from shared.records import Content


async def never() -> Any:
    """A client that stays: no message comes from it."""
    await asyncio.Event().wait()


async def test_a_response_that_begins_while_others_are_ending_is_interrupted_too() -> None:
    """A reader that comes back to a server that drains must not hold its end up."""
    closing, interrupted, leave = asyncio.Event(), asyncio.Event(), asyncio.Event()
    connections = Connections(closing)

    async def respond(entered: asyncio.Event, end: asyncio.Event | None = None) -> Watch:
        async with connections.watch(never) as watch:
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                interrupted.set()
                if end:
                    await end.wait()  # it takes a while to end
        return watch

    entered = [asyncio.Event(), asyncio.Event()]
    first = asyncio.create_task(respond(entered[0], leave))
    await entered[0].wait()
    closing.set()
    await interrupted.wait()
    second = asyncio.create_task(respond(entered[1]))
    await entered[1].wait()
    leave.set()
    async with asyncio.timeout(30):
        assert (await first).closing
        assert (await second).closing


class Following:
    """Of a log that always holds one entry more than was read, and three after a rest. late, followers: as told."""

    def __init__(self, late: float | None, followers: int = 1) -> None:
        self.late, self.followers = late, followers
        self.waits = 0
        self._more = 1

    async def wait(self, seconds: float, feed: Feed | None = None) -> bool:
        self.waits += 1
        return False

    def recent(self, after: int, limit: int) -> LogPart | None:
        more, self._more = self._more, 1
        return LogPart([Entry(Content("a"), 0.0, offset=after + 1 + n) for n in range(more)], more=False)

    def rested(self) -> None:
        self._more = 3


class Feeding(Following):
    """News comes once, so late, while one waits."""

    async def wait(self, seconds: float, feed: Feed | None = None) -> bool:
        assert feed
        assert self.late is not None
        self.fed = feed(self.late)
        return await super().wait(seconds)


@pytest.mark.parametrize(
    ("late", "takes", "given", "fed"),
    [(0.0, True, 1, True), (0.0, False, 1, False), (sse.LATE_SECONDS, True, 0, False)],
)
async def test_what_comes_while_a_reader_waits_is_taken_in_that_turn_of_the_loop(
    late: float, takes: bool, given: int, fed: bool
) -> None:
    """Unless it does not take it, or the loop is late. Nothing is missed, and nothing comes twice."""
    taken = list[Entry]()

    def take(entries: list[Entry]) -> bool:
        taken.extend(entries)
        return takes

    follower = Feeding(late)
    reader = LogReader(MemoryStore(), "s", 0, follower, take)
    assert [entry.offset for entry in await reader.next()] == [1]
    assert [entry.offset for entry in await reader.next()] == [3 if fed else 2]
    assert [entry.offset for entry in taken] == [2] * given
    assert follower.fed is fed


@pytest.mark.parametrize(
    ("late", "followers", "rest"),
    [
        (0.0, 1, None),
        (sse.LATE_SECONDS / 2, 1000, None),
        (0.005, 1, 0.005 * sse.REST),
        (0.005, 1000, 0.005 * sse.REST),
        (10.0, 1, sse.MAX_REST_SECONDS),
        (10.0, sse.CROWD, sse.MAX_REST_SECONDS),
        (10.0, 3 * sse.CROWD, 3 * sse.MAX_REST_SECONDS),
        (10.0, 1000 * sse.CROWD, sse.MAX_CROWD_REST_SECONDS),
    ],
)
async def test_where_the_loop_is_late_a_reader_takes_more_at_once(
    monkeypatch: pytest.MonkeyPatch, late: float, followers: int, rest: float | None
) -> None:
    follower, rests = Following(late, followers), list[float]()
    reader = LogReader(MemoryStore(), "s", 0, follower)

    async def sleep(seconds: float) -> None:
        rests.append(seconds)
        follower.rested()

    monkeypatch.setattr(asyncio, "sleep", sleep)
    read = [len(await reader.next()) for _ in range(4)]
    if rest is None:
        assert (read, rests) == ([1, 1, 1, 1], [])
    else:
        assert read == [1, 1, 3, 3]
        assert rests == pytest.approx([rest, rest])


async def test_a_reader_that_need_not_wait_is_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as news comes while it rests, the rests themselves say how late the loop is."""
    follower, rests = Following(10.0), list[float]()
    reader = LogReader(MemoryStore(), "s", 0, follower)

    async def sleep(seconds: float) -> None:
        rests.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    await reader.next()
    await reader.next()
    follower.late = None
    for _ in range(3):
        await reader.next()
    assert len(rests) == 1

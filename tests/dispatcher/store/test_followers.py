"""Who follows a log waits for as long as was said, whatever a wait before that was."""

import asyncio

import pytest

from dispatcher.core.entries import Entry
from dispatcher.store.followers import Hub
from dispatcher.store.ports import Feed, LogPart
from shared.records import Content

HOUR = 3600.0
SECONDS = 30.0
ENTRIES = tuple(Entry(Content(f"{n}"), 0.0, offset=n) for n in (1, 2, 3))


async def test_a_short_wait_after_a_long_one() -> None:
    hub = Hub()
    with hub.follow("s") as follower:
        waits = asyncio.create_task(follower.wait(HOUR))
        await asyncio.sleep(0)
        hub.nudge("s")
        await waits
        async with asyncio.timeout(SECONDS):
            assert not await follower.wait(0.001)


async def test_a_long_wait_after_a_short_one() -> None:
    hub = Hub()
    with hub.follow("s") as follower, hub.follow("other") as later:
        waits = asyncio.create_task(follower.wait(0.01))
        await asyncio.sleep(0)
        hub.nudge("s")
        await waits
        waits = asyncio.create_task(follower.wait(HOUR))
        await later.wait(0.01)  # so the time of the one before, which began sooner, is over
        assert not waits.done()
        hub.nudge("s")
        async with asyncio.timeout(SECONDS):
            assert not await waits


async def test_what_is_at_hand() -> None:
    hub = Hub()
    with hub.follow("s") as follower:
        assert follower.recent(0, 10) is None  # nobody knows what there is
        hub.publish("s", ENTRIES[1:], [1, 1])
        assert follower.recent(0, 10) is None
        assert follower.recent(1, 10) == LogPart(list(ENTRIES[1:]), more=False)
        assert follower.recent(1, 1) == LogPart([ENTRIES[1]], more=True)
        assert follower.recent(3, 10) == LogPart([], more=False)
        hub.gone("s")
        assert follower.recent(3, 10) is None


async def test_how_late_a_wait_returns() -> None:
    hub = Hub()
    with hub.follow("s") as follower:
        waits = asyncio.create_task(follower.wait(HOUR))
        await asyncio.sleep(0)
        hub.nudge("s")
        assert not await waits
        assert follower.late is not None
        assert follower.late >= 0.0
        hub.nudge("s")
        assert not await follower.wait(HOUR)
        assert follower.late is None  # there was news already


async def test_how_many_follow_one_log() -> None:
    hub = Hub()
    with hub.follow("s") as follower, hub.follow("other"):
        with hub.follow("s"):
            assert follower.followers == 2
        assert follower.followers == 1


async def test_who_is_fed_waits_on() -> None:
    """Once a turn of the loop, whatever was logged in it; until the feed says that it is not enough."""
    hub, fed = Hub(), list[LogPart | None]()
    with hub.follow("s") as follower:

        def feed(late: float) -> bool:
            assert late >= 0.0
            fed.append(follower.recent(len(fed), 10))
            return len(fed) < 3

        waits = asyncio.create_task(follower.wait(HOUR, feed))
        await asyncio.sleep(0)
        hub.publish("s", ENTRIES[:1], [1])
        hub.publish("s", ENTRIES[1:2], [1])
        await asyncio.sleep(0)
        hub.publish("s", ENTRIES[2:], [1])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waits.done()
        assert fed == [LogPart(list(ENTRIES[:2]), more=False), LogPart(list(ENTRIES[1:]), more=False)]
        hub.nudge("s")
        assert not await waits
        assert len(fed) == 3


def taking(fed: list[float]) -> Feed:
    """Takes all that it is fed."""

    def feed(late: float) -> bool:
        fed.append(late)
        return True

    return feed


async def test_what_may_be_gone_is_fed_to_nobody() -> None:
    hub, fed = Hub(), list[float]()
    feed = taking(fed)
    with hub.follow("s") as follower:
        waits = asyncio.create_task(follower.wait(HOUR, feed))
        await asyncio.sleep(0)
        hub.publish("s", ENTRIES, [1, 1, 1])
        hub.gone("s")
        async with asyncio.timeout(SECONDS):
            assert await waits
        waits = asyncio.create_task(follower.wait(HOUR, feed))
        await asyncio.sleep(0)
        hub.nudge("s")
        await asyncio.sleep(0)  # it is fed, and then:
        hub.gone("s")
        async with asyncio.timeout(SECONDS):
            assert await waits
        assert len(fed) == 1


async def test_who_has_stopped_waiting_is_fed_nothing() -> None:
    hub, fed = Hub(), list[float]()
    feed = taking(fed)
    with hub.follow("s") as follower:
        waits = asyncio.create_task(follower.wait(HOUR, feed))
        await asyncio.sleep(0)
        hub.nudge("s")
        waits.cancel()
        await asyncio.gather(waits, return_exceptions=True)
        async with asyncio.timeout(SECONDS):
            assert not await follower.wait(HOUR)  # the news was nobody's yet
    assert not fed


async def test_what_a_feed_raises_is_raised_where_it_is_waited() -> None:
    hub = Hub()

    def feed(late: float) -> bool:
        raise ValueError("broken")

    with hub.follow("s") as follower:
        waits = asyncio.create_task(follower.wait(HOUR, feed))
        await asyncio.sleep(0)
        hub.nudge("s")
        with pytest.raises(ValueError, match="broken"):
            async with asyncio.timeout(SECONDS):
                await waits

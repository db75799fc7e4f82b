import asyncio
from collections.abc import Iterable

import pytest

from dispatcher.live import upkeep
from dispatcher.live.upkeep import MAX_NAMES, Upkeep
from dispatcher.store.memory import MemoryStore
from dispatcher.store.ports import StoreUnavailable
from tests.dispatcher.live.keeping import keeping


class Troubled(MemoryStore):
    """Tells of each try; away: the tries fail."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.offers: asyncio.Queue[tuple[str, ...]] = asyncio.Queue()
        self.expired: list[float] = []

    async def offer(self, instance: str, agents: Iterable[str], now: float) -> None:
        if self.away:
            self.offers.put_nowait(())
            raise StoreUnavailable("Redis is full")
        await super().offer(instance, agents, now)
        self.offers.put_nowait(tuple(agents))

    async def expire(self, ended_before: float) -> int:
        self.expired.append(ended_before)
        return 0


def trouble(kept: Upkeep) -> str:
    return kept.trouble


async def test_a_store_that_goes_and_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "OFFER_SECONDS", 0.001)
    store = Troubled()
    kept = Upkeep(store, "a", lambda: ["writer"], 3600)
    async with asyncio.timeout(30), keeping(kept):
        assert await store.offers.get() == ("writer",)
        assert trouble(kept) == ""
        store.away = True
        while await store.offers.get():
            pass
        await store.offers.get()
        assert trouble(kept) == "store unavailable: Redis is full"
        store.away = False
        while not await store.offers.get():
            pass
        await store.offers.get()
        assert trouble(kept) == ""
    assert len(store.expired) == 1, "once a minute is enough"


async def test_a_name_that_cannot_be_kept_now_is_no_fault() -> None:
    store = Troubled()
    store.away = True
    await Upkeep(store, "a", list, 3600).offer_soon(["writer"])
    assert store.offers.qsize() == 1


async def test_many_that_come_and_go_are_kept_in_few_steps() -> None:
    store = Troubled()
    go = asyncio.Event()
    offer = store.offer

    async def slow(instance: str, agents: Iterable[str], now: float) -> None:
        await go.wait()
        await offer(instance, agents, now)

    store.offer = slow  # type: ignore[method-assign]
    kept = Upkeep(store, "a", list, 3600)
    coming = [asyncio.create_task(kept.offer_soon([f"agent-{n}"])) for n in range(2 * MAX_NAMES)]
    await asyncio.sleep(0)
    go.set()
    async with asyncio.timeout(30):
        await asyncio.gather(*coming)
    steps = [store.offers.get_nowait() for _ in range(store.offers.qsize())]
    assert [len(names) for names in steps] == [1, MAX_NAMES]

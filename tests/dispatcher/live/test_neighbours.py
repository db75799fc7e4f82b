"""An instance among those that share its store, without a store: what takes long must not cost it its lease."""

import asyncio
from collections.abc import AsyncIterator, Container
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from dispatcher.core.log import Head, Record, Request
from dispatcher.live import neighbours
from dispatcher.live.neighbours import Neighbours
from dispatcher.live.pool import Assigner, Pool
from dispatcher.metrics import Metrics
from dispatcher.settings import DispatcherSettings
from dispatcher.store.ports import Replicas, StoreUnavailable, Waiting
from tests.dispatcher.live.keeping import keeping


class Others:
    """`Replicas` of a store in which nothing waits. lapsed: this instance's lease has ended, until it renews it. away:
    the store carries renewals out, and their answers are lost.
    """

    instance = "this"

    def __init__(self) -> None:
        self.lapsed = self.away = False
        self.renewed: asyncio.Queue[None] = asyncio.Queue()
        self.leases: set[str] = set()
        self.left: list[Record] = []

    def listen(self, listener: object) -> None: ...

    async def renew(self) -> bool:
        self.renewed.put_nowait(None)
        lapsed, self.lapsed = self.lapsed, False
        if self.away:
            raise StoreUnavailable
        return not lapsed

    async def alive(self) -> frozenset[str]:
        return frozenset(self.leases)

    async def orphans(self, held: Container[str]) -> list[Record]:
        left, self.left = self.left, []
        return left

    async def waiting(self, limit: int) -> list[Waiting]:
        return []

    async def waiting_count(self) -> int:
        return 0


class Slow:
    """`OwnSessions` whose every step waits until the test lets it go on."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        self.go_on = asyncio.Semaphore(0)
        self.held: Container[str] = ()

    def grown(self, session_id: str) -> None: ...

    def judge_all_calls(self) -> None: ...

    async def take_over(self, record: Record) -> None:
        self.begun.put_nowait(record.session_id)
        await self.go_on.acquire()

    async def take_back(self) -> None:
        self.begun.put_nowait("back")
        await self.go_on.acquire()


class World:
    def __init__(self) -> None:
        self.others, self.sessions = Others(), Slow()
        pool = Pool(cast("Assigner", None), Metrics(CollectorRegistry()), 60)
        replicas = cast("Replicas", self.others)
        self.neighbours = Neighbours(replicas, self.sessions, pool, DispatcherSettings())

    async def renewals(self, count: int) -> None:
        while not self.others.renewed.empty():
            self.others.renewed.get_nowait()
        async with asyncio.timeout(30):
            for _ in range(count):
                await self.others.renewed.get()

    async def begun(self) -> str:
        """The session whose taking over begins, or `back`."""
        return await asyncio.wait_for(self.sessions.begun.get(), 5)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    for name in ("LEASE_SECONDS", "RENEW_SECONDS", "LOOK_SECONDS"):
        monkeypatch.setattr(neighbours, name, 0.001)
    made = World()
    async with keeping(made.neighbours):
        yield made


def left_by(instance: str, *names: str) -> list[Record]:
    return [Record(name, Request("a", (), 0.0), Head(state="running", instance=instance)) for name in names]


async def test_the_lease_is_renewed_while_sessions_are_taken_over(world: World) -> None:
    world.others.left = left_by("gone", "s1")
    assert await world.begun() == "s1"
    await world.renewals(3)


async def test_the_lease_is_renewed_and_others_judged_while_sessions_are_taken_back(world: World) -> None:
    world.others.lapsed = True
    assert await world.begun() == "back"
    await world.renewals(3)
    world.others.left = left_by("gone", "s1")
    assert await world.begun() == "s1"


async def test_a_renewal_whose_answer_was_lost_may_have_found_the_lease_ended(world: World) -> None:
    world.others.away = world.others.lapsed = True
    await world.renewals(3)
    assert not world.others.lapsed
    assert world.sessions.begun.empty()
    world.others.away = False
    assert await world.begun() == "back"


async def test_an_instance_that_comes_back_meanwhile_keeps_what_is_not_taken_over_yet(world: World) -> None:
    world.others.left = left_by("paused", "s1", "s2") + left_by("this", "s3")
    assert await world.begun() == "s1"
    world.others.leases = {"paused", "this"}
    await world.renewals(2)
    world.sessions.go_on.release()
    assert await world.begun() == "s3"

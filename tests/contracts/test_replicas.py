"""One suite for every store that several instances share (`dispatcher.store.ports.Replicas`): here two of them."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from dispatcher.core.entries import Call
from dispatcher.core.log import Acquire, Applied, Assign, Requeue, Settle, TakeOver
from dispatcher.store.factory import open_store
from dispatcher.store.ports import IdempotencyKey, Store, Waiting
from shared.records import Content, Stopped
from tests.contracts.sessions import (
    append,
    bodies,
    brought,
    call,
    finished,
    head_of,
    numbered,
    result,
    said,
    stop,
    waiting,
)

SECONDS = 30  # no wait in these tests takes longer


class Ears:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self._more = asyncio.Event()

    def enlisted(self, waiting: Waiting) -> None:
        self._add(waiting)

    def withdrawn(self, session_id: str) -> None:
        self._add(("withdrawn", session_id))

    def grown(self, session_id: str) -> None:
        self._add(("grown", session_id))

    def _add(self, news: object) -> None:
        self.heard.append(news)
        self._more.set()

    async def until(self, *news: object) -> None:
        """Return when all of these have been heard."""
        async with asyncio.timeout(SECONDS):
            while not set(news) <= set(self.heard):
                self._more.clear()
                await self._more.wait()


class Instance:
    def __init__(self, store: Store) -> None:
        assert store.replicas
        self.store, self.replicas, self.ears = store, store.replicas, Ears()
        self.name = self.replicas.instance

    async def running(self, session_id: str) -> int:
        """A session of this instance, on a stream; its epoch."""
        await self.store.create(waiting(session_id))
        head_of(await self.store.submit(session_id, Assign("c1", self.name, False, 105.0)))
        return head_of(await self.store.submit(session_id, Acquire("c1", 1, self.name, 106.0))).epoch


@pytest.fixture(params=["redis", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    server = request.getfixturevalue(request.param)
    return f"redis://{(server[0] if isinstance(server, list) else server).address}"


@pytest.fixture
async def instances(url: str) -> AsyncIterator[tuple[Instance, Instance]]:
    stores = [await open_store(url) for _ in range(2)]
    one, two = map(Instance, stores)
    for instance in (one, two):
        instance.replicas.listen(instance.ears)
    yield one, two
    for store in stores:
        await store.close()


def names(waiting: list[Waiting]) -> list[str]:
    return [each.session_id for each in waiting]


# ---- leases


async def test_a_lease_is_renewed_until_it_is_given_up(instances: tuple[Instance, Instance]) -> None:
    one, two = instances
    assert one.name != two.name
    assert await two.replicas.alive() == frozenset()
    assert await one.replicas.renew() is False  # the first
    assert await one.replicas.renew() is True
    assert await two.replicas.renew() is False
    assert await two.replicas.alive() == {one.name, two.name}
    await one.replicas.resign()
    assert await two.replicas.alive() == {two.name}
    assert await one.replicas.renew() is False  # it had ended
    assert await two.replicas.alive() == {one.name, two.name}


async def test_sessions_of_an_ended_lease_are_orphans(instances: tuple[Instance, Instance]) -> None:
    one, two = instances
    for instance in instances:
        await instance.replicas.renew()
    for name in ("running", "ended", "stopped", "unanswered", "answered"):
        epoch = await one.running(name)
        if name == "ended":
            await one.store.submit(name, append(epoch, finished(1)))
        if name == "stopped":  # and its Commander has not answered yet
            await one.store.submit(name, Settle(stop()))
        if name in ("unanswered", "answered"):  # its Commander has, but the call has no result yet
            await one.store.submit(name, append(epoch, call(1)))
            await one.store.submit(name, Settle(stop()))
            await one.store.submit(name, append(epoch, numbered(Stopped("stop-1"), 2)))
        if name == "answered":
            await one.store.submit(name, Settle(result()))
    await one.store.create(waiting("waits"))
    await two.running("other")
    assert await two.replicas.orphans({"other"}) == []
    await one.replicas.resign()
    orphans = await two.replicas.orphans({"other"})
    assert sorted(record.session_id for record in orphans) == ["running", "stopped", "unanswered"]
    for record in orphans:
        known = await two.store.load(record.session_id)
        assert known
        assert record.head == known.head
    for record in orphans:
        head_of(await two.store.submit(record.session_id, TakeOver(record.head.epoch, one.name, two.name)))
    assert await two.replicas.orphans(("running", "stopped", "unanswered", "other")) == []
    await one.ears.until(("grown", "running"), ("grown", "stopped"))


async def test_a_session_that_nobody_ever_had_is_an_orphan(instances: tuple[Instance, Instance]) -> None:
    one, two = instances
    await one.replicas.renew()
    await one.store.create(brought("s"))
    assert [record.session_id for record in await one.replicas.orphans(())] == ["s"]
    head_of(await one.store.submit("s", TakeOver(0, "", one.name)))
    assert await two.replicas.orphans(()) == []


async def test_a_session_that_its_instance_knows_nothing_of_is_an_orphan(instances: tuple[Instance, Instance]) -> None:
    """A failover has lost that it was done with it."""
    one, two = instances
    for instance in instances:
        await instance.replicas.renew()
    await one.running("held")
    await one.running("forgotten")
    await two.running("other")
    assert [record.session_id for record in await one.replicas.orphans({"held"})] == ["forgotten"]


# ---- waiting


async def test_waiting_sessions_are_known_to_all_the_oldest_first(instances: tuple[Instance, Instance]) -> None:
    one, two = instances
    for name, since in (("s1", 30.0), ("s2", 10.5), ("s3", 20.0)):
        record = waiting(name, since)
        record = replace(record, request=replace(record.request, agent=f"agent of {name}", tenant=f"of {name}"))
        await one.store.create(record)
    order = (("s2", 10.5), ("s3", 20.0), ("s1", 30.0))
    expected = [Waiting(name, f"agent of {name}", since, f"of {name}") for name, since in order]
    assert await one.replicas.waiting(10) == expected
    assert await two.replicas.waiting(10) == expected
    assert await two.replicas.waiting(2) == expected[:2]
    assert await two.replicas.waiting(0) == []
    assert await two.replicas.waiting_count() == 3
    await two.ears.until(*expected)
    assert one.ears.heard == []


async def test_who_is_assigned_stopped_or_opened_waits_no_more(instances: tuple[Instance, Instance]) -> None:
    one, two = instances
    for name in ("assigned", "stopped", "requeued", "waits"):
        await one.store.create(waiting(name))
    epoch = head_of(await two.store.submit("assigned", Assign("c1", two.name, False, 105.0))).epoch
    await two.store.submit("stopped", Settle(stop()))
    head_of(await two.store.submit("requeued", Assign("c1", two.name, False, 105.0)))
    assert names(await two.replicas.waiting(10)) == ["waits"]
    head_of(await two.store.submit("requeued", Requeue(1, 130.0)))
    assert names(await two.replicas.waiting(10)) == ["waits", "requeued"]
    assert (await one.replicas.waiting(10))[1].since == 130.0
    await one.ears.until(("withdrawn", "assigned"), ("withdrawn", "stopped"), Waiting("requeued", "default", 130.0))
    assert ("withdrawn", "assigned") not in two.ears.heard
    head_of(await two.store.submit("assigned", append(epoch, finished(1))))
    assert await one.replicas.waiting_count() == 2


async def test_only_one_instance_gets_a_waiting_session(instances: tuple[Instance, Instance]) -> None:
    one, two = instances
    for n in range(30):
        await one.store.create(waiting(f"s{n}"))
    outcomes = await asyncio.gather(
        *(
            instance.store.submit(f"s{n}", Assign("c1", instance.name, False, 105.0))
            for n in range(30)
            for instance in instances
        )
    )
    applied = [outcome for outcome in outcomes if isinstance(outcome, Applied)]
    assert len(applied) == 30
    assert await two.replicas.waiting(100) == []


# ---- what others change


async def test_an_instance_hears_of_changes_to_its_sessions(instances: tuple[Instance, Instance]) -> None:
    one, two = instances
    epoch = await one.running("mine")
    await two.running("other")
    await one.store.submit("mine", append(epoch, said(1)))
    await two.store.submit("mine", Settle(stop()))
    await one.ears.until(("grown", "mine"))
    assert ("grown", "mine") not in two.ears.heard
    head_of(await one.store.submit("mine", append(epoch, finished(2))))
    # A tool of the one runs for a session that the other has taken over.
    epoch = await two.running("called")
    call = numbered(Call("search", "{}", "call", one.name), 1)
    head_of(await two.store.submit("called", append(epoch, call)))
    await one.ears.until(("grown", "called"))
    one.ears.heard.clear()
    await one.store.submit("called", Settle(result()))
    await two.ears.until(("grown", "called"))
    assert one.ears.heard == []


async def test_who_follows_hears_what_others_append(instances: tuple[Instance, Instance]) -> None:
    one, two = instances
    epoch = await one.running("s")
    with two.store.follow("s") as follower:
        read: list[int] = []

        async def reach(offset: int) -> None:
            async with asyncio.timeout(SECONDS):
                while True:
                    read.extend(entry.offset for entry in (await two.store.read("s", len(read), 100)).entries)
                    if len(read) >= offset:
                        return
                    await follower.wait(SECONDS)

        await reach(1)
        for n in range(1, 40):
            # Both write: what two reads of its own, and what it reads of the other's, make one log.
            writer = (one, two)[n % 2]
            head_of(await writer.store.submit("s", append(epoch, said(n, f"{n} "))))
            if n % 5 == 0:
                await reach(n + 1)
        await reach(40)
        assert read == list(range(1, 41))
    assert await bodies(one.store, "s") == [Content(f"{n} ") for n in range(1, 40)]


async def test_who_follows_hears_that_another_dropped_the_session(instances: tuple[Instance, Instance]) -> None:
    one, two = instances
    epoch = await one.running("s")
    await one.store.submit("s", append(epoch, finished(1)))
    with two.store.follow("s") as follower:
        while await two.store.load("s"):
            await one.store.delete("s")
            await asyncio.wait_for(follower.wait(SECONDS), SECONDS / 2)
        assert (await two.store.read("s", 0, 10)).entries == []


async def test_steps_of_several_instances_are_each_carried_out_whole(instances: tuple[Instance, Instance]) -> None:
    one, two = instances
    epoch = await one.running("s")
    calls = [numbered(Call("search", "{}", f"call-{n}", one.name), n) for n in range(1, 41)]
    head_of(await one.store.submit("s", append(epoch, *calls)))

    async def settle(instance: Instance) -> int:
        added = 0
        for n in range(1, 41):
            outcome = await instance.store.submit("s", Settle(result(f"call-{n}", f'"{instance.name}"')))
            assert isinstance(outcome, Applied)
            added += len(outcome.entries)
        return added

    async def talk() -> None:
        for n in range(41, 141):
            head_of(await one.store.submit("s", append(epoch, said(n))))

    settled = await asyncio.gather(settle(one), settle(two), talk())
    assert sum(filter(None, settled)) == 40
    entries = (await two.store.read("s", 0, 1000)).entries
    assert [entry.offset for entry in entries] == list(range(1, 182))
    record = await one.store.load("s")
    assert record
    assert (record.head.calls, record.head.sequence, record.head.offset) == ({}, 140, 181)


async def test_a_key_is_bound_once_for_all_instances(instances: tuple[Instance, Instance]) -> None:
    key = IdempotencyKey("0123456789abcdef", b"body", 1000.0)
    creations = [
        instance.store.create(waiting(f"{instance.name}-{n}"), key) for n in range(10) for instance in instances
    ]
    created = await asyncio.gather(*creations)
    assert [answer.fresh for answer in created].count(True) == 1
    assert all(answer.same_request for answer in created)
    assert len({answer.record.session_id for answer in created}) == 1
    other = await instances[0].store.create(waiting("other"), IdempotencyKey(key.key, b"other body", 1000.0))
    assert (other.fresh, other.same_request) == (False, False)
    assert await instances[0].replicas.waiting_count() == 1

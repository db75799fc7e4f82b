"""Whatever is asked of two instances in turn, Redis answers as memory does, and keeps the same log."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from dispatcher.core.log import Acquire, Append, Assign, Change, Fence, OpenCall, Requeue, Settle, TakeBack, TakeOver
from dispatcher.store.memory import MemoryStore
from dispatcher.store.ports import Store
from tests.contracts.sessions import brought, call, failed, finished, result, said, stop, waiting
from tests.dispatcher.store.redis.world import instance, opened, url
from tests.redis_servers import RedisServer

small = st.integers(0, 4)
instances = st.sampled_from(["one", "two", "i1", ""])  # the first two stand for the instances' own names
entries = st.one_of(
    st.builds(said, small, st.text(max_size=3), small),
    st.builds(call, small, st.sampled_from(["a", "b"])),
    st.builds(finished, small),
    st.builds(failed),
)
stops: st.SearchStrategy[Change] = st.builds(Settle, st.builds(stop))
others: st.SearchStrategy[Change] = st.one_of(
    st.builds(Assign, st.sampled_from(["c1", "c2"]), instances, st.booleans(), st.just(105.0)),
    st.builds(Acquire, st.sampled_from(["c1", "c2"]), small, instances, st.just(106.0)),
    st.builds(Append, small, st.lists(entries, max_size=3).map(tuple)),
    st.builds(Settle, st.builds(result, st.sampled_from(["a", "b", "c"]))),
    st.builds(Requeue, small, st.just(130.0), st.booleans()),
    st.builds(Fence, small),
    st.builds(TakeOver, small, instances, instances),
    st.builds(TakeBack, small, instances),
)
# What is submitted together is one step, if no stop goes ahead of the others.
steps = st.tuples(st.integers(0, 1), st.lists(others, min_size=1, max_size=4) | st.lists(stops, min_size=1))
numbers = count()


@asynccontextmanager
async def both(redis: RedisServer) -> AsyncIterator[tuple[Store, Store]]:
    async with opened(url(redis)) as one, opened(url(redis)) as two:
        yield one, two


def test_two_instances_are_as_one_memory(redis: RedisServer) -> None:
    with asyncio.Runner() as runner:
        opening = both(redis)
        stores = runner.run(opening.__aenter__())

        @settings(deadline=None)
        @given(st.booleans(), st.lists(steps, max_size=12))
        def same(by_commander: bool, asked: list[tuple[int, list[Change]]]) -> None:
            runner.run(compare(stores, by_commander, asked))

        try:
            same()
        finally:
            runner.run(opening.__aexit__(None, None, None))


async def compare(stores: tuple[Store, Store], by_commander: bool, asked: list[tuple[int, list[Change]]]) -> None:
    names = {"one": instance(stores[0]), "two": instance(stores[1])}
    memory, session_id = MemoryStore(), f"s{next(numbers)}"
    record = brought(session_id) if by_commander else waiting(session_id)
    if by_commander:  # so that both have heads at hand that the other outdates
        record = replace(record, head=replace(record.head, instance=names["one"], calls={"a": own_call(names["two"])}))
    for store in (memory, stores[0]):
        assert (await store.create(record)).fresh
    for number, changes in asked:
        named = [with_names(change, names) for change in changes]
        expected = [await memory.submit(session_id, change) for change in named]
        assert await asyncio.gather(*(stores[number].submit(session_id, change) for change in named)) == expected
    for store in stores:
        assert await store.load(session_id) == await memory.load(session_id)
        assert await store.read(session_id, 0, 1000) == await memory.read(session_id, 0, 1000)


def own_call(instance: str) -> OpenCall:
    return OpenCall("search", 1, instance, 110.0)


def with_names(change: Change, names: dict[str, str]) -> Change:
    return replace(change, **{field: names[value] for field, value in asdict(change).items() if value in tuple(names)})

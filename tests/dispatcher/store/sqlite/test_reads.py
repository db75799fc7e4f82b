"""What many ask for at once is read once, and nobody gets what was read before they asked."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from dispatcher.store.ports import StoreUnavailable
from dispatcher.store.sqlite.reads import MOST_READS, Reads

SECONDS = 30.0


class Reading:
    """Each read takes until it is let go. begun: what is read, in order."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._may_go = threading.Semaphore(0)

    def let_go(self, reads: int) -> None:
        self._may_go.release(reads)

    def read(self, name: str) -> str:
        self.begun.append(name)
        assert self._may_go.acquire(timeout=SECONDS)
        if name.startswith("bad"):
            raise StoreUnavailable(name)
        return f"{name} {self.begun.count(name)}"


@pytest.fixture
def reading() -> Reading:
    return Reading()


@pytest.fixture
async def reads() -> AsyncIterator[Reads]:
    with ThreadPoolExecutor(1) as thread:
        yield Reads(thread)


async def asked(reads: Reads, function: Callable[[str], str], *names: str, turn: str = "") -> list[asyncio.Task[str]]:
    """Each by a task that waits for its answer now. turn: whose they are; empty: each has its own."""
    tasks = [asyncio.create_task(reads.ask(function, name, turn=turn)) for name in names]
    await asyncio.sleep(0)
    return tasks


async def answers(tasks: list[asyncio.Task[str]]) -> list[str | BaseException]:
    async with asyncio.timeout(SECONDS):
        return await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_same_is_read_once_for_all_who_asked_before_it_began(reads: Reads, reading: Reading) -> None:
    first = await asked(reads, reading.read, "a")  # under way: it may not see what is there by now
    others = await asked(reads, reading.read, *["a"] * 1000, "b", "a")
    reading.let_go(3)
    assert await answers(first) == ["a 1"]
    assert await answers(others) == ["a 2"] * 1000 + ["b 1", "a 2"]
    assert reading.begun == ["a", "a", "b"]


async def test_sessions_have_their_turns(reads: Reads, reading: Reading) -> None:
    first = await asked(reads, reading.read, "first")
    many = [f"a{n}" for n in range(2 * MOST_READS)]
    tasks = await asked(reads, reading.read, *many, turn="a")
    tasks += await asked(reads, reading.read, "b")
    reading.let_go(2 + len(many))
    await answers(first + tasks)
    assert reading.begun[:4] == ["first", "a0", "b", "a1"]
    assert reading.begun[3:] == many[1:]


async def test_a_failure_is_that_of_its_askers(reads: Reads, reading: Reading) -> None:
    tasks = await asked(reads, reading.read, "bad", "bad", "good")
    reading.let_go(3)
    failed, again, good = await answers(tasks)
    assert isinstance(failed, StoreUnavailable)
    assert isinstance(again, StoreUnavailable)
    assert good == "good 1"


async def test_what_nobody_waits_for_is_not_read(reads: Reads, reading: Reading) -> None:
    first = await asked(reads, reading.read, "first")
    left, stays = await asked(reads, reading.read, "a", "a")
    (gone,) = await asked(reads, reading.read, "b")
    left.cancel()
    gone.cancel()
    reading.let_go(2)
    assert await answers([*first, stays]) == ["first 1", "a 1"]
    assert reading.begun == ["first", "a"]


async def test_what_has_not_begun_fails_when_the_store_closes(reads: Reads, reading: Reading) -> None:
    first = await asked(reads, reading.read, "first")
    later = await asked(reads, reading.read, "a", "b")
    reads.close()
    reading.let_go(1)
    assert await answers(first) == ["first 1"]
    assert [str(each) for each in await answers(later)] == ["the store is closed"] * 2
    with pytest.raises(StoreUnavailable, match="the store is closed"):
        await reads.ask(reading.read, "c")
    assert reading.begun == ["first"]

import asyncio
import time
from functools import partial

import pytest

from dispatcher.live import deadlines as module
from dispatcher.live.deadlines import A_MOMENT, Deadlines, Pace


async def test_one_that_is_moved_comes_once_and_one_that_is_taken_back_never() -> None:
    come: asyncio.Queue[str] = asyncio.Queue()
    deadlines = Deadlines(come.put_nowait, Pace())
    now = time.time()
    deadlines.set("moved", now + 3600)
    deadlines.set("taken back", now)
    deadlines.set("taken back", None)
    deadlines.set("moved", now - 1)  # is over already
    assert "moved" in deadlines
    assert await asyncio.wait_for(come.get(), 5) == "moved"
    assert not deadlines
    deadlines.set("last", now)
    assert await asyncio.wait_for(come.get(), 5) == "last"
    assert come.empty()


async def test_none_comes_after_all_are_cleared() -> None:
    come: list[str] = []
    deadlines = Deadlines(come.append, Pace())
    deadlines.set("a", time.time())
    deadlines.set("b", time.time() + 3600)
    deadlines.clear()
    after = asyncio.Event()
    asyncio.get_running_loop().call_later(0.001, after.set)
    await after.wait()
    assert (come, len(deadlines)) == ([], 0)


async def test_those_of_many_that_come_in_turn_come_a_few_at_a_time() -> None:
    pace, come, order = Pace(), asyncio.Queue[str](), list[str]()
    every = [Deadlines(come.put_nowait, pace, ("grace",)) for _ in range(3 * A_MOMENT)]
    for deadlines in every:
        deadlines.set("grace", time.time())
    order.append(await asyncio.wait_for(come.get(), 5))
    every[-1].set("policy", time.time())  # waits for none of them
    while "policy" not in order:
        order.append(await asyncio.wait_for(come.get(), 5))
    while len(order) <= len(every):
        order.append(await asyncio.wait_for(come.get(), 5))
    assert order.count("grace") == len(every)
    assert not any(every)


async def test_so_many_have_their_turn_in_a_moment_and_none_once_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOMENT_SECONDS", 3600)
    pace, come = Pace(), list[int]()
    for number in range(3 * A_MOMENT):
        pace.take(partial(come.append, number))
    await asyncio.sleep(0)
    assert come == [0]
    pace._go()  # the moment is over
    await asyncio.sleep(0)
    assert come == [*range(1 + A_MOMENT)]
    pace.close()
    pace._go()
    await asyncio.sleep(0)
    assert come == [*range(1 + A_MOMENT)]


async def test_one_that_is_moved_while_it_waits_for_its_turn_does_not_come() -> None:
    """Its stream is back."""
    pace, come = Pace(), asyncio.Queue[str]()
    first, moved, last = (Deadlines(come.put_nowait, pace, (name,)) for name in ("first", "moved", "last"))
    first.set("first", time.time())
    assert await asyncio.wait_for(come.get(), 5) == "first"
    moved.set("moved", time.time() - 1)
    last.set("last", time.time())
    pace.take(lambda: moved.set("moved", time.time() + 3600))  # has its turn before them
    assert await asyncio.wait_for(come.get(), 5) == "last"
    assert "moved" in moved
    moved.clear()
    pace.close()

import asyncio
import time

from dispatcher.live.deadlines import Deadlines


async def test_one_that_is_moved_comes_once_and_one_that_is_taken_back_never() -> None:
    come: asyncio.Queue[str] = asyncio.Queue()
    deadlines = Deadlines(come.put_nowait)
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
    deadlines = Deadlines(come.append)
    deadlines.set("a", time.time())
    deadlines.set("b", time.time() + 3600)
    deadlines.clear()
    after = asyncio.Event()
    asyncio.get_running_loop().call_later(0.001, after.set)
    await after.wait()
    assert (come, len(deadlines)) == ([], 0)

import asyncio

import pytest

from shared.flags import Flag


async def turn() -> None:
    await asyncio.sleep(0)


async def test_who_waits_goes_on_when_it_is_set() -> None:
    flag = Flag()
    waiting = [asyncio.create_task(flag.wait()) for _ in range(2)]
    await turn()
    assert not any(task.done() for task in waiting)
    assert not flag.is_set()
    flag.set()
    assert flag.is_set()
    await asyncio.gather(*waiting)
    await flag.wait()


async def test_who_waited_goes_on_though_it_is_cleared_at_once() -> None:
    flag = Flag()
    before = asyncio.create_task(flag.wait())
    await turn()
    flag.set()
    flag.set()
    flag.clear()
    after = asyncio.create_task(flag.wait())
    await before
    await turn()
    assert not after.done()
    flag.set()
    await after


async def test_who_waits_no_more_is_forgotten() -> None:
    flag = Flag()
    waiting = [asyncio.create_task(flag.wait()) for _ in range(2)]
    await turn()
    waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    assert len(flag._waiting) == 1
    flag.set()
    await waiting[1]
    assert not flag._waiting

import asyncio

import pytest

from dispatcher.live.tasks import Tasks


async def test_a_fault_is_told_of_and_harms_nothing_else() -> None:
    failed: list[BaseException] = []
    tasks = Tasks(failed.append)
    gate = asyncio.Event()

    async def fails() -> None:
        raise ValueError("wrong")

    async def works() -> str:
        await gate.wait()
        return "done"

    broken, whole = tasks.spawn(fails()), tasks.spawn(works())
    with pytest.raises(ValueError, match="wrong"):
        await broken
    gate.set()
    assert await whole == "done"
    assert [str(error) for error in failed] == ["wrong"]
    assert not tasks


async def test_cancelled_ones_have_ended_and_are_no_fault() -> None:
    failed: list[BaseException] = []
    tasks = Tasks(failed.append)
    ended = []

    async def waits(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    for name in ("a", "b"):
        tasks.spawn(waits(name))
    await asyncio.sleep(0)  # they begin
    await tasks.cancel()
    assert (sorted(ended), failed, len(tasks)) == (["a", "b"], [], 0)

"""Calls begin some at a time, sessions in turn, and not while the log has results to take."""

import asyncio

import pytest

from dispatcher.live.tool_starts import MAX_HELD, STARTS, ToolStarts

CALLS = 3 * STARTS


class Starts(ToolStarts):
    """begun: calls by their names, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[str] = []

    async def call(self, session_id: str, name: str) -> None:
        await self.turn(session_id)
        self.begun.append(name)


@pytest.fixture
def starts() -> Starts:
    return Starts()


async def a_turn() -> None:
    """What is due in the loop, and what that leads to at once."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_some_begin_in_each_turn_and_sessions_have_theirs(starts: Starts) -> None:
    many = [asyncio.create_task(starts.call("a", f"a{n}")) for n in range(CALLS)]
    one = asyncio.create_task(starts.call("b", "b0"))
    await a_turn()
    assert len(starts.begun) <= STARTS
    await asyncio.gather(*many, one)
    assert starts.begun[:3] == ["a0", "b0", "a1"]
    assert len(starts.begun) == CALLS + 1


async def test_none_begins_while_so_many_results_are_held(starts: Starts) -> None:
    with starts.held(MAX_HELD // 2):
        with starts.held(MAX_HELD // 2):
            waits = asyncio.create_task(starts.call("b", "b0"))
            for _ in range(10):
                await a_turn()
            assert starts.begun == []
        await waits
        with starts.held(MAX_HELD // 2):
            later = asyncio.create_task(starts.call("b", "b1"))
            for _ in range(10):
                await a_turn()
            assert starts.begun == ["b0"]
        await later


async def test_who_was_stopped_meanwhile_takes_nobodys_turn(starts: Starts) -> None:
    gone = [asyncio.create_task(starts.call("a", f"a{n}")) for n in range(STARTS)]
    await asyncio.sleep(0)
    for each in gone:
        each.cancel()
    await asyncio.gather(*(starts.call("b", f"b{n}") for n in range(STARTS)))
    assert starts.begun == [f"b{n}" for n in range(STARTS)]

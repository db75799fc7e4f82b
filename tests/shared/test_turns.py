import asyncio

import pytest

from shared import turns
from shared.turns import TURN_SECONDS, Begun, LoopTurn


async def test_others_have_the_loop_where_a_turn_has_lasted_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    others: list[float] = []
    monkeypatch.setattr(turns, "perf_counter", lambda: now[0])
    turn = LoopTurn()
    for _ in range(10):
        asyncio.get_running_loop().call_soon(lambda: others.append(now[0]))
        now[0] += TURN_SECONDS * 0.4
        await turn.step()
    assert [round((each - 100.0) / TURN_SECONDS, 1) for each in others] == [1.2] * 3 + [2.4] * 3 + [3.6] * 3


class Work:
    """A coroutine that waits twice."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.gates = [loop.create_future(), loop.create_future()]
        self.reached = 0
        self.cancelled = False

    async def run(self) -> str:
        try:
            for gate in self.gates:
                self.reached += 1
                await gate
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return "done"


async def test_what_is_begun_runs_at_once_to_its_first_wait_and_on_where_it_is_awaited() -> None:
    work = Work()
    begun = Begun(work.run())
    assert work.reached == 1

    async def rest() -> str:
        return await begun

    task = asyncio.create_task(rest())
    work.gates[0].set_result(None)
    work.gates[1].set_result(None)
    assert await task == "done"
    assert work.reached == 2


async def test_what_waits_for_nothing_is_over_when_it_has_begun() -> None:
    async def returns() -> int:
        return 7

    async def fails() -> None:
        raise ConnectionError

    returned, failed = Begun(returns()), Begun(fails())
    assert (returned.failed, failed.failed) == (False, True)
    assert await returned == 7
    with pytest.raises(ConnectionError):
        await failed


@pytest.mark.parametrize("waits", [0, 1])
async def test_its_tasks_cancellation_and_a_waits_error_reach_it(waits: int) -> None:
    work, other = Work(), Work()
    begun, failing = Begun(work.run()), Begun(other.run())

    async def rest(of: Begun[str]) -> str:
        return await of

    task, failed = asyncio.create_task(rest(begun)), asyncio.create_task(rest(failing))
    for gate in work.gates[:waits] + other.gates[:waits]:
        gate.set_result(None)
    for _ in range(10):  # turns: far more than it takes
        await asyncio.sleep(0)
    assert work.reached == other.reached == waits + 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.cancelled
    other.gates[waits].set_exception(ConnectionError())
    with pytest.raises(ConnectionError):
        await failed

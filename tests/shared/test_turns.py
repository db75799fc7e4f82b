import asyncio

import pytest

from shared import turns
from shared.turns import TURN_SECONDS, LoopTurn


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

"""One session, worker or user does its worst beside fifty that behave: they keep 90 % of their pace."""

import asyncio
import time
from pathlib import Path

import pytest

from tests.abuse import http, streams, workers
from tests.abuse.house import TRIES, Attack, House
from tests.faults.machines import is_event
from tests.programs import Program

pytestmark = [pytest.mark.abuse, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

CROWD = 50
KEPT = 0.9  # of their pace
QUIET_SECONDS = 4.0

WORST: dict[str, Attack] = {
    "a session that talks without end": workers.talk,
    "a worker that floods": streams.own_flood,
    "a user who floods": http.pipelines,
}


class Crowd:
    """The honest ones, in a process of their own."""

    def __init__(self, house: House) -> None:
        self._until = house.folder / f"crowd-until-{next(house.numbers)}"
        arguments = ("-m", "tests.abuse.crowd", str(house.http), str(CROWD), str(self._until))
        self.program = Program(*arguments, settings={}, log=Path(f"{self._until}.log"))

    async def counted(self) -> tuple[float, float]:
        """Words so far, and when: the newest."""
        asked = time.monotonic()
        while (told := await asyncio.to_thread(self.program.wait_for, is_event("pace")))["at"] < asked:
            pass
        return told["words"], told["at"]

    async def pace(self, attack: Attack, house: House) -> float:
        """Words a second while that goes on."""
        words, at = await self.counted()
        await house.attacked(attack)
        then, now = await self.counted()
        return (then - words) / (now - at)

    async def over(self) -> list[str]:
        self._until.touch()
        return list((await asyncio.to_thread(self.program.wait_for, is_event("over")))["trouble"])


async def quiet(house: House) -> None:
    await asyncio.sleep(QUIET_SECONDS)


@pytest.mark.parametrize("worst", WORST)
async def test_those_that_behave_keep_their_pace(worst: str, one_house: House, capsys) -> None:
    async with one_house.commander("strolling", CAPACITY=str(CROWD)):
        crowd = Crowd(one_house)
        try:
            share = 0.0
            for _ in range(TRIES):
                usual = await crowd.pace(quiet, one_house)
                pace = await crowd.pace(WORST[worst], one_house)
                share = pace / usual
                with capsys.disabled():
                    print(f"\n  {worst}: {pace:.0f} of {usual:.0f} words a second", end=" ")
                if share >= KEPT:
                    break
            assert share >= KEPT
            assert not await crowd.over()
        finally:
            crowd.program.close()
    assert not await one_house.left()

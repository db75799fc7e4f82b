"""That a measure on a busy machine is taken again, or is told of."""

from collections.abc import Sequence
from typing import Any

import pytest

from tests.bench import measures
from tests.bench.__main__ import Bench, Stuck
from tests.bench.agents import Spec
from tests.bench.measures import Figures, Late
from tests.bench.reading import FloodReader
from tests.bench.systems import System

FLOOR, MEMORY = System("floor", "", {}), System("memory", "", {}, operator="there")


class Opened:
    """Stands for a session and its reader."""

    def __init__(self) -> None:
        self.ran_out = self.deleted = False

    async def finished(self, seconds: float) -> None:
        self.ran_out = True

    async def delete(self) -> None:
        assert self.ran_out
        self.deleted = True


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Opened]:
    every: list[Opened] = []

    async def open_sessions(system: System, reader_class: Any, specs: Sequence[Spec]) -> tuple[Any, Any]:
        new = [Opened() for _ in specs]
        every.extend(new)
        return new, new

    monkeypatch.setattr(measures, "open_sessions", open_sessions)
    return every


async def begun() -> float:
    begin, _, _ = await measures._begun(FLOOR, FloodReader, 2, 1.0, lambda begin: [Spec("flood", begin)] * 2)
    return begin


async def test_sessions_that_open_too_late_run_out_and_others_get_more_time(
    opened: list[Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "RAMPS", (-1000, 1000))  # the begin was long ago, and is far away
    await begun()
    assert [each.deleted for each in opened] == [True, True, False, False]


async def test_who_is_too_late_each_time_is_told_of(opened: list[Opened], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "RAMPS", (-1000, -1000))
    with pytest.raises(Late, match="2 sessions took longer to open than was planned for, 2 times"):
        await begun()
    assert all(each.deleted for each in opened)


async def test_what_was_too_late_is_named_and_the_rest_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    async def measure(system: System) -> Figures:
        if system is FLOOR:
            raise Late("the machine is busy")
        return {"kib": 1.0}

    bench = Bench([FLOOR, MEMORY], [])
    await bench.take("idle", measure)
    assert bench.missed == ["idle: floor: the machine is busy"]
    assert list(bench.found["idle"]) == ["memory"]
    assert capsys.readouterr().err == "idle: floor: the machine is busy\nidle: memory … kib 1\n"


async def test_a_measure_without_an_end_is_named() -> None:
    async def measure(system: System) -> Figures:
        raise TimeoutError

    with pytest.raises(Stuck, match="idle: floor: no end"):
        await Bench([FLOOR], []).take("idle", measure)

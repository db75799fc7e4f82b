"""That what others do on the machine is told from what the benchmark does."""

from pathlib import Path

import pytest

from tests.bench.quiet import Used, others_share, used


def test_what_the_group_used_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("cpu  100 20 30 1000 50 1 2 3 9 9\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    for pid, name, group, ticks in (
        (7, "python", 7, "10 5 2 1"),
        (8, "a) b (c", 7, "20 0 0 0"),
        (9, "else", 9, "70 0 0 0"),
    ):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} ({name}) S 1 {group} 7 0 -1 4194304 1 2 3 4 {ticks} 20 0 1")
    found = used(tmp_path, group=7)
    tick = found.own / 38
    assert found.busy == pytest.approx(156 * tick)
    assert found.all == pytest.approx(1206 * tick)


def test_reads_this_machine() -> None:
    found = used()
    assert 0 < found.own <= found.busy <= found.all


def test_the_share_of_others_is_of_all_processors() -> None:
    assert others_share(Used(100, 40, 10), Used(120, 50, 15)) == 0.25
    assert others_share(Used(100, 40, 10), Used(120, 45, 15.01)) == 0  # ticks are counted at other moments

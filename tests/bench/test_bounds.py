"""That what became worse is found, and nothing else is."""

from pathlib import Path

import msgspec
import pytest

from tests.bench.bounds import FILE, HEAD, Bounds, compared, load, steady, tightened
from tests.bench.quiet import MOST, OTHERS
from tests.bench.systems import SYSTEMS

TEXT = """
["paced".cpu_micros]
to = "floor"
noise = 0.05
steady = true
at_most = { sqlite = 2.0 }

["flood".tokens_per_second]
to = "floor"
noise = 0.1
at_least = { sqlite = 0.5 }

["stop".p99_ratio]
noise = 0.1
at_most = { sqlite = 8.0 }
"""


@pytest.fixture
def bounds(tmp_path: Path) -> Bounds:
    file = tmp_path / "bounds.toml"
    file.write_text(TEXT)
    return load(file)


def rounds(figure: str, *values: float) -> list[dict[str, float]]:
    return [{figure: value} for value in values]


def verdicts(bounds: Bounds, *sqlite: float, floor: tuple[float, ...] = (100, 100, 100)) -> list[str]:
    """What becomes of the first bound, 2.0 × floor."""
    found = {"paced": {"floor": rounds("cpu_micros", *floor), "sqlite": rounds("cpu_micros", *sqlite)}}
    return [
        f"{'broken ' if finding.broken else ''}{finding.line.partition(':')[0]}"
        for finding in compared(bounds, found, SYSTEMS, "paced".__eq__, whole=True)
    ]


@pytest.mark.parametrize(
    ("sqlite", "verdict"),
    [
        ((199, 200, 201), "held"),
        ((209, 209, 209), "held"),  # within the known noise, a twentieth
        ((211, 211, 211), "broken worse"),
        ((190, 215, 230), "held"),  # beyond the noise, within what lies between the rounds
        ((205, 226, 230), "broken worse"),  # beyond both
        ((212,), "broken worse"),  # one round has no spread of its own
        ((209,), "held"),
        ((189, 188, 189), "better"),
        ((191, 191, 191), "held"),
    ],
)
def test_worse_is_what_lies_beyond_the_bound_by_more_than_the_spread(
    bounds: Bounds, sqlite: tuple[float, ...], verdict: str
) -> None:
    assert verdicts(bounds, *sqlite) == [verdict]


def test_a_ratio_is_to_the_same_round(bounds: Bounds) -> None:
    """A machine that slows down slows both."""
    assert verdicts(bounds, 200, 400, 800, floor=(100, 200, 400)) == ["held"]
    assert verdicts(bounds, 200, 400, 800, floor=(100, 170, 320)) == ["broken worse"]


def test_a_line_says_what_is_worse(bounds: Bounds) -> None:
    floor, sqlite = rounds("tokens_per_second", 100, 100, 100), rounds("tokens_per_second", 41, 40, 42)
    found = {"flood": {"floor": floor, "sqlite": sqlite}, "stop": {"sqlite": rounds("p99_ratio", 7.5)}}
    lines = [finding.line for finding in compared(bounds, found, SYSTEMS, {"flood", "stop"}.__contains__, whole=True)]
    assert lines == [
        "worse: flood, tokens_per_second: sqlite 0.41 × floor, bound ≥ 0.50, spread 0.05, rounds 0.41 0.40 0.42",
        "held: stop, p99_ratio: sqlite 7.50 ×, bound ≤ 8.00, spread 0.80",
    ]


def test_what_was_to_be_measured_and_is_missing_breaks_its_bound(bounds: Bounds) -> None:
    found = {"paced": {"floor": rounds("cpu_micros", 100)}}
    (finding,) = compared(bounds, found, SYSTEMS, "paced".__eq__, whole=True)
    assert finding.broken
    assert finding.line == "missing: paced, cpu_micros: sqlite has a bound, and was not measured"


def test_rounds_beside_others_are_not_compared(bounds: Bounds) -> None:
    floor, sqlite = rounds("cpu_micros", 100, 100, 100), rounds("cpu_micros", 200, 900, 900)
    sqlite[1][OTHERS] = floor[2][OTHERS] = MOST + 0.01
    (some,) = compared(bounds, {"paced": {"floor": floor, "sqlite": sqlite}}, SYSTEMS, "paced".__eq__, whole=True)
    assert some.ratios == (2.0,)
    floor[0][OTHERS] = 1.0
    (none,) = compared(bounds, {"paced": {"floor": floor, "sqlite": sqlite}}, SYSTEMS, "paced".__eq__, whole=True)
    assert none.busy
    assert not none.broken
    assert none.line == "not compared: paced, cpu_micros: sqlite: others used more than 10% of the machine"


def test_a_base_that_did_not_get_its_turn_is_no_figure(bounds: Bounds) -> None:
    """Beside so much else that the floor's gateway used no CPU within the window."""
    floor, sqlite = rounds("cpu_micros", 0), rounds("cpu_micros", 300)
    floor[0][OTHERS] = 0.9
    (finding,) = compared(bounds, {"paced": {"floor": floor, "sqlite": sqlite}}, SYSTEMS, "paced".__eq__, whole=False)
    assert finding.busy
    assert not finding.broken


def test_memory_is_compared_whatever_others_do(tmp_path: Path) -> None:
    (tmp_path / "bounds.toml").write_text('["idle".kib]\nnoise = 0.1\nat_most = { sqlite = 60 }\n')
    found = {"idle": {"sqlite": [{"kib": 70.0, OTHERS: 1.0}]}}
    (finding,) = compared(load(tmp_path / "bounds.toml"), found, SYSTEMS, "idle".__eq__, whole=True)
    assert finding.broken


def test_what_was_not_to_be_measured_is_not_missed(bounds: Bounds) -> None:
    everything = compared(bounds, {}, SYSTEMS, lambda measure: True, whole=True)
    assert [finding.measure for finding in everything] == ["paced", "flood", "stop"]
    assert not compared(bounds, {}, SYSTEMS, lambda measure: False, whole=True)
    assert not compared(bounds, {}, ("floor", "memory"), lambda measure: True, whole=True)
    without_floor = compared(bounds, {}, ("sqlite",), lambda measure: True, whole=True)
    assert [finding.measure for finding in without_floor] == ["stop"]


def test_a_short_run_holds_what_is_steady(bounds: Bounds) -> None:
    short = compared(bounds, {}, SYSTEMS, lambda measure: True, whole=False)
    assert [finding.measure for finding in short] == ["paced"]
    assert steady(bounds, "paced") == {"floor", "sqlite"}
    assert steady(bounds, "flood") == steady(bounds, "unknown") == set()


def test_better_figures_make_a_bound_tighter_and_worse_ones_do_not(bounds: Bounds, tmp_path: Path) -> None:
    found = {
        "paced": {"floor": rounds("cpu_micros", 100), "sqlite": rounds("cpu_micros", 151.2)},
        "flood": {"floor": rounds("tokens_per_second", 100), "sqlite": rounds("tokens_per_second", 45)},
    }
    text = tightened(bounds, found)
    expected = HEAD + TEXT.replace("sqlite = 2.0", "sqlite = 1.52")
    assert text == expected
    (tmp_path / "again.toml").write_text(text)
    assert tightened(load(tmp_path / "again.toml"), found) == text


@pytest.mark.parametrize("wrong", ["noice = 1", "steady = 1", "at_most = { sqlite = 'low' }"])
def test_a_file_that_is_not_understood_is_refused(wrong: str, tmp_path: Path) -> None:
    file = tmp_path / "bounds.toml"
    file.write_text(f'["paced".cpu_micros]\nnoise = 0.1\n{wrong}\n')
    with pytest.raises(msgspec.ValidationError):
        load(file)


def test_the_file_is_as_it_would_be_written() -> None:
    assert tightened(load(), {}) == FILE.read_text()


def test_the_bounds_name_systems() -> None:
    """A misspelt one would hold nothing."""
    bounds = load()
    assert any(steady(bounds, measure) for measure in bounds)
    for figures in bounds.values():
        for bound in figures.values():
            limited = {*bound.at_most, *bound.at_least}
            assert limited
            assert limited | {bound.to or "floor"} <= set(SYSTEMS)
            assert not set(bound.at_most) & set(bound.at_least)

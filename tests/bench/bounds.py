"""What the benchmark holds: ratios to another system's figures of the same rounds, and how bad they may be.

The bounds stand in `bounds.toml`. A ratio is worse than its bound where its median over the rounds lies beyond it by
more than the spread: half of what lies between the rounds, or the bound's `noise` where that is more. Rounds in which
others used much of the machine (`quiet.MOST`) are not compared: they would say something of these.
"""

import math
import statistics
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.bench.quiet import MOST, OTHERS

FILE = Path(__file__).with_name("bounds.toml")
MEMORY = "kib"  # figures that begin so do not depend on what others do
HEAD = """\
# What `make bench` holds, by measure and figure: the ratio of each system's figure to that of the system `to` in the
# same round; without `to` the figure is a ratio itself. `at_most` or `at_least`, by system. `noise`: what is allowed
# for other machines and other days, as a share of the bound. `steady`: CPU or memory: held in short runs too, all else
# in whole ones only.
# `make bench BENCH=--write` makes them tighter where the figures are better; looser they are made by hand alone.
"""

Rounds = Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]  # measure → system → the figures of each round


class Bound(msgspec.Struct, forbid_unknown_fields=True):
    """Of one figure of a measure, as `HEAD` says."""

    noise: float
    to: str = ""
    steady: bool = False
    at_most: dict[str, float] = {}
    at_least: dict[str, float] = {}


Bounds = dict[str, dict[str, Bound]]  # measure → figure


@dataclass(frozen=True)
class Finding:
    """One system's ratio beside its bound. ratios: of each quiet round. rounds: how many there were; 0: it was not
    measured.
    """

    measure: str
    figure: str
    system: str
    bound: Bound
    ratios: tuple[float, ...]
    rounds: int

    @property
    def limit(self) -> float:
        return (self.bound.at_most | self.bound.at_least)[self.system]

    @property
    def spread(self) -> float:
        return max((max(self.ratios) - min(self.ratios)) / 2, self.bound.noise * self.limit)

    @property
    def excess(self) -> float:
        """By how much the median is on the bound's bad side."""
        beyond = statistics.median(self.ratios) - self.limit
        return beyond if self.system in self.bound.at_most else -beyond

    @property
    def busy(self) -> bool:
        """It was measured, beside others only."""
        return self.rounds > 0 and not self.ratios

    @property
    def broken(self) -> bool:
        return not self.rounds or (bool(self.ratios) and self.excess > self.spread)

    @property
    def line(self) -> str:
        name = f"{self.measure}, {self.figure}: {self.system}"
        if not self.rounds:
            return f"missing: {name} has a bound, and was not measured"
        if self.busy:
            return f"not compared: {name}: others used more than {MOST:.0%} of the machine"
        word = "worse" if self.broken else "better" if self.excess < -self.spread else "held"
        sign = "≤" if self.system in self.bound.at_most else "≥"
        of = f"× {self.bound.to}" if self.bound.to else "×"
        rounds = f", rounds {' '.join(f'{ratio:.2f}' for ratio in self.ratios)}" if len(self.ratios) > 1 else ""
        found = f"{statistics.median(self.ratios):.2f} {of}, bound {sign} {self.limit:.2f}"
        return f"{word}: {name} {found}, spread {self.spread:.2f}{rounds}"


def load(file: Path = FILE) -> Bounds:
    """Raises msgspec.ValidationError where the file is not as `HEAD` says."""
    return msgspec.convert(tomllib.loads(file.read_text()), Bounds)


def compared(
    bounds: Bounds, found: Rounds, systems: Collection[str], wanted: Callable[[str], bool], whole: bool
) -> list[Finding]:
    """What the run says to the bounds of these systems and measures. whole: False: only to those that are steady."""
    return [
        finding
        for finding in _findings(bounds, found)
        if {finding.system, finding.bound.to or finding.system} <= set(systems)
        and wanted(finding.measure)
        and (whole or finding.bound.steady)
    ]


def steady(bounds: Bounds, measure: str) -> set[str]:
    """The systems that a measure has to be taken on for its steady bounds."""
    held = [bound for bound in bounds.get(measure, {}).values() if bound.steady]
    return {system for bound in held for system in (*bound.at_most, *bound.at_least, bound.to) if system}


def tightened(bounds: Bounds, found: Rounds) -> str:
    """The file's text, each bound as tight as these figures are."""
    for finding in _findings(bounds, found):
        if finding.ratios and finding.excess < 0:
            least = statistics.median(finding.ratios)
            if finding.system in finding.bound.at_most:
                finding.bound.at_most[finding.system] = math.ceil(least * 100) / 100
            else:
                finding.bound.at_least[finding.system] = math.floor(least * 100) / 100
    return HEAD + "".join(
        f'\n["{measure}".{figure}]\n{_lines(bound)}'
        for measure, figures in bounds.items()
        for figure, bound in figures.items()
    )


def _lines(bound: Bound) -> str:
    lines = [f'to = "{bound.to}"'] if bound.to else []
    lines += [f"noise = {bound.noise}"] + ["steady = true"] * bound.steady
    for key, limits in (("at_most", bound.at_most), ("at_least", bound.at_least)):
        if limits:
            lines.append(f"{key} = {{ {', '.join(f'{system} = {limit}' for system, limit in limits.items())} }}")
    return "".join(f"{line}\n" for line in lines)


def _findings(bounds: Bounds, found: Rounds) -> Iterator[Finding]:
    for measure, figures in bounds.items():
        systems = found.get(measure, {})
        for figure, bound in figures.items():
            for system in (*bound.at_most, *bound.at_least):
                rounds = [
                    (own[figure], base[figure] if bound.to else 1.0, max(_others(own), _others(base)))
                    for own, base in zip(systems.get(system, ()), systems.get(bound.to or system, ()), strict=False)
                    if figure in own and figure in base
                ]
                quiet = [(own, base) for own, base, others in rounds if others <= MOST or figure.startswith(MEMORY)]
                ratios = tuple(own / base for own, base in quiet if base > 0)  # 0: it did not get its turn at all
                yield Finding(measure, figure, system, bound, ratios, len(rounds))


def _others(figures: Mapping[str, float]) -> float:
    return figures.get(OTHERS, 0.0)

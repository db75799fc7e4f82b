"""The figures as documents show them: the tables of `docs/benchmarks.md`, and its chart.

    python -m tests.bench.report FILE       from what a run has left (`bench-results/latest.json`)

The page's words stand in the page; between `<!-- bench: NAME -->` and `<!-- /bench -->` stands what is made here.
"""

import json
import re
import statistics
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench import chart
from tests.bench.quiet import MOST, OTHERS
from tests.bench.table import Medians, markdown

PAGE = Path(__file__).resolve().parents[2] / "docs/benchmarks.md"
CHART = PAGE.with_suffix(".svg")
NAMES = {"starlette": "gateway", "sqlite": "SQLite", "redis": "Redis"}  # the others are called what they are
COUNTS = (16, 64, 200, 400)  # sessions, in the chart

# Block → the beginnings of its measures' names. A figure that is of no use to the page's readers is left out.
BLOCKS = {
    "sessions": ("idle", "flood", "paced"),
    "stops": ("stop", "rule's stop", "tool's stop"),
    "rules": ("rules: text",),
    "encodings": ("encodings",),
    "polling": ("polling",),
    "connections": ("connections",),
}
_BLOCK = re.compile(r"(<!-- bench: (\w+) -->\n).*?(<!-- /bench -->)", re.DOTALL)


def write(results: Mapping[str, Any], page: Path = PAGE, picture: Path = CHART) -> None:
    """results: what the benchmark writes. Raises ValueError where the page has other blocks."""
    summary: Medians = results["medians"]
    blocks = {"run": _run(results)} | {
        name: _tables({measure: of for measure, of in summary.items() if measure.startswith(beginnings)})
        for name, beginnings in BLOCKS.items()
    }
    page.write_text(filled(page.read_text(), blocks))
    delay, cpu = _points(summary, "p50_micros", 1000), _points(summary, "cpu_micros", 1)
    others = _others(results)[0]
    note = f"others used {others:.0%} of the machine" if others > MOST else results["date"]
    picture.write_text(chart.chart(delay, cpu, note))


def filled(text: str, blocks: Mapping[str, str]) -> str:
    """The page with these blocks in their places."""
    places = [place[2] for place in _BLOCK.finditer(text)]
    if sorted(places) != sorted(blocks):
        raise ValueError(f"the page has the blocks {', '.join(places)}; made were {', '.join(blocks)}")
    return _BLOCK.sub(lambda place: f"{place[1]}\n{blocks[place[2]]}\n\n{place[3]}", text)


def _run(results: Mapping[str, Any]) -> str:
    machine, (others, most) = results["machine"], _others(results)
    text = (
        f"{results['date']}, `{results['command']}`: windows of {results['seconds']:g} s, rounds: {results['rounds']}, "
        f"stops by rules of each kind: {results['stops']}; {machine['cpus']} × {machine['processor']}, Linux "
        f"{machine['kernel']}, Python {machine['python']}. Others used {others:.0%} of the machine (median of the "
        f"measures; at most {most:.0%})"
    )
    beside = ": **measured beside others, these are no figures of the pair**." if others > MOST else "."
    return textwrap.fill(text + beside, 120, break_on_hyphens=False)


def _others(results: Mapping[str, Any]) -> tuple[float, float]:
    """The share of the machine that others used: the median of the measures, and the most."""
    shares = [
        figures[OTHERS]
        for systems in results["rounds_raw"].values()
        for rounds in systems.values()
        for figures in rounds
        if OTHERS in figures
    ]
    return statistics.median(shares), max(shares)


def _tables(summary: Medians) -> str:
    by_systems: dict[tuple[str, ...], Medians] = {}
    for measure, systems in summary.items():
        by_systems.setdefault(tuple(systems), {})[measure] = systems
    return "\n\n".join(markdown(rows, systems, NAMES) for systems, rows in by_systems.items())


def _points(summary: Medians, figure: str, divisor: float) -> dict[str, dict[int, float]]:
    points: dict[str, dict[int, float]] = {}
    for count in COUNTS:
        for system, figures in summary.get(f"paced, {count} sessions", {}).items():
            if system in chart.SERIES:
                points.setdefault(system, {})[count] = figures[figure] / divisor
    return points


def main(arguments: Sequence[str]) -> None:
    write(json.loads(Path(arguments[0]).read_text()))


if __name__ == "__main__":
    main(sys.argv[1:])

"""That the page shows what was measured, and the chart what the table says."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.bench import report
from tests.bench.chart import BOTTOM, PANELS, SERIES, TOP, chart, linear, logarithmic
from tests.bench.quiet import OTHERS

SVG = "{http://www.w3.org/2000/svg}"


def results() -> dict[str, Any]:
    medians = {
        f"paced, {count} sessions": {
            system: {"p50_micros": 1000.0 * count * slow, "cpu_micros": 100.0 * slow}
            for system, slow in (("floor", 1), ("starlette", 2), ("sqlite", 3))
        }
        for count in (16, 64)
    }
    of_rules = {"rules: text, tokens": {"10 phrases": {"policy_nanos": 123.4, "policy_load_micros": 2500.0}}}
    return {
        "date": "2026-11-30",
        "command": "make bench",
        "seconds": 5.0,
        "rounds": 3,
        "stops": 100,
        "machine": {"cpus": 2, "processor": "Some CPU", "python": "3.11.7", "kernel": "6.18"},
        "medians": medians | of_rules,
        "rounds_raw": {"paced": {"floor": [{OTHERS: 0.01}, {OTHERS: 0.02}, {OTHERS: 0.3}]}},
    }


def test_the_page_gets_its_figures_and_keeps_its_words(tmp_path: Path) -> None:
    page, picture = tmp_path / "page.md", tmp_path / "page.svg"
    page.write_text(report.PAGE.read_text())
    report.write(results(), page, picture)
    text = page.read_text()
    line = " ".join(text.partition("<!-- bench: run -->")[2].partition("<!--")[0].split())
    assert "2 × Some CPU, Linux 6.18, Python 3.11.7. Others used 2% of the machine" in line
    assert "no figures" not in line
    assert "| | floor | gateway | SQLite |\n|---|---:|---:|---:|\n| **paced, 16 sessions** | | | |\n" in text
    assert "| added latency p50, ms | 16.00 | 32.00 (2.00×) | 48.00 (3.00×) |" in text
    assert "| ns a character | 123 |" in text
    report.write(results(), page, picture)
    assert page.read_text() == text
    words = re.compile(r"(<!-- bench: \w+ -->).*?(<!-- /bench -->)", re.DOTALL)
    assert words.sub(r"\1\2", text) == words.sub(r"\1\2", report.PAGE.read_text())


def test_a_page_with_other_blocks_is_refused() -> None:
    for page in ("<!-- bench: run -->\n<!-- /bench -->", "", "<!-- bench: runs -->\n<!-- /bench -->"):
        with pytest.raises(ValueError, match="the page has the blocks"):
            report.filled(page, {"run": "", "sessions": ""})


def test_the_chart_has_each_system_and_higher_is_more() -> None:
    delay = {"floor": {16: 0.5, 64: 1.0, 400: 9.5}, "sqlite": {16: 1.0, 64: 5.8, 400: 638.0}}
    cpu = {"floor": {16: 250.0, 64: 204.0, 400: 86.0}, "sqlite": {16: 400.0, 64: 381.0, 400: 94.0}}
    root = ElementTree.fromstring(chart(delay, cpu, "a note"))  # noqa: S314 (made here)
    lines = root.findall(f"{SVG}polyline")
    assert [line.get("stroke") for line in lines] == [SERIES["floor"][1], SERIES["sqlite"][1]] * 2
    for line, (left, right), values in zip(
        lines, PANELS[:1] * 2 + PANELS[1:] * 2, [*delay.values(), *cpu.values()], strict=True
    ):
        points = [tuple(map(float, point.split(","))) for point in (line.get("points") or "").split()]
        assert all(left < x < right and TOP <= y <= BOTTOM for x, y in points)
        assert [x for x, _ in points] == sorted(x for x, _ in points)
        down = [y for _, y in points]
        assert sorted(range(3), key=lambda at: -down[at]) == sorted(range(3), key=lambda at: [*values.values()][at])
    words = root.findtext(f"{SVG}desc") or ""
    assert "this pair, SQLite, 400 sessions: 638 ms, 94 µs a token." in words
    assert "prefers-color-scheme: dark" in (root.findtext(f"{SVG}style") or "")


def test_axes_hold_their_values() -> None:
    assert logarithmic([0.9, 638.0]).ticks == [0.1, 1, 10, 100, 1000]
    assert logarithmic([10.0]).ticks == [10, 100]
    assert linear([86.0, 381.0]).ticks == [0, 100, 200, 300, 400]
    for most in (0.7, 1.0, 9.9, 61.0, 1234.0):
        axis = linear([most])
        assert 0.5 < axis.at(most) <= 1
        assert 3 <= len(axis.ticks) - 1 <= 7


def test_figures_beside_others_are_called_so() -> None:
    busy = results() | {"rounds_raw": {"paced": {"floor": [{OTHERS: 0.4}]}}}
    assert "no figures of the pair" in " ".join(report._run(busy).split())

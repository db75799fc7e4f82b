"""The chart of `docs/benchmarks.md`: delay and CPU against the number of sessions, an SVG for light and dark."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

# By system: what it is called, and its colour, at least 3:1 on both grounds. The shapes tell them apart without colour.
SERIES = {
    "floor": ("floor", "#6e7781", "circle"),
    "starlette": ("gateway", "#bc4c00", "square"),
    "memory": ("this pair, memory", "#2f81f7", "diamond"),
    "sqlite": ("this pair, SQLite", "#2da44e", "triangle"),
}
WIDTH, HEIGHT = 840, 340
TOP, BOTTOM = 84, 292  # of both panels
PANELS = ((64, 400), (496, 832))  # left and right edge of each
STYLE = """
  .ground { fill: #ffffff } text { font: 13px system-ui, sans-serif; fill: #1f2328 } .grid { stroke: #d1d9e0 }
  .quiet { fill: #59636e } .title { font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } text { fill: #f0f6fc } .grid { stroke: #3d444d } .quiet { fill: #9198a1 }
  }
"""

Points = Mapping[str, Mapping[int, float]]  # system → sessions → value


@dataclass(frozen=True)
class Axis:
    """Of a panel: where a value lies between 0 (below) and 1, and the values that have a line."""

    at: Callable[[float], float]
    ticks: Sequence[float]


def logarithmic(values: Iterable[float]) -> Axis:
    """Whole decades around the values, which are above 0."""
    logs = [math.log10(value) for value in values]
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    high = max(high, low + 1)
    return Axis(lambda value: (math.log10(value) - low) / (high - low), [10.0**power for power in range(low, high + 1)])


def linear(values: Iterable[float]) -> Axis:
    """From 0, in three to seven even steps."""
    most = max(values)
    power = 10.0 ** math.floor(math.log10(most))
    step = next(factor * power for factor in (0.2, 0.5, 1.0, 2.0) if most / (factor * power) <= 6)
    steps = math.ceil(most / step)
    return Axis(lambda value: value / (steps * step), [step * number for number in range(steps + 1)])


def chart(delay: Points, cpu: Points, note: str) -> str:
    """delay: milliseconds; cpu: microseconds a token. Each system has the same numbers of sessions in both."""
    panels = (
        _panel(PANELS[0], "Added delay p50, ms (logarithmic)", delay, logarithmic),
        _panel(PANELS[1], "CPU of all processes, µs a token", cpu, linear),
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="t d">\n'
        '<title id="t">Delay and CPU against sessions of 50 tokens/s</title>\n'
        f'<desc id="d">{_words(delay, cpu)}</desc>\n'
        f"<style>{STYLE}</style>\n"
        f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}" rx="6"/>\n{_legend(delay)}{"".join(panels)}'
        f'<text class="quiet" x="{WIDTH - 8}" y="{BOTTOM + 38}" text-anchor="end">{escape(note)}</text>\n</svg>\n'
    )


def _words(delay: Points, cpu: Points) -> str:
    """The figures, for who does not see them."""
    return escape(
        " ".join(
            f"{SERIES[system][0]}, {sessions} sessions: {delay[system][sessions]:.3g} ms, "
            f"{cpu[system][sessions]:.3g} µs a token."
            for system in SERIES
            if system in delay
            for sessions in sorted(delay[system])
        )
    )


def _legend(points: Points) -> str:
    shown = [SERIES[system] for system in SERIES if system in points]
    return "".join(
        f'{_mark(shape, colour, 70 + 180 * place, 26)}<text x="{82 + 180 * place}" y="30">{escape(name)}</text>\n'
        for place, (name, colour, shape) in enumerate(shown)
    )


def _panel(edges: tuple[int, int], title: str, points: Points, axis_of: Callable[[Iterable[float]], Axis]) -> str:
    left, right = edges
    sessions = sorted({count for line in points.values() for count in line})
    axis = axis_of([value for line in points.values() for value in line.values()])
    step = (right - left) / len(sessions)

    def x(count: int) -> float:
        return left + (sessions.index(count) + 0.5) * step

    def y(value: float) -> float:
        return BOTTOM - axis.at(value) * (BOTTOM - TOP)

    parts = [f'<text class="title" x="{left}" y="62">{escape(title)}</text>']
    for tick in axis.ticks:
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text class="quiet" x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:,g}</text>')
    below = [(x(count), 18, str(count)) for count in sessions] + [((left + right) / 2, 38, "sessions")]
    parts += [
        f'<text class="quiet" x="{middle:.1f}" y="{BOTTOM + down}" text-anchor="middle">{text}</text>'
        for middle, down, text in below
    ]
    for system, (_, colour, shape) in SERIES.items():
        if line := points.get(system):
            at = [(x(count), y(line[count])) for count in sorted(line)]
            path = " ".join(f"{across:.1f},{up:.1f}" for across, up in at)
            parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>')
            parts += [_mark(shape, colour, across, up) for across, up in at]
    return "\n".join(parts) + "\n"


def _mark(shape: str, colour: str, x: float, y: float) -> str:
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>'
    corners = {
        "square": ((-4, -4), (4, -4), (4, 4), (-4, 4)),
        "diamond": ((0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)),
        "triangle": ((0, -5), (5, 4), (-5, 4)),
    }[shape]
    path = " ".join(f"{x + across:.1f},{y + down:.1f}" for across, down in corners)
    return f'<polygon fill="{colour}" points="{path}"/>'

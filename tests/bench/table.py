"""The figures as people read them."""

import statistics
from collections.abc import Mapping, Sequence

from tests.bench.quiet import OTHERS

Medians = dict[str, dict[str, dict[str, float]]]

# Figure → what it is called, divided by this, digits after the point.
_SHOWN = {
    "policy_nanos": ("ns a character", 1, 0),
    "policy_load_micros": ("to load them, ms", 1000, 0),
    "tokens_per_second": ("tokens/s", 1, 0),
    "p50_micros": ("added latency p50, ms", 1000, 2),
    "p99_micros": ("added latency p99, ms", 1000, 2),
    "pace_kept": ("share of the pace that was kept", 1, 2),
    "cpu_micros": ("CPU µs a token", 1, 1),
    "cpu_micros_gateway": ("  CPU µs, gateway", 1, 1),
    "cpu_micros_speaker": ("  CPU µs, speaker", 1, 1),
    "halt_p50_micros": ("stop → generator's end p50, ms", 1000, 2),
    "halt_max_micros": ("  the longest, ms", 1000, 2),
    "tool_stop_local_p50_micros": ("stop → function cancelled p50, ms", 1000, 2),
    "tool_stop_http_p50_micros": ("  service sees it p50, ms", 1000, 2),
    "tool_stop_http_p50_ratio": ("    ÷ that of a function", 1, 2),
    "tool_stop_openapi_p50_micros": ("  operation sees it p50, ms", 1000, 2),
    "tool_stop_openapi_p50_ratio": ("    ÷ that of a function", 1, 2),
    "tool_stop_mcp_p50_micros": ("  MCP server sees it p50, ms", 1000, 2),
    "tool_stop_mcp_p50_ratio": ("    ÷ that of a function", 1, 2),
    "tool_stop_stdio_p50_micros": ("  MCP child sees it p50, ms", 1000, 2),
    "tool_stop_stdio_p50_ratio": ("    ÷ that of a function", 1, 2),
    "tool_stop_grpc_p50_micros": ("  gRPC server sees it p50, ms", 1000, 2),
    "tool_stop_grpc_p50_ratio": ("    ÷ that of a function", 1, 2),
    "policy_halt_p50_micros": ("detection → generator's end p50, ms", 1000, 2),
    "policy_halt_p99_micros": ("  p99, ms", 1000, 2),
    "policy_halt_p50_ratio": ("  p50 ÷ (round trip + append)", 1, 2),
    "policy_halt_p99_ratio": ("  p99 ÷ (round trip + append)", 1, 2),
    "stop_begun_p50_micros": ("detection → stop's write begun, ms", 1000, 2),
    "yield_halt_p50_micros": ("phrase's yield → end p50, ms", 1000, 2),
    "yield_halt_p99_micros": ("  p99, ms", 1000, 2),
    "yield_halt_p50_ratio": ("  p50 ÷ round trip", 1, 2),
    "yield_halt_p99_ratio": ("  p99 ÷ round trip", 1, 2),
    "last_event_p50_micros": ("detection → user's last event, ms", 1000, 2),
    "round_trip_p50_micros": ("bare round trip p50, ms", 1000, 2),
    "round_trip_p99_micros": ("  p99, ms", 1000, 2),
    "append_p50_micros": ("one append p50, ms", 1000, 2),
    "append_p99_micros": ("  p99, ms", 1000, 2),
    "tokens_after_p50": ("tokens made after it, p50", 1, 0),
    "tokens_after_max": ("  the most", 1, 0),
    "message_bytes": ("bytes", 1, 0),
    "encode_nanos": ("to encode it, ns", 1, 0),
    "decode_nanos": ("to decode it, ns", 1, 0),
    "requests": ("requests a session and second", 1, 2),
    "kib": ("KiB a session", 1, 0),
    "kib_gateway": ("  KiB, gateway", 1, 0),
    "kib_speaker": ("  KiB, speaker", 1, 0),
    OTHERS: ("share of the machine of others", 1, 2),
}


def medians(found: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]) -> Medians:
    """Measure → system → figure → its median over the rounds."""
    return {
        measure: {
            system: {figure: statistics.median(r[figure] for r in rounds) for figure in rounds[0]}
            for system, rounds in systems.items()
        }
        for measure, systems in found.items()
    }


def tables(summary: Medians) -> str:
    """One for all measures of the same systems."""
    by_systems: dict[tuple[str, ...], Medians] = {}
    for measure, systems in summary.items():
        whole = next((known for known in by_systems if set(systems) <= set(known)), tuple(systems))
        by_systems.setdefault(whole, {})[measure] = systems
    return "\n\n".join(table(rows, systems) for systems, rows in by_systems.items())


def table(summary: Medians, systems: Sequence[str]) -> str:
    """A row for each figure; after each value its ratio to that of the first system which has one."""
    lines = [f"{'':34}" + "".join(f"{system:>22}" for system in systems)]
    for measure, by_system in summary.items():
        lines.append(measure)
        for figure, (label, divisor, digits) in _SHOWN.items():
            values = [by_system.get(system, {}).get(figure) for system in systems]
            base = next((value for value in values if value is not None), None)
            if base is not None:
                cells = "".join(f"{_cell(figure, value, base, divisor, digits):>22}" for value in values)
                lines.append(f"  {label:32}{cells}")
    return "\n".join(lines)


def _cell(figure: str, value: float | None, base: float, divisor: float, digits: int) -> str:
    if value is None:
        return "-"
    if figure.endswith("_ratio"):
        return f"{value:.{digits}f}×"
    ratio = f"{value / base:.2f}×" if base > 0 else "-"
    return f"{value / divisor:,.{digits}f} {ratio:>8}"


def markdown(summary: Medians, systems: Sequence[str], names: Mapping[str, str]) -> str:
    """The same as a table of Markdown. names: of systems that are called otherwise there."""
    lines = [
        f"| | {' | '.join(names.get(system, system) for system in systems)} |",
        f"|---|{'---:|' * len(systems)}",
    ]
    for measure, by_system in summary.items():
        lines.append(f"| **{measure}** |{' |' * len(systems)}")
        for figure, (label, divisor, digits) in _SHOWN.items():
            values = [by_system.get(system, {}).get(figure) for system in systems]
            base = next((value for value in values if value is not None), None)
            if base is not None and figure != OTHERS:
                cells = [_cell(figure, value, base, divisor, digits).split() for value in values]
                first = next(place for place, value in enumerate(values) if value is not None)
                shown = [
                    cell[0] if place == first or len(cell) == 1 or cell[1] == "-" else f"{cell[0]} ({cell[1]})"
                    for place, cell in enumerate(cells)
                ]
                lines.append(f"| {label.strip()} | {' | '.join(shown)} |")
    return "\n".join(lines)

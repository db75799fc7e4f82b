"""The benchmark: this pair against a floor and against the gateway that people write themselves (`make bench`).

    python -m tests.bench [--seconds 5] [--rounds 3] [--systems floor,starlette,memory,sqlite] [--output FILE]

All systems are up during the whole run and each measure is taken on one after the other, in another order each round;
a figure is the median over the rounds. This process is the users: it reads and checks every text.
"""

import argparse
import asyncio
import gc
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import uvloop

from tests.bench import measures
from tests.bench.agents import REPORT_SOCKET
from tests.bench.measures import Figures, Reports
from tests.bench.systems import SYSTEMS, System, started
from tests.bench.table import medians, table

STOPS = 10
IDLE_SESSIONS = 400
MEASURE_SECONDS = 180.0  # the most that one measure may take, a whole run's bound with the number of them

Measure = Callable[[System], Awaitable[Figures]]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=os.environ.get("BENCH_SECONDS", "5"), help="of each window")
    parser.add_argument("--rounds", type=int, default=os.environ.get("BENCH_ROUNDS", "3"))
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="comma-separated, of: " + ", ".join(SYSTEMS))
    parser.add_argument("--output", type=Path, default=Path("bench-results/latest.json"))
    chosen = parser.parse_args()
    unknown = set(chosen.systems.split(",")) - set(SYSTEMS)
    if unknown or chosen.seconds <= 0 or chosen.rounds < 1:
        parser.error(f"unknown systems: {', '.join(unknown)}" if unknown else "seconds and rounds must be positive")
    return chosen


async def run(
    systems: list[System], seconds: float, rounds: int, reports: Reports
) -> dict[str, dict[str, list[Figures]]]:
    """Measure → system → the figures of each round. Memory first and once: floods would leave free arenas behind."""
    repeated: dict[str, Measure] = {
        "flood, 1 session": lambda system: measures.flood(system, 1, seconds),
        "flood, 64 sessions": lambda system: measures.flood(system, 64, seconds),
        "paced, 64 sessions": lambda system: measures.paced(system, 64, seconds),
        "paced, 400 sessions": lambda system: measures.paced(system, 400, seconds),
        "stop, idle": lambda system: measures.stop(system, 0, STOPS, reports),
        "stop, 16 floods": lambda system: measures.stop(system, 16, STOPS, reports),
    }
    found: dict[str, dict[str, list[Figures]]] = {}

    async def take(name: str, measure: Measure, system: System) -> None:
        print(f"{name}: {system.name} … ", end="", file=sys.stderr, flush=True)
        async with asyncio.timeout(MEASURE_SECONDS):
            figures = await measure(system)
        first = next(iter(figures))
        print(f"{first} {figures[first]:,.0f}", file=sys.stderr, flush=True)
        found.setdefault(name, {}).setdefault(system.name, []).append(figures)

    for system in systems:
        await measures.warm_up(system)
    for system in systems:
        await take("idle sessions", lambda system: measures.idle(system, IDLE_SESSIONS), system)
    for number in range(rounds):
        order = systems[number % len(systems) :] + systems[: number % len(systems)]
        for name, measure in repeated.items():
            for system in order:
                await take(name, measure, system)
    return found


def main() -> None:
    chosen = arguments()
    gc.freeze()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, ExitStack() as stack:
        reports = Reports(Path(folder) / REPORT_SOCKET)
        stack.callback(reports.close)
        systems = [stack.enter_context(started(name, Path(folder))) for name in chosen.systems.split(",")]
        found = uvloop.run(run(systems, chosen.seconds, chosen.rounds, reports))
    summary = medians(found)
    print(table(summary, [system.name for system in systems]))
    document = {
        "seconds": chosen.seconds,
        "rounds": chosen.rounds,
        "took_seconds": round(time.monotonic() - began),
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "kernel": platform.release()},
        "medians": summary,
        "rounds_raw": found,
    }
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(document, indent=1) + "\n")
    print(f"\n{document['took_seconds']} s; all figures: {chosen.output}")


if __name__ == "__main__":
    main()

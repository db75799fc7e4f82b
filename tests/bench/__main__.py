"""The benchmark: this pair against a floor and against the gateway that people write themselves (`make bench`).

    python -m tests.bench [--seconds 5] [--rounds 3] [--systems floor,starlette,memory,sqlite,redis] [--output FILE]

All systems are up during the whole run and each measure is taken on one after the other, in another order each round;
a figure is the median over the rounds. This process is the users: it reads and checks every text. Exit status: 1, a
figure is worse than its bound (`tests/bench/bounds.py`); 3, something could not be measured.
"""

import argparse
import asyncio
import gc
import json
import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Container, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read when grpc is imported

from tests import programs
from tests.bench import bounds, encodings, measures, policies, quiet, report
from tests.bench.agents import REPORT_SOCKET
from tests.bench.measures import Figures, Late, Reports
from tests.bench.polling import polling
from tests.bench.stops import policy_stop
from tests.bench.systems import SYSTEMS, System, started
from tests.bench.table import medians, tables
from tests.bench.tools import tool_stop

STOPS = 10
IDLE_SESSIONS = 400
APART = 64  # sessions, and connections
MEASURE_SECONDS = 600.0  # the most that one measure may take, a whole run's bound with the number of them

# A run of that many rounds and such windows holds every bound; a shorter one those that are steady, in as many rounds.
WHOLE_ROUNDS = 3
WHOLE_SECONDS = 5.0
COULD_NOT_MEASURE = 3  # exit status

Measure = Callable[[System], Awaitable[Figures]]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=os.environ.get("BENCH_SECONDS", "5"), help="of each window")
    parser.add_argument("--rounds", type=int, default=os.environ.get("BENCH_ROUNDS", "3"))
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="comma-separated, of: " + ", ".join(SYSTEMS))
    parser.add_argument("--stops", type=int, default=100, help="by rules, of each kind (default: %(default)s)")
    parser.add_argument("--measure", action="append", default=[], help="only those whose name holds this; repeated")
    parser.add_argument("--write", action="store_true", help="docs/benchmarks.md, its chart, and tighter bounds")
    parser.add_argument("--output", type=Path, default=Path("bench-results/latest.json"))
    chosen = parser.parse_args()
    if "redis" in chosen.systems and not shutil.which("redis-server"):
        print("without redis: there is no redis-server", file=sys.stderr)
        chosen.systems = ",".join(name for name in chosen.systems.split(",") if name != "redis")
    if chosen.write and (chosen.measure or set(chosen.systems.split(",")) != set(SYSTEMS)):
        parser.error("--write needs every measure on every system")
    unknown = set(chosen.systems.split(",")) - set(SYSTEMS)
    if unknown or chosen.seconds <= 0 or chosen.rounds < 1:
        parser.error(f"unknown systems: {', '.join(unknown)}" if unknown else "seconds and rounds must be positive")
    return chosen


Found = dict[str, dict[str, list[Figures]]]  # measure → system → the figures of each round


class Bench:
    """Takes measures. wanted: whose names hold one of these; none: all. missed: what could not be measured."""

    def __init__(self, systems: list[System], wanted: list[str]) -> None:
        self.found: Found = {}
        self.missed: list[str] = []
        self._systems = systems
        self._parts = wanted

    def wanted(self, name: str) -> bool:
        return not self._parts or any(part in name for part in self._parts)

    @contextmanager
    def noting(self, name: str) -> Iterator[None]:
        """Who was too late is told of at the end, and the rest is measured."""
        try:
            yield
        except Late as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            self.missed.append(f"{name}: {error}")

    async def take(self, name: str, measure: Measure, first: int = 0, only: Container[str] = SYSTEMS) -> None:
        """On one system after the other, beginning with that one."""
        if not self.wanted(name):
            return
        for system in self._systems[first:] + self._systems[:first]:
            if system.name not in only or (not system.operator and name.startswith(("rule's stop", "tool's stop"))):
                continue  # it has neither
            with self.noting(f"{name}: {system.name}"):
                await self._take(name, measure, system)

    async def _take(self, name: str, measure: Measure, system: System) -> None:
        before = quiet.used()
        try:
            async with asyncio.timeout(MEASURE_SECONDS):
                figures = await measure(system)
        except TimeoutError:
            raise Stuck(f"{name}: {system.name}: no end within the time of a measure") from None
        shown = next(iter(figures))
        print(f"{name}: {system.name} … {shown} {figures[shown]:,.0f}", file=sys.stderr, flush=True)
        figures[quiet.OTHERS] = quiet.others_share(before, quiet.used())
        self.found.setdefault(name, {}).setdefault(system.name, []).append(figures)


class Stuck(Exception):
    """A measure that does not end; what it began would weigh on all that follow."""


async def run(
    bench: Bench, systems: list[System], chosen: argparse.Namespace, reports: Reports, echo: str, held: bounds.Bounds
) -> None:
    """Memory first and once: floods would leave free arenas behind. Rules' stops once: their p99 needs many."""
    seconds: float = chosen.seconds
    repeated: dict[str, Measure] = {
        "flood, 1 session": lambda system: measures.flood(system, 1, seconds),
        "flood, 64 sessions": lambda system: measures.flood(system, 64, seconds),
        **{
            f"paced, {count} sessions": lambda system, count=count: measures.paced(system, count, seconds)  # type: ignore[misc]
            for count in (report.COUNTS if chosen.write else (64, 400))
        },
        "stop, idle": lambda system: measures.stop(system, 0, STOPS, reports),
        "stop, 16 floods": lambda system: measures.stop(system, 16, STOPS, reports),
    }
    for system in systems:
        await measures.warm_up(system)
    await bench.take("idle sessions", lambda system: measures.idle(system, IDLE_SESSIONS))
    for number in range(max(chosen.rounds, WHOLE_ROUNDS)):
        for name, measure in repeated.items():
            only = SYSTEMS if number < chosen.rounds else bounds.steady(held, name)
            await bench.take(name, measure, number % len(systems), only)
    await bench.take("tool's stop", lambda system: tool_stop(system, max(1, chosen.stops // 2), reports))
    for name, count in (("rule's stop, idle", 0), ("rule's stop, 64 floods", 64)):
        await bench.take(name, lambda system, count=count: policy_stop(system, count, chosen.stops, reports, echo))  # type: ignore[misc]


async def designs(bench: Bench, systems: list[System], apart: System | None, seconds: float) -> None:
    """What a stream, and one connection for all, are for. apart: the floor with a connection for each session."""
    by_name = {system.name: system for system in systems}
    if "sqlite" in by_name and bench.wanted("polling"):
        with bench.noting("polling"):
            bench.found["polling: 16 sessions of 50 tokens/s"] = await polling(by_name["sqlite"], max(seconds, 3.0))
    if apart and "floor" in by_name:
        await measures.warm_up(apart)
        with bench.noting("connections"):
            bench.found[f"connections: {APART} sessions of 50 tokens/s"] = {
                "one for all": [await measures.paced(by_name["floor"], APART, seconds)],
                "one each": [await measures.paced(apart, APART, seconds)],
            }


def machine() -> dict[str, Any]:
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cpus": os.cpu_count(),
        "processor": model[1] if model else platform.machine(),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }


def compared(bench: Bench, chosen: argparse.Namespace, held: bounds.Bounds) -> int:
    """The exit status, once what the bounds say was printed."""
    whole = chosen.rounds >= WHOLE_ROUNDS and chosen.seconds >= WHOLE_SECONDS
    findings = bounds.compared(held, bench.found, chosen.systems.split(","), bench.wanted, whole)
    for finding in findings:
        print(finding.line)
    for line in bench.missed:
        print(f"not measured: {line}", file=sys.stderr)
    broken, busy = sum(finding.broken for finding in findings), sum(finding.busy for finding in findings)
    print(f"{len(findings)} {'bounds' if whole else 'steady bounds'}: {broken} broken, {busy} not compared")
    return COULD_NOT_MEASURE if bench.missed else min(broken, 1)


def main() -> None:
    chosen = arguments()
    began = time.monotonic()
    held = bounds.load()
    of_this_process: Found = {}
    wanted = Bench([], chosen.measure).wanted
    for name, measured in (("rules: text", policies.measured), ("encodings", encodings.measured)):
        of_this_process |= measured() if wanted(name) else {}
    gc.freeze()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, ExitStack() as stack:
        os.environ[REPORT_SOCKET] = str(Path(folder) / REPORT_SOCKET)  # what is started inherits it
        reports = Reports(Path(folder) / REPORT_SOCKET)
        stack.callback(reports.close)
        systems = [stack.enter_context(started(name, Path(folder))) for name in chosen.systems.split(",")]
        log = Path(folder) / "echo.log"
        echo = stack.enter_context(programs.running("-m", "tests.bench.stops", settings={}, log=log))
        address = echo.wait_for(lambda event: "grpc" in event)["grpc"]
        bench = Bench(systems, chosen.measure)
        apart = None
        if wanted("connections") and "floor" in chosen.systems.split(","):
            apart = stack.enter_context(started("floor", Path(folder), connections=APART))

        async def everything() -> None:
            await run(bench, systems, chosen, reports, address, held)
            await designs(bench, systems, apart, chosen.seconds)

        try:
            uvloop.run(everything())
        except Stuck as error:
            bench.missed.append(str(error))  # what came before it stands
    summary = medians(of_this_process | bench.found)
    print(tables(summary))
    document = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": " ".join(["make bench", *([f'BENCH="{shlex.join(sys.argv[1:])}"'] if sys.argv[1:] else [])]),
        "seconds": chosen.seconds,
        "rounds": chosen.rounds,
        "stops": chosen.stops,
        "took_seconds": round(time.monotonic() - began),
        "machine": machine(),
        "medians": summary,
        "rounds_raw": bench.found,
    }
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{document['took_seconds']} s; all figures: {chosen.output}")
    status = compared(bench, chosen, held)
    if chosen.write and not bench.missed:
        report.write(document)
        bounds.FILE.write_text(bounds.tightened(held, bench.found))
    sys.exit(status)


if __name__ == "__main__":
    main()

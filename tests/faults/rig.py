"""One run: a cluster, users, a schedule of faults, and what came of it."""

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import quiet
from tests.faults.cluster import Cluster, cluster
from tests.faults.load import MakeReader, Session, Users, evidence, known, live, plan, replayed
from tests.faults.oracle import violations
from tests.faults.reader import Reader
from tests.faults.schedule import Fault, TopologyName, schedule
from tests.faults.served import reused
from tests.faults.services import Seen, journal

SETTLE_SECONDS = 90.0  # after the last fault is mended, for every session to end: beyond that it is stuck
SILENT_SECONDS = 20.0  # and where none says anything for that long, which is far longer than any wait of theirs
REPLAYED = 5  # sessions whose streams are cut after every entry
LOOK_AHEAD = 20  # faults
BREAKING_SECONDS = 240.0  # then it is enough, on a machine that is too busy to start programs again
SHOWN = 20  # violations
BORNE = {"sessions_left_behind"}  # by a Commander that has to leave while no Dispatcher answers


@dataclass
class Report:
    """How a run went. violations: none, or why it failed."""

    topology: TopologyName
    seed: int
    asked: int
    folder: Path
    faults: Counter[str] = field(default_factory=Counter)
    journal: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    takeovers: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        lines = [
            f"{self.topology}: {self.faults.total()} of {self.asked} faults in {self.seconds:.0f} s, seed {self.seed}",
            f"  {_counts(self.faults)}",
            f"  {self.outcomes.total()} sessions: {_counts(self.outcomes)}; {self.takeovers} takeovers",
            f"  {self.connections} connections of readers; tool calls: {_counts(self.calls)}",
            f"  services: {_counts(self.served)}; decisions: {_counts(self.decisions)}",
            f"  violations: {len(self.violations)}",
        ]
        return "\n".join(lines)

    @property
    def again(self) -> str:
        """How to play it again."""
        return f"FAULT_SEED={self.seed} FAULT_COUNT={self.asked} .venv/bin/pytest tests/faults -k {self.topology}"

    def failure(self) -> str:
        """Why it failed, and what had happened before."""
        shown = self.violations[:SHOWN]
        return "\n".join([str(self), *shown, f"again: {self.again}", f"logs: {self.folder}", *self.journal[-60:]])


async def run(topology: TopologyName, seed: int, count: int, folder: Path, make_reader: MakeReader = Reader) -> Report:
    """Break things `count` times while users are served. Raises RuntimeError where a process does not come back."""
    faults = schedule(topology, seed, count)
    report = Report(topology, seed, count, folder)
    began = time.monotonic()
    try:
        async with cluster(topology, folder) as rig:
            report.journal = rig.journal
            await _play(rig, faults, report, make_reader)
    except Exception as error:
        error.add_note(report.failure())
        raise
    report.violations += complaints(folder)
    report.seconds = time.monotonic() - began
    (folder / "journal").write_text("\n".join([*report.journal, str(report), *report.violations]))
    return report


async def _play(rig: Cluster, faults: list[Fault], report: Report, make_reader: MakeReader) -> None:
    effects = report.folder / "effects"
    await _warm_up(rig, report.seed, effects)
    idle, before = await quiet.baseline(rig), await known(rig)
    users = Users(rig, report.seed, effects, make_reader)
    serving = asyncio.create_task(users.run())
    try:
        async with asyncio.TaskGroup() as breaking:
            waiting = list(faults)
            until = time.monotonic() + BREAKING_SECONDS
            while waiting and time.monotonic() < until:
                await asyncio.sleep(waiting[0].gap)
                # One that would only wait for another's end lets the next ones go ahead.
                fault = next(filter(rig.whole, waiting[:LOOK_AHEAD]), None)
                if fault:
                    waiting.remove(fault)
                    report.faults[fault.kind] += 1
                    breaking.create_task(rig.suffer(fault))
                if serving.done():
                    serving.result()
        rig.heal()
        users.enough.set()
        await _settled(users, serving)
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
    seen = journal(report.folder / "served")
    await _judge(rig, users, report, Counter(effects.read_text().splitlines()), seen)
    report.violations += reused(seen)
    report.violations += _doubled(await known(rig) - before, users.sessions)
    report.violations += await quiet.leaks(rig, idle)


async def _settled(users: Users, serving: asyncio.Task[None]) -> None:
    """Return when all sessions have ended, or are stuck."""
    until, heard = time.monotonic() + SETTLE_SECONDS, -1
    while not serving.done() and heard < users.heard and time.monotonic() < until:
        heard = users.heard
        await asyncio.wait([serving], timeout=SILENT_SECONDS)


async def _warm_up(rig: Cluster, seed: int, effects: Path) -> None:
    """A session of each agent, so that what a process opens once is open."""
    users = Users(rig, -1 - seed, effects)
    sessions = {session.agent: session for session in (plan(-1 - seed, n, effects) for n in range(20))}
    await users.run_once(list(sessions.values()))
    await evidence(rig, users.sessions, Counter())


async def _judge(rig: Cluster, users: Users, report: Report, effects: Counter[str], seen: Sequence[Seen]) -> None:
    stuck = users.unended
    listed = await live(rig) if stuck else {}
    report.violations += [
        f"session {each.session_id} ({each.agent}) is stuck: {listed.get(each.session_id)}" for each in stuck
    ]
    ended = [each for each in users.sessions if each not in stuck]
    gathered = await evidence(rig, ended, effects, seen)
    report.served.update(each.event for each in seen)
    for each in gathered:
        report.violations += violations(each)
        report.outcomes[f"{each.agent} {each.end[0]}"] += 1
        report.takeovers += max(0, each.generations - 1)
        report.calls.update(f"{result['tool_name']} {result['status']}" for result in each.of_kind("tool_result"))
        report.decisions.update(decision["decision"] for decision in each.of_kind("decision"))
        report.connections += sum(reader.connections for reader in each.readers)
    chance = random.Random(report.seed)
    for each in chance.sample(gathered, min(REPLAYED, len(gathered))):
        report.violations += await replayed(rig, each, chance)


def complaints(folder: Path) -> list[str]:
    """What the programs logged as errors, each kind once: no fault of the rig is one of the program's."""
    found: Counter[str] = Counter()
    for path in sorted(folder.glob("*.log")):
        lines = iter(path.read_text(errors="replace").splitlines())
        for line in lines:
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if isinstance(said, dict) and said.get("level") in ("error", "critical") and said["event"] not in BORNE:
                    about = {name: said.get(name) for name in ("logger", "message", "exception", "raised_at")}
                    found[f"{path.stem} logs {said['event']} {about}"] += 1
                continue
            if line.startswith("Traceback"):
                printed = [f"{path.stem} prints a traceback:"]
                while printed[-1].startswith(" ") or len(printed) == 1:  # its last line is not indented
                    printed.append(next(lines, ""))
                found["\n".join(printed)] += 1
    return [f"{text} ({count} times)" for text, count in found.items()]


def _doubled(stored: set[str], sessions: list[Session]) -> list[str]:
    asked = {session.session_id for session in sessions}
    missing = [f"session {each} was created and is not in the store" for each in asked - stored]
    return missing + [f"session {each} is in the store, and nobody was told of it" for each in stored - asked]


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common())

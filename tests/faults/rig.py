"""One run: a cluster, users, a schedule of faults, and what came of it."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import quiet
from tests.faults.cluster import Cluster, cluster
from tests.faults.load import MakeReader, Session, Users, evidence, known, plan, replayed
from tests.faults.oracle import violations
from tests.faults.reader import Reader
from tests.faults.schedule import TopologyName, schedule

SETTLE_SECONDS = 90.0  # after the last fault is mended, for every session to end: beyond that it is stuck
REPLAYED = 5  # sessions whose streams are cut after every entry
SHOWN = 20  # violations


@dataclass
class Report:
    """How a run went. violations: none, or why it failed."""

    topology: TopologyName
    seed: int
    faults: Counter[str]
    folder: Path
    journal: list[str]
    violations: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    takeovers: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        lines = [
            f"{self.topology}: {self.faults.total()} faults in {self.seconds:.0f} s, seed {self.seed}",
            f"  {_counts(self.faults)}",
            f"  {self.outcomes.total()} sessions: {_counts(self.outcomes)}; {self.takeovers} takeovers",
            f"  {self.connections} connections of readers; tool calls: {_counts(self.calls)}",
            f"  violations: {len(self.violations)}",
        ]
        return "\n".join(lines)

    def failure(self) -> str:
        """Why it failed, and how to play it again."""
        again = (
            f"FAULT_SEED={self.seed} FAULT_COUNT={self.faults.total()} .venv/bin/pytest tests/faults -k {self.topology}"
        )
        shown = self.violations[:SHOWN]
        return "\n".join([str(self), *shown, f"again: {again}", f"logs: {self.folder}", *self.journal[-60:]])


async def run(topology: TopologyName, seed: int, count: int, folder: Path, make_reader: MakeReader = Reader) -> Report:
    """Break things `count` times while users are served. Raises RuntimeError where a process does not come back."""
    faults = schedule(topology, seed, count)
    began = time.monotonic()
    async with cluster(topology, folder) as rig:
        report = Report(topology, seed, Counter(fault.kind for fault in faults), folder, rig.journal)
        effects = folder / "effects"
        await _warm_up(rig, seed, effects)
        idle, before = await quiet.baseline(rig), await known(rig)
        users = Users(rig, seed, effects, make_reader)
        serving = asyncio.create_task(users.run())
        try:
            async with asyncio.TaskGroup() as breaking:
                for fault in faults:
                    await asyncio.sleep(fault.gap)
                    breaking.create_task(rig.suffer(fault))
                    if serving.done():
                        serving.result()
            rig.heal()
            users.enough.set()
            await asyncio.wait([serving], timeout=SETTLE_SECONDS)
        finally:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving
        await _judge(rig, users, report, Counter(effects.read_text().splitlines()))
        report.violations += _doubled(await known(rig) - before, users.sessions)
        report.violations += await quiet.leaks(rig, idle)
    report.seconds = time.monotonic() - began
    (folder / "journal").write_text("\n".join([*rig.journal, str(report), *report.violations]))
    return report


async def _warm_up(rig: Cluster, seed: int, effects: Path) -> None:
    """A session of each agent, so that what a process opens once is open."""
    users = Users(rig, -1 - seed, effects)
    sessions = {session.agent: session for session in (plan(-1 - seed, n, effects) for n in range(20))}
    await users.run_once(list(sessions.values()))
    await evidence(rig, users.sessions, Counter())


async def _judge(rig: Cluster, users: Users, report: Report, effects: Counter[str]) -> None:
    stuck = users.unended
    report.violations += [f"session {each.session_id} ({each.agent}) is stuck" for each in stuck]
    ended = [each for each in users.sessions if each not in stuck]
    gathered = await evidence(rig, ended, effects)
    for each in gathered:
        report.violations += violations(each)
        report.outcomes[f"{each.agent} {each.end[0]}"] += 1
        report.takeovers += max(0, each.generations - 1)
        report.calls.update(result["status"] for result in each.of_kind("tool_result"))
        report.connections += sum(reader.connections for reader in each.readers)
    chance = random.Random(report.seed)
    for each in chance.sample(gathered, min(REPLAYED, len(gathered))):
        report.violations += await replayed(rig, each, chance)


def _doubled(stored: set[str], sessions: list[Session]) -> list[str]:
    asked = {session.session_id for session in sessions}
    missing = [f"session {each} was created and is not in the store" for each in asked - stored]
    return missing + [f"session {each} is in the store, and nobody was told of it" for each in stored - asked]


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common())

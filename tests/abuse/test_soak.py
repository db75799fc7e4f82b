"""Sessions made, read and stopped in great number: what Dispatcher and Commander hold does not grow with them.

make soak                    # SOAK_SECONDS=600
"""

import asyncio
import os
import random
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dispatcher.store.sqlite.checkpoints import CHECKPOINT_BYTES, MAX_WAL_BYTES
from tests.abuse.house import House, house
from tests.abuse.user import ACCEPTED, CREATED, ask
from tests.faults import quiet
from tests.faults.machines import Machine
from tests.faults.reader import FINAL, Refused, events

SECONDS = float(os.environ.get("SOAK_SECONDS") or 60)
SEED = int(os.environ.get("SOAK_SEED") or 21)
USERS = 16
STOPPED, LEFT = 0.2, 0.2  # of all sessions, in mid-sentence: by their users, and by users who do not read on
SAMPLES = 24
WARM = SAMPLES // 3  # until caches, pools and the store's pages have their size
# That it may grow by over the rest of the run, by the slope of the samples. At a hundred sessions a second one that
# left 1 KB would show in a minute, 200 bytes in CI's five, 100 in ten.
MORE_BYTES = 4 * 1024**2
MORE_THINGS = (
    8 * USERS
)  # tasks, objects, descriptors: what is under way, half a dozen objects a session, goes up and down

pytestmark = [pytest.mark.abuse, pytest.mark.timeout(SECONDS + 180)]


@dataclass
class Soak:
    made: int = 0
    trouble: list[str] = field(default_factory=list)
    samples: dict[str, list[tuple[float, float]]] = field(default_factory=dict)  # (sessions made, how much)

    async def user(self, world: House, chance: random.Random, until: float) -> None:
        while time.monotonic() < until:
            words = chance.randint(1, 20)
            body = {"agent": "brief", "prompt": "go", "parameters": {"words": words}}
            status, created = await ask(world.http, "POST", "/v1/sessions", body)
            assert status == CREATED, created
            self.made += 1
            await self._read(world, created, words, chance)

    async def _read(self, world: House, created: dict[str, str], words: int, chance: random.Random) -> None:
        fate, text = chance.random(), ""
        try:
            async for event in events(world.http, created["events"], "0"):
                if event.name not in FINAL:
                    text += event.data["text"]
                    if fate < LEFT:
                        return
                    if fate < LEFT + STOPPED:
                        path = f"/v1/sessions/{created['session_id']}/stop"
                        assert (await ask(world.http, "POST", path, {}))[0] == ACCEPTED
                        fate = 1.0
                        words = 0
                elif words and (event.name, text) != ("finished", "".join(f"{n} " for n in range(words))):
                    self.trouble.append(f"{event.name}: {text!r}")
        except Refused as refused:
            self.trouble.append(str(refused))

    async def sample(self, world: House, commander: Machine) -> None:
        found: dict[str, float] = {"WAL": (world.folder / "sessions.db-wal").stat().st_size}
        for name, machine in (("", world.dispatcher), ("Commander's ", commander)):
            held = await quiet.holding([machine])
            found |= {
                f"{name}RSS": machine.memory("VmRSS"),
                f"{name}descriptors": held.descriptors,
                f"{name}tasks": held.tasks.total(),
                f"{name}objects": held.objects.total(),
            }
        for name, value in found.items():
            self.samples.setdefault(name, []).append((self.made, value))

    def growth(self, name: str) -> float:
        """Over the run after its warm-up, by the slope of the samples."""
        made, values = zip(*self.samples[name][WARM:], strict=True)
        return float(statistics.linear_regression(made, values).slope * (made[-1] - made[0]))


async def _soaked(world: House) -> Soak:
    soak, until = Soak(), time.monotonic() + SECONDS
    async with world.commander("brief", CAPACITY=str(2 * USERS)) as commander, asyncio.TaskGroup() as users:
        for number in range(USERS):
            users.create_task(soak.user(world, random.Random(f"{SEED} {number}"), until))
        while time.monotonic() < until:
            await asyncio.sleep(SECONDS / SAMPLES)
            await soak.sample(world, commander)
    return soak


async def test_nothing_grows_with_the_sessions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A grace of more than the house's second: a busy machine may keep a Commander for as long, and it is not lost then.
    async with house(tmp_path, RETENTION_SECONDS="5", GRACE_SECONDS="20") as world:
        await world.settle()
        soak = await _soaked(world)
        growth = {name: soak.growth(name) for name in soak.samples}
        with capsys.disabled():
            told = ", ".join(
                f"{name} {values[-1][1]:.0f} ({growth[name]:+.0f})" for name, values in soak.samples.items()
            )
            print(f"\n  {soak.made} sessions, seed {SEED}; {told}", end=" ")
        assert not soak.trouble
        assert soak.made > USERS * SAMPLES
        # It grows between two checkpoints, so it has no slope.
        assert max(value for _, value in soak.samples["WAL"]) <= MAX_WAL_BYTES + 4 * CHECKPOINT_BYTES  # see there
        del growth["WAL"]
        bounds = {"RSS": MORE_BYTES, "Commander's RSS": MORE_BYTES}
        assert not {name: value for name, value in growth.items() if value > bounds.get(name, MORE_THINGS)}
        assert not await world.left()

"""What is left over once nothing goes on: by the programs' own gauges, by /proc, and by what a probe finds in them."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx2

from tests.faults.cluster import CAPACITY, Cluster
from tests.faults.machines import Machine

QUIET_SECONDS = 30.0  # until gauges, sockets and tasks of what was have to be gone
LOOK_SECONDS = 0.5
# grpc.aio leaves this task behind where a write meets the end of its stream (grpc/grpc#36066, #41875). A stream of ours
# that is left shows by its reader.
LEFT_BY_GRPC = "_AioCall._handle_status_once_received"
SLACK_DESCRIPTORS = 4  # of each process: what a library opens when it is first used, and keeps

DISPATCHER_ZERO = (
    'dispatcher_sessions{state="waiting"}',
    'dispatcher_sessions{state="running"}',
    "dispatcher_waiting_sessions",
    "dispatcher_backlog_packets",
    "dispatcher_held_characters",
    "dispatcher_event_streams",
)
COMMANDER_ZERO = ("commander_running_sessions", "commander_unacked_packets")


@dataclass
class Holding:
    """All that the processes of one room hold together. Which replica has which stream is chance; their sum is not."""

    descriptors: int = 0
    tasks: Counter[str] = field(default_factory=Counter)
    objects: Counter[str] = field(default_factory=Counter)


async def holding(machines: list[Machine]) -> Holding:
    """Of these, now."""
    total = Holding()
    for machine in machines:
        census = await machine.census()
        total.descriptors += machine.descriptors()
        total.tasks += Counter(census["tasks"])
        total.objects += Counter(census["objects"])
    return total


async def gauges(url: str) -> dict[str, float]:
    async with httpx2.AsyncClient(timeout=5, trust_env=False) as http:
        text = (await http.get(f"{url}/metrics")).text
    return {name: float(value) for name, value in re.findall(r"^([a-z_]+(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE)}


@dataclass
class Baseline:
    dispatchers: Holding
    commanders: Holding


async def baseline(cluster: Cluster) -> Baseline:
    """What an idle cluster holds. Raises AssertionError if it is not idle."""
    left = await until_none(lambda: _gauges_left(cluster))
    assert not left, left
    return Baseline(await holding(cluster.dispatchers), await holding(cluster.commanders))


async def leaks(cluster: Cluster, before: Baseline) -> list[str]:
    """What is held beyond the baseline after a quiet time; a violation each."""

    async def left() -> list[str]:
        return [
            *await _gauges_left(cluster),
            *beyond("Dispatchers", await holding(cluster.dispatchers), before.dispatchers, len(cluster.dispatchers)),
            *beyond("Commanders", await holding(cluster.commanders), before.commanders, len(cluster.commanders)),
        ]

    return await until_none(left)


async def _gauges_left(cluster: Cluster) -> list[str]:
    found: list[str] = []
    free = commanders = 0.0
    for number, machine in enumerate(cluster.dispatchers):
        seen = await gauges(cluster.operator(number))
        found += [f"{machine.name}: {name} is {seen[name]:g}" for name in DISPATCHER_ZERO if seen[name]]
        free += seen["dispatcher_free_slots"]
        commanders += seen["dispatcher_commanders"]
    capacity = CAPACITY * len(cluster.commanders)
    if free != capacity or commanders != len(cluster.commanders):
        found.append(f"{commanders:g} Commanders with {free:g} free slots of {len(cluster.commanders)} with {capacity}")
    for machine in cluster.commanders:
        seen = await gauges(f"http://127.0.0.1:{machine.said['metrics_port']}")
        found += [f"{machine.name}: {name} is {seen[name]:g}" for name in COMMANDER_ZERO if seen[name]]
    return found


def beyond(name: str, now: Holding, before: Holding, processes: int) -> list[str]:
    """What so many processes hold now and did not before; a line each."""
    found = [f"{name} hold {count} {kind}" for kind, count in now.objects.items() if count > before.objects[kind]]
    found += [
        f"{name} have {count} tasks {kind}, {before.tasks[kind]} when idle"
        for kind, count in now.tasks.items()
        if count > before.tasks[kind] and kind != LEFT_BY_GRPC
    ]
    if now.descriptors > before.descriptors + SLACK_DESCRIPTORS * processes:
        found.append(f"{name} have {now.descriptors} descriptors open, {before.descriptors} when idle")
    return found


async def until_none(look: Callable[[], Awaitable[list[str]]]) -> list[str]:
    """What `look` still finds after QUIET_SECONDS."""
    until = time.monotonic() + QUIET_SECONDS
    while (left := await look()) and time.monotonic() < until:  # noqa: ASYNC110
        await asyncio.sleep(LOOK_SECONDS)
    return left

"""What is broken when: a pure function of the seed, so that a failed run's faults can be played again."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

TopologyName = Literal["sqlite", "redis", "outages"]

# Seconds between the beginnings of two faults; several are under way at once, but for outages.
GAPS: Mapping[TopologyName, tuple[float, float]] = {"sqlite": (0.2, 0.8), "redis": (0.2, 0.8), "outages": (0.5, 2.0)}
SHORT = (0.1, 1.5)
# As the processes are set up (machines.py), a peer that does not answer is noticed within 4 s, and its grace ends 2.5 s
# after that: these are longer.
LONG = (7.5, 9.5)
DOWN = (0.0, 1.5)  # until what was killed is started again
LEASE = (10.5, 13.0)  # longer than a Dispatcher's lease in the store lasts
AWAY = (3.0, 15.0)  # a store, with its data: some outages are longer than leases


@dataclass(frozen=True)
class Kind:
    """seconds: how long it lasts. weight: how often it comes, relative to the others."""

    weight: int
    seconds: tuple[float, float] = SHORT


BOTH: Mapping[str, Kind] = {
    "dispatcher kill": Kind(7, DOWN),
    "dispatcher restart": Kind(3, DOWN),
    "dispatcher pause": Kind(4),
    "dispatcher long pause": Kind(1, LONG),
    "commander kill": Kind(14, DOWN),
    "commander restart": Kind(4, DOWN),
    "commander pause": Kind(8),
    "commander long pause": Kind(4, LONG),
    "stream cut": Kind(16, (0, 0)),
    "stream freeze": Kind(8),
    "stream long freeze": Kind(3, LONG),
    "stream acks dropped": Kind(12),
    "stream packets dropped": Kind(8),
    "reader cut": Kind(10, (0, 0)),
    "reader freeze": Kind(5),
    "reader cut after some bytes": Kind(8),
    "service kill": Kind(6, DOWN),
    "service restart": Kind(2, DOWN),
    "service pause": Kind(4),
    "tool cut": Kind(8, (0, 0)),
    "tool freeze": Kind(4),
    "tool answers dropped": Kind(6),
    "tool packets dropped": Kind(5),
    "tools changed": Kind(4, (0, 0)),
}
REPLICAS: Mapping[str, Kind] = {  # where one is down, there are others
    "dispatcher kill": Kind(14, DOWN),
    "dispatcher pause": Kind(8),
    "dispatcher long pause": Kind(3, LONG),
    "dispatcher away": Kind(2, LEASE),
    "store cut": Kind(10, (0, 0)),
    "store freeze": Kind(6),
    "store long freeze": Kind(2, LEASE),
    "store answers dropped": Kind(8),
    "redis kill": Kind(3, DOWN),
    "redis restart": Kind(2, DOWN),
    "redis pause": Kind(4),
    "redis away": Kind(1, AWAY),
}
OUTAGES: Mapping[str, Kind] = {  # one after the other, under many sessions
    "redis away": Kind(1, AWAY),
    "redis away for a lease": Kind(2, (LEASE[0], AWAY[1])),
}
KINDS: Mapping[TopologyName, Mapping[str, Kind]] = {"sqlite": BOTH, "redis": {**BOTH, **REPLICAS}, "outages": OUTAGES}


@dataclass(frozen=True)
class Fault:
    """gap: seconds after the last one's beginning. target: 0 to 1, over whatever there is of that kind."""

    number: int
    kind: str
    gap: float
    seconds: float
    target: float

    def of(self, count: int) -> int:
        """Which of so many."""
        return int(self.target * count)

    def __str__(self) -> str:
        return f"{self.number} {self.kind} ({self.target:.2f}) for {self.seconds:.2f} s"


def schedule(topology: TopologyName, seed: int, count: int) -> list[Fault]:
    """Every kind comes once before any is drawn by its weight, if there are so many."""
    chance = random.Random(f"{topology} {seed}")
    kinds = KINDS[topology]
    names = list(kinds)[:count]
    names += chance.choices(list(kinds), [kind.weight for kind in kinds.values()], k=count - len(names))
    chance.shuffle(names)
    return [
        Fault(number, name, chance.uniform(*GAPS[topology]), chance.uniform(*kinds[name].seconds), chance.random())
        for number, name in enumerate(names, 1)
    ]

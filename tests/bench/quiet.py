"""How much of the machine others used meanwhile: what is measured beside them is no figure of this pair's."""

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

OTHERS = "others_share"  # the figure: of all the processors' time

# From there on a round is not compared with its bound. Beside four busy loops on two cores a token's CPU was 2.5 times
# the floor's instead of 1.6 times, and its latency 400 times it instead of twice.
MOST = 0.1


@dataclass(frozen=True)
class Used:
    """Seconds of CPU so far: of all processors, busy or not; of busy ones; of this process and what it has started."""

    all: float
    busy: float
    own: float


def used(proc: Path = Path("/proc"), group: int | None = None) -> Used:
    """group: the process group that counts as this one's."""
    tick = os.sysconf("SC_CLK_TCK")
    user, nice, system, idle, waiting, *others = map(int, (proc / "stat").read_text().split("\n", 1)[0].split()[1:9])
    busy = user + nice + system + sum(others)
    own = sum(_of_group(proc.glob("[0-9]*/stat"), os.getpgrp() if group is None else group))
    return Used((busy + idle + waiting) / tick, busy / tick, own / tick)


def _of_group(files: Iterable[Path], group: int) -> Iterable[int]:
    """The ticks of each process of the group, and of its children that have ended."""
    for file in files:
        with contextlib.suppress(OSError):  # it has ended
            fields = file.read_text().rpartition(") ")[2].split()
            if int(fields[2]) == group:
                yield sum(map(int, fields[11:15]))


def others_share(before: Used, after: Used) -> float:
    others = (after.busy - before.busy) - (after.own - before.own)
    return max(0.0, others) / max(after.all - before.all, 1e-9)

"""The time that goes into the core: Unix seconds that no correction of the machine's clock moves.

What a session may last is counted from what its log says, so time is told as Unix seconds; but within a process it goes
on evenly, or a clock that is set ten minutes ahead would end every session that has a time limit. What other instances
compare with their own clocks (places in the queue, leases, retention) is the machine's time.
"""

import asyncio
import time

import structlog

logger = structlog.get_logger()

LOOK_SECONDS = 5.0
JUMP_SECONDS = 2.0  # NTP corrects smaller differences by going faster or slower, which no duration notices

_AHEAD = time.time() - time.monotonic()


def now() -> float:
    """Unix seconds as they were when the process began, and what has passed since."""
    return time.monotonic() + _AHEAD


async def watch() -> None:
    """Tell operators of the machine's clock when it has jumped, until cancelled."""
    known = 0.0
    while True:
        known = look(known)
        await asyncio.sleep(LOOK_SECONDS)


def look(known: float) -> float:
    """How far the machine's clock is ahead of this one, seconds. known: the same, as it was told last."""
    ahead = time.time() - now()
    if abs(ahead - known) < JUMP_SECONDS:
        return known
    logger.warning("clock_jumped", seconds=round(ahead - known, 3))
    return ahead

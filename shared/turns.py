"""Work on the event loop in turns, so that nobody waits for the whole of it."""

import asyncio
from time import perf_counter

TURN_SECONDS = 0.005  # of work, before others have the loop: with a step (`policies.reader.MAX_SLICE`) less than 20 ms


class LoopTurn:
    """Begins now."""

    def __init__(self) -> None:
        self._began = perf_counter()

    async def step(self) -> None:
        """Between two steps of the work: others have the loop, if it has lasted long enough."""
        if perf_counter() - self._began >= TURN_SECONDS:
            await asyncio.sleep(0)
            self._began = perf_counter()

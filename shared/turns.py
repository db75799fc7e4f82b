"""Work on the event loop in turns, so that nobody waits for the whole of it."""

import asyncio
from collections.abc import Generator
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")

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


async def in_turns(work: Generator[None, None, T]) -> T:
    """The outcome of work that gives way between its steps."""
    turn = LoopTurn()
    while True:
        try:
            next(work)
        except StopIteration as over:
            outcome: T = over.value
            return outcome
        await turn.step()

"""Work on the event loop in turns, so that nobody waits for the whole of it."""

import asyncio
from collections.abc import Coroutine, Generator
from time import perf_counter
from typing import Any, Generic, TypeVar

T = TypeVar("T")

TURN_SECONDS = 0.005  # of work, before others have the loop: with a step (`policies.reader.MAX_SLICE`) less than 20 ms


class LoopTurn:
    """Begins now."""

    def __init__(self) -> None:
        self._began = perf_counter()

    @property
    def over(self) -> bool:
        """The work has lasted long enough."""
        return perf_counter() - self._began >= TURN_SECONDS

    async def step(self) -> None:
        """Between two steps of the work: others have the loop, if it has lasted long enough."""
        if self.over:
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


class Begun(Generic[T]):
    """A coroutine that runs at once up to its first wait, and from there on in the task that awaits this: what
    `asyncio.eager_task_factory` does from Python 3.12 on. It is awaited once.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self._over: StopIteration | Exception | None = None
        self._waited: Any = None
        try:
            self._waited = coroutine.send(None)
        except (StopIteration, Exception) as over:
            self._over = over

    @property
    def failed(self) -> bool:
        """It raised before it waited."""
        return isinstance(self._over, Exception) and not isinstance(self._over, StopIteration)

    def __await__(self) -> Generator[Any, Any, T]:
        over = self._over
        while over is None:
            sent, failed = None, None
            try:
                sent = yield self._waited
            except BaseException as error:  # the task's cancellation
                failed = error
            try:
                self._waited = self._coroutine.throw(failed) if failed else self._coroutine.send(sent)
            except StopIteration as returned:
                over = returned
        if isinstance(over, StopIteration):
            return over.value  # type: ignore[no-any-return]
        raise over

"""Runs one agent's generator, and halts it: cancelled at its current `await`, closed, its `finally` blocks run."""

import asyncio
import reprlib
import time
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple, Protocol

import structlog

from commander.agent import Finish, Thought, Yielded

HALT_SECONDS = 2.0  # a generator that has not ended by then is said to have failed to stop (rule 22)
# A generator that never waits gives the loop a turn after so many items, so that a stop gets through. Of 64 that flood
# each waits for all others: with 4 a stop halts one in 2 ms, with 32 in 5, and a token costs 0.4 µs more.
TURN_ITEMS = 4
MESSAGE_CHARACTERS = 1000  # of an agent's exception, for operators

logger = structlog.get_logger()


class Failure(NamedTuple):
    """The agent failed: its exception's type and text, or what it did wrong. For operators."""

    message: str


class Sink(Protocol):
    """Where the agent's words go."""

    def accept(self, item: str | Thought) -> bool:
        """Take a delta. False: wait for `room` before the next."""

    async def room(self) -> None:
        """Returns when the Dispatcher has caught up."""

    def driver_ended(self, result: Finish | Failure | None) -> None:
        """The generator has ended, or was halted (None); nothing runs any more."""

    def driver_overdue(self) -> None:
        """The generator was halted and still runs after HALT_SECONDS."""


class Driver:
    """One task that iterates the generator that `begin` makes. Needs a running loop.

    ended          nothing of the agent runs any more
    deltas         content and thought deltas that were accepted
    late_deltas    content and thought deltas that the agent still produced after the halt
    halt_micros    from the halt to the generator's end
    """

    def __init__(self, begin: Callable[[], AsyncIterator[Yielded]], sink: Sink) -> None:
        self._begin = begin
        self._sink = sink
        self.ended = False
        self.deltas = 0
        self.late_deltas = 0
        self.halt_micros = 0
        self._halted_at: float | None = None
        self._overdue: asyncio.TimerHandle | None = None
        self._task = asyncio.get_running_loop().create_task(self._run())
        # Not a `finally`: a task that is cancelled before its first step never runs its body.
        self._task.add_done_callback(self._done)

    def halt(self) -> None:
        """Cancel the generator now. Harmless when repeated, or when it has ended."""
        if self.ended or self._halted_at is not None:
            return
        self._halted_at = time.perf_counter()
        self._task.cancel()
        self._overdue = asyncio.get_running_loop().call_later(HALT_SECONDS, self._did_not_stop)

    def _did_not_stop(self) -> None:
        self._task.cancel()  # an agent that waits in its clean-up has had its time
        self._sink.driver_overdue()

    def _done(self, task: asyncio.Task[Finish | Failure | None]) -> None:
        self.ended = True
        if self._overdue:
            self._overdue.cancel()
        if self._halted_at is not None:
            self.halt_micros = int((time.perf_counter() - self._halted_at) * 1e6)
        self._sink.driver_ended(None if task.cancelled() else task.result())

    async def _run(self) -> Finish | Failure | None:
        try:
            generator = self._begin()
            if not hasattr(generator, "__anext__"):
                return _wrong("returned", generator, "it must be an async generator function")
        except BaseException as error:
            return self._failed(error)
        try:
            return await self._iterate(generator)
        except asyncio.CancelledError as error:
            if self._task.cancelling():  # halted, or the loop closes
                raise
            return self._failed(error)
        except BaseException as error:  # Ctrl-C comes by a signal handler, so all of these are the agent's own
            return None if self._halted_at is not None else self._failed(error)
        finally:
            await self._close(generator)

    async def _iterate(self, generator: AsyncIterator[object]) -> Finish | Failure | None:
        finish: Finish | None = None
        sink = self._sink
        items = 0
        async for item in generator:
            if self._halted_at is not None:  # it swallowed its cancellation
                self._count_late(item)
                return None
            if finish:
                return _wrong("yielded", item, "nothing may come after Finish", generator)
            if isinstance(item, Finish):
                finish = item
                continue
            if not isinstance(item, str | Thought):
                return _wrong("yielded", item, "it may yield str, Thought or Finish", generator)
            self.deltas += 1
            if not sink.accept(item):
                await sink.room()
            items += 1
            if items % TURN_ITEMS == 0:
                await asyncio.sleep(0)
        return finish or Finish()

    def _count_late(self, item: object) -> None:
        if isinstance(item, str | Thought):
            self.late_deltas += 1

    async def _close(self, generator: AsyncIterator[Yielded]) -> None:
        """Close it, whatever state it is in; its own faults are logged."""
        aclose = getattr(generator, "aclose", None)
        if aclose is None:
            return
        try:
            await aclose()
        except asyncio.CancelledError:
            pass  # the second cancellation, at the end of its time
        except RuntimeError as error:
            if "ignored GeneratorExit" in str(error):  # it yielded once more; Python never runs it again
                self.late_deltas += 1
            logger.warning("agent_failed_to_close", exc_info=error, traceback=True)
        except BaseException as error:
            logger.warning("agent_failed_to_close", exc_info=error, traceback=True)

    def _failed(self, error: BaseException) -> Failure:
        logger.warning("agent_failed", exc_info=error, traceback=True)
        try:
            text = f"{type(error).__name__}: {error}"
        except Exception:  # its own __str__ failed
            text = type(error).__name__
        return Failure(text[:MESSAGE_CHARACTERS])


def _wrong(did: str, item: object, rule: str, generator: object = None) -> Failure:
    """What the agent gave that it may not, and where: for its author's log, and without the place for operators."""
    frame = getattr(generator, "ag_frame", None)
    place = {"raised_at": [f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"]} if frame else {}
    why = f"the agent {did} {type(item).__qualname__}; {rule}"
    error = TypeError(f"{why}: {_shown(item)}")
    logger.warning("agent_failed", why=why, exc_info=error, traceback=True, **place)
    return Failure(str(error)[:MESSAGE_CHARACTERS])


def _shown(item: object) -> str:
    try:
        return reprlib.repr(item)
    except Exception:  # its own __repr__ failed
        return object.__repr__(item)

"""Deadlines with names, as timers of the loop."""

import asyncio
from collections import deque
from collections.abc import Callable, Container
from functools import partial

from dispatcher.live import clock

A_MOMENT = 8  # sessions: half of what the store takes in one transaction
MOMENT_SECONDS = 0.01


class Pace:
    """Lets A_MOMENT of the calls that wait have their turn each MOMENT_SECONDS.

    With a stream go up to a thousand sessions, and the grace of all is over at once: others would wait until all that
    is concluded, and the store has the ends of all.
    """

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()  # at most a few of each session
        self._timer: asyncio.TimerHandle | None = None

    def take(self, call: Callable[[], None]) -> None:
        """At once, unless others have just been."""
        self._waiting.append(call)
        if self._timer is None:
            self._go()

    def _go(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(MOMENT_SECONDS, self._go) if self._waiting else None
        for _ in range(min(A_MOMENT, len(self._waiting))):
            loop.call_soon(self._waiting.popleft())

    def close(self) -> None:
        """Those that wait have no turn."""
        self._waiting.clear()
        if self._timer:
            self._timer.cancel()


class Deadlines:
    """reached: called with the name of one that has come; of those `in_turn` at the pace of all."""

    def __init__(self, reached: Callable[[str], None], pace: Pace, in_turn: Container[str] = ()) -> None:
        self._reached, self._pace, self._in_turn = reached, pace, in_turn
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._timers

    def __len__(self) -> int:
        return len(self._timers)

    def set(self, name: str, at: float | None) -> None:
        """Move it there (by `clock.now`); None: it does not come."""
        if timer := self._timers.pop(name, None):
            timer.cancel()
        if at is not None:
            loop = asyncio.get_running_loop()
            self._timers[name] = loop.call_later(max(0.0, at - clock.now()), self._due, name)

    def clear(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _due(self, name: str) -> None:
        if name in self._in_turn:
            self._pace.take(partial(self._has_turn, name, self._timers[name]))
        else:
            self.come(name)

    def _has_turn(self, name: str, timer: asyncio.TimerHandle) -> None:
        if self._timers.get(name) is timer:  # it was not moved meanwhile
            self.come(name)

    def come(self, name: str) -> None:
        """It has come."""
        self.set(name, None)
        self._reached(name)

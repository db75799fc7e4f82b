"""Deadlines with names, as timers of the loop."""

import asyncio
from collections.abc import Callable

from dispatcher.live import clock


class Deadlines:
    """reached: called with the name of one that has come."""

    def __init__(self, reached: Callable[[str], None]) -> None:
        self._reached = reached
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
            self._timers[name] = loop.call_later(max(0.0, at - clock.now()), self.come, name)

    def clear(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def come(self, name: str) -> None:
        """It has come; also called by its timer."""
        self.set(name, None)
        self._reached(name)

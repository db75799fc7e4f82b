"""How long a peer is waited for."""

import asyncio
from collections.abc import Callable

TICKS = 10


class Patience:
    """A time limit for a peer, counted in ticks: however late this process's own loop was, it counts as one of them.

    seconds  after which, without a `rest`, the peer has been waited for long enough
    over     called then
    """

    def __init__(self, seconds: float, over: Callable[[], None]) -> None:
        self._tick_seconds, self._over = seconds / TICKS, over
        self._left: int | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """It is waited for, from now."""
        self._left = TICKS
        if self._timer is None:
            self._wait()
        else:
            self._left += 1  # the tick under way is shorter

    def rest(self) -> None:
        """It is not waited for."""
        self._left = None

    def close(self) -> None:
        """No timer is left."""
        self._left = None
        if self._timer:
            self._timer.cancel()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._tick_seconds, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._left is None:
            return
        self._left -= 1
        if self._left > 0:
            self._wait()
        else:
            self._left = None
            self._over()

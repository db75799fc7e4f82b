"""When calls begin that run here: so that results are not made faster than the log takes them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from dispatcher.store.turns import Turns

STARTS = 2  # in one turn of the loop: what tools answer at once is counted before many more have begun
# Characters of results that rules read, or that are on their way into the log: then no call begins. A slice of each is
# read in a turn of the loop: with eight times as many an honest user's first word took a second, not half of one.
MAX_HELD = 1024 * 1024


class ToolStarts:
    """Of all sessions, in turn. A call that runs holds nothing, nor does a result about which a plugin or a guardrail's
    server is asked: no session's tools wait for another's.
    """

    def __init__(self) -> None:
        self._waiting: Turns[asyncio.Future[None]] = Turns()
        self._held = 0  # characters
        self._due = False

    async def turn(self, session_id: str) -> None:
        """Return when a call of that session may begin."""
        start = asyncio.get_running_loop().create_future()
        self._waiting.append(session_id, start)
        self._go_on()
        await start

    @contextmanager
    def held(self, size: int) -> Iterator[None]:
        """While the block runs, a result of so many characters is read or goes into the log."""
        self._held += size
        try:
            yield
        finally:
            self._held -= size
            self._go_on()

    def _go_on(self) -> None:
        if not self._due and self._waiting and self._held < MAX_HELD:
            self._due = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._due, started = False, 0
        while self._waiting and started < STARTS and self._held < MAX_HELD:
            start = self._waiting.popleft()
            if not start.done():  # its session was not stopped meanwhile
                start.set_result(None)
                started += 1
        self._go_on()

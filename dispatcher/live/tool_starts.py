"""When calls begin that run here: so that results are not made faster than the log takes them."""

import asyncio

from dispatcher.store.turns import Turns

STARTS = 2  # in one turn of the loop: what tools answer at once is counted before many more have begun
# Characters of results that rules read, or that are on their way into the log: then no call begins. A slice of each is
# read in a turn of the loop: with eight times as many an honest user's first word took a second, not half of one.
MAX_HELD = 1024 * 1024


class ToolStarts:
    """Of all sessions, in turn. A call that runs, or waits for somebody, holds nothing: only its result does, of which
    64 of 256 KiB a session may come at once.
    """

    def __init__(self) -> None:
        self._waiting: Turns[asyncio.Future[None]] = Turns()
        self._held: dict[tuple[str, str], int] = {}  # characters, by session and call
        self._size = 0
        self._due = False

    async def turn(self, session_id: str) -> None:
        """Return when a call of that session may begin."""
        start = asyncio.get_running_loop().create_future()
        self._waiting.append(session_id, start)
        self._go_on()
        await start

    def brought(self, session_id: str, call_id: str, size: int) -> None:
        """Its tool has answered with so many characters."""
        self._held[session_id, call_id] = size
        self._size += size

    def over(self, session_id: str, call_id: str) -> None:
        """Its result is in the log, or has no place there; if it brought any."""
        self._size -= self._held.pop((session_id, call_id), 0)
        self._go_on()

    def _go_on(self) -> None:
        if not self._due and self._waiting and self._size < MAX_HELD:
            self._due = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._due, started = False, 0
        while self._waiting and started < STARTS and self._size < MAX_HELD:
            start = self._waiting.popleft()
            if not start.done():  # its session was not stopped meanwhile
                start.set_result(None)
                started += 1
        self._go_on()

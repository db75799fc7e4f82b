"""An event as `asyncio.Event`, for what each session has several of."""

import asyncio


class Flag:
    """Nothing is made for those who wait until somebody does. An Event has a deque for them from the start, which takes
    0.7 KiB: of six, a tenth of what an idle session takes in both programs.
    """

    __slots__ = ("_set", "_waiting")

    def __init__(self) -> None:
        self._set = False
        self._waiting: list[asyncio.Future[None]] = []

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        """Who waits goes on, also if it is cleared at once."""
        self._set = True
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def clear(self) -> None:
        self._set = False

    async def wait(self) -> None:
        """Return when it is set, or was since the call."""
        if self._set:
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            await waiting
        finally:
            self._waiting.remove(waiting)

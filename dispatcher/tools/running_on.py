"""Calls that were cancelled, as their time or their session was over, and run on: their tools hold that up."""

import asyncio
from collections import Counter
from collections.abc import Callable

import structlog

logger = structlog.get_logger()

END_SECONDS = 1.0  # that a tool has to clean up once its call was cancelled; one that takes longer is told of
MAX_RUNNING_ON = 32  # of one tool; then it is not called, until some have ended. As many as threads of all tools


class RunningOn:
    """tell: called with a tool's name, and how many of its calls run on."""

    def __init__(self, tell: Callable[[str, int], None]) -> None:
        self._tell = tell
        self._calls: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[str]] = set()

    def too_many(self, tool: str) -> bool:
        """It is not to be called now."""
        return self._calls[tool] >= MAX_RUNNING_ON

    def cancel(self, tool: str, task: "asyncio.Task[str]") -> None:
        """Nobody waits for that call any more."""
        task.cancel()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        asyncio.get_running_loop().call_later(END_SECONDS, self._look, tool, task)

    def _look(self, tool: str, task: "asyncio.Task[str]") -> None:
        if not task.done():
            self._count(tool, 1)
            logger.warning("tool_runs_on", tool=tool, calls=self._calls[tool])
            task.add_done_callback(lambda _: self._count(tool, -1))

    def _count(self, tool: str, change: int) -> None:
        self._calls[tool] += change
        self._tell(tool, self._calls[tool])
        self._calls += Counter()  # forget those with none

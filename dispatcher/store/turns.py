"""A queue in which each session has its turn."""

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Of each session in order; the sessions take turns, so that who queues much waits for itself."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[T]] = {}  # by session, the next turn first

    def __bool__(self) -> bool:
        return bool(self._queues)

    def append(self, session_id: Hashable, item: T) -> None:
        self._queues.setdefault(session_id, deque()).append(item)

    def popleft(self) -> T:
        """The next turn's. Raises StopIteration where nothing is queued."""
        session_id = next(iter(self._queues))
        queue = self._queues.pop(session_id)
        item = queue.popleft()
        if queue:
            self._queues[session_id] = queue
        return item

"""What is asked of the reader thread, and how it comes to be answered."""

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar

from dispatcher.store.ports import StoreUnavailable, resolve
from dispatcher.store.turns import Turns

T = TypeVar("T")

MOST_READS = 16  # handed over at once: what they bring, READ_BYTES each at most, is in memory at one time


class _Asked(NamedTuple):
    """answers: of all who asked for it before it began."""

    ask: Callable[[], Any]
    key: Hashable
    answers: list[asyncio.Future[Any]]


class Reads:
    """Those who ask for the same before it is read get one answer, so that a thousand new readers of one session are
    not a thousand reads that all others wait for. Sessions have their turns.

    A read that is under way is not shared with who asks now: it may not see what is in the log by now.
    """

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self._thread = thread
        self._loop = asyncio.get_running_loop()
        self._queued: Turns[_Asked] = Turns()
        self._by_key: dict[Hashable, _Asked] = {}
        self._under_way = False
        self._open = True

    async def ask(self, function: Callable[..., T], *arguments: Hashable, turn: str = "") -> T:
        """What the function answers, on the thread. turn: the session whose it is; empty: it has one of its own. The
        answer may be others' too: it must not be changed. Raises StoreUnavailable.
        """
        if not self._open:
            raise StoreUnavailable("the store is closed")
        answer: asyncio.Future[T] = self._loop.create_future()
        key = (function, arguments)
        if read := self._by_key.get(key):
            read.answers.append(answer)
        else:
            read = self._by_key[key] = _Asked(partial(function, *arguments), key, [answer])
            self._queued.append(turn or key, read)
            if not self._under_way:
                self._hand_over()
        return await answer

    def close(self) -> None:
        """What has not begun is not read any more."""
        self._open = False
        while self._queued:
            self._answer(self._take(), StoreUnavailable("the store is closed"))

    def _hand_over(self) -> None:
        batch: list[_Asked] = []
        while self._queued and len(batch) < MOST_READS:
            read = self._take()
            if not all(answer.cancelled() for answer in read.answers):
                batch.append(read)
        self._under_way = bool(batch)
        if batch:
            self._thread.submit(self._carry_out, batch)

    def _take(self) -> _Asked:
        read = self._queued.popleft()
        del self._by_key[read.key]
        return read

    def _carry_out(self, batch: list[_Asked]) -> None:
        """On the thread."""
        answers = [_outcome(read.ask) for read in batch]
        self._loop.call_soon_threadsafe(self._resolve, batch, answers)

    def _resolve(self, batch: list[_Asked], answers: list[Any]) -> None:
        for read, value in zip(batch, answers, strict=True):
            self._answer(read, value)
        self._hand_over()

    def _answer(self, read: _Asked, value: Any) -> None:
        for answer in read.answers:
            resolve(answer, value)


def _outcome(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except Exception as error:  # whoever asked gets it
        return error

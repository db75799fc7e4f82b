"""Who waits for which log to grow, and the last entries of the logs that somebody follows.

Lives on the event loop; no method may be called from another thread.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from dispatcher.core.entries import Entry
from dispatcher.store.ports import Feed, LogPart

# Of one followed log, whichever is reached first. A follower that lags further reads the store.
TAIL_ENTRIES = 256
TAIL_BYTES = 256 * 1024


class LogFollower:
    """`dispatcher.store.ports.Follower`, for one waiting coroutine at a time.

    Its timer stays when a wait is over, for readers wait for each token until the same moment: to set and cancel one
    each time was a tenth of what a token cost them.
    """

    __slots__ = ("_cut", "_due", "_feed", "_grown", "_loop", "_timer", "_told", "_topic", "_until", "_waiter", "late")

    def __init__(self, topic: "_Topic") -> None:
        self._topic = topic
        self._loop = asyncio.get_running_loop()
        self._grown = self._cut = False
        self._waiter: asyncio.Future[None] | None = None
        self._feed: Feed | None = None  # of the wait
        self._until = self._due = self._told = 0.0  # loop time: of the wait, of the timer, when there was news
        self.late: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, seconds: float, feed: Feed | None = None) -> bool:
        self.late = None
        if not self._grown:
            self._waiter, self._feed = self._loop.create_future(), feed
            self._until = self._loop.time() + seconds
            if self._timer is None or self._due > self._until:
                self._set_timer()
            try:
                await self._waiter
            finally:
                self._waiter = self._feed = None
            self.late = self._loop.time() - self._told
        cut, self._grown, self._cut = self._cut, False, False
        return cut

    @property
    def followers(self) -> int:
        return len(self._topic.followers)

    def recent(self, after: int, limit: int) -> LogPart | None:
        return self._topic.tail.read(after, limit)

    def nudge(self, cut: bool = False) -> None:
        self._cut = self._cut or cut
        if self._grown:
            return  # told already
        self._grown, self._told = True, self._loop.time()
        if self._feed:  # not at once: what else is logged in this turn of the loop comes with it
            self._loop.call_soon(self._serve)
        else:
            self._wake()

    def _serve(self) -> None:
        """Feed whoever waits; else, and where that is not enough, the wait is over."""
        if not (self._feed and self._waiter) or self._waiter.done():
            return
        try:
            fed = not self._cut and self._feed(self._loop.time() - self._told)
        except Exception as error:
            self._waiter.set_exception(error)
            return
        if fed:
            self._grown = False
        else:
            self._wake()

    def close(self) -> None:
        """Nobody waits any more."""
        if self._timer:
            self._timer.cancel()

    def _set_timer(self) -> None:
        self.close()
        self._due = self._until
        self._timer = self._loop.call_at(self._due, self._late)

    def _late(self) -> None:
        self._timer = None
        if self._waiter and self._due < self._until:
            self._set_timer()
        else:
            self._told = self._loop.time()
            self._wake()

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)


class _Tail:
    """The last entries of a log, without gaps, each with its size in bytes."""

    __slots__ = ("_entries", "_size")

    def __init__(self) -> None:
        self._entries: list[tuple[Entry, int]] = []
        self._size = 0

    def add(self, entries: Sequence[Entry], sizes: Sequence[int]) -> None:
        kept = self._entries
        if kept and entries[0].offset != kept[-1][0].offset + 1:
            self.clear()
        kept.extend(zip(entries, sizes, strict=True))
        self._size += sum(sizes)
        while len(kept) > TAIL_ENTRIES or (self._size > TAIL_BYTES and len(kept) > 1):
            self._size -= kept.pop(0)[1]

    def read(self, after: int, limit: int) -> LogPart | None:
        if not self._entries:
            return None
        start = after + 1 - self._entries[0][0].offset
        if start < 0:
            return None
        end = start + limit
        return LogPart([entry for entry, _ in self._entries[start:end]], more=end < len(self._entries))

    def clear(self) -> None:
        self._entries.clear()
        self._size = 0


class _Topic:
    """offset: of the last entry that is known of."""

    __slots__ = ("followers", "offset", "tail")

    def __init__(self) -> None:
        self.followers: list[LogFollower] = []
        self.tail = _Tail()
        self.offset = 0


class Hub:
    """The followers of one process, by session.

    changed: called with a session's id when its first follower has come, and when its last has gone.
    """

    def __init__(self, changed: Callable[[str], None] = lambda _: None) -> None:
        self._topics: dict[str, _Topic] = {}
        self._changed = changed

    @contextmanager
    def follow(self, session_id: str) -> Iterator[LogFollower]:
        topic = self._topics.setdefault(session_id, _Topic())
        follower = LogFollower(topic)
        topic.followers.append(follower)
        if len(topic.followers) == 1:
            self._changed(session_id)
        try:
            yield follower
        finally:
            follower.close()
            topic.followers.remove(follower)
            if not topic.followers:
                del self._topics[session_id]
                self._changed(session_id)

    def __contains__(self, session_id: str) -> bool:
        """Whether it is followed."""
        return session_id in self._topics

    def followed(self) -> list[str]:
        return list(self._topics)

    def nudge(self, session_id: str) -> None:
        """The session's log has grown."""
        if topic := self._topics.get(session_id):
            for follower in topic.followers:
                follower.nudge()

    def publish(self, session_id: str, entries: Sequence[Entry], sizes: Sequence[int]) -> None:
        """These entries are in the log, after all that were published before. sizes: bytes of each."""
        if topic := self._topics.get(session_id):
            rolled_back = entries[0].offset <= topic.offset  # or another's news of what follows came first
            topic.tail.add(entries, sizes)
            topic.offset = entries[-1].offset
            for follower in topic.followers:
                follower.nudge(rolled_back)

    def heard(self, session_id: str, offset: int) -> None:
        """The log reaches to that offset, whoever wrote it."""
        topic = self._topics.get(session_id)
        if topic and offset > topic.offset:
            topic.offset = offset
            topic.tail.clear()
            self.nudge(session_id)

    def counted(self, session_id: str, offset: int) -> None:
        """The log was seen to reach to that offset: further than was known, or not as far, for it was rolled back."""
        topic = self._topics.get(session_id)
        if topic and offset < topic.offset:
            self.gone(session_id, offset)
        else:
            self.heard(session_id, offset)

    def gone(self, session_id: str, offset: int = 0) -> None:
        """The session was dropped, or its log is there no more after that offset."""
        if topic := self._topics.get(session_id):
            topic.offset = offset
            topic.tail.clear()
            for follower in topic.followers:
                follower.nudge(cut=True)

    def missed(self, session_id: str) -> None:
        """What was written until now may not have been heard of."""
        if topic := self._topics.get(session_id):
            topic.tail.clear()
            self.nudge(session_id)

    def recent(self, session_id: str, after: int, limit: int) -> LogPart | None:
        """What `Store.read` would answer, if the tail knows it: entries after an offset that it still reaches."""
        topic = self._topics.get(session_id)
        return topic.tail.read(after, limit) if topic else None

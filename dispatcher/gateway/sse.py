"""Event streams as raw ASGI: a reader reads a session's log at its own pace, and nothing is queued for it (rule 31).

A reader that is slow waits in `send`, and reads on from its offset when the socket has drained. sse-starlette runs four
tasks for each response, and learns of a drain from uvicorn's signal handler or a flag of the whole process.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeAlias

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.types import Message, Receive, Scope, Send

from dispatcher.core.entries import Entry
from dispatcher.core.log import Record
from dispatcher.gateway import limits
from dispatcher.store.ports import Follower, Store, StoreUnavailable

FILLER = b": keep-alive\n\n"  # a comment, between any two frames
RETRY = b"retry: 1000\n\n"  # milliseconds until an EventSource comes back
BATCH_ENTRIES = 128  # read at once; bounds, with READ_BYTES, what a slow reader holds in memory
RETRY_STORE_SECONDS = 1.0
# A loop is late whose turns take so long: with 64 sessions of 50 tokens/s they take a millisecond. A reader then rests
# for so many turns before it looks for more, but no longer than people notice. Where more than a CROWD read one
# session, each may rest for longer, in proportion and up to a bound: they wait for each other then, and not all others
# for them.
LATE_SECONDS = 0.003
REST = 8
MAX_REST_SECONDS = 0.1
CROWD = 64
MAX_CROWD_REST_SECONDS = 2.0
END_SECONDS = 1.0
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),  # nginx: pass on at once
]
encode = msgspec.json.Encoder().encode
Take: TypeAlias = Callable[[list[Entry]], bool]


def frame(event: str, data: object, event_id: int | str | None = None) -> bytes:
    """One event. A reader resumes at its id; control frames have none."""
    head = f"event: {event}\n" if event_id is None else f"id: {event_id}\nevent: {event}\n"
    return b"%bdata: %b\n\n" % (head.encode(), encode(data))


class LogReader:
    """Entries of a session's log after an offset, as they come, while it is `open`.

    take: is given what comes while `next` waits, as long as the loop is not late; where it answers False, `next`
    returns that. So most tokens wake no task, nor pass a layer of ASGI: 7 % of what a token cost the Dispatcher.
    """

    def __init__(self, store: Store, session_id: str, after: int, follower: Follower, take: Take | None = None) -> None:
        self.offset = after
        self._store, self._session_id, self._follower, self._take = store, session_id, follower, take
        self._loop = asyncio.get_running_loop()
        self._pause_at = self._loop.time() + limits.KEEP_ALIVE_SECONDS
        self._behind = True  # the log may hold more than was read, and nobody will tell of it
        self._rest = 0.0  # seconds before more is looked for

    @classmethod
    @contextlib.contextmanager
    def open(cls, store: Store, session_id: str, after: int, take: Take | None = None) -> Iterator["LogReader"]:
        with store.follow(session_id) as follower:
            yield cls(store, session_id, after, follower, take)

    async def next(self) -> list[Entry]:
        """The next entries; none once in KEEP_ALIVE_SECONDS, whatever comes, or where what was read may be gone: see
        `intact`. An unreachable store is waited for.
        """
        while (left := self._pause_at - self._loop.time()) > 0:
            if not self._behind:  # then one read a token, and no timer of its own: a third of what it cost its reader
                self._behind = True
                if self._rest:
                    await self._pause()
                if await self._follower.wait(left, self._fed if self._take else None):
                    return []
                if self._follower.late is not None:
                    self._pace(self._follower.late)
                continue
            part = self._follower.recent(self.offset, BATCH_ENTRIES)
            if part is None:
                try:
                    async with asyncio.timeout_at(self._pause_at):
                        part = await self._store.read(self._session_id, self.offset, BATCH_ENTRIES)
                except TimeoutError:
                    continue
                except StoreUnavailable:
                    await asyncio.sleep(min(RETRY_STORE_SECONDS, left))
                    continue
            entries, self._behind = part
            if entries:
                self.offset = entries[-1].offset
                return entries
        self._pause_at = self._loop.time() + limits.KEEP_ALIVE_SECONDS
        return []

    def _fed(self, late: float) -> bool:
        """Whether the news is with its reader by now, and nothing else is to be done."""
        if late >= LATE_SECONDS or not self._take:
            return False
        part = self._follower.recent(self.offset, BATCH_ENTRIES)
        if part is None or part.more:
            return False
        if part.entries:
            if not self._take(part.entries):
                return False
            self.offset = part.entries[-1].offset
        return True

    async def _pause(self) -> None:
        due = self._loop.time() + self._rest
        await asyncio.sleep(self._rest)
        self._pace(self._loop.time() - due)

    def _pace(self, late: float) -> None:
        """Where the loop is late, a reader takes more at once in place of more often (Nagle, by the loop's lag). late:
        how long it has just let the reader wait for its turn.
        """
        most = min(MAX_REST_SECONDS * max(1.0, self._follower.followers / CROWD), MAX_CROWD_REST_SECONDS)
        self._rest = min(late * REST, most) if late >= LATE_SECONDS else 0.0

    async def intact(self) -> bool:
        """Whether the log still holds what was read: it may be deleted, or rolled back. Asked when nothing comes."""
        try:
            record = await self._store.brief(self._session_id)
        except StoreUnavailable:
            return True
        return record is not None and record.head.offset >= self.offset


async def logged(store: Store, record: Record, after: int = 0) -> AsyncIterator[Entry]:
    """The entries with an offset above `after`, up to the record's."""
    while after < record.head.offset:
        entries, _ = await store.read(record.session_id, after, BATCH_ENTRIES)
        if not entries:
            return
        for entry in entries:
            if entry.offset <= record.head.offset:
                yield entry
        after = entries[-1].offset


class Watch:
    """Why a response was interrupted, if it was."""

    gone = False  # the client closed the connection
    closing = False  # the server drains


class Connections:
    """Responses that may take long. Each is interrupted when its client goes away, or when the server drains."""

    def __init__(self, closing: asyncio.Event) -> None:
        self._closing = closing
        self._open: dict[asyncio.Timeout, Watch] = {}
        self._draining: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def watch(self, receive: Receive) -> AsyncIterator[Watch]:
        """Run the block to its end, or leave it at its current `await`; the watch then says why.

        The request's body must have been read. In a server that drains already, the block gets to its first wait.
        """
        watch = Watch()
        scope = asyncio.timeout(None)  # used as a cancel scope: whoever interrupts it moves its deadline to now
        listening: asyncio.Task[None] | None = None
        try:
            async with scope:
                self._open[scope] = watch
                if self._draining is None or self._draining.done():  # done: it has interrupted those before
                    self._draining = asyncio.create_task(self._interrupt_all())
                listening = asyncio.create_task(self._listen(receive, scope))
                yield watch
        except TimeoutError:
            if not (watch.gone or watch.closing):
                raise
        finally:
            self._open.pop(scope, None)
            if listening:
                listening.cancel()
            if not self._open and self._draining:
                self._draining.cancel()
                self._draining = None

    async def _listen(self, receive: Receive, scope: asyncio.Timeout) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if watch := self._open.pop(scope, None):
            watch.gone = True
            scope.reschedule(0)

    async def _interrupt_all(self) -> None:
        await self._closing.wait()
        while self._open:
            scope, watch = self._open.popitem()
            watch.closing = True
            scope.reschedule(0)


def is_event_source(http: HttpRequest) -> bool:
    """Browsers ask so; after an answer that is not 200 they never come again (HTML, "fail the connection")."""
    return "text/event-stream" in http.headers.get("accept", "")


async def come_again(receive: Receive, send: Send) -> None:
    """A stream without events: an EventSource comes back by itself."""
    await start(send)
    await end(send, RETRY)


class RawAnswer:
    """Raw ASGI in the place of a Starlette response. Give `answer` all but its last two arguments, receive and send."""

    def __init__(self, answer: Callable[..., Awaitable[None]], *arguments: object) -> None:
        self._answer, self._arguments = answer, arguments

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            await start(send)
            await end(send)
        else:
            await self._answer(*self._arguments, receive, _PastHead(send, scope))


class _PastHead:
    """A `Send`. What stands between a route and the server adds to an answer's head. Its body goes straight there:
    layers that only passed each frame on were 6 % of what a token cost its reader.
    """

    def __init__(self, head: Send, scope: Scope) -> None:
        self._head, self._body = head, scope.get("send", head)
        self.now: Callable[[bytes], bool] | None = scope.get("send_now")

    def __call__(self, message: Message) -> Awaitable[None]:
        send: Send = self._head if message["type"] == "http.response.start" else self._body
        return send(message)


async def start(send: Send, extra_headers: list[tuple[bytes, bytes]] | None = None) -> None:
    headers = HEADERS + (extra_headers or [])
    await send({"type": "http.response.start", "status": 200, "headers": headers, "filler": FILLER})


async def write(send: Send, data: bytes, *, last: bool = False) -> None:
    """Waits for a client that is slow to read."""
    await send({"type": "http.response.body", "body": data, "more_body": not last})


def write_now(send: Send, data: bytes) -> bool:
    """`write` without a task. False: it has to wait, or cannot be written so."""
    return isinstance(send, _PastHead) and send.now is not None and send.now(data)


async def end(send: Send, data: bytes = b"") -> None:
    """The last bytes. A client that does not read them is not waited for."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_SECONDS):
            await send({"type": "http.response.body", "body": data, "more_body": False})

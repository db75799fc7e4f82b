"""The live sessions of the whole store, pushed to operators who watch them.

No store tells of every change at every replica, so all are looked at, once for all who watch, and each is sent what has
changed since it was sent something.
"""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import islice
from time import perf_counter, time

import msgspec
from starlette.types import Receive, Send

from dispatcher.core.log import LIVE, Head, Record
from dispatcher.gateway import sse
from dispatcher.gateway.ports import Sessions
from dispatcher.store.ports import Place, StoreUnavailable, place
from shared.turns import LoopTurn

LOOK_SECONDS = 1.0  # between looks
PAUSE = 9  # times that a look lasted, before the next: where there are many sessions, a tenth of the time goes into it
PAGE = 1000  # sessions that are read at once
TOLD = 250  # that go out as one event: a browser shall not stall over one


class LiveRows(msgspec.Struct, frozen=True):
    """rows: by session; the same object as in the look before where nothing has changed. at: Unix seconds."""

    at: float
    rows: dict[str, msgspec.Raw]


class LiveList:
    """summary: what is told of a session."""

    def __init__(
        self, sessions: Sessions, connections: sse.Connections, summary: Callable[[Record], dict[str, object]]
    ) -> None:
        self._sessions, self._connections, self._summary = sessions, connections, summary
        self._looking = asyncio.Lock()
        self._heads: dict[str, Head] = {}
        self._newest = LiveRows(0.0, {})
        self._next_look = 0.0

    async def stream(self, still: Callable[[], Awaitable[bool]], receive: Receive, send: Send) -> None:
        """First all, then what changes, until the client goes or the server drains. still: it may see them."""
        await sse.start(send)
        await sse.write(send, sse.RETRY)
        try:
            async with self._connections.watch(receive):
                told: dict[str, msgspec.Raw] = {}
                while await still():
                    try:
                        await self._tell(send, told, await self._look())
                    except StoreUnavailable:
                        await sse.write(send, sse.frame("unavailable", {}))
                    await asyncio.sleep(LOOK_SECONDS)
        finally:
            await sse.end(send)

    async def _tell(self, send: Send, told: dict[str, msgspec.Raw], look: LiveRows) -> None:
        """told: what this client has; brought up to date."""
        rows = look.rows
        fresh = iter([(session_id, row) for session_id, row in rows.items() if told.get(session_id) is not row])
        while page := dict(islice(fresh, TOLD)):
            await sse.write(send, sse.frame("sessions", {"sessions": list(page.values())}))
            told |= page
        for session_id in told.keys() - rows.keys():
            # It may have changed its place in the list while that was read.
            record = await self._sessions.store.brief(session_id)
            if record and not record.head.final:
                continue
            del told[session_id]
            event = ("sessions", {"sessions": [self._summary(record)]}) if record else ("gone", {"id": session_id})
            await sse.write(send, sse.frame(*event))
        await sse.write(send, sse.frame("looked", {"at": look.at, "live": len(told)}))

    async def _look(self) -> LiveRows:
        """At all of them, or what whoever asked a short while ago saw. Raises StoreUnavailable."""
        async with self._looking:
            began = perf_counter()
            if began >= self._next_look:
                self._newest = LiveRows(time(), await self._rows())
                lasted = perf_counter() - began
                self._next_look = began + max(LOOK_SECONDS / 2, PAUSE * lasted)  # due for who has slept meanwhile
            return self._newest

    async def _rows(self) -> dict[str, msgspec.Raw]:
        heads: dict[str, Head] = {}
        rows: dict[str, msgspec.Raw] = {}
        at: Place | None = None
        turn = LoopTurn()
        while True:
            records = await self._sessions.store.page(tuple(LIVE), PAGE, at)
            for record in records:
                session_id, head = record.session_id, record.head
                at = place(session_id, head)
                same = self._heads.get(session_id) == head
                row = self._newest.rows[session_id] if same else msgspec.Raw(msgspec.json.encode(self._summary(record)))
                heads[session_id], rows[session_id] = head, row
                await turn.step()
            if len(records) < PAGE:
                self._heads = heads
                return rows

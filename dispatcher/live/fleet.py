"""The fleet's stop: one order for all sessions that fit, at whichever instance they are, those that wait too."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import structlog

from dispatcher.core.log import LIVE, Record
from dispatcher.store.asking import until_known
from dispatcher.store.ports import Place, Store, place

logger = structlog.get_logger()

PAGE = 200  # sessions that are looked at in one read
STOPS_AT_ONCE = 64  # on their way into the log
LOOK_SECONDS = 1.0  # between looks at a session of whose halt the news may have been lost
ORDER_SECONDS = 60.0  # for all of them to halt: many times what a Commander that does not answer is waited for
MAX_ORDERS = 8  # at once


class TooManyOrders(Exception):
    """So many are under way."""


class Fits(msgspec.Struct, frozen=True):
    """Which sessions are meant: those that have all that is given. commander: of those that run."""

    agent: str | None = None
    tenant: str | None = None
    conversation_id: str | None = None
    commander: str | None = None

    def __call__(self, record: Record) -> bool:
        request, head = record.request, record.head
        return (
            self.agent in (None, request.agent)
            and self.tenant in (None, request.tenant)
            and self.conversation_id in (None, request.conversation_id)
            and (self.commander is None or (head.state == "running" and self.commander == head.commander_id))
        )


class SessionHalted(msgspec.Struct, frozen=True):
    """A session that was stopped, or had ended before: nobody works on it any more."""

    session_id: str
    state: str
    reason: str


class FleetProgress(msgspec.Struct, frozen=True):
    """found: sessions that fit so far. running: those of them that have not halted yet."""

    found: int
    running: int


class FleetDone(msgspec.Struct, frozen=True):
    """whole: the last look at all sessions found none that fits, but those that began after the order."""

    found: int
    running: int
    whole: bool


class FleetStop:
    """One order. `run` carries it out, whoever listens to `news`.

    stop: stops a session; raises StoreUnavailable where that has to be asked again.
    """

    def __init__(self, store: Store, stop: Callable[[str], Awaitable[object]], fits: Fits) -> None:
        self._store, self._stop, self._fits = store, stop, fits
        self._began = time.time()
        self._room = asyncio.Semaphore(STOPS_AT_ONCE)
        self._works: dict[str, asyncio.Task[None]] = {}
        self._running = 0
        self._news: asyncio.Queue[SessionHalted | FleetProgress | FleetDone] = asyncio.Queue()  # some for each session

    async def news(self) -> AsyncIterator[SessionHalted | FleetProgress | FleetDone]:
        """As it comes; FleetDone is the last."""
        while True:
            told = await self._news.get()
            yield told
            if isinstance(told, FleetDone):
                return

    async def run(self) -> None:
        """To its end, ORDER_SECONDS at most."""
        whole = False
        try:
            async with asyncio.timeout(ORDER_SECONDS):
                while await self._look():
                    await asyncio.gather(*self._works.values())
                await asyncio.gather(*self._works.values())
                whole = True
        except TimeoutError:
            pass
        finally:
            works = list(self._works.values())
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)
            done = FleetDone(len(works), self._running, whole)
            self._news.put_nowait(done)
            logger.info("fleet_stopped", found=done.found, running=done.running, whole=whole)

    async def _look(self) -> bool:
        """Begin to stop all live ones that fit. Whether one of them is older than the order, and was not seen before: a
        session that changes its state while the pages are read may change its place to one that was read already.
        """
        fresh = False
        at: Place | None = None
        while True:
            records = await until_known(lambda: self._store.page(tuple(LIVE), PAGE, at))  # noqa: B023
            for record in records:
                at = place(record.session_id, record.head)
                if record.session_id not in self._works and self._fits(record):
                    self._works[record.session_id] = asyncio.create_task(self._halt(record.session_id))
                    self._running += 1
                    fresh |= record.request.created_at <= self._began
            self._news.put_nowait(FleetProgress(len(self._works), self._running))
            if len(records) < PAGE:
                return fresh

    async def _halt(self, session_id: str) -> None:
        async with self._room:
            await until_known(lambda: self._stop(session_id))
        with self._store.follow(session_id) as follower:
            while (record := await until_known(lambda: self._store.load(session_id))) and not record.head.over:
                await follower.wait(LOOK_SECONDS)
        self._running -= 1
        if record:
            head = record.head
            self._news.put_nowait(SessionHalted(session_id, head.state, head.reason or head.code))

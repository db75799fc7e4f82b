"""The fleet's stop: one order for all sessions that fit, at whichever instance they are, those that wait too; and its
hold, for as long as which no other begins.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

import msgspec
import structlog

from dispatcher.core.holds import Fits, Hold
from dispatcher.core.log import LIVE, CommanderName, Request
from dispatcher.live import ids
from dispatcher.live.pool import Pool
from dispatcher.store.asking import until_known
from dispatcher.store.ports import Place, Store, StoreUnavailable, place

logger = structlog.get_logger()

PAGE = 200  # sessions that are looked at in one read
STOPS_AT_ONCE = 64  # on their way into the log
LOOK_SECONDS = 1.0  # between looks at a session of whose halt the news may have been lost
ORDER_SECONDS = 60.0  # for all of them to halt: many times what a Commander that does not answer is waited for
MAX_ORDERS = 8  # at once
MAX_HOLDS = 100  # in force: each is read whenever a session is to begin
MAX_HOLD_SECONDS = 24 * 3600.0  # what is to last longer is a key to take away, or an agent not to offer
# After a hold was placed the last look is no sooner: a session that was let in just before may be on its way into the
# log, which takes milliseconds.
SETTLE_SECONDS = 1.0
HELD_SECONDS = 0.5  # between looks at the holds of Commanders: such an order's last look is after it


class TooManyOrders(Exception):
    """So many are under way."""


class TooManyHolds(Exception):
    """So many are in force."""


class OnHold(Exception):
    """No such session may begin now. retry_after: seconds until it may."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("an operator holds new sessions like this one")
        self.retry_after = retry_after


async def check_holds(store: Store, request: Request, commander: CommanderName | None = None) -> None:
    """commander: who brings it; None: it waits for one. Raises OnHold; StoreUnavailable, for what cannot be looked up
    may be held.
    """
    now = time.time()
    if fitting := [hold for hold in await store.holds(now) if hold.fits.asked(request, commander)]:
        raise OnHold(math.ceil(fitting[-1].ends_at - now))


async def new_hold(store: Store, fits: Fits, seconds: float, reason: str, detail: str) -> Hold:
    """For an order, which places it. Raises TooManyHolds, StoreUnavailable."""
    now = time.time()
    if len(await store.holds(now)) >= MAX_HOLDS:
        raise TooManyHolds
    return Hold(ids.hold_id(), fits, now, now + seconds, reason, detail)


async def place_hold(store: Store, hold: Hold) -> None:
    """From then on it is in force at every instance. Raises StoreUnavailable."""
    await store.hold(hold)
    logger.info("hold_placed", hold_id=hold.hold_id, ends_at=hold.ends_at, **msgspec.structs.asdict(hold.fits))


async def hold_commanders(store: Store, pool: Pool) -> None:
    """Those that a hold means get no session of the pool's. Raises StoreUnavailable."""
    every = [hold.fits for hold in await store.holds(time.time())]
    pool.hold((fits.commander, fits.credential) for fits in every if fits.commander)


async def keep_holding(store: Store, pool: Pool) -> None:
    """For as long as the instance lives."""
    while True:
        await asyncio.sleep(HELD_SECONDS)
        with suppress(StoreUnavailable):  # nothing can be assigned meanwhile
            await hold_commanders(store, pool)


class HoldPlaced(msgspec.Struct, frozen=True):
    """From now on it counts at every instance. ends_at: Unix seconds."""

    hold_id: str
    ends_at: float


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
    """whole: the last look at all sessions found none that fits, but those that began after an order without a hold."""

    found: int
    running: int
    whole: bool


Told: TypeAlias = HoldPlaced | SessionHalted | FleetProgress | FleetDone


class FleetStop:
    """One order. `run` carries it out, whoever listens to `news`.

    stop: stops a session; raises StoreUnavailable where that has to be asked again.
    """

    def __init__(
        self, store: Store, stop: Callable[[str], Awaitable[object]], fits: Fits, hold: Hold | None = None
    ) -> None:
        self._store, self._stop, self._fits, self._hold = store, stop, fits, hold
        self._until = hold.ends_at if hold else time.time()  # what begins later is not meant
        self._room = asyncio.Semaphore(STOPS_AT_ONCE)
        self._works: dict[str, asyncio.Task[None]] = {}
        self._running = 0
        self.limit = asyncio.timeout(ORDER_SECONDS)  # of `run`
        self._news: asyncio.Queue[Told] = asyncio.Queue()  # some for each session

    async def news(self) -> AsyncIterator[Told]:
        """As it comes; FleetDone is the last."""
        while True:
            told = await self._news.get()
            yield told
            if isinstance(told, FleetDone):
                return

    async def run(self) -> None:
        """To its end, ORDER_SECONDS at most."""
        whole, loop = False, asyncio.get_running_loop()
        try:
            async with self.limit:
                settled = await self._place()
                while not whole:
                    last = loop.time() >= settled
                    fresh = await self._look()
                    await asyncio.gather(*self._works.values())
                    whole = last and not fresh
                    if not last:
                        await asyncio.sleep(settled - loop.time())
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

    async def _place(self) -> float:
        """The hold, if there is one. When the last look may be, in the loop's time."""
        hold, loop = self._hold, asyncio.get_running_loop()
        if hold is None:
            return loop.time()
        await until_known(lambda: place_hold(self._store, hold))
        self._news.put_nowait(HoldPlaced(hold.hold_id, hold.ends_at))
        return loop.time() + SETTLE_SECONDS

    async def _look(self) -> bool:
        """Begin to stop all live ones that fit. Whether one of them is meant, and was not seen before: a session that
        changes its state while the pages are read may change its place to one that was read already.
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
                    fresh |= record.request.created_at <= self._until
            self._news.put_nowait(FleetProgress(len(self._works), self._running))
            if len(records) < PAGE:
                return fresh

    async def _halt(self, session_id: str) -> None:
        async with self._room:
            await until_known(lambda: self._stop(session_id))
        with self._store.follow(session_id) as follower:
            while (record := await until_known(lambda: self._store.brief(session_id))) and not record.head.over:
                await follower.wait(LOOK_SECONDS)
        self._running -= 1
        if record:
            head = record.head
            self._news.put_nowait(SessionHalted(session_id, head.state, head.reason or head.code))

"""This instance among those that share its store (rules 34 to 38): its lease, the sessions of instances
that are gone, and the waiting sessions of all.
"""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Container
from typing import Protocol

import structlog

from dispatcher.core.log import Record
from dispatcher.live.pool import Pool
from dispatcher.settings import DispatcherSettings
from dispatcher.store.ports import LEASE_SECONDS, RENEW_SECONDS, Replicas, StoreUnavailable, Waiting

logger = structlog.get_logger()

LOOK_SECONDS = 1.0  # between two looks at the waiting sessions, of which news may have been lost
HEARD_SECONDS = 0.02  # at most: a session that waits elsewhere is tried a little later, for its own replica goes first


class OwnSessions(Protocol):
    """What is asked of the sessions of this instance."""

    @property
    def held(self) -> Container[str]: ...
    def grown(self, session_id: str) -> None: ...
    async def take_over(self, record: Record) -> None: ...
    async def take_back(self) -> None: ...
    def judge_all_calls(self) -> None: ...


class Everybody(Container[str]):
    """All instances, where it cannot be judged which are gone."""

    def __contains__(self, instance: object) -> bool:
        return True


class Neighbours:
    """`dispatcher.store.ports.Listener`. Call its methods on the event loop."""

    def __init__(self, replicas: Replicas, sessions: OwnSessions, pool: Pool, settings: DispatcherSettings) -> None:
        self._replicas, self._sessions, self._pool = replicas, sessions, pool
        self._limit = settings.queue_limit + 1  # of the waiting sessions that are looked at
        self._judge_at = math.inf
        self._renewed_at, self._unanswered = -math.inf, False  # loop time: when the last answered renewal was asked for
        self._lapsed = asyncio.Event()  # the lease had ended, and the sessions are not taken back yet
        replicas.listen(self)

    # ---- news

    def enlisted(self, waiting: Waiting) -> None:
        """It waits at another instance, and may be served here."""
        delay = random.uniform(0, HEARD_SECONDS)  # noqa: S311 # not all at once
        asyncio.get_running_loop().call_later(delay, self._pool.heard, waiting)

    def withdrawn(self, session_id: str) -> None:
        """It does not wait any more."""
        self._pool.withdraw(session_id)

    def grown(self, session_id: str) -> None:
        """Another instance changed the session in the log."""
        self._sessions.grown(session_id)

    # ---- for as long as this instance lives

    async def join(self) -> None:
        """Before anything is served: without a lease, what this instance has is anyone's to take over."""
        self._renewed_at = asyncio.get_running_loop().time()
        await self._replicas.renew()

    async def keep(self) -> None:
        """Until cancelled."""
        self._judge_at = asyncio.get_running_loop().time() + LEASE_SECONDS  # the store may have been away until now
        # Each by itself: thousands of sessions may be taken over or back, and meanwhile the lease must not end.
        await asyncio.gather(
            self._every(RENEW_SECONDS, self._renew),
            self._every(0, self._take_back),
            self._every(RENEW_SECONDS, self._judge),
            self._every(LOOK_SECONDS, self._look),
        )

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                await work()
            except StoreUnavailable:
                self._judge_at = loop.time() + LEASE_SECONDS
            except Exception:
                logger.exception("neighbours_failed")
            await asyncio.sleep(seconds)

    async def _renew(self) -> None:
        loop = asyncio.get_running_loop()
        asked, unanswered, self._unanswered = loop.time(), self._unanswered, True
        held = await self._replicas.renew()
        self._unanswered = False
        # A renewal whose answer was lost may have come late, and found it ended.
        if not held or (unanswered and loop.time() > self._renewed_at + LEASE_SECONDS):
            logger.warning("lease_had_ended")
            self._lapsed.set()
        self._renewed_at = asked

    async def _take_back(self) -> None:
        await self._lapsed.wait()
        self._lapsed.clear()
        await self._sessions.take_back()

    async def _judge(self) -> None:
        self._sessions.judge_all_calls()
        if not self._may_judge:
            return
        loop = asyncio.get_running_loop()
        looked, alive = loop.time(), await self._replicas.alive()
        for record in await self._replicas.orphans(self._sessions.held):
            if loop.time() >= looked + RENEW_SECONDS:
                looked, alive = loop.time(), await self._replicas.alive()  # one that was paused may be back
            if record.head.instance not in alive - {self._replicas.instance}:
                await self._sessions.take_over(record)

    @property
    def _may_judge(self) -> bool:
        """Not soon after the store was away: nobody could renew its lease then."""
        return asyncio.get_running_loop().time() >= self._judge_at

    async def alive(self) -> Container[str]:
        """The instances that are not known to be gone. Raises StoreUnavailable."""
        return await self._replicas.alive() if self._may_judge else Everybody()

    async def _look(self) -> None:
        self._pool.in_store = await self._replicas.waiting_count()
        self._pool.agree(await self._replicas.waiting(self._limit), self._limit)

    async def resign(self) -> None:
        """This instance leaves: others may take its sessions over at once."""
        try:
            await self._replicas.resign()
        except StoreUnavailable:
            logger.warning("lease_not_given_up")  # it ends by itself

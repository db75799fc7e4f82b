"""The net below all deadlines: a live session that nothing leads to an end gets one all the same.

Each wait of a session has a deadline of its own, so what is found here is a fault of ours: it is logged as such and
counted, and the session is taken up from its log again, which decides what becomes of it.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from dispatcher.core.log import LIVE, Head, Record
from dispatcher.live.runners import Runners
from dispatcher.metrics import Metrics
from dispatcher.store.ports import StoreUnavailable

logger = structlog.get_logger()

LOOK_SECONDS = 5.0
MAX_LIVE = 1_000_000  # sessions of the log among which those are found that nobody has


class Sweep:
    """seconds: that a session may stay so, longer than all deadlines together.

    waits    whether that session has a place in the queue here
    take_up  what the log says is live, and nobody has; raises StoreUnavailable
    """

    def __init__(
        self,
        runners: Runners,
        metrics: Metrics,
        seconds: float,
        waits: Callable[[str], bool],
        take_up: Callable[[Record], Awaitable[None]],
    ) -> None:
        self._runners, self._metrics, self._seconds = runners, metrics, seconds
        self._waits, self._take_up = waits, take_up
        self._since: dict[str, float] = {}  # by session: found unattended first, in the loop's time
        self._nobodys: dict[str, int] = {}  # found in the log at the last look there, with their epochs

    async def keep(self) -> None:
        """For as long as the instance lives. Where other instances use the store, they look after its sessions too
        (rule 35).
        """
        loop = asyncio.get_running_loop()
        read_at = loop.time()
        while True:
            self.look(loop.time())
            if loop.time() >= read_at and not self._runners.store.replicas:
                read_at = loop.time() + self._seconds
                await self._read_when_it_can_be()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self, now: float) -> None:
        """At the sessions here. now: in the loop's time."""
        found = {each.session_id: each for each in self._runners.by_session.values() if each.unattended}
        self._since = {session_id: self._since.get(session_id, now) for session_id in found}
        for session_id, runner in found.items():
            if now - self._since[session_id] >= self._seconds:
                del self._since[session_id]
                self._tell(session_id, runner.session.head)
                runner.grown()

    async def read(self) -> None:
        """In the log, for what is not even here, and was not the last time. Raises StoreUnavailable."""
        live = await self._runners.store.select(LIVE, MAX_LIVE)
        known = self._runners.held
        nobodys = [each for each in live if each.session_id not in known and not self._waits(each.session_id)]
        before, self._nobodys = self._nobodys, {each.session_id: each.head.epoch for each in nobodys}
        for record in nobodys:
            if before.get(record.session_id) == record.head.epoch:
                self._tell(record.session_id, record.head)
                await self._take_up(record)

    async def _read_when_it_can_be(self) -> None:
        try:
            await self.read()
        except StoreUnavailable:
            self._nobodys = {}  # what could not be created or taken up may still be under way

    def _tell(self, session_id: str, head: Head) -> None:
        logger.error("session_unattended", session_id=session_id, state=head.state, generation=head.generation)
        self._metrics.unattended.inc()

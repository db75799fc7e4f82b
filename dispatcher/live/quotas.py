"""Tokens of a day: what each tenant has used of them, and whose sessions are stopped once it is too many.

The log says what a session has cost, at whichever instance it runs: nothing is counted beside it, so nothing is counted
twice, or lost with an instance. What has ended is counted once, for the day of its end; what lives is looked at.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import perf_counter, time

from msgspec.structs import replace

from dispatcher.core.entries import Finished
from dispatcher.core.log import Record
from dispatcher.core.tenant_limits import TenantLimit, day_of, tokens_of
from dispatcher.live.runners import Runners
from dispatcher.store.asking import in_parts
from dispatcher.store.ports import StoreUnavailable
from shared.records import Usage

LOOK_SECONDS = 1.0  # by which a session that runs may be stopped too late
PAUSE = 9  # times as long as a look took, so that looks take a tenth of the time at most
TAIL = 32  # entries at the end of a log, among which its end is looked for at a time


class Quotas:
    """limit_of: a tenant's. stop: `LiveSessions.stop`."""

    def __init__(
        self,
        runners: Runners,
        limit_of: Callable[[str], TenantLimit | None],
        stop: Callable[..., Awaitable[Record | None]],
    ) -> None:
        self._runners, self._limit_of, self._stop = runners, limit_of, stop
        self._store = runners.store

    async def limit(self, tenant: str) -> TenantLimit | None:
        """That under which a session of the tenant's begins now. Raises StoreUnavailable."""
        limit = self._limit_of(tenant)
        if limit is None or limit.tokens_per_day is None:
            return limit
        spent, _ = await self._look(tenant)
        return replace(limit, spent=spent)

    async def settle(self, record: Record) -> None:
        """Count an ended session, if it counts and has not been. Raises StoreUnavailable."""
        limit = self._limit_of(record.request.tenant)
        if limit and limit.tokens_per_day is not None:
            tokens = tokens_of(record, await self._usage(record))
            await self._store.settle(record, tokens, day_of(record.head.ended_at))

    async def keep(self) -> None:
        """For as long as the instance lives: of the tenants that have sessions here, stop those that are over."""
        before: set[str] = set()
        while True:
            began = perf_counter()
            now = {runner.session.record.request.tenant for runner in self._runners.by_session.values()}
            for tenant in before | now:  # once more where all have ended: then they are counted
                with suppress(StoreUnavailable):  # the next look
                    await self.enforce(tenant)
            before = now
            await asyncio.sleep(max(LOOK_SECONDS, PAUSE * (perf_counter() - began)))

    async def enforce(self, tenant: str) -> None:
        """Stop the tenant's sessions, wherever they are, if it has used more than it may. Raises StoreUnavailable."""
        limit = self._limit_of(tenant)
        if limit is None or limit.tokens_per_day is None:
            return
        spent, live = await self._look(tenant)
        if spent > limit.tokens_per_day:
            for record in live:
                await self._stop(record.session_id, "Timeout", "dispatcher", "tokens_per_day")

    async def _look(self, tenant: str) -> tuple[int, list[Record]]:
        """The tokens of today, and the sessions that live. Those that have ended are counted on the way."""
        live: list[Record] = []
        for record in await self._store.metered(tenant):
            if record.head.final:
                await self.settle(record)
            else:
                live.append(record)
        settled = await self._store.settled(tenant, day_of(time()))
        return settled + sum(tokens_of(record, None) for record in live), live

    async def _usage(self, record: Record) -> Usage | None:
        """What the agent said at its end that it took; None: it did not come to that, or does not count."""
        until = record.head.offset if record.head.state == "finished" else 0
        while until > 0:
            after = max(0, until - TAIL)
            parts = in_parts(self._store, record.session_id, until, after)
            ends = [entry.body async for part in parts for entry in part if isinstance(entry.body, Finished)]
            if ends:
                return ends[-1].usage
            until = after
        return None

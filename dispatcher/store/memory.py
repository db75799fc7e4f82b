"""Session logs in the process's memory: for tests and trials. They end with the process."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from heapq import nlargest, nsmallest
from operator import itemgetter
from time import perf_counter

from msgspec.structs import replace

from dispatcher.core.entries import Entry, size_of
from dispatcher.core.holds import Hold
from dispatcher.core.log import Applied, Change, Outcome, Record, Refused, State, apply
from dispatcher.core.tenant_limits import TenantLimit, check
from dispatcher.store.blobs import without_prompt
from dispatcher.store.followers import Hub
from dispatcher.store.ports import (
    MAX_OFFERED,
    Created,
    Follower,
    IdempotencyKey,
    LogPart,
    Place,
    Replicas,
    StoreUnavailable,
    part_of,
    place,
)


class MemoryStore:
    """`dispatcher.store.ports.Store`. A step is carried out within `submit`, so each is a batch of its own.

    observe: called with the seconds that a step took and the entries that it added.
    """

    replicas: Replicas | None = None

    def __init__(self, observe: Callable[[float, int], None] | None = None) -> None:
        self._observe = observe
        self._hub = Hub()
        self._closed = False
        self._records: dict[str, Record] = {}
        self._entries: dict[str, list[Entry]] = {}
        self._keys: dict[str, tuple[IdempotencyKey, str]] = {}
        self._offers: dict[str, float] = {}
        self._begun: dict[str, dict[str, float]] = {}  # tenant → sessions that began under a limit, and when
        self._metered: dict[str, list[str]] = {}  # tenant → sessions whose tokens are to be counted
        self._settled: dict[tuple[str, int], int] = {}  # tenant and day → tokens
        self._holds: dict[str, Hold] = {}

    async def close(self) -> None:
        self._closed = True

    async def create(
        self, record: Record, key: IdempotencyKey | None = None, limit: TenantLimit | None = None
    ) -> Created:
        self._check_open()
        if key and (bound := self._bound(key.key, record.request.created_at)):
            earlier, taken = bound
            return Created(taken, fresh=False, same_request=earlier.fingerprint == key.fingerprint)
        if record.session_id in self._records:
            return Created(self._records[record.session_id], fresh=False, same_request=False)
        if limit:
            self._admit(record, limit)
        self._records[record.session_id] = record
        self._entries[record.session_id] = []
        if key:
            self._keys[key.key] = (key, record.session_id)
        return Created(record, fresh=True)

    def _admit(self, record: Record, limit: TenantLimit) -> None:
        tenant, now = record.request.tenant, record.request.created_at
        begun = self._begun.get(tenant, {})
        since = limit.since(now)
        kept = {sid: at for sid, at in begun.items() if at > since or self._lives(sid)}
        check(limit, ((at, self._lives(sid)) for sid, at in kept.items()), now)
        self._begun[tenant] = kept | {record.session_id: now}
        if limit.tokens_per_day is not None:
            self._metered.setdefault(tenant, []).append(record.session_id)

    async def metered(self, tenant: str) -> list[Record]:
        self._check_open()
        there = [session_id for session_id in self._metered.pop(tenant, ()) if session_id in self._records]
        if there:
            self._metered[tenant] = there
        return [without_prompt(self._records[session_id]) for session_id in there]

    async def settle(self, record: Record, tokens: int, day: int) -> None:
        self._check_open()
        tenant = record.request.tenant
        if record.session_id in self._metered.get(tenant, ()):
            self._metered[tenant].remove(record.session_id)
            self._settled[tenant, day] = self._settled.get((tenant, day), 0) + tokens
            self._settled = {each: count for each, count in self._settled.items() if each[1] >= day - 1}

    async def settled(self, tenant: str, day: int) -> int:
        self._check_open()
        return self._settled.get((tenant, day), 0)

    def _lives(self, session_id: str) -> bool:
        record = self._records.get(session_id)
        return record is not None and not record.head.final

    def _bound(self, key: str, now: float) -> tuple[IdempotencyKey, Record] | None:
        earlier, session_id = self._keys.get(key, (None, ""))
        record = self._records.get(session_id)
        return (earlier, record) if earlier and earlier.expires_at > now and record else None

    def submit(self, session_id: str, change: Change) -> asyncio.Future[Outcome]:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(self._step(session_id, change))
        except Exception as error:
            future.set_exception(error)
        return future

    def _step(self, session_id: str, change: Change) -> Outcome:
        self._check_open()
        started = perf_counter()
        record = self._records.get(session_id)
        if not record:
            return Refused("unknown_session")
        outcome = apply(record, change)
        if isinstance(outcome, Applied):
            self._records[session_id] = replace(record, head=outcome.head)
            if outcome.entries:
                self._entries[session_id].extend(outcome.entries)
                self._hub.publish(session_id, outcome.entries, [0] * len(outcome.entries))  # in memory anyway
                if self._observe:
                    self._observe(perf_counter() - started, len(outcome.entries))
        return outcome

    async def load(self, session_id: str) -> Record | None:
        self._check_open()
        return self._records.get(session_id)

    async def brief(self, session_id: str) -> Record | None:
        record = await self.load(session_id)
        return record and without_prompt(record)

    async def read(self, session_id: str, after: int, limit: int) -> LogPart:
        self._check_open()
        asked = self._entries.get(session_id, [])[after : after + limit]
        return part_of(((entry, size_of(entry)) for entry in asked), limit)

    def follow(self, session_id: str) -> AbstractContextManager[Follower]:
        return self._hub.follow(session_id)

    async def select(self, states: Iterable[State], limit: int) -> list[Record]:
        self._check_open()
        wanted = set(states)
        found = (record for record in self._records.values() if record.head.state in wanted)
        return list(map(without_prompt, nsmallest(limit, found, key=lambda record: record.head.since)))

    async def page(self, states: Iterable[State], limit: int, before: Place | None = None) -> list[Record]:
        self._check_open()
        wanted = set(states)
        found = [
            (place(record.session_id, record.head), record)
            for record in self._records.values()
            if record.head.state in wanted
        ]
        behind = (at for at in found if before is None or at[0] < before)
        return [without_prompt(record) for _, record in nlargest(limit, behind, key=itemgetter(0))]

    async def delete(self, session_id: str) -> bool:
        self._check_open()
        record = self._records.get(session_id)
        if not record or not record.head.final:
            return False
        self._drop(session_id)
        return True

    async def expire(self, ended_before: float) -> int:
        self._check_open()
        old = [
            record.session_id
            for record in self._records.values()
            if record.head.final and record.head.ended_at < ended_before
        ]
        for session_id in old:
            self._drop(session_id)
        self._keys = {
            key: bound
            for key, bound in self._keys.items()
            if bound[0].expires_at >= ended_before and bound[1] in self._records
        }
        self._offers = {agent: at for agent, at in self._offers.items() if at >= ended_before}
        self._holds = {hold_id: hold for hold_id, hold in self._holds.items() if hold.ends_at >= ended_before}
        return len(old)

    def _drop(self, session_id: str) -> None:
        del self._records[session_id]
        del self._entries[session_id]
        self._hub.gone(session_id)

    async def offer(self, instance: str, agents: Iterable[str], now: float) -> None:
        self._check_open()
        for agent in agents:
            self._offers[agent] = max(now, self._offers.pop(agent, now))  # the latest stand last
        for agent in list(self._offers)[:-MAX_OFFERED]:
            del self._offers[agent]

    async def offered(self, since: float) -> list[str]:
        self._check_open()
        return sorted(agent for agent, at in self._offers.items() if at >= since)

    async def hold(self, hold: Hold) -> None:
        self._check_open()
        self._holds[hold.hold_id] = hold

    async def holds(self, now: float) -> list[Hold]:
        self._check_open()
        in_force = (hold for hold in self._holds.values() if hold.ends_at > now)
        return sorted(in_force, key=lambda hold: hold.ends_at)

    async def lift(self, hold_id: str) -> bool:
        self._check_open()
        return self._holds.pop(hold_id, None) is not None

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")

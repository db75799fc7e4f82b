"""One log for several Dispatchers in this process: `Store` and `Replicas` as the Redis store has them, in memory."""

import asyncio
import secrets
from collections.abc import Callable, Container
from contextlib import AbstractContextManager
from typing import Any

from dispatcher.core.log import Applied, Change, Outcome, Record
from dispatcher.core.tenant_limits import TenantLimit
from dispatcher.store.memory import MemoryStore
from dispatcher.store.ports import Created, Follower, IdempotencyKey, Listener, LogPart, StoreUnavailable, Waiting


class SharedStore:
    """What the instances share. `view` is one instance's store."""

    def __init__(self) -> None:
        self.memory = MemoryStore()
        self.views: dict[str, View] = {}
        self.leases: set[str] = set()
        self.lossy = False  # news is lost

    def view(self) -> "View":
        view = View(self)
        self.views[view.instance] = view
        return view

    def keep(self, session_id: str) -> Callable[[], None]:
        """The log as it is now. Call what is returned to lose all that came since, as a failover does."""
        memory = self.memory
        record, entries = memory._records[session_id], list(memory._entries[session_id])

        def roll_back() -> None:
            memory._records[session_id], memory._entries[session_id] = record, entries

        return roll_back

    def tell(self, author: "View", session_id: str, before: Record | None, after: Record) -> None:
        """What the others hear of a change."""
        if self.lossy:
            return
        waited = before is not None and before.head.state == "waiting"
        waits = after.head.state == "waiting"
        concerned = {after.head.instance, *(call.instance for call in after.head.calls.values())}
        if before:
            concerned |= {before.head.instance, *(call.instance for call in before.head.calls.values())}
        for view in list(self.views.values()):
            if view is author or not view.listener or view.closed:
                continue
            if waits and not waited:
                self._soon(view.listener.enlisted, _waiting(after))
            elif waited and not waits:
                self._soon(view.listener.withdrawn, session_id)
            if view.instance in concerned:
                self._soon(view.listener.grown, session_id)

    @staticmethod
    def _soon(tell: Any, what: object) -> None:
        asyncio.get_running_loop().call_soon(tell, what)


class View:
    """`dispatcher.store.ports.Store` and `Replicas` of one instance.

    running  cleared: it does not renew its lease, as if it were paused
    away     True: it cannot reach the store
    """

    def __init__(self, shared: SharedStore) -> None:
        self.instance = secrets.token_hex(4)
        self.listener: Listener | None = None
        self.running = asyncio.Event()
        self.running.set()
        self.away, self.closed = False, False
        self.replicas = self
        self.trouble = ""
        self._shared = shared

    # ---- Store

    async def close(self) -> None:
        self.closed = True

    async def create(
        self, record: Record, key: IdempotencyKey | None = None, limit: TenantLimit | None = None
    ) -> Created:
        self._check()
        created = await self._shared.memory.create(record, key, limit)
        if created.fresh:
            self._shared.tell(self, record.session_id, None, record)
        return created

    def submit(self, session_id: str, change: Change) -> "asyncio.Future[Outcome]":
        if self.away:
            future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            future.set_exception(StoreUnavailable("away"))
            return future
        before = self._shared.memory._records.get(session_id)
        answer = self._shared.memory.submit(session_id, change)
        outcome = answer.result()
        if before and isinstance(outcome, Applied) and outcome.head is not before.head:
            self._shared.tell(self, session_id, before, Record(session_id, before.request, outcome.head))
        return answer

    async def load(self, session_id: str) -> Record | None:
        self._check()
        return await self._shared.memory.load(session_id)

    async def brief(self, session_id: str) -> Record | None:
        self._check()
        return await self._shared.memory.brief(session_id)

    async def read(self, session_id: str, after: int, limit: int) -> LogPart:
        self._check()
        return await self._shared.memory.read(session_id, after, limit)

    def follow(self, session_id: str) -> AbstractContextManager[Follower]:
        return self._shared.memory.follow(session_id)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shared.memory, name)

    # ---- Replicas

    def listen(self, listener: Listener) -> None:
        self.listener = listener

    async def renew(self) -> bool:
        self._check()
        await self.running.wait()
        had = self.instance in self._shared.leases
        self._shared.leases.add(self.instance)
        return had

    async def resign(self) -> None:
        self._shared.leases.discard(self.instance)

    async def alive(self) -> frozenset[str]:
        self._check()
        return frozenset(self._shared.leases)

    async def orphans(self, held: Container[str]) -> list[Record]:
        self._check()
        records = self._shared.memory._records.values()
        heads = [record for record in records if not record.head.complete and record.head.state != "waiting"]
        gone = [record for record in heads if record.head.instance not in self._shared.leases]
        own = [record for record in heads if record.head.instance == self.instance and record.session_id not in held]
        return gone + [record for record in own if record not in gone]

    async def waiting(self, limit: int) -> list[Waiting]:
        records = await self._shared.memory.select(["waiting"], limit)
        return list(map(_waiting, records))

    async def waiting_count(self) -> int:
        self._check()
        return len(await self.waiting(1_000_000))

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("away")


def _waiting(record: Record) -> Waiting:
    return Waiting(record.session_id, record.request.agent, record.head.since, record.request.tenant)

"""What the instances that share a Redis know of each other: leases, orphans, the waiting sessions."""

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence

from dispatcher.log import Record
from dispatcher.store.ports import LEASE_SECONDS, SWEEP_SECONDS, Listener, StoreUnavailable, Waiting
from dispatcher.store.redis_hints import FOR_GOOD, Hints
from dispatcher.store.redis_keys import AGENTS, ENDED, LEASES, LIVE, WAITING, head_of, record_of, session_keys
from dispatcher.store.redis_lanes import Lanes
from dispatcher.store.redis_nudges import CHUNK, Deaf, Nudges, chunks
from dispatcher.store.redis_scripts import (
    FORGET,
    LEASES_IN_FORCE,
    OLDEST_WAITING,
    OVER,
    RENEW,
    Command,
    command,
)
from dispatcher.store.redis_server import Servers, checked


class RedisReplicas:
    """`dispatcher.store.ports.Replicas`. Leases are judged by Redis's clock."""

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self._listener: Listener = Deaf()
        self._open: tuple[Servers, Lanes, Hints] | None = None
        self._swept_at = -math.inf
        self._absent: dict[str, float] = {}  # sessions that stand among the live ones: when they were first missed

    def attach(self, servers: Servers, lanes: Lanes, hints: Hints, nudges: Nudges) -> None:
        """The store has started."""
        self._open = servers, lanes, hints
        self._nudges = nudges
        nudges.listener = self._listener

    def listen(self, listener: Listener) -> None:
        self._listener = listener
        if self._open:
            self._nudges.listener = listener

    def _parts(self) -> tuple[Servers, Lanes, Hints]:
        if not self._open:
            raise StoreUnavailable("the store is not open")
        return self._open

    # ---- leases

    async def renew(self) -> bool:
        return bool(await self._parts()[0].call(RENEW((LEASES,), self.instance, int(LEASE_SECONDS * 1000))))

    async def resign(self) -> None:
        await self._parts()[0].call(RENEW((LEASES,), self.instance, 0))

    async def alive(self) -> frozenset[str]:
        return frozenset(instance for instance, holds in (await self._leases()).items() if holds)

    async def _leases(self) -> dict[str, bool]:
        flat = await self._parts()[0].read(LEASES_IN_FORCE((LEASES,)))
        return {flat[n].decode(): bool(flat[n + 1]) for n in range(0, len(flat), 2)}

    # ---- the waiting sessions

    async def waiting(self, limit: int) -> list[Waiting]:
        servers, _, hints = self._parts()
        await hints.written()
        flat = await servers.read(OLDEST_WAITING((WAITING, AGENTS), limit - 1)) if limit > 0 else []
        return [Waiting(flat[n].decode(), flat[n + 2].decode(), float(flat[n + 1])) for n in range(0, len(flat), 3)]

    async def waiting_count(self) -> int:
        servers, _, hints = self._parts()
        await hints.written()
        count: int = await servers.read(command("ZCARD", WAITING))
        return count

    # ---- the sweep

    async def orphans(self) -> list[Record]:
        leases = await self._leases()
        now = asyncio.get_running_loop().time()
        if all(leases.values()) and now < self._swept_at + SWEEP_SECONDS:
            return []
        found = await self._sweep(leases)
        self._swept_at = now
        return found

    async def _sweep(self, leases: Mapping[str, bool]) -> list[Record]:
        servers, lanes, hints = self._parts()
        await hints.written()
        flat = await servers.read(OLDEST_WAITING((WAITING, AGENTS), -1))
        listed = {flat[n].decode() for n in range(0, len(flat), 3)}
        live = [blob.decode() for blob in await servers.read(command("ZRANGE", LIVE, 0, -1))]
        indexed = set(live)
        holders: set[str] = set()
        orphans: list[str] = []
        unlisted: list[str] = []
        repairs: list[Command] = []
        missing: set[str] = set()
        for part in chunks([*live, *(listed - indexed)], CHUNK):
            for session_id, blob in zip(part, await heads(servers, part), strict=True):
                if blob is None:
                    missing.add(session_id)
                    continue
                head = head_of(blob)
                if head.complete:
                    repairs.append(OVER((LIVE, ENDED), session_id, head.ended_at))
                    if session_id in listed:
                        repairs.append(hints.withdraw(session_id, FOR_GOOD))
                elif head.state == "waiting":
                    if session_id not in listed:
                        unlisted.append(session_id)
                    elif session_id not in indexed:
                        repairs.append(command("ZADD", LIVE, "NX", head.since, session_id))
                else:
                    holders.add(head.instance)
                    if session_id in listed:
                        repairs.append(hints.withdraw(session_id, FOR_GOOD if head.final else head.since))
                    if not leases.get(head.instance):
                        orphans.append(session_id)
        repairs += self._never_made(hints, missing, listed)
        # What a failover has lost of the index: each instance puts its own back.
        repairs += [
            command("ZADD", LIVE, "NX", known.record.request.created_at, session_id)
            for session_id, known in lanes.owned()
        ]
        repairs += [
            hints.enlist(record.session_id, record.request.agent, record.head.since)
            for record in await records(servers, unlisted)
            if record.head.state == "waiting"
        ]
        if gone := [instance for instance, holds in leases.items() if not (holds or instance in holders)]:
            repairs.append(FORGET((LEASES,), *gone))
        for some in chunks(repairs, CHUNK):
            for reply in await servers.call_all(some):
                checked(reply)
        return await records(servers, orphans)

    def _never_made(self, hints: Hints, missing: set[str], listed: set[str]) -> list[Command]:
        """Take out what is not there, once its creation cannot be under way any more."""
        now = asyncio.get_running_loop().time()
        self._absent = {session_id: self._absent.get(session_id, now) for session_id in missing}
        gone = [session_id for session_id, since in self._absent.items() if now - since >= SWEEP_SECONDS]
        repairs = [command("ZREM", LIVE, session_id) for session_id in gone]
        return repairs + [hints.withdraw(session_id, FOR_GOOD) for session_id in missing & listed]


async def heads(servers: Servers, session_ids: Iterable[str]) -> list[bytes | None]:
    """Of each session, or None where it is not there. Raises StoreUnavailable."""
    asked = [command("HGET", session_keys(session_id).head, "head") for session_id in session_ids]
    return [checked(reply) for reply in await servers.read_all(asked)]


async def records(servers: Servers, session_ids: Sequence[str]) -> list[Record]:
    """Of those sessions that are there, in that order. Raises StoreUnavailable."""
    found = []
    for part in chunks(session_ids, CHUNK):
        asked = [command("HMGET", session_keys(session_id).head, "request", "head") for session_id in part]
        for session_id, reply in zip(part, await servers.read_all(asked), strict=True):
            request, head = checked(reply)
            if head is not None:
                found.append(record_of(session_id, request, head))
    return found

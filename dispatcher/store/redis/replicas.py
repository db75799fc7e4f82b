"""What the instances that share a Redis know of each other: leases, orphans, the waiting sessions."""

import asyncio
import math
from collections.abc import Container, Iterable, Mapping, Sequence

import structlog

from dispatcher.core.log import Head, Record
from dispatcher.store.blobs import head_of, record_of, without_prompt
from dispatcher.store.ports import LEASE_SECONDS, SWEEP_SECONDS, Listener, StoreUnavailable, Waiting
from dispatcher.store.redis.hints import FOR_GOOD, Hints
from dispatcher.store.redis.keys import ENDED, LEASES, LIVE, QUEUE_KEYS, WAITING, session_keys
from dispatcher.store.redis.lanes import Lanes
from dispatcher.store.redis.nudges import Nudges
from dispatcher.store.redis.poll import CHUNK, chunks
from dispatcher.store.redis.scripts import (
    FORGET,
    LEASES_IN_FORCE,
    OLDEST_WAITING,
    OVER,
    RENEW,
    Command,
    command,
)
from dispatcher.store.redis.server import Servers, checked

logger = structlog.get_logger()


class RedisReplicas:
    """`dispatcher.store.ports.Replicas`. Leases are judged by Redis's clock."""

    def __init__(self, instance: str, servers: Servers, lanes: Lanes, hints: Hints, nudges: Nudges) -> None:
        self.instance = instance
        self._servers, self._lanes, self._hints, self._nudges = servers, lanes, hints, nudges
        self._swept_at = -math.inf
        self._absent: dict[str, float] = {}  # sessions that stand among the live ones: when they were first missed

    def listen(self, listener: Listener) -> None:
        self._nudges.listener = listener

    @property
    def trouble(self) -> str:
        return self._nudges.trouble

    # ---- leases

    async def renew(self) -> bool:
        return bool(await self._servers.call(RENEW((LEASES,), self.instance, int(LEASE_SECONDS * 1000))))

    async def resign(self) -> None:
        await self._servers.call(RENEW((LEASES,), self.instance, 0))

    async def alive(self) -> frozenset[str]:
        return frozenset(instance for instance, holds in (await self._leases()).items() if holds)

    async def _leases(self) -> dict[str, bool]:
        flat = await self._servers.read(LEASES_IN_FORCE((LEASES,)))
        return {flat[n].decode(): bool(flat[n + 1]) for n in range(0, len(flat), 2)}

    # ---- the waiting sessions

    async def waiting(self, limit: int) -> list[Waiting]:
        await self._hints.written()
        flat = await self._servers.read(OLDEST_WAITING(QUEUE_KEYS, limit - 1)) if limit > 0 else []
        each = (flat[n : n + 4] for n in range(0, len(flat), 4))
        return [
            Waiting(session_id.decode(), agent.decode(), float(since), tenant.decode())
            for session_id, since, agent, tenant in each
        ]

    async def waiting_count(self) -> int:
        await self._hints.written()
        count: int = await self._servers.read(command("ZCARD", WAITING))
        return count

    # ---- the sweep

    async def orphans(self, held: Container[str]) -> list[Record]:
        leases = await self._leases()
        now = asyncio.get_running_loop().time()
        if all(leases.values()) and now < self._swept_at + SWEEP_SECONDS:
            return []
        found = await self._sweep(leases, held)
        self._swept_at = now
        return found

    async def _sweep(self, leases: Mapping[str, bool], held: Container[str]) -> list[Record]:
        servers, lanes, hints = self._servers, self._lanes, self._hints
        await hints.written()
        waiting = await servers.read(OLDEST_WAITING(QUEUE_KEYS, -1))
        listed = {waiting[n].decode() for n in range(0, len(waiting), 4)}
        indexed = {blob.decode() for blob in await servers.read(command("ZRANGE", LIVE, 0, -1))}
        census = _Census(hints, leases, self.instance, listed, indexed)
        for part in chunks(list(indexed | listed), CHUNK):
            for session_id, blob in zip(part, await heads(servers, part), strict=True):
                census.take(session_id, blob)
        repairs = census.repairs + self._never_made(census.missing)
        repairs += [
            hints.enlist(record) for record in await briefs(servers, census.unlisted) if record.head.state == "waiting"
        ]
        # What a failover has lost of the index: each instance puts its own back.
        for own in chunks([(name, known.record.request.created_at) for name, known in lanes.owned()], CHUNK):
            repairs.append(command("ZADD", LIVE, "NX", *(part for name, at in own for part in (at, name))))
        if census.without_sessions:
            repairs.append(FORGET((LEASES,), *census.without_sessions))
        for some in chunks(repairs, CHUNK):
            for reply in await servers.call_all(some):
                checked(reply)
        forgotten = [session_id for session_id in census.own if session_id not in held]
        return await briefs(servers, census.orphans + forgotten)

    def _never_made(self, missing: set[str]) -> list[Command]:
        """Out of the index with those that are not there, once their creation cannot be under way any more."""
        now = asyncio.get_running_loop().time()
        self._absent = {session_id: self._absent.get(session_id, now) for session_id in missing}
        gone = [session_id for session_id, since in self._absent.items() if now - since >= SWEEP_SECONDS]
        return [command("ZREM", LIVE, session_id) for session_id in gone]


class _Census:
    """What a look at every session that is not complete has found.

    listed: those that stand among the waiting. indexed: those that stand among the live.
    """

    def __init__(
        self, hints: Hints, leases: Mapping[str, bool], instance: str, listed: set[str], indexed: set[str]
    ) -> None:
        self._hints, self._leases, self._instance = hints, leases, instance
        self._listed, self._indexed = listed, indexed
        self.orphans: list[str] = []
        self.own: list[str] = []  # of this instance
        self.unlisted: list[str] = []  # they wait, and nobody would know
        self.missing: set[str] = set()
        self.repairs: list[Command] = []
        self.without_sessions = {instance for instance, holds in leases.items() if not holds}

    def take(self, session_id: str, blob: bytes | None) -> None:
        if blob is None:
            self.missing.add(session_id)
            self._withdraw(session_id, FOR_GOOD)
            return
        head = readable(session_id, blob)
        if head is None:
            return
        if head.state == "waiting":
            if session_id not in self._listed:
                self.unlisted.append(session_id)
            elif session_id not in self._indexed:
                self.repairs.append(command("ZADD", LIVE, "NX", head.since, session_id))
            return
        self._withdraw(session_id, FOR_GOOD if head.final else head.since)
        if head.complete:
            self.repairs.append(OVER((LIVE, ENDED), session_id, head.ended_at))
            return
        self.without_sessions.discard(head.instance)
        if not self._leases.get(head.instance):
            self.orphans.append(session_id)
        elif head.instance == self._instance:
            self.own.append(session_id)

    def _withdraw(self, session_id: str, until: float) -> None:
        if session_id in self._listed:
            self.repairs.append(self._hints.withdraw(session_id, until))


async def heads(servers: Servers, session_ids: Iterable[str]) -> list[bytes | None]:
    """Of each session, or None where it is not there. Raises StoreUnavailable."""
    asked = [command("HGET", session_keys(session_id).head, "head") for session_id in session_ids]
    return [checked(reply) for reply in await servers.read_all(asked)]


def readable(session_id: str, blob: bytes | None) -> Head | None:
    """The head, if it is there and can be read: of one that cannot, the others are not to blame."""
    try:
        return head_of(blob) if blob is not None else None
    except StoreUnavailable as error:
        logger.error("session_unreadable", session_id=session_id, error=str(error))  # noqa: TRY400 - no code of ours
        return None


async def briefs(servers: Servers, session_ids: Sequence[str]) -> list[Record]:
    """Of those sessions that are there, in that order, without their prompts. Raises StoreUnavailable."""
    found = []
    for part in chunks(session_ids, CHUNK):
        asked = [command("HMGET", session_keys(session_id).head, "brief", "head") for session_id in part]
        for session_id, reply in zip(part, await servers.read_all(asked), strict=True):
            request, head = checked(reply)
            if head is None:
                continue
            if request is None:  # an older Dispatcher has made it
                request = await servers.read(command("HGET", session_keys(session_id).head, "request"))
            if request is not None:
                found.append(without_prompt(record_of(session_id, request, head)))
    return found

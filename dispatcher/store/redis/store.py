"""Session logs in Redis, for several Dispatchers: one server, with replicas or without, or a cluster.

The rules are applied here (`dispatcher.core.log.apply`), and Redis compares and sets: a step is written only if the
session is still as it was when it was read, which a random token tells; a counter could repeat after a failover that
loses writes. A process keeps the heads of the sessions that it has, so that a step takes one round trip.

`lanes` carries the steps out, `hints` writes the indexes after them, `nudges` hears of what others
write, `replicas` knows who the others are. `pipeline`, `server` and `cluster` are the way to Redis,
`scripts` and `keys` what stands there.
"""

import asyncio
import os
import secrets
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, AsyncExitStack, suppress
from functools import partial

from msgspec.structs import replace

from dispatcher.core.holds import Hold
from dispatcher.core.log import LIVE as LIVE_STATES
from dispatcher.core.log import Change, Outcome, Record, State
from dispatcher.core.tenant_limits import TenantLimit
from dispatcher.store.blobs import briefly, encode, entry_of, hold_of, record_of
from dispatcher.store.followers import Hub
from dispatcher.store.ports import (
    MAX_OFFERED,
    READ_BYTES,
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
from dispatcher.store.redis.address import RedisAddress, ask_server, check_rights, check_server
from dispatcher.store.redis.admissions import Admissions
from dispatcher.store.redis.cluster import Cluster
from dispatcher.store.redis.hints import Hints
from dispatcher.store.redis.keys import ENDED, HOLDS, LIVE, OFFERS, Channels, binding_key, session_keys
from dispatcher.store.redis.lanes import Lanes
from dispatcher.store.redis.nudges import DROPPED, Nudges
from dispatcher.store.redis.pipeline import CONNECT_SECONDS
from dispatcher.store.redis.poll import CHUNK, Poll, chunks
from dispatcher.store.redis.replicas import RedisReplicas, briefs, heads, readable
from dispatcher.store.redis.scripts import BIND, CREATE, DROP, LOG_PART, UNBIND, Command, command
from dispatcher.store.redis.server import Server, Servers, checked

EXPIRE_SESSIONS = 50  # dropped in one go, so that appends need not wait for a sweep
CREATING_SECONDS = 1.0  # for a session whose key is bound to appear; then its creator is taken for dead


class RedisStore:
    """`dispatcher.store.ports.Store`, from `open` on. resources: closes what was opened."""

    def __init__(
        self,
        servers: Servers,
        hub: Hub,
        hints: Hints,
        lanes: Lanes,
        channels: Channels,
        replicas: RedisReplicas,
        resources: AsyncExitStack,
    ) -> None:
        self.replicas: Replicas | None = replicas
        self._servers, self._hub, self._hints, self._lanes, self._channels = servers, hub, hints, lanes, channels
        self._instance = replicas.instance
        self._admissions = Admissions(servers)
        self._open = True
        self._closing = asyncio.Lock()
        self._resources = resources

    @classmethod
    async def open(cls, address: RedisAddress, observe: Callable[[float, int], None] | None = None) -> "RedisStore":
        """observe: called with the seconds that a step took, and the entries that it added.

        Raises StoreMisconfigured.
        """
        instance, channels = secrets.token_hex(8), Channels(address.database)
        async with AsyncExitStack() as stack:
            servers = await _connect(address)
            stack.push_async_callback(servers.close)
            nudges = Nudges(servers, channels, instance)
            hints = Hints(servers, channels, instance)
            fresh = address.replicas > 0
            lanes = Lanes(servers, nudges.hub, hints, channels, instance, observe, nudges.followed, fresh)
            nudges.kept = lanes.kept
            poll = Poll(servers, lanes, hints, nudges)
            for work in (nudges.listen(), poll.keep()):
                stack.push_async_callback(_cancel, asyncio.create_task(work))
            with suppress(TimeoutError):  # then what it hears later is all that it hears
                async with asyncio.timeout(CONNECT_SECONDS):
                    await nudges.hearing.wait()
            replicas = RedisReplicas(instance, servers, lanes, hints, nudges)
            return cls(servers, nudges.hub, hints, lanes, channels, replicas, stack.pop_all())

    async def close(self) -> None:
        async with self._closing:
            if self._open:
                self._open = False
                await self._lanes.finish()
                await self._admissions.close()
                await self._hints.written()
            await self._resources.aclose()

    # ---- writing

    def submit(self, session_id: str, change: Change) -> asyncio.Future[Outcome]:
        if not self._open:
            future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            future.set_exception(StoreUnavailable("the store is closed"))
            return future
        return self._lanes.submit(session_id, change)

    async def create(
        self, record: Record, key: IdempotencyKey | None = None, limit: TenantLimit | None = None
    ) -> Created:
        self._check_open()
        if key:
            return await self._create_once(record, key, limit)
        return await self._admitted(record, "", limit)

    async def _create_once(self, record: Record, key: IdempotencyKey, limit: TenantLimit | None) -> Created:
        """The key is bound to an id first. Who comes later under it makes the session, if the first did not live to."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + CREATING_SECONDS
        binding = binding_key(key.key)
        milliseconds = max(1, int((key.expires_at - record.request.created_at) * 1000))
        replaced = ""
        while True:
            bound, fingerprint = await self._servers.call(
                BIND(
                    (binding,),
                    key.fingerprint,
                    record.session_id,
                    key.expires_at,
                    record.request.created_at,
                    milliseconds,
                    replaced,
                )
            )
            session_id, same = bound.decode(), fingerprint == key.fingerprint
            known = await self.load(session_id) if session_id != record.session_id else None
            if known:
                return Created(known, fresh=False, same_request=same)
            if same:
                return await self._admitted(replace(record, session_id=session_id), key.key, limit)
            if loop.time() > give_up:
                replaced = session_id
            else:
                await asyncio.sleep(CREATING_SECONDS / 20)

    async def _admitted(self, record: Record, key: str, limit: TenantLimit | None) -> Created:
        if limit:
            await self._admissions.admit(record.session_id, limit, record.request.tenant)
        return await self._lanes.run(record.session_id, partial(self._create, record, key))

    async def _create(self, record: Record, key: str) -> Created:
        session_id = record.session_id
        # Before the session: a live one always stands in the index.
        await self._servers.call(command("ZADD", LIVE, record.request.created_at, session_id))
        keys = session_keys(session_id)
        reply = await self._servers.call(
            CREATE(
                (keys.head, keys.log),
                os.urandom(8),
                encode(record.request),
                encode(record.head),
                key,
                encode(briefly(record.request)),
            )
        )
        if reply == 1:
            self._hints.created(record)
            return Created(record, fresh=True)
        request, head, made_by = reply
        known = record_of(session_id, request, head)
        return Created(known, fresh=False, same_request=bool(key) and made_by == key.encode())

    async def metered(self, tenant: str) -> list[Record]:
        self._check_open()
        return await self._admissions.metered(tenant)

    async def settle(self, record: Record, tokens: int, day: int) -> None:
        self._check_open()
        await self._admissions.settle(record, tokens, day)

    async def settled(self, tenant: str, day: int) -> int:
        self._check_open()
        return await self._admissions.settled(tenant, day)

    async def delete(self, session_id: str) -> bool:
        self._check_open()
        return await self._lanes.run(session_id, partial(self._delete, session_id))

    async def _delete(self, session_id: str) -> bool:
        known = await briefs(self._servers, [session_id])
        reply = await self._servers.call(self._drop(session_id, ""))
        if not isinstance(reply, bytes):
            return False
        for record in known:
            await self._admissions.over(session_id, record.request.tenant)
        await self._dropped(session_id, reply)
        return True

    def _drop(self, session_id: str, ended_before: float | str) -> Command:
        keys = session_keys(session_id)
        news = f"{DROPPED} {self._instance}"
        return DROP((keys.head, keys.log), ended_before, self._channels.log(session_id), news)

    async def _dropped(self, session_id: str, key: bytes) -> None:
        self._hub.gone(session_id)
        self._hints.dropped(session_id)
        if key:
            await self._servers.call(UNBIND((binding_key(key.decode()),), session_id))

    async def expire(self, ended_before: float) -> int:
        self._check_open()
        await self._hints.written()
        total = 0
        while True:
            due = command("ZRANGE", ENDED, "-inf", f"({ended_before}", "BYSCORE", "LIMIT", 0, EXPIRE_SESSIONS)
            names = [blob.decode() for blob in await self._servers.read(due)]
            replies = await self._servers.call_all([self._drop(name, ended_before) for name in names])
            for name, reply in zip(names, replies, strict=True):
                if isinstance(checked(reply), bytes):
                    self._lanes.forget(name)
                    await self._dropped(name, reply)
                    total += 1
                elif reply == 0:  # its end was rolled back: the sweep puts it where it belongs
                    await self._servers.call(command("ZADD", LIVE, "NX", ended_before, name))
            if names:
                await self._servers.call(command("ZREM", ENDED, *names))
            if len(names) < EXPIRE_SESSIONS:
                break
        for index in (OFFERS, HOLDS):
            await self._servers.call(command("ZREMRANGEBYSCORE", index, "-inf", f"({ended_before}"))
        await self._servers.call(command("ZREMRANGEBYRANK", OFFERS, 0, -MAX_OFFERED - 1))
        return total

    async def offer(self, instance: str, agents: Iterable[str], now: float) -> None:
        self._check_open()
        offers = [argument for agent in agents for argument in (now, agent)]
        # Without agents, a write that changes nothing: who offers learns whether the store answers.
        nothing = command("ZREMRANGEBYSCORE", OFFERS, "(0", 0)
        await self._servers.call(command("ZADD", OFFERS, "GT", *offers) if offers else nothing)

    async def hold(self, hold: Hold) -> None:
        self._check_open()
        await self._servers.call(command("ZADD", HOLDS, hold.ends_at, encode(hold)))

    async def lift(self, hold_id: str) -> bool:
        self._check_open()
        blobs = await self._servers.read(command("ZRANGE", HOLDS, 0, -1))
        named = [blob for blob in blobs if hold_of(blob).hold_id == hold_id]
        return bool(named and await self._servers.call(command("ZREM", HOLDS, *named)))

    # ---- reading

    async def load(self, session_id: str) -> Record | None:
        self._check_open()
        return await self._lanes.read(session_id)

    async def brief(self, session_id: str) -> Record | None:
        self._check_open()
        return next(iter(await briefs(self._servers, [session_id])), None)

    async def read(self, session_id: str, after: int, limit: int) -> LogPart:
        self._check_open()
        recent = self._hub.recent(session_id, after, limit)
        if recent is not None:
            return recent
        log, blobs, size = session_keys(session_id).log, list[bytes](), 0
        while True:
            count = min(limit - len(blobs), CHUNK)
            found = await self._servers.read(LOG_PART((log,), after + len(blobs) + 1, count, READ_BYTES - size))
            blobs += found
            size += sum(map(len, found))
            if size >= READ_BYTES or len(found) < count or len(blobs) == limit:
                return part_of(((entry_of(blob), len(blob)) for blob in blobs), limit)

    def follow(self, session_id: str) -> AbstractContextManager[Follower]:
        return self._hub.follow(session_id)

    async def select(self, states: Iterable[State], limit: int) -> list[Record]:
        return await self._chosen(frozenset(states), limit, newest=False, before=None)

    async def page(self, states: Iterable[State], limit: int, before: Place | None = None) -> list[Record]:
        return await self._chosen(frozenset(states), limit, newest=True, before=before)

    async def _chosen(
        self, wanted: frozenset[State], limit: int, *, newest: bool, before: Place | None
    ) -> list[Record]:
        self._check_open()
        await self._hints.written()
        found: list[Place] = []
        if live := wanted & LIVE_STATES:
            found += await self._in_states(LIVE, live, None, newest, before)
        if ended := wanted - LIVE_STATES:
            found += await self._in_states(ENDED, ended, limit, newest, before)
        chosen = [session_id for _, session_id in sorted(found, reverse=newest)[:limit]]
        return [record for record in await briefs(self._servers, chosen) if record.head.state in wanted]

    async def _in_states(
        self, index: bytes, states: frozenset[State], limit: int | None, newest: bool, before: Place | None
    ) -> list[Place]:
        """The first `limit` in the order of the index, or the last."""
        found: list[Place] = []
        ordered = command("ZRANGE", index, 0, -1, *(["REV"] if newest else []))
        if limit is not None and before is not None:  # of an index that has the order of places
            ordered = command("ZRANGE", index, before[0], "-inf", "BYSCORE", "REV")
        names = [blob.decode() for blob in await self._servers.read(ordered)]
        for part in chunks(names, CHUNK):
            for session_id, blob in zip(part, await heads(self._servers, part), strict=True):
                head = readable(session_id, blob)
                if head is None or head.state not in states:
                    continue
                at = place(session_id, head) if newest else (head.since, session_id)
                if before is None or at < before:
                    found.append(at)
            if limit is not None and len(found) >= limit:
                break
        return found

    async def offered(self, since: float) -> list[str]:
        self._check_open()
        latest = command("ZRANGE", OFFERS, "+inf", since, "BYSCORE", "REV", "LIMIT", 0, MAX_OFFERED)
        found = await self._servers.read(latest)
        return sorted(agent.decode() for agent in found)

    async def holds(self, now: float) -> list[Hold]:
        self._check_open()
        found = await self._servers.read(command("ZRANGE", HOLDS, f"({now}", "+inf", "BYSCORE"))
        return [hold_of(blob) for blob in found]

    def _check_open(self) -> None:
        if not self._open:
            raise StoreUnavailable("the store is closed")


async def _connect(address: RedisAddress) -> Servers:
    info = await ask_server(address)
    check_server(address, info)
    is_cluster = info.get("cluster_enabled") == "1"
    await check_rights(address, is_cluster)
    return await Cluster.open(address) if is_cluster else Server(address.connection, address.replicas)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])

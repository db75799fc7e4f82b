"""Which sessions each tenant has begun, for its limits: counted in one step before the session is made.

Who lives is not told here when a session ends: a tenant that seems to have too many is looked at, session by session,
and what is over is taken out. So nothing that is lost, on either side, is ever counted for good.
"""

import asyncio
import time

from dispatcher.core.log import Record
from dispatcher.core.tenant_limits import MINUTE, OverLimit, TenantLimit, after, check_tokens
from dispatcher.store.redis.keys import tenant_keys
from dispatcher.store.redis.pipeline import Argument
from dispatcher.store.redis.replicas import briefs, heads, readable
from dispatcher.store.redis.scripts import ADMIT, SETTLE, command
from dispatcher.store.redis.server import Servers

MAKING_SECONDS = 30.0  # in which a session that was admitted has been made, or never will be
# For each session that was looked at in vain, until the tenant's are looked at again: ten times what that takes, so
# that a tenant at its limit, whatever it asks, costs the server a tenth of its time at most.
QUIET_SECONDS_EACH = 50e-6


class Admissions:
    """Between all instances that share the servers."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._looks: dict[str, asyncio.Task[None]] = {}  # by tenant: under way
        self._quiet: set[str] = set()  # tenants of whom it is known that too many live

    async def close(self) -> None:
        """Return when nothing is under way."""
        if self._looks:
            await asyncio.wait(self._looks.values())

    async def admit(self, session_id: str, limit: TenantLimit, tenant: str) -> None:
        """Count the session; one that is counted already is not counted again. Raises OverLimit, StoreUnavailable."""
        check_tokens(limit, time.time())
        if not await self._admitted(session_id, limit, tenant):
            if tenant not in self._quiet:
                await self._look(tenant)
            if not await self._admitted(session_id, limit, tenant):
                raise OverLimit("too_many_sessions")
        if limit.tokens_per_day is not None:
            at = int(time.time() * 1000)
            await self._servers.call(command("ZADD", tenant_keys(tenant).metered, "NX", at, session_id))

    async def metered(self, tenant: str) -> list[Record]:
        """As `ports.Store` has it. Those that were never made are taken out."""
        key = tenant_keys(tenant).metered
        counted = await self._servers.read(command("ZRANGE", key, 0, -1, "WITHSCORES"))
        since = {name.decode(): float(at) / 1000 for name, at in zip(counted[::2], counted[1::2], strict=True)}
        found = await briefs(self._servers, list(since))
        missing = since.keys() - {record.session_id for record in found}
        never_made = [each for each in missing if since[each] < time.time() - MAKING_SECONDS]
        if never_made:
            await self._servers.call(command("ZREM", key, *never_made))
        return found

    async def settle(self, record: Record, tokens: int, day: int) -> None:
        keys = tenant_keys(record.request.tenant)
        await self._servers.call(SETTLE((keys.metered, keys.settled), record.session_id, tokens, day))

    async def settled(self, tenant: str, day: int) -> int:
        return int(await self._servers.read(command("HGET", tenant_keys(tenant).settled, day)) or 0)

    async def over(self, session_id: str, tenant: str) -> None:
        """It is dropped: who looks for it would wait whether it is made yet."""
        await self._servers.call(command("ZREM", tenant_keys(tenant).live, session_id))

    async def _admitted(self, session_id: str, limit: TenantLimit, tenant: str) -> bool:
        """False: too many live, as it seems. Raises OverLimit."""
        most: list[Argument] = [
            "" if each is None else each for each in (limit.sessions_at_once, limit.sessions_per_minute)
        ]
        keys = tenant_keys(tenant)
        wait = await self._servers.call(ADMIT((keys.live, keys.begun), session_id, *most, int(MINUTE * 1000)))
        if wait > 0:
            raise OverLimit("rate_limit_exceeded", after(wait / 1000))
        return bool(wait < 0)

    async def _look(self, tenant: str) -> None:
        """Take out what is over; those who come meanwhile wait for that. Raises StoreUnavailable."""
        if not (look := self._looks.get(tenant)):
            look = self._looks[tenant] = asyncio.create_task(self._take_out(tenant))
            look.add_done_callback(lambda _: self._looks.pop(tenant))
        await asyncio.wait({look})  # who leaves meanwhile does not end it for the others
        await look

    async def _take_out(self, tenant: str) -> None:
        live = tenant_keys(tenant).live
        counted = await self._servers.read(command("ZRANGE", live, 0, -1, "WITHSCORES"))
        since = {name.decode(): float(at) / 1000 for name, at in zip(counted[::2], counted[1::2], strict=True)}
        over = []
        for session_id, blob in zip(since, await heads(self._servers, since), strict=True):
            head = readable(session_id, blob)
            never_made = blob is None and since[session_id] < time.time() - MAKING_SECONDS
            if never_made or (head and head.final):
                over.append(session_id)
        if over:
            await self._servers.call(command("ZREM", live, *over))
        else:
            self._quiet.add(tenant)
            seconds = len(since) * QUIET_SECONDS_EACH
            asyncio.get_running_loop().call_later(seconds, self._quiet.discard, tenant)

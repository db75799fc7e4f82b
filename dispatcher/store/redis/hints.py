"""The indexes of sessions, as hints: written after the step that makes them true, and repaired by a sweep."""

import asyncio

import msgspec

from dispatcher.core.log import Head, Record, Refused, Request
from dispatcher.store.ports import StoreUnavailable
from dispatcher.store.redis.keys import ENDED, LIVE, QUEUE_KEYS, Channels
from dispatcher.store.redis.scripts import ENLIST, OVER, WITHDRAW, Command, command
from dispatcher.store.redis.server import Servers

QUEUE = 20_000  # hints that may be due while Redis is away; what is beyond is left to the sweep
FOR_GOOD = float("inf")


class News(msgspec.Struct, frozen=True, array_like=True):
    """What the channel of the waiting sessions carries. since: 0: it does not wait any more."""

    instance: str
    session_id: str
    agent: str = ""
    since: float = 0.0
    tenant: str = ""


encode_news = msgspec.msgpack.Encoder().encode
decode_news = msgspec.msgpack.Decoder(News).decode


class Hints:
    """Writes them in order, one pipeline at a time."""

    def __init__(self, servers: Servers, channels: Channels, instance: str) -> None:
        self._servers, self._channels, self._instance = servers, channels, instance
        self._due: list[Command] = []
        self._writing: asyncio.Task[None] | None = None

    # ---- what is due

    def stepped(self, session_id: str, request: Request, before: Head, after: Head) -> None:
        """A step has changed the session's head."""
        waited = before.state == "waiting"
        if after.state == "waiting" and (not waited or after.since != before.since):
            self._add(self.enlist(Record(session_id, request, after)))
        elif waited and after.state != "waiting":
            self._add(self.withdraw(session_id, before.since))
        if after.complete and not before.complete:
            self._add(OVER((LIVE, ENDED), session_id, after.ended_at))
        elif after.final and not before.final:
            self._add(command("ZADD", ENDED, after.ended_at, session_id))

    def created(self, record: Record) -> None:
        if record.head.state == "waiting":
            self._add(self.enlist(record))

    def not_waiting(self, session_id: str, head: Head | None, refused: Refused) -> None:
        """An assignment was refused: the session stands among the waiting by mistake."""
        if refused.code in ("not_waiting", "unknown_session"):
            self._add(self.withdraw(session_id, head.since if head and not head.final else FOR_GOOD))

    def dropped(self, session_id: str) -> None:
        self._add(command("ZREM", LIVE, session_id))
        self._add(command("ZREM", ENDED, session_id))

    def enlist(self, record: Record) -> Command:
        session_id, since, agent, tenant = (
            record.session_id,
            record.head.since,
            record.request.wanted,
            record.request.tenant,
        )
        news = encode_news(News(self._instance, session_id, agent, since, tenant))
        return ENLIST(QUEUE_KEYS, session_id, since, agent, self._channels.waiting, news, tenant)

    def withdraw(self, session_id: str, until: float) -> Command:
        """until: if it waits since then or earlier: it may wait again by now."""
        news = encode_news(News(self._instance, session_id))
        return WITHDRAW(QUEUE_KEYS, session_id, until, self._channels.waiting, news)

    # ---- writing

    def _add(self, due: Command) -> None:
        if len(self._due) < QUEUE:
            self._due.append(due)
        self.write()

    def write(self) -> None:
        """Begin to write what is due, unless that is under way."""
        if self._due and not self._writing:
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._due:
                batch, self._due = self._due, []
                replies = await self._servers.call_all(batch)
                failed = [due for due, reply in zip(batch, replies, strict=True) if isinstance(reply, StoreUnavailable)]
                if failed:
                    self._due[:0] = failed
                    return  # until somebody asks again, a second later
        finally:
            self._writing = None

    async def written(self) -> None:
        """Return when what is due now has been written, or has been tried."""
        if self._writing:
            await asyncio.wait([self._writing])

"""News of what other instances write, over one subscription of this process."""

import asyncio
import math
from collections.abc import Callable

import structlog
from redis.asyncio.connection import AbstractConnection

from dispatcher.store.followers import Hub
from dispatcher.store.ports import Listener, Waiting
from dispatcher.store.redis.hints import decode_news
from dispatcher.store.redis.keys import Channels
from dispatcher.store.redis.pipeline import REPLY_SECONDS, connect, pack, together
from dispatcher.store.redis.server import Servers

AGAIN_SECONDS = 0.2  # until the next attempt to subscribe
LOOK_SECONDS = 1.0  # between two looks for what was lost (`poll`): a lost nudge delays a reader by no more (rule 37)
TURN_REPLIES = 16  # that are taken in one turn of the loop
DROPPED = -1  # in place of an offset: the session is gone

logger = structlog.get_logger()


class Deaf:
    """`Listener` of a store that nobody listens to."""

    def enlisted(self, waiting: Waiting) -> None: ...
    def withdrawn(self, session_id: str) -> None: ...
    def grown(self, session_id: str) -> None: ...


class Nudges:
    """listener: hears of what concerns this instance. hub: has its followers, and says which sessions they follow.
    kept: whether others say on this instance's own channel what they write to a session. Then nobody subscribes to the
    session's, on which this instance would hear of nothing but its own steps: a third of what each cost it.

    hearing: everything is subscribed to. look: set when that begins, for news were lost until then.
    """

    def __init__(self, servers: Servers, channels: Channels, instance: str) -> None:
        self.listener: Listener = Deaf()
        self.kept: Callable[[str], bool] = lambda _: False
        self.hub = Hub(self.followed)
        self._servers, self._channels = servers, channels
        self._instance = instance
        self.hearing = asyncio.Event()
        self.look = asyncio.Event()
        self._own = channels.instance(instance)
        self._dirty: set[str] = set()  # sessions whose followers have come or gone
        self._changed = asyncio.Event()
        self._deaf_at, self._reason = self._now(), "not subscribed yet"
        self._channels_now: dict[bytes, str] = {}  # subscribed to: channel → session
        self._replies = 0

    @property
    def trouble(self) -> str:
        """Why nothing is heard of other instances, and has not been for longer than a look makes up for; or empty."""
        deaf = not self.hearing.is_set() and self._now() - self._deaf_at > LOOK_SECONDS
        return self._reason if deaf else ""

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def grown(self, session_id: str) -> None:
        """Another instance changed a session that this one has or had, or for which it runs a tool."""
        self.hub.missed(session_id)
        self.listener.grown(session_id)

    def followed(self, session_id: str) -> None:
        """The session's first follower has come, or its last has gone; or this instance keeps it from now on, or no
        longer.
        """
        self._dirty.add(session_id)
        self._changed.set()

    async def listen(self) -> None:
        """Until cancelled."""
        while True:
            self._servers.changed.clear()
            connection = self._servers.listening()
            try:
                await connect(connection)
                self._channels_now.clear()
                self._dirty.update(self.hub.followed())
                self._changed.set()
                works = (self._read, self._subscribe, self._ping, self._until_changed)
                await together(*(work(connection) for work in works))
            except Exception as error:  # whatever it is, a new connection is the remedy
                self._lost(str(error) or "no answer in time")
            finally:
                self.hearing.clear()
                await connection.disconnect(nowait=True)
            await asyncio.sleep(AGAIN_SECONDS)

    def _lost(self, reason: str) -> None:
        if self.hearing.is_set():
            self._deaf_at, self._reason = self._now(), ""
        if reason != self._reason:
            logger.warning("subscription_lost", reason=reason)
        self._reason = reason

    async def _subscribe(self, connection: AbstractConnection) -> None:
        packed = [pack("SUBSCRIBE", self._own, self._channels.waiting)]
        first = True
        while True:
            await self._changed.wait()
            self._changed.clear()
            dirty, self._dirty = self._dirty, set()
            come, gone = [], []
            for session_id in dirty:
                channel = self._channels.log(session_id)
                wanted = session_id in self.hub and not self.kept(session_id)
                if wanted and channel not in self._channels_now:
                    self._channels_now[channel] = session_id
                    come.append(channel)
                elif not wanted and self._channels_now.pop(channel, ""):
                    gone.append(channel)
            packed += [pack("SUBSCRIBE", *come)] if come else []
            packed += [pack("UNSUBSCRIBE", *gone)] if gone else []
            packed += [pack("PING", "subscribed")] if first else []
            await connection.send_packed_command(packed, check_health=False)
            packed, first = [], False

    async def _ping(self, connection: AbstractConnection) -> None:
        while True:
            replies = self._replies
            await connection.send_packed_command(pack("PING"), check_health=False)
            await asyncio.sleep(REPLY_SECONDS)
            if self._replies == replies:
                raise TimeoutError

    async def _until_changed(self, _: AbstractConnection) -> None:
        await self._servers.changed.wait()
        raise ConnectionResetError("the server has changed")

    async def _read(self, connection: AbstractConnection) -> None:
        while True:
            reply = await connection.read_response(disable_decoding=True, timeout=math.inf)
            self._replies += 1
            if self._replies % TURN_REPLIES == 0:
                await asyncio.sleep(0)  # what has come already is read without waiting
            match reply:
                case [b"message", channel, payload]:
                    try:
                        self._heard(channel, payload)
                    except Exception:
                        logger.exception("news_not_taken")
                case [b"subscribe", channel, _] if channel in self._channels_now:
                    self.hub.missed(self._channels_now[channel])
                case [b"pong", b"subscribed"]:
                    self.hearing.set()
                    self.look.set()

    def _heard(self, channel: bytes, payload: bytes) -> None:
        if channel == self._own:
            self.grown(payload.decode())
        elif channel == self._channels.waiting:
            news = decode_news(payload)
            if news.instance == self._instance:
                return
            if news.since:
                self.listener.enlisted(Waiting(news.session_id, news.agent, news.since, news.tenant))
            else:
                self.listener.withdrawn(news.session_id)
        elif session_id := self._channels_now.get(channel):
            offset, instance = payload.split()
            if instance.decode() == self._instance:
                return  # its own answer tells
            if int(offset) == DROPPED:
                self.hub.gone(session_id)
            else:
                self.hub.heard(session_id, int(offset))

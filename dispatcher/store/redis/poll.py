"""What finds the news that were lost: a look at each session that is followed here, or that this instance has."""

import asyncio
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import TypeVar

import structlog

from dispatcher.store.ports import StoreUnavailable
from dispatcher.store.redis.hints import Hints
from dispatcher.store.redis.keys import KEPT, session_keys
from dispatcher.store.redis.lanes import Lanes
from dispatcher.store.redis.nudges import LOOK_SECONDS, Nudges
from dispatcher.store.redis.scripts import Command, command
from dispatcher.store.redis.server import Servers, checked

CHUNK = 250  # commands of a poll in one go: appends and the event loop's other work come between

T = TypeVar("T")
logger = structlog.get_logger()


class Poll:
    """Looks at what is followed and at what this instance has, a second after it last did."""

    def __init__(self, servers: Servers, lanes: Lanes, hints: Hints, nudges: Nudges) -> None:
        self._servers, self._lanes, self._hints, self._nudges = servers, lanes, hints, nudges

    async def keep(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._nudges.look.wait()
            except TimeoutError:
                pass
            self._nudges.look.clear()
            self._hints.write()
            try:
                await self._followed()
                await self._owned()
            except StoreUnavailable:
                continue  # others say so
            except Exception:
                logger.exception("poll_failed")

    async def _followed(self) -> None:
        for part in chunks(self._nudges.hub.followed(), CHUNK):
            lengths = await self._servers.read_all([_length(name) for name in part])
            for session_id, length in zip(part, lengths, strict=True):
                self._nudges.hub.counted(session_id, checked(length))

    async def _owned(self) -> None:
        for part in chunks(list(self._lanes.owned()), CHUNK):
            tokens = await self._servers.read_all([_token(session_id) for session_id, _ in part])
            changed = {
                session_id: known
                for (session_id, known), token in zip(part, tokens, strict=True)
                if checked(token) != known.token
            }
            if changed:
                still = {session_id for session_id, known in self._lanes.owned() if changed.get(session_id) is known}
                for session_id in still:
                    await self._look_again(session_id)

    async def _look_again(self, session_id: str) -> None:
        if await self._lanes.read(session_id) is None:
            self._lanes.forget(session_id)
        self._nudges.grown(session_id)


# Asked each second of each session.
@lru_cache(maxsize=KEPT)
def _length(session_id: str) -> Command:
    return command("XLEN", session_keys(session_id).log)


@lru_cache(maxsize=KEPT)
def _token(session_id: str) -> Command:
    return command("HGET", session_keys(session_id).head, "token")


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part

"""What a store needs of an instance now and then: the agents' names, old logs out of it, a look whether it is there."""

import asyncio
import time
from collections.abc import Callable, Iterable
from itertools import islice

import structlog

from dispatcher.store.ports import Store, StoreUnavailable

logger = structlog.get_logger()

OFFER_SECONDS = 2.0  # how often the agents' names are kept in the store: also the check that it can be reached
EXPIRE_SECONDS = 60.0
MAX_NAMES = 1000  # of agents that wait to be kept; what is left out is kept by the next regular step


class Upkeep:
    """agents: the names that are offered here now. trouble: why the store cannot be used; empty: it can."""

    def __init__(
        self, store: Store, instance: str, agents: Callable[[], Iterable[str]], retention_seconds: float
    ) -> None:
        self._store, self._instance, self._agents = store, instance, agents
        self._retention_seconds = retention_seconds
        self.trouble = ""
        self._soon: set[str] = set()  # names that wait for the step under way
        self._stepping = False

    async def keep(self) -> None:
        """For as long as the instance lives."""
        expired = 0.0
        while True:
            now = time.time()
            try:
                await self.offer(self._agents())
                if now - expired >= min(EXPIRE_SECONDS, self._retention_seconds):
                    expired = now
                    await self._store.expire(now - self._retention_seconds)
                self.trouble = ""
            except StoreUnavailable as error:
                trouble = f"store unavailable: {error}"  # of names and ages alone: nothing of a user stands in it
                if trouble != self.trouble:
                    logger.warning("store_unavailable", reason=str(error))
                self.trouble = trouble
            await asyncio.sleep(OFFER_SECONDS)

    async def offer(self, agents: Iterable[str]) -> None:
        """Keep in the store that these were offered now. Raises StoreUnavailable."""
        await self._store.offer(self._instance, agents, time.time())

    async def offer_soon(self, agents: Iterable[str]) -> None:
        """A Commander that offers these has come, or is gone. One step at a time, however many come and go. Where the
        store is away, `keep` tries again.
        """
        self._soon.update(islice(agents, MAX_NAMES - len(self._soon)))
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._soon:
                names, self._soon = sorted(self._soon), set()
                await self.offer(names)
        except StoreUnavailable:
            self._soon.clear()
        finally:
            self._stepping = False

"""Two instances on one Redis, and what may come between them and it, for the tests of the Redis store."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import pytest

from dispatcher.core.log import Acquire, Assign
from dispatcher.store.factory import open_store
from dispatcher.store.ports import Store, StoreMisconfigured, StoreUnavailable, Waiting
from tests.contracts.sessions import head_of, waiting
from tests.redis_servers import RedisServer
from tests.sockets import dialled, listening

SECONDS = 60  # no wait in these tests takes longer


class Ears:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.grew: list[str] = []
        self.waiting: list[str] = []

    def enlisted(self, waiting: Waiting) -> None:
        self.waiting.append(waiting.session_id)

    def withdrawn(self, session_id: str) -> None:
        self.waiting.remove(session_id)

    def grown(self, session_id: str) -> None:
        self.grew.append(session_id)


def url(server: RedisServer, query: str = "") -> str:
    return f"redis://{server.address}/0{query}"


@contextlib.asynccontextmanager
async def opened(url: str, ears: Ears | None = None) -> AsyncIterator[Store]:
    store = await open_store(url)
    if ears and store.replicas:
        store.replicas.listen(ears)
    try:
        yield store
    finally:
        await store.close()


async def refused(url: str) -> str:
    """The one line for which the store does not start. A password has "secret" in it."""
    with pytest.raises(StoreMisconfigured) as caught:
        await open_store(url)
    line = str(caught.value)
    assert "secret" not in line
    assert "\n" not in line
    return line


def instance(store: Store) -> str:
    assert store.replicas
    return store.replicas.instance


async def owned(store: Store, session_id: str = "s") -> int:
    """A session that this instance has, on a stream; its epoch."""
    await store.create(waiting(session_id))
    head_of(await store.submit(session_id, Assign("c1", instance(store), False, 105.0)))
    return head_of(await store.submit(session_id, Acquire("c1", 1, instance(store), 106.0))).epoch


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.01)


async def answered(ask: Callable[[], Awaitable[object]]) -> list[str]:
    """Ask until the store answers; what it said until then."""
    said: list[str] = []
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                await ask()
            except StoreUnavailable as error:
                said.append(str(error))
                await asyncio.sleep(0.02)
            else:
                return said


class Switch:
    """An address that leads to one server after another; connections stay with the one that they came to.

    open: cleared, nothing passes any more, and nobody is told.
    """

    def __init__(self, server: RedisServer) -> None:
        self.server, self.port = server, 0
        self.open = asyncio.Event()
        self.open.set()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        async with listening(self._forward) as self.port:
            yield f"redis://127.0.0.1:{self.port}/0"

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with dialled(self.server.port) as onwards:
            ways = [asyncio.create_task(self._carry(*way)) for way in ((reader, onwards[1]), (onwards[0], writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await cancelled(ways)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self.open.wait()
                writer.write(data)


async def cancelled(tasks: Iterable[asyncio.Task[None]]) -> None:
    every = list(tasks)
    for task in every:
        task.cancel()
    await asyncio.gather(*every, return_exceptions=True)

"""One Redis server: what is asked of it, and what its errors mean."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError, OutOfMemoryError, ReadOnlyError, ResponseError

from dispatcher.store.ports import StoreUnavailable
from dispatcher.store.redis.pipeline import Make, Pipeline, Reply
from dispatcher.store.redis.scripts import Command


class Servers(Protocol):
    """Where commands go: one server, or a cluster.

    changed: set when a server was given up: who listens may listen to one that nobody writes to any more.
    """

    changed: asyncio.Event

    async def close(self) -> None: ...

    def send(self, command: Command) -> asyncio.Future[list[Reply]]:
        """Send what writes, once. Its one reply may be a ResponseError: then nothing has come of it, and `call` knows
        what to do. Fails with StoreUnavailable: the outcome is unknown.
        """

    async def call(self, command: Command) -> Reply:
        """Carry out what writes. Raises StoreUnavailable: the outcome is unknown."""

    async def call_all(self, commands: Sequence[Command]) -> list[Reply]:
        """Many, in one go. A StoreUnavailable stands in place of a reply."""

    async def read(self, command: Command) -> Reply:
        """Carry out what only reads, apart from what writes: a long answer delays no append. Raises StoreUnavailable"""

    async def read_all(self, commands: Sequence[Command]) -> list[Reply]:
        """Many, in one go. A StoreUnavailable stands in place of a reply."""

    def listening(self) -> AbstractConnection:
        """A connection of its own, not open yet, to hear what is published."""


class Pipelines:
    """The connections to one server. lost: called when the one for writing was given up."""

    def __init__(self, make: Make, replicas: int, lost: Callable[[], None]) -> None:
        self.reads = Pipeline(make)
        self.writes = Pipeline(make, replicas, self._write_lost)
        self._lost = lost

    def _write_lost(self) -> None:
        self.reads.reset()  # whatever has become of the server, what can be read there is of old too
        self._lost()

    def reset(self) -> None:
        self.writes.reset()
        self.reads.reset()

    async def close(self) -> None:
        await self.writes.close()
        await self.reads.close()


class Server:
    """`Servers`, of one server."""

    def __init__(self, make: Make, replicas: int = 0) -> None:
        self.changed = asyncio.Event()
        self._make, self._node = make, Pipelines(make, replicas, self.changed.set)

    async def close(self) -> None:
        await self._node.close()

    def send(self, command: Command) -> asyncio.Future[list[Reply]]:
        return self._node.writes.send((command.packed,))

    async def call(self, command: Command) -> Reply:
        return checked((await self._ask(self._node.writes, [command]))[0])

    async def call_all(self, commands: Sequence[Command]) -> list[Reply]:
        return await self._ask(self._node.writes, commands)

    async def read(self, command: Command) -> Reply:
        return checked((await self._ask(self._node.reads, [command]))[0])

    async def read_all(self, commands: Sequence[Command]) -> list[Reply]:
        return await self._ask(self._node.reads, commands)

    def listening(self) -> AbstractConnection:
        return self._make()

    async def _ask(self, pipeline: Pipeline, commands: Sequence[Command]) -> list[Reply]:
        try:
            replies = await ask(pipeline, commands)
        except StoreUnavailable as error:
            return [error] * len(commands)
        if any(isinstance(reply, ReadOnlyError) for reply in replies):
            self._node.reset()  # a failover: the address may lead to the new master by now
        return [unavailable(reply) if isinstance(reply, ResponseError) else reply for reply in replies]


async def ask(pipeline: Pipeline, commands: Sequence[Command]) -> list[Reply]:
    """The replies, errors among them. Raises StoreUnavailable."""
    replies = await pipeline.send([command.packed for command in commands])
    unknown = [n for n, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if unknown:
        again = await pipeline.send([commands[n].in_full() for n in unknown])
        for n, reply in zip(unknown, again, strict=True):
            replies[n] = reply
    return replies


def checked(reply: Reply) -> Reply:
    """Raises StoreUnavailable where it stands in place of a reply."""
    if isinstance(reply, StoreUnavailable):
        raise reply
    return reply


def unavailable(error: ResponseError) -> StoreUnavailable:
    match error:
        case OutOfMemoryError():
            return StoreUnavailable("Redis is full (maxmemory): nothing is kept until it has room")
        case ReadOnlyError():
            return StoreUnavailable("the Redis server is a replica now and takes no writes")
        case _:
            return StoreUnavailable(f"Redis refuses: {error}")

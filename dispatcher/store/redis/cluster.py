"""A Redis cluster: each command goes to the server that has its key's slot.

redis-py's own cluster client refuses scripts by their hash in pipelines and repeats what fails; here nothing is sent
twice but what a server has said that it did not carry out (MOVED, ASK, TRYAGAIN, NOSCRIPT).
"""

import asyncio
import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import structlog
from msgspec.structs import replace
from redis.asyncio.connection import AbstractConnection
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, ReadOnlyError, ResponseError, TryAgainError

from dispatcher.store.ports import StoreMisconfigured, StoreUnavailable
from dispatcher.store.redis.address import RedisAddress, ask_server, check_rights, check_server
from dispatcher.store.redis.pipeline import Reply, pack
from dispatcher.store.redis.scripts import Command
from dispatcher.store.redis.server import Pipelines, ask, checked, unavailable

REDIRECT_SECONDS = 2.0  # for a command; a slot that is on its way for longer makes it fail
TRY_AGAIN_SECONDS = 0.02  # between two attempts, while a slot is on its way
STAND_SECONDS = 10.0  # at start, for a cluster in which a replica is taking over
LOOK_SECONDS = 0.25  # at least, between two looks at who has which slot

logger = structlog.get_logger()


class Endpoint(NamedTuple):
    host: str
    port: int


class Cluster:
    """`dispatcher.store.redis.server.Servers`, from `open` on."""

    def __init__(self, address: RedisAddress) -> None:
        self.changed = asyncio.Event()
        self._address = address
        self._nodes: dict[Endpoint, Pipelines] = {}
        self._slots: list[Endpoint] = []
        self._known: set[Endpoint] = set()  # replicas too: one of them may be asked when masters are gone
        self._first = Endpoint(str(address.arguments.get("host", "")), int(address.arguments.get("port", 0)))
        self._looking: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, address: RedisAddress) -> "Cluster":
        """Raises StoreMisconfigured."""
        cluster = cls(address)
        try:
            await cluster._stand()
        except BaseException:
            await cluster.close()
            raise
        return cluster

    async def _stand(self) -> None:
        """Return when it is known who has which slot, and all of them can be used."""
        if not self._first.host:
            raise StoreMisconfigured(f"the store {self._address.shown} is a cluster: redis://HOST:PORT is needed")
        loop = asyncio.get_running_loop()
        give_up = loop.time() + STAND_SECONDS
        while not self._slots:
            try:
                await self._look()
            except StoreUnavailable as error:
                if loop.time() > give_up:
                    raise StoreMisconfigured(f"the store {self._address.shown} cannot be used: {error}") from None
                await asyncio.sleep(LOOK_SECONDS)
        for endpoint in set(self._slots):
            address = self._at(endpoint)
            check_server(address, await ask_server(address))
            await check_rights(address, cluster=True)

    async def close(self) -> None:
        if self._looking:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        for node in self._nodes.values():
            await node.close()

    def send(self, command: Command) -> asyncio.Future[list[Reply]]:
        return self._node(self._slots[key_slot(command.key)]).writes.send((command.packed,))

    async def call(self, command: Command) -> Reply:
        return checked((await self._ask([command], reading=False))[0])

    async def call_all(self, commands: Sequence[Command]) -> list[Reply]:
        return await self._ask(commands, reading=False)

    async def read(self, command: Command) -> Reply:
        return checked((await self._ask([command], reading=True))[0])

    async def read_all(self, commands: Sequence[Command]) -> list[Reply]:
        return await self._ask(commands, reading=True)

    def listening(self) -> AbstractConnection:
        """To any of the masters: what is published at one is heard at all."""
        return self._at(random.choice(self._slots)).connection()  # noqa: S311

    # ---- asking

    async def _ask(self, commands: Sequence[Command], reading: bool) -> list[Reply]:
        replies: list[Reply] = [None] * len(commands)
        due = list(range(len(commands)))
        loop = asyncio.get_running_loop()
        give_up = loop.time() + REDIRECT_SECONDS
        while due := await self._ask_each(commands, due, replies, reading):
            if loop.time() > give_up:
                break
        for n in due:
            replies[n] = StoreUnavailable("the Redis cluster is moving its slots")
        return replies

    async def _ask_each(
        self, commands: Sequence[Command], due: Sequence[int], replies: list[Reply], reading: bool
    ) -> list[int]:
        """Ask each server for its part; which commands are to be asked again."""
        parts: dict[Endpoint, list[int]] = {}
        for n in due:
            parts.setdefault(self._slots[key_slot(commands[n].key)], []).append(n)
        asked = [self._ask_one(endpoint, [commands[n] for n in part], reading) for endpoint, part in parts.items()]
        answers = [await asked[0]] if len(asked) == 1 else await asyncio.gather(*asked)  # mostly one: no task
        again: list[int] = []
        pause = False
        for (endpoint, part), answer in zip(parts.items(), answers, strict=True):
            for n, reply in zip(part, answer, strict=True):
                if type(reply) is AskError:  # this once; the slot is on its way there
                    reply = await self._ask_other(self._named(reply, endpoint), commands[n], reading)  # noqa: PLW2901
                if isinstance(reply, MovedError):
                    self._slots[reply.slot_id] = self._named(reply, endpoint)
                    self._look_soon()
                    again.append(n)
                elif isinstance(reply, TryAgainError):
                    pause = True
                    again.append(n)
                elif isinstance(reply, ResponseError):
                    if isinstance(reply, ClusterDownError | ReadOnlyError):
                        self._look_soon()
                    replies[n] = unavailable(reply)
                else:
                    replies[n] = reply
        if pause:
            await asyncio.sleep(TRY_AGAIN_SECONDS)
        return again

    async def _ask_one(self, endpoint: Endpoint, commands: Sequence[Command], reading: bool) -> list[Reply]:
        node = self._node(endpoint)
        try:
            return await ask(node.reads if reading else node.writes, commands)
        except StoreUnavailable as error:
            self._look_soon()  # another may have its slots by now
            return [error] * len(commands)

    async def _ask_other(self, endpoint: Endpoint, command: Command, reading: bool) -> Reply:
        node = self._node(endpoint)
        pipeline = node.reads if reading else node.writes
        try:
            return (await pipeline.send([pack("ASKING"), command.in_full()]))[1]
        except StoreUnavailable as error:
            return error

    def _node(self, endpoint: Endpoint) -> Pipelines:
        node = self._nodes.get(endpoint)
        if node is None:
            node = self._nodes[endpoint] = Pipelines(self._at(endpoint).connection, self._address.replicas, self._lost)
        return node

    def _lost(self) -> None:
        self.changed.set()
        self._look_soon()  # another may have its slots by now

    def _at(self, endpoint: Endpoint) -> RedisAddress:
        arguments = {**self._address.arguments, "host": endpoint.host, "port": endpoint.port}
        return replace(self._address, shown=f"{endpoint.host}:{endpoint.port}", arguments=arguments)

    def _named(self, redirection: AskError, by: Endpoint) -> Endpoint:
        """A server that does not know its own address leaves the host out."""
        return Endpoint(redirection.host or by.host, redirection.port)

    # ---- who has which slot

    def _look_soon(self) -> None:
        if not self._looking:
            self._looking = asyncio.get_running_loop().create_task(self._look_again())

    async def _look_again(self) -> None:
        try:
            await self._look()
        except StoreUnavailable as error:
            logger.debug("cluster_unknown", error=str(error))
        finally:
            await asyncio.sleep(LOOK_SECONDS)
            self._looking = None

    async def _look(self) -> None:
        """Learn it from whoever answers first and stands in a cluster that works. Raises StoreUnavailable."""
        asked = [asyncio.ensure_future(self._slots_at(endpoint)) for endpoint in {self._first, *self._known}]
        trouble = StoreUnavailable("no server of the Redis cluster answers")
        try:
            for answer in asyncio.as_completed(asked):
                try:
                    slots, known = await answer
                except StoreUnavailable as error:
                    trouble = error
                else:
                    await self._learn(slots, known)
                    return
        finally:
            for waiting in asked:
                waiting.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        raise trouble

    async def _slots_at(self, endpoint: Endpoint) -> tuple[list[Endpoint | None], set[Endpoint]]:
        state, reply = await self._node(endpoint).reads.send([pack("CLUSTER", "INFO"), pack("CLUSTER", "SLOTS")])
        for answer in (state, reply):
            if isinstance(answer, ResponseError):
                raise unavailable(answer)
        if b"cluster_state:ok" not in state:  # it may be cut off from the others, and what it knows be of old
            raise StoreUnavailable("the Redis cluster is down: a slot has no server, or most of its masters are gone")
        slots: list[Endpoint | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        known: set[Endpoint] = set()
        for first, last, *servers in reply:
            endpoints = [Endpoint((server[0] or b"").decode() or endpoint.host, server[1]) for server in servers]
            known.update(endpoints)
            slots[first : last + 1] = endpoints[:1] * (last + 1 - first)
        return slots, known

    async def _learn(self, slots: Iterable[Endpoint | None], known: set[Endpoint]) -> None:
        if None in (found := list(slots)):
            raise StoreUnavailable("the Redis cluster has slots that no server serves")
        self._slots, self._known = [endpoint for endpoint in found if endpoint], known
        for endpoint in set(self._nodes) - known - {self._first}:
            await self._nodes.pop(endpoint).close()

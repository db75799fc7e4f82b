"""One connection to a Redis server: commands go out as they come, replies come back in that order.

What redis-py does here is the connection itself: TLS, the handshake, parsing, the kinds of errors. Its pools and
pipelines would take a connection for each pipeline and repeat commands by themselves, which an append must not be.
coredis and valkey-glide share a connection as is done here; a command took them 8 and 2.5 times as long, and coredis
asks for the replicas' acknowledgement (WAIT) after each.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from dispatcher.store.ports import StoreUnavailable

CONNECT_SECONDS = 2.0  # the handshake included
REPLY_SECONDS = 5.0  # without a reply that is due, the connection is given up
PAUSE_SECONDS = 0.1  # after a failed connection nobody tries again that soon: thousands of sessions may ask
WAIT_MS = 1000  # for replicas to acknowledge a step (WAIT)

Argument: TypeAlias = bytes | str | int | float
Reply: TypeAlias = Any  # bytes, int, None, a list of these, or a ResponseError
Make: TypeAlias = Callable[[], AbstractConnection]  # a connection that is not open yet


def pack(*arguments: Argument) -> bytes:
    """A command as it goes over the wire. In C: a step's fifteen arguments took 17 % of its time here."""
    packed: bytes = hiredis.pack_command(arguments)  # type: ignore[arg-type] # its stub knows tuples of one only
    return packed


async def connect(connection: AbstractConnection) -> None:
    """Open it. Raises RedisError, OSError."""
    async with asyncio.timeout(CONNECT_SECONDS):
        await connection.connect()  # type: ignore[no-untyped-call]


async def together(*works: Coroutine[Any, Any, None]) -> None:
    """Run all of them until one ends; the others are cancelled. Raises what it raised.

    A TaskGroup that ends so leaves a cancellation in the task that it is in, and Python up to 3.11.2 (Debian 12's
    own) takes that for its own in every later `asyncio.timeout` there: the task would be cancelled in earnest.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()


class _Item:
    """Commands that were asked for together, and their replies so far. at: when they were sent."""

    __slots__ = ("at", "commands", "future", "replies")

    def __init__(self, commands: Sequence[bytes], future: asyncio.Future[list[Reply]]) -> None:
        self.commands, self.future = commands, future
        self.replies: list[Reply] = []
        self.at = math.inf

    def answer(self) -> None:
        if not self.future.done():
            self.future.set_result(self.replies)

    def fail(self, error: StoreUnavailable) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Pipeline:
    """Connects when something is to be sent, and again after a failure.

    replicas: so many must acknowledge what was written before it is answered. Then one batch is under way at a time,
    and what is asked meanwhile makes the next.
    lost: called when a connection was given up.
    """

    def __init__(self, make: Make, replicas: int = 0, lost: Callable[[], None] = lambda: None) -> None:
        self._make, self._replicas, self._lost = make, replicas, lost
        self._loop = asyncio.get_running_loop()
        self._queued: list[_Item] = []
        self._sent: deque[_Item] = deque()
        self._held: list[_Item] = []  # replied, and not acknowledged by the replicas yet
        self._wanted = asyncio.Event()
        self._settled = asyncio.Event()  # no batch is under way
        self._reset = asyncio.Event()
        self._retry_at, self._trouble = 0.0, ""
        self._serving = self._loop.create_task(self._serve())

    def send(self, commands: Sequence[bytes]) -> asyncio.Future[list[Reply]]:
        """The replies, in order; errors stand among them. Fails with StoreUnavailable: the outcome is unknown."""
        future: asyncio.Future[list[Reply]] = self._loop.create_future()
        if self._serving.done():
            future.set_exception(StoreUnavailable("the store is closed"))
        elif self._loop.time() < self._retry_at:
            future.set_exception(StoreUnavailable(self._trouble))
        elif commands:
            self._queued.append(_Item(commands, future))
            self._wanted.set()
        else:
            future.set_result([])
        return future

    def reset(self) -> None:
        """Connect anew: the address may lead to another server now."""
        self._reset.set()

    async def close(self) -> None:
        self._serving.cancel()
        await asyncio.wait([self._serving])
        self._fail("the store is closed")

    async def _serve(self) -> None:
        while True:
            await self._wanted.wait()
            connection = self._make()
            self._reset.clear()
            self._settled.set()
            connected = False
            try:
                await connect(connection)
                connected = True
                await together(self._read(connection), self._write(connection), self._watch(connection))
            except Exception as error:  # whatever it is, a new connection is the remedy
                self._fail(f"Redis does not answer: {str(error) or 'no connection in time'}")
                if connected:
                    self._lost()
                else:
                    self._retry_at = self._loop.time() + PAUSE_SECONDS
            finally:
                await connection.disconnect(nowait=True)

    def _fail(self, trouble: str) -> None:
        self._trouble = trouble
        items = [*self._held, *self._sent, *self._queued]
        self._held, self._queued = [], []
        self._sent.clear()
        self._wanted.clear()
        for item in items:
            item.fail(StoreUnavailable(trouble))

    async def _write(self, connection: AbstractConnection) -> None:
        while True:
            await self._wanted.wait()
            await self._settled.wait()
            self._wanted.clear()
            items, self._queued = self._queued, []
            if items and self._replicas:
                self._settled.clear()
                items.append(_Item([pack("WAIT", self._replicas, WAIT_MS)], self._loop.create_future()))
            now = self._loop.time()
            for item in items:
                item.at = now
            self._sent += items
            commands = [command for item in items for command in item.commands]
            await connection.send_packed_command(commands, check_health=False)

    async def _read(self, connection: AbstractConnection) -> None:
        while True:
            reply: Reply
            try:
                reply = await connection.read_response(disable_decoding=True, timeout=math.inf)
            except ResponseError as error:
                reply = error
            item = self._sent[0]
            item.replies.append(reply)
            if len(item.replies) == len(item.commands):
                self._sent.popleft()
                self._replied(item)

    def _replied(self, item: _Item) -> None:
        if not self._replicas:
            item.answer()
        elif self._sent:
            self._held.append(item)
        else:  # the batch's WAIT
            acknowledged = item.replies[0]
            if isinstance(acknowledged, ResponseError):  # the server is a replica itself by now
                raise acknowledged
            held, self._held = self._held, []
            self._settled.set()
            for written in held:
                if acknowledged >= self._replicas:
                    written.answer()
                else:
                    written.fail(StoreUnavailable(f"of {self._replicas} Redis replicas, {acknowledged} have answered"))

    async def _watch(self, _: AbstractConnection) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(REPLY_SECONDS / 10):
                    await self._reset.wait()
            if self._reset.is_set():
                raise ConnectionResetError("the connection was given up, for the server has changed")
            if self._sent and self._loop.time() - self._sent[0].at > REPLY_SECONDS:
                raise TimeoutError(f"no reply within {REPLY_SECONDS:g} s")

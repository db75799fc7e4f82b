"""Listens, and keeps the connections, in the loop that grpc.aio runs in."""

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import partial

import structlog
from starlette.types import ASGIApp

from dispatcher.gateway import limits
from dispatcher.gateway.connection import Connection
from dispatcher.gateway.exchange import Exchange
from dispatcher.gateway.handshake import Handshake, Peer
from shared.addresses import split_address
from shared.errors import ConfigError

logger = structlog.get_logger()

# Connections taken in one turn of the loop. uvloop's `create_server` takes one: behind a thousand new event streams,
# each of which makes the turns longer, an honest user was taken after seconds.
ACCEPTS = 32
ACCEPT_AGAIN_SECONDS = 1.0  # as asyncio waits
CLOSE_SECONDS = 2  # for answers that are under way; event streams have ended before, by `Sessions.closing`


def bind(setting: str, address: str) -> socket.socket:
    """Listen on `host:port`, before anything is served. Raises ConfigError naming the setting."""
    host, port = split_address(address)
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"{setting}: cannot listen on {address}: {_reason(error)}") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(target)
        listening.listen(limits.BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigError(f"{setting}: cannot listen on {address}: {_reason(error)}") from error
    return listening


def _reason(error: OSError) -> str:
    known = error.errno is not None and not isinstance(error, socket.gaierror)
    return os.strerror(error.errno or 0).lower() if known else str(error.strerror or error)


class HttpServer:
    """Serves one application on a bound socket.

    head_seconds, idle_seconds: for a request's head, and between requests. connections: how many at once. Beyond that
    the one that has been without a request for longest makes room; where there is none, the newcomer gets 503.
    refused: told of the code of each error that the application does not see. tls: what the next connection has to
    begin with; None: nothing.
    """

    def __init__(
        self,
        app: ASGIApp,
        listening: socket.socket,
        *,
        head_seconds: float = 10.0,
        idle_seconds: float = 75.0,
        connections: int = limits.MAX_DESCRIPTORS,
        refused: Callable[[str], None] = lambda code: None,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self.app = app
        self.head_seconds, self.idle_seconds = head_seconds, idle_seconds
        self.refused = refused
        self._tls = tls
        self.port: int = listening.getsockname()[1]
        self._listening = listening
        self._most = connections
        self._loop = asyncio.get_running_loop()
        self._again: asyncio.TimerHandle | None = None
        self._beginning: set[asyncio.Task[None]] = set()
        self._open: set[Peer] = set()
        self._idle: dict[Peer, None] = {}  # the longest there first
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._quiet = asyncio.Event()
        self._date = (0, b"")

    async def start(self) -> None:
        """Return when requests are answered."""
        self._listening.setblocking(False)
        self._listen()

    def _listen(self) -> None:
        self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        """Some of those who wait; the loop comes again for the others."""
        for _ in range(ACCEPTS):
            try:
                accepted, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:  # it has gone already
                continue
            except OSError as error:  # no descriptor or memory is free: what there is may end meanwhile
                logger.warning("accept_failed", error=error.strerror)
                self._loop.remove_reader(self._listening)
                self._again = self._loop.call_later(ACCEPT_AGAIN_SECONDS, self._listen)
                return
            accepted.setblocking(False)
            if self._tls:
                self._shake_hands(accepted, self._tls())
            else:
                begins = self._loop.create_task(self._begin(accepted))
                self._beginning.add(begins)
                begins.add_done_callback(self._beginning.discard)

    async def _begin(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(partial(Connection, self), accepted)
        except OSError:  # it has gone already
            accepted.close()

    def _shake_hands(self, accepted: socket.socket, context: ssl.SSLContext) -> None:
        """Its connections are told of when that is over; they count from now on."""
        handshake = Handshake(self.closed)
        if self.opened(handshake):
            handshake.begin(accepted, context, self.head_seconds, Connection(self, handshake))
        else:
            accepted.close()

    async def close(self) -> None:
        """Take no more requests, let the answers under way end for CLOSE_SECONDS, cut the rest. May be called twice."""
        self._closing = True
        if self._listening.fileno() >= 0:
            self._loop.remove_reader(self._listening)
        if self._again:
            self._again.cancel()
        self._listening.close()
        await asyncio.gather(*self._beginning)
        for connection in list(self._open):
            connection.leave()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                while self._open or self._tasks:
                    self._quiet.clear()
                    await self._quiet.wait()
        for connection in list(self._open):
            connection.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- for its connections

    def opened(self, connection: Peer, handshake: Peer | None = None) -> bool:
        if handshake:
            self.closed(handshake)
        if self._closing or (len(self._open) >= self._most and not self._idle):
            return False
        if len(self._open) >= self._most:
            oldest = next(iter(self._idle))
            # Now: more may come before it is told that it is closed, and each wants another's room.
            del self._idle[oldest]
            oldest.abort()
        self._open.add(connection)
        self._idle[connection] = None
        return True

    def waits(self, connection: Peer, *, idle: bool) -> None:
        self._idle.pop(connection, None)
        if idle and connection in self._open:
            self._idle[connection] = None

    def closed(self, connection: Peer) -> None:
        self._open.discard(connection)
        self._idle.pop(connection, None)
        self._quiet.set()

    def serve(self, exchange: Exchange) -> None:
        task = asyncio.create_task(exchange.run(self.app))
        self._tasks.add(task)
        task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._quiet.set()

    def date(self) -> bytes:
        now = int(time.time())
        if self._date[0] != now:
            self._date = now, formatdate(now, usegmt=True).encode()
        return self._date[1]

"""A TCP proxy of the rig's own: whatever passes can be cut, or frozen in either direction.

A frozen direction loses nothing: bytes wait, as they would in the buffers of a line that is down, and the sender soon
cannot send. Frozen and then cut, they are lost, and whoever sent them cannot know.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Literal

Direction = Literal["up", "down"]  # to what the proxy stands in front of; back from it
DIRECTIONS: tuple[Direction, ...] = ("up", "down")
Passed = Callable[[Direction, bytes], None]

CHUNK = 64 * 1024  # bytes
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: close() sends RST, as a peer that is gone does


def untold(direction: Direction, data: bytes) -> None:
    """Nobody wants to know what passes."""


def held_port(port: int = 0) -> socket.socket:
    """A socket that does not listen, on that port of 127.0.0.1; 0: on any. Until it is closed the port is for those who
    listen with SO_REUSEPORT, and for nobody else.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", port))
    return held


class _Connection:
    """One pair of sockets."""

    def __init__(self, proxy: "Proxy", inner: asyncio.StreamWriter, outer: asyncio.StreamWriter, limit: int | None):
        self._proxy, self._writers, self.limit = proxy, (inner, outer), limit

    async def pump(self, direction: Direction, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(CHUNK):
            await self._proxy.open[direction].wait()
            if direction == "down" and self.limit is not None:
                data, self.limit = data[: self.limit], self.limit - len(data)
            target.write(data)
            self._proxy.passed(direction, data)
            await target.drain()
            if self.limit is not None and self.limit <= 0:
                raise ConnectionResetError("cut at the limit")
        await self._proxy.open[direction].wait()
        target.write_eof()

    def cut(self, reset: bool = True) -> None:
        for writer in self._writers:
            if reset and (sock := writer.get_extra_info("socket")):
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()


class Proxy:
    """Listens on a port of 127.0.0.1 from `start` to `close`. `upstream` may be changed at any time; None: refuse.

    limits: asked for each new connection: cut it after so many bytes to the client, but for None.
    passed: told of what has just passed.
    """

    def __init__(self, upstream: tuple[str, int] | None = None) -> None:
        self.upstream = upstream
        self.limits: Callable[[], int | None] = lambda: None
        self.passed: Passed = untold
        self.port = 0
        self.open: dict[Direction, asyncio.Event] = {direction: asyncio.Event() for direction in DIRECTIONS}
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._held: socket.socket | None = None
        self.thaw()

    async def start(self) -> "Proxy":
        self._held = held_port()
        self.port = self._held.getsockname()[1]
        self.listen()
        return self

    def listen(self) -> None:
        """Again, after `refuse`. Idempotent."""
        if self._listener is None:
            self._listener = held_port(self.port)
            self._listener.setblocking(False)
            self._listener.listen()
            asyncio.get_running_loop().add_reader(self._listener, self._take, self._listener)

    def refuse(self) -> None:
        """As where nothing listens any more; the port stays this proxy's."""
        if self._listener:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    @property
    def connections(self) -> int:
        return len(self._connections)

    def cut(self) -> None:
        """Reset every connection."""
        for connection in self._connections:
            connection.cut()

    def freeze(self, directions: Iterable[Direction] = DIRECTIONS) -> None:
        """Nothing passes in these directions, on new connections too."""
        for direction in directions:
            self.open[direction].clear()

    def thaw(self) -> None:
        for direction in DIRECTIONS:
            self.open[direction].set()

    async def close(self) -> None:
        self.refuse()
        if self._held:
            self._held.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return  # whoever came is gone
        task = asyncio.get_running_loop().create_task(self._accept(sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: sock.close())  # of one that was cancelled before it began

    async def _accept(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            sock.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=sock)
            try:
                await self._serve(reader, writer)
            finally:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.upstream is None:
                raise ConnectionRefusedError
            up_reader, up_writer = await asyncio.open_connection(*self.upstream)
        except OSError:
            _Connection(self, writer, writer, None).cut()
            return
        connection = _Connection(self, writer, up_writer, self.limits())
        self._connections.add(connection)
        pumps = [
            asyncio.create_task(connection.pump("up", reader, up_writer)),
            asyncio.create_task(connection.pump("down", up_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for pump in pumps:
                pump.cancel()
            outcomes = await asyncio.gather(*pumps, return_exceptions=True)
            connection.cut(reset=any(isinstance(outcome, OSError) for outcome in outcomes))
            self._connections.discard(connection)

"""Connections of the tests' own, in this process: when a block ends, nothing of them is left, whatever became of it."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

Pair: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Serve: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

LEFT = (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError)  # how a reader or a writer learns of it


@contextlib.asynccontextmanager
async def listening(
    serve: Serve, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """The port where each connection is served, and then closed. What still runs when the block ends is cancelled; what
    `serve` raised, but for that a client has left, is raised then.

    Not with `asyncio.start_server`, which leaves a connection open that comes while the block ends: its task is
    cancelled before it begins.
    """
    loop = asyncio.get_running_loop()
    tasks: dict[asyncio.Task[None], socket.socket] = {}

    async def served(accepted: socket.socket) -> None:
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        with contextlib.suppress(*LEFT):
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, accepted, ssl=tls)
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            try:
                await serve(reader, writer)
                writer.close()
                await writer.wait_closed()
            finally:
                transport.abort()

    def accept() -> None:
        with contextlib.suppress(OSError):  # whoever came is gone
            accepted, _ = listener.accept()
            tasks[loop.create_task(served(accepted))] = accepted

    with socket.create_server((host, port)) as listener:
        listener.setblocking(False)
        loop.add_reader(listener, accept)
        try:
            yield listener.getsockname()[1]
        finally:
            loop.remove_reader(listener)
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            for accepted in tasks.values():  # also of those that did not begin
                accepted.close()
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome


@contextlib.asynccontextmanager
async def dialled(port: int, host: str = "127.0.0.1", limit: int = 2**16) -> AsyncIterator[Pair]:
    """A connection to that port. limit: bytes that are read ahead."""
    reader, writer = await asyncio.open_connection(host, port, limit=limit)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

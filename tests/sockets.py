"""Connections of the tests' own, in this process: when a block ends, nothing of them is left, whatever became of it."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

Pair: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Serve: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

CLOSE_SECONDS = 30.0
LEFT = (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError)  # how a reader or a writer learns of it


@contextlib.asynccontextmanager
async def listening(
    serve: Serve, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """The port where each connection is served, and then closed. What still runs when the block ends is cancelled; what
    `serve` raised, but for that a client has left, is raised then.
    """
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(*LEFT):
                await serve(reader, writer)
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        tasks.add(asyncio.create_task(served(reader, writer)))

    server = await asyncio.start_server(accept, host, port, ssl=tls)
    gone = asyncio.create_task(server.wait_closed())  # of a server that is closed it would wait for nothing
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
        async with asyncio.timeout(CLOSE_SECONDS):
            await gone
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

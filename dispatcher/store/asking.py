"""Asking a store that may be away for a while."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from dispatcher.core.entries import Entry
from dispatcher.store.ports import Store, StoreUnavailable, goes_on

READ_ENTRIES = 1000  # of the log in one read, which READ_BYTES bounds too
RETRY_SECONDS = (0.05, 2.0)  # between attempts: first, longest
T = TypeVar("T")


async def in_parts(store: Store, session_id: str, after: int = 0) -> AsyncIterator[list[Entry]]:
    """The log after that offset. Raises StoreUnavailable."""
    more = True
    while more:
        part = await store.read(session_id, after, READ_ENTRIES)
        more = goes_on(part, READ_ENTRIES)
        if part:
            after = part[-1].offset
            yield part


async def read_all(store: Store, session_id: str, after: int = 0) -> list[Entry]:
    """The same at once, where it is known to be little."""
    return [entry async for part in in_parts(store, session_id, after) for entry in part]


async def until_known(ask: Callable[[], Awaitable[T]]) -> T:
    """The store's answer to what may be asked again, however long it is away."""
    delay = RETRY_SECONDS[0]
    while True:
        try:
            return await ask()
        except StoreUnavailable:
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_SECONDS[1])

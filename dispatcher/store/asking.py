"""Asking a store that may be away for a while."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from dispatcher.core.entries import Entry
from dispatcher.store.ports import Store, StoreUnavailable

READ_ENTRIES = 1000  # of the log in one read, which READ_BYTES bounds too
RETRY_SECONDS = (0.05, 2.0)  # between attempts: first, longest
T = TypeVar("T")


async def in_parts(store: Store, session_id: str, until: int, after: int = 0) -> AsyncIterator[list[Entry]]:
    """The log from behind the one offset up to the other, or as far as it reaches. Raises StoreUnavailable."""
    while after < until:
        entries, _ = await store.read(session_id, after, min(READ_ENTRIES, until - after))
        if not entries:
            return
        after = entries[-1].offset
        yield entries


async def until_known(ask: Callable[[], Awaitable[T]]) -> T:
    """The store's answer to what may be asked again, however long it is away."""
    delay = RETRY_SECONDS[0]
    while True:
        try:
            return await ask()
        except StoreUnavailable:
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_SECONDS[1])

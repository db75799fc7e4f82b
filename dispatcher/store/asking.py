"""Asking a store that may be away for a while."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from dispatcher.core.entries import Entry
from dispatcher.store.ports import Store, StoreUnavailable

READ_ENTRIES = 1000  # of the log in one read
RETRY_SECONDS = (0.05, 2.0)  # between attempts: first, longest
T = TypeVar("T")


async def read_all(store: Store, session_id: str, after: int = 0) -> list[Entry]:
    """The whole log after that offset."""
    entries: list[Entry] = []
    while True:
        part = await store.read(session_id, entries[-1].offset if entries else after, READ_ENTRIES)
        entries += part
        if len(part) < READ_ENTRIES:
            return entries


async def until_known(ask: Callable[[], Awaitable[T]]) -> T:
    """The store's answer to what may be asked again, however long it is away."""
    delay = RETRY_SECONDS[0]
    while True:
        try:
            return await ask()
        except StoreUnavailable:
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_SECONDS[1])

"""A session's log as tests read it."""

import sys

from dispatcher.core.entries import Entry
from dispatcher.store.asking import in_parts
from dispatcher.store.ports import Store


async def read_all(store: Store, session_id: str, after: int = 0) -> list[Entry]:
    """The log after that offset, at once."""
    return [entry async for part in in_parts(store, session_id, sys.maxsize, after) for entry in part]

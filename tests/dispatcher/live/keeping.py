"""What works for as long as an instance lives, for the length of a block."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol


class Keeper(Protocol):
    async def keep(self) -> None: ...


@asynccontextmanager
async def keeping(kept: Keeper) -> AsyncIterator[None]:
    task = asyncio.create_task(kept.keep())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

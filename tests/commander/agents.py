"""Agents for tests: they say what the test hands them, when it does."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from commander.agent import Turn, Yielded


class Puppet:
    """Says what `says` puts in, ends when told; `ended` is set when its generator's `finally` has run."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.started = asyncio.Event()
        self.ended = asyncio.Event()
        self.said = 0
        self._items: asyncio.Queue[Any] = asyncio.Queue()

    def say(self, *items: Yielded) -> None:
        for item in items:
            self._items.put_nowait(item)

    def finish(self) -> None:
        self._items.put_nowait(None)

    async def __call__(self, turn: Turn) -> AsyncGenerator[Yielded, None]:
        self.turns.append(turn)
        self.started.set()
        try:
            while (item := await self._items.get()) is not None:
                self.said += 1
                yield item
        finally:
            self.ended.set()


async def chatter(turn: Turn) -> AsyncGenerator[Yielded, None]:
    """Never waits and never ends."""
    number = 0
    while True:
        yield f"{number} "
        number += 1


async def brief(turn: Turn) -> AsyncGenerator[Yielded, None]:
    """Repeats its last message."""
    yield turn.messages[-1].content

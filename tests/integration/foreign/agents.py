"""Agents as users write them, found by `COMMANDER_BACKEND=agents:NAME` from this folder."""

import asyncio
import sys
from collections.abc import AsyncIterator

from commander.agent import Thought, Turn


async def two_calls(turn: Turn) -> AsyncIterator[str | Thought]:
    """Asks two tools at once and says what each answered."""
    yield Thought("Planning", "both at once")
    first, second = await asyncio.gather(turn.call_tool("echo", {"of": "a"}), turn.call_tool("echo", {"of": "b"}))
    yield f"{first} then {second}"


async def other_tools(turn: Turn) -> AsyncIterator[str]:
    first, second = await asyncio.gather(turn.call_tool("one", {}), turn.call_tool("two", {}))
    yield f"{first} then {second}"


async def endless(turn: Turn) -> AsyncIterator[str]:
    """Counts for ever; says on standard error when it has ended."""
    try:
        for number in range(1_000_000_000):
            yield f"{number} "
            await asyncio.sleep(0.01)
    finally:
        print("halted", file=sys.stderr)

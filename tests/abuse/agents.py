"""Agents of the abuse runs: COMMANDER_BACKEND=tests.abuse.agents:NAME."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from commander.agent import Turn

WORD_SECONDS = 0.02  # between two words of the honest one


async def steady(turn: Turn) -> AsyncGenerator[str, None]:
    """A numbered word every WORD_SECONDS until the file `until` is there; the last one says how many there were."""
    number, until = 0, turn.parameters["until"]
    while not _is_there(until):
        yield f"{number} "
        number += 1
        await asyncio.sleep(WORD_SECONDS)
    yield f"of {number}"


def _is_there(path: str) -> bool:
    return Path(path).exists()

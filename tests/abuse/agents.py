"""Agents of the abuse runs: COMMANDER_BACKEND=tests.abuse.agents:NAME."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from commander.agent import Thought, ToolError, Turn

WORD_SECONDS = 0.02  # between two words of the honest one
STROLL_SECONDS = 0.2  # of each of many


async def steady(turn: Turn) -> AsyncGenerator[str, None]:
    """A numbered word every WORD_SECONDS until the file `until` is there; the last one says how many there were."""
    async for word in _words(turn, WORD_SECONDS):
        yield word


async def strolling(turn: Turn) -> AsyncGenerator[str, None]:
    """As `steady`, but so slow that fifty of them leave a machine of two cores half idle."""
    async for word in _words(turn, STROLL_SECONDS):
        yield word


async def _words(turn: Turn, seconds: float) -> AsyncGenerator[str, None]:
    number, until = 0, turn.parameters["until"]
    while not _is_there(until):
        yield f"{number} "
        number += 1
        await asyncio.sleep(seconds)
    yield f"of {number}"


def _is_there(path: str) -> bool:
    return Path(path).exists()


async def gatherer(turn: Turn) -> AsyncGenerator[str, None]:
    """8,000 calls at once."""
    answers = await asyncio.gather(*(turn.call_tool("echo", {"number": number}) for number in range(8000)))
    yield "all" if answers == list(range(8000)) else "not all"


async def thinker(turn: Turn) -> AsyncGenerator[Thought, None]:
    """Thinks without end, and as fast as it can."""
    while True:
        yield Thought("thinking", "x" * 4096)


async def talker(turn: Turn) -> AsyncGenerator[str, None]:
    """Talks without end, and as fast as it can."""
    while True:
        yield "x" * 4096


WORST = (
    "a" * 60_000,
    "w_" * 30_000,
    "zy" * 30_000,
    "\ufb03" * 20_000,
)  # each keeps one of `test_own_houses.WORST` open


async def adversary(turn: Turn) -> AsyncGenerator[str, None]:
    """Says what patterns stand in at many places at once, in large pieces and without end."""
    while True:
        for text in WORST:
            yield text


async def caller(turn: Turn) -> AsyncGenerator[str, None]:
    """Calls the tool `tool`, `times` at once, and says what became of it."""

    async def call() -> str:
        try:
            await turn.call_tool(turn.parameters["tool"], {})
        except ToolError as error:
            return error.code
        return "OK"

    yield " ".join(await asyncio.gather(*(call() for _ in range(turn.parameters["times"]))))


async def brief(turn: Turn) -> AsyncGenerator[str, None]:
    """A few words, one a moment."""
    for number in range(turn.parameters["words"]):
        yield f"{number} "
        await asyncio.sleep(0.005)


async def failing(turn: Turn) -> AsyncGenerator[str, None]:
    """Fails at once, as one with a wrong key does."""
    yield _wrong_key()


def _wrong_key() -> str:
    raise RuntimeError("a wrong key")


async def silent(turn: Turn) -> AsyncGenerator[str, None]:
    """Says one word, and no more."""
    yield "one "
    await asyncio.Event().wait()

"""Tools whose answer a test lets go."""

import asyncio

begun: list[str] = []
cancelled: list[str] = []
answer = asyncio.Event()


def reset() -> None:
    """For each test: an event belongs to the loop that waits for it."""
    global answer  # noqa: PLW0603
    begun.clear()
    cancelled.clear()
    answer = asyncio.Event()


async def wait(name: str) -> str:
    """Waits until the test lets it answer."""
    begun.append(name)
    try:
        await answer.wait()
    except asyncio.CancelledError:
        cancelled.append(name)
        raise
    return f"{name} is done"


async def long() -> str:
    """Answers with more than a result may hold."""
    return "x" * 300_000


async def bird(name: str) -> str:
    """The English name, at once."""
    begun.append(name)
    return {"Philomela": "a Nightingale"}.get(name, f"a {name}")

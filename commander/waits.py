"""Waiting for what comes first."""

import asyncio


async def first_of(seconds: float, *events: asyncio.Event) -> None:
    """Return when one of these is set, but no later than after so many seconds."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()

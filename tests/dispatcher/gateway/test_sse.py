"""Responses that may take long, interrupted when the server drains."""

import asyncio
from typing import Any

from dispatcher.gateway.sse import Connections, Watch


async def never() -> Any:
    """A client that stays: no message comes from it."""
    await asyncio.Event().wait()


async def test_a_response_that_begins_while_others_are_ending_is_interrupted_too() -> None:
    """A reader that comes back to a server that drains must not hold its end up."""
    closing, interrupted, leave = asyncio.Event(), asyncio.Event(), asyncio.Event()
    connections = Connections(closing)

    async def respond(entered: asyncio.Event, end: asyncio.Event | None = None) -> Watch:
        async with connections.watch(never) as watch:
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                interrupted.set()
                if end:
                    await end.wait()  # it takes a while to end
        return watch

    entered = [asyncio.Event(), asyncio.Event()]
    first = asyncio.create_task(respond(entered[0], leave))
    await entered[0].wait()
    closing.set()
    await interrupted.wait()
    second = asyncio.create_task(respond(entered[1]))
    await entered[1].wait()
    leave.set()
    async with asyncio.timeout(30):
        assert (await first).closing
        assert (await second).closing

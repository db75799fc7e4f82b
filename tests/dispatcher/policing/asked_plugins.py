"""Plugins of all sorts, good and broken; and a guardrail's server, as vendors build them for LiteLLM's proxy."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web

from dispatcher.policies.questions import Question
from dispatcher.policing.guardrail import PATH

asked: list[Question] = []
asking, answering = asyncio.Event(), asyncio.Event()


def reset() -> None:
    """For each test: an event belongs to the loop that waits for it."""
    global asking, answering
    asked.clear()
    asking, answering = asyncio.Event(), asyncio.Event()


async def no_birds(question: Question) -> bool:
    asked.append(question)
    return "ightingale" not in question.context[-20:] + question.text


async def masks_birds(question: Question) -> str:
    return question.text.replace("nightingale", "<BIRD>")


async def waits(question: Question) -> bool:
    asked.append(question)
    asking.set()
    await answering.wait()
    return True


async def raises(question: Question) -> bool:
    raise RuntimeError(question.text)


async def raises_when_cancelled(question: Question) -> bool:
    try:
        await answering.wait()
    except asyncio.CancelledError:
        raise KeyError(question.text) from None
    return True


async def cancels_itself(question: Question) -> bool:
    raise asyncio.CancelledError


async def exits(question: Question) -> bool:
    raise SystemExit(1)


async def swallows_cancellation(question: Question) -> bool:
    while not answering.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await answering.wait()
    return True


async def nonsense(question: Question) -> Any:
    return {"passed": True}


async def forgets_to_return(question: Question) -> None:
    pass


def not_async(question: Question) -> bool:
    return True


class Approving:
    async def __call__(self, question: Question) -> bool:
        return True


instance = Approving()
number = 1


@contextlib.asynccontextmanager
async def guardrail(answer: Callable[[dict[str, Any]], web.Response]) -> AsyncIterator[tuple[str, list[Any]]]:
    """Its address, and the requests that it gets: (headers, body)."""
    requests: list[Any] = []

    async def post(request: web.Request) -> web.Response:
        body = await request.json()
        requests.append(({name.lower(): value for name, value in request.headers.items()}, body))
        return answer(body)

    app = web.Application()
    app.router.add_post(PATH, post)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}{PATH}", requests
    finally:
        await runner.cleanup()

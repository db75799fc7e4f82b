"""What people write themselves: a Starlette gateway that passes a token server's event stream through with aiohttp.

    python -m tests.bench.starlette_gateway tokens
    python -m tests.bench.starlette_gateway gateway TOKEN_SERVER_ADDRESS

Each prints its address as JSON. Nothing is kept: who loses the connection has lost the session; leaving is its stop.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tests.bench.agents import agent
from tests.bench.floor import HEADERS, Said, Turn, serve_http


async def tokens(scope: Any, receive: Any, send: Any) -> None:
    """The token server, raw ASGI so that the gateway is what is measured: an event for each token."""
    prompt = msgspec.json.decode((await receive())["body"])["prompt"]
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    speaking = agent(Turn((Said(prompt),)))
    task = asyncio.current_task()
    assert task
    watching = asyncio.create_task(_cancel_when_left(receive, task))
    try:
        async for text in speaking:
            event = b'event: content\ndata: {"text": "%b"}\n\n' % text.encode()
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"event: finished\ndata: {}\n\n", "more_body": False})
    finally:
        watching.cancel()
        await speaking.aclose()


async def _cancel_when_left(receive: Any, task: "asyncio.Task[Any]") -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    task.cancel()


def gateway(token_server: str) -> Starlette:
    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as client:
            app.state.client = client
            yield

    async def chat(request: Request) -> Response:
        upstream = await request.app.state.client.post(f"http://{token_server}/", data=await request.body())

        async def passed_through() -> AsyncIterator[bytes]:
            async with upstream:
                async for chunk in upstream.content.iter_any():
                    yield chunk

        return StreamingResponse(passed_through(), media_type="text/event-stream")

    return Starlette(routes=[Route("/v1/chat", chat, methods=["POST"])], lifespan=lifespan)


if __name__ == "__main__":
    role, *addresses = sys.argv[1:]
    uvloop.run(serve_http(tokens if role == "tokens" else gateway(*addresses)))

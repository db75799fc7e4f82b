"""As `agents.py`, but these ask their provider through the clients that users have, whose imports take a second."""

import asyncio
import contextlib
import os
from typing import Any

import aiohttp
import httpx2
import openai

from commander.agent import Turn
from tests.commander.check.agents import Words, chat, said

# ---- good ones


async def by_the_sdk(turn: Turn) -> Words:
    async with openai.AsyncOpenAI() as client:
        stream = await client.chat.completions.create(**chat(turn))
        async with stream:
            async for chunk in stream:
                if text := chunk.choices[0].delta.content:
                    yield text


async def by_responses(turn: Turn) -> Words:
    prompt = turn.messages[-1].content
    async with openai.AsyncOpenAI() as client, client.responses.stream(model="any", input=prompt) as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                yield event.delta


async def by_httpx(turn: Turn) -> Words:
    url = f"{os.environ['OPENAI_BASE_URL']}/chat/completions"
    async with httpx2.AsyncClient() as client, client.stream("POST", url, json=chat(turn)) as response:
        async for line in response.aiter_lines():
            if text := said(line):
                yield text


async def by_aiohttp(turn: Turn) -> Words:
    url = f"{os.environ['OPENAI_BASE_URL']}/chat/completions"
    async with aiohttp.ClientSession() as client, client.post(url, json=chat(turn)) as response:
        async for line in response.content:
            if text := said(line.decode()):
                yield text


# ---- bad ones


async def swallows(turn: Turn) -> Words:
    """Takes its cancellation for a reason to try again, and goes on."""
    async with openai.AsyncOpenAI() as client, await client.chat.completions.create(**chat(turn)) as stream:
        with contextlib.suppress(asyncio.CancelledError):
            async for chunk in stream:
                yield chunk.choices[0].delta.content or "…"
        for _ in range(3):
            yield "and one more thing "


_kept: list[Any] = []


async def keeps_its_connection(turn: Turn) -> Words:
    """Never closes its response: the pool keeps the connection, and the model runs on."""
    client = httpx2.AsyncClient()
    url = f"{os.environ['OPENAI_BASE_URL']}/chat/completions"
    response = await client.send(client.build_request("POST", url, json=chat(turn)), stream=True)
    stream = aiter(response.aiter_raw())
    _kept.extend([client, response, stream])
    buffer = ""
    while True:
        reading = asyncio.ensure_future(anext(stream))  # type: ignore[arg-type]
        _kept.append(reading)
        buffer += (await asyncio.shield(reading)).decode()
        *lines, buffer = buffer.split("\n")
        for line in lines:
            if text := said(line):
                yield text


async def slow_to_leave(turn: Turn) -> Words:
    """Closes its stream, but only after a while."""
    url = f"{os.environ['OPENAI_BASE_URL']}/chat/completions"
    async with aiohttp.ClientSession() as client, client.post(url, json=chat(turn)) as response:
        try:
            async for line in response.content:
                if text := said(line.decode()):
                    yield text
        finally:
            await asyncio.sleep(0.5)


# ---- such as cannot be checked


async def asks_in_one_piece(turn: Turn) -> Words:
    """Does not stream: has nothing to say before its provider has made the whole answer."""
    async with openai.AsyncOpenAI() as client:
        answer = await client.chat.completions.create(**{**chat(turn), "stream": False})
        yield answer.choices[0].message.content

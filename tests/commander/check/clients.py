"""As `agents.py`, but these ask their provider through HTTP clients that users have."""

import asyncio
import os
from typing import Any

import aiohttp
import httpx2

from commander.agent import Turn
from tests.commander.check.agents import Words, chat, said

# ---- good ones


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

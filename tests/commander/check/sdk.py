"""As `agents.py`, but these ask their provider through the package `openai`, whose import takes a second."""

import asyncio
import contextlib

import openai

from commander.agent import Turn
from tests.commander.check.agents import Words, chat

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


# ---- bad ones


async def swallows(turn: Turn) -> Words:
    """Takes its cancellation for a reason to try again, and goes on."""
    async with openai.AsyncOpenAI() as client, await client.chat.completions.create(**chat(turn)) as stream:
        with contextlib.suppress(asyncio.CancelledError):
            async for chunk in stream:
                yield chunk.choices[0].delta.content or "…"
        for _ in range(3):
            yield "and one more thing "


# ---- such as cannot be checked


async def asks_in_one_piece(turn: Turn) -> Words:
    """Does not stream: has nothing to say before its provider has made the whole answer."""
    async with openai.AsyncOpenAI() as client:
        answer = await client.chat.completions.create(**{**chat(turn), "stream": False})
        yield answer.choices[0].message.content

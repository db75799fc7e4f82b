"""Agents that declare what they honour, and do so or not, for `commander check`."""

import asyncio
import json
from typing import Any

import openai

from commander.agent import ClientCall, Finish, Turn, supports
from tests.commander.check.agents import Words

SAID = "word "


async def _for_ever() -> Words:
    while True:
        yield SAID
        await asyncio.sleep(0.001)


@supports("tools", "structured")
async def by_responses(turn: Turn) -> Words:
    """Hands on what it is asked for, as Responses have it."""
    asked: list[Any] = []
    for message in turn.messages:
        if message.tool_call_id:
            asked.append({"type": "function_call_output", "call_id": message.tool_call_id, "output": message.content})
        elif not message.tool_calls:
            asked.append({"role": message.role, "content": message.content})
        for call in message.tool_calls:
            called = {"call_id": call.call_id, "name": call.name, "arguments": call.arguments_json}
            asked.append({"type": "function_call", **called})
    fields: dict[str, Any] = {"tools": [_tool(tool) for tool in turn.tools]}
    if choice := turn.parameters.get("tool_choice"):
        fields["tool_choice"] = choice
    if form := turn.parameters.get("response_format"):
        fields["text"] = {"format": {"type": "json_schema", **form["json_schema"]}}
    async with openai.AsyncOpenAI() as client, client.responses.stream(model="any", input=asked, **fields) as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                yield event.delta
        output = (await stream.get_final_response()).output
    calls = [ClientCall(item.name, item.arguments, item.call_id) for item in output if item.type == "function_call"]
    if calls:
        yield Finish("tool_calls", calls=tuple(calls))


def _tool(tool: Any) -> dict[str, Any]:
    about = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", **about, "strict": tool.strict}


@supports("tools", "structured")
async def says_words(turn: Turn) -> Words:
    """Declares both, and reads neither."""
    for _ in range(2 if turn.parameters else 100_000):
        yield SAID
        await asyncio.sleep(0.001)


@supports("tools", "structured")
async def nearly(turn: Turn) -> Words:
    """Its call has other arguments, and its JSON another field."""
    if turn.parameters.get("tool_choice"):
        yield Finish("tool_calls", calls=(ClientCall("weather", {"town": "Oslo"}),))
    elif turn.parameters:
        yield json.dumps({"city": "Oslo", "country": "Norway", "river": None})
    else:
        async for word in _for_ever():
            yield word


@supports("tools", "structured")
async def forgets(turn: Turn) -> Words:
    """Calls; of the result it makes nothing. Under a schema it raises."""
    if "response_format" in turn.parameters:
        raise ValueError("as written")
    if turn.parameters.get("tool_choice"):
        yield Finish("tool_calls", calls=(ClientCall("weather", {"city": "Oslo"}),))
    elif turn.messages[-1].role == "user":
        async for word in _for_ever():
            yield word

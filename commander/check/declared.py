"""Whether an agent honours what it declares: a tool of the client's, called and answered, and a strict schema."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import msgspec

from commander.agent import Agent, Message, Tool, Turn, supported
from commander.check import answers
from commander.check.messages import Task
from commander.testing import Answer, ask

RESULT = '{"forecast": "sunny"}'


class WeatherArguments(msgspec.Struct, forbid_unknown_fields=True):
    """What the tool takes."""

    city: str


class TownAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """The answer under a schema."""

    city: str
    country: str


def _schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    names = kind.__struct_fields__
    properties = {name: {"type": "string"} for name in names}
    return {"type": "object", "properties": properties, "required": list(names), "additionalProperties": False}


TOOL = Tool(answers.TOOL, "The weather in a city.", _schema(WeatherArguments), client=True, strict=True)
FORM = {"type": "json_schema", "json_schema": {"name": answers.SCHEMA, "schema": _schema(TownAnswer), "strict": True}}


async def honoured(agent: Agent, task: Task) -> dict[str, str]:
    """Each feature that is declared and tried → what is wrong with it; empty: it is honoured."""
    tries: dict[str, Callable[[Agent, Task], Coroutine[Any, Any, str]]] = {"tools": _tools, "structured": _structured}
    declared = supported(agent) or ()
    return {
        feature: await _tried(attempt(agent, task), task.seconds)
        for feature, attempt in tries.items()
        if feature in declared
    }


async def _tried(attempt: Coroutine[Any, Any, str], seconds: float) -> str:
    try:
        async with asyncio.timeout(seconds):
            return await attempt
    except TimeoutError:
        return f"it does not finish within {seconds:g} s"
    except Exception as error:
        return f"it fails: {type(error).__name__}: {error}"


async def _tools(agent: Agent, task: Task) -> str:
    asked = Message("user", task.prompt)
    calls = (await _answer(agent, task, {"tool_choice": "required"}, asked)).finish.calls
    if not calls:
        return "a call is required, and it makes none"
    for call in calls:
        if not _fits(call.arguments_json, WeatherArguments):
            return f"its arguments do not fit the tool's schema: {call.arguments_json}"
    results = [Message("tool", RESULT, tool_call_id=call.call_id, name=call.name) for call in calls]
    answer = await _answer(agent, task, {}, asked, Message("assistant", "", calls), *results)
    return "" if answer.text or answer.finish.calls else "with the result of its call it says nothing"


async def _structured(agent: Agent, task: Task) -> str:
    text = (await _answer(agent, task, {"response_format": FORM}, Message("user", task.prompt))).text
    return "" if _fits(text, TownAnswer) else f"its answer does not fit the schema: {text}"


async def _answer(agent: Agent, task: Task, parameters: Mapping[str, Any], *messages: Message) -> Answer:
    async def call_tool(name: str, arguments: Mapping[str, Any]) -> Any:
        return json.loads(task.results.get(name, "{}"))

    tools = () if "response_format" in parameters else (TOOL,)
    given = {**json.loads(task.parameters_json), **parameters}
    return await ask(agent, Turn(messages, given, tools, session_id="check", tool_caller=call_tool))


def _fits(text: str, kind: type[msgspec.Struct]) -> bool:
    try:
        msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True

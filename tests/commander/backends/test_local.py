"""The back-end `local` on the bundled model."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import jsonschema_rs
import pytest

from commander.agent import (
    Call,
    ClientCall,
    Finish,
    History,
    Message,
    Thought,
    Tool,
    ToolError,
    Turn,
    can_continue,
    supported,
)
from commander.backends.local import LocalAgent
from commander.backends.settings import LocalSettings

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(300)]

# As the Dispatcher describes the two that are built in.
CALCULATE = Tool(
    "calculate",
    "Calculate an arithmetic expression: + - * / // % **, parentheses, pi, e, functions like sqrt, log, round.",
    {
        "type": "object",
        "properties": {"expression": {"type": "string", "description": "Arithmetic, as in (2 + 3) * sqrt(16) / 7"}},
        "required": ["expression"],
        "additionalProperties": False,
    },
)
CURRENT_TIME = Tool(
    "current_time",
    "The current date, time and weekday in a time zone.",
    {
        "type": "object",
        "properties": {"timezone": {"type": "string", "maxLength": 64, "description": "IANA, as in Europe/Berlin"}},
        "additionalProperties": False,
    },
)
TOOLS = (CALCULATE, CURRENT_TIME)
RESULTS: dict[str, Any] = {"calculate": 391, "current_time": {"time": "2026-11-23T15:04:05+01:00"}}


@pytest.fixture(scope="module")
def agent() -> Iterator[LocalAgent]:
    agent = LocalAgent(LocalSettings(threads=1), slots=1)  # several wait for each other on busy cores
    yield agent
    asyncio.run(agent.close())


class Session:
    """One answer: its text, its thoughts, its end, and what it asked of tools."""

    def __init__(self, prompt: str, **turn: Any) -> None:
        self.turn = Turn((Message("user", prompt),), tool_caller=self._tool, **turn)
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.text = ""
        self.thoughts = ""
        self.finish: Finish | None = None

    async def _tool(self, name: str, arguments: Mapping[str, Any]) -> Any:
        self.calls.append((name, dict(arguments)))
        if isinstance(RESULTS[name], ToolError):
            raise RESULTS[name]
        return RESULTS[name]

    async def run(self, agent: LocalAgent) -> "Session":
        async for piece in agent(self.turn):
            match piece:
                case str():
                    self.text += piece
                case Thought(delta=delta):
                    self.thoughts += delta
                case Finish():
                    self.finish = piece
        return self


async def test_streams_and_counts(agent: LocalAgent) -> None:
    session = await Session("Count to ten.", parameters={"max_tokens": 8, "temperature": 0}).run(agent)
    assert session.text
    assert session.finish
    assert session.finish.reason == "length"
    assert session.finish.completion_tokens == 8
    assert session.finish.prompt_tokens
    assert session.finish.prompt_tokens > 8


async def test_the_newer_name_of_the_limit_counts_too(agent: LocalAgent) -> None:
    session = await Session("Count to ten.", parameters={"max_completion_tokens": 3}).run(agent)
    assert session.finish
    assert session.finish.completion_tokens == 3


@pytest.mark.parametrize(
    ("prompt", "name", "arguments"),
    [
        ("What is 17 * 23?", "calculate", {"expression": "17 * 23"}),
        ("Subtract 18 from 90.", "calculate", {"expression": "90 - 18"}),
        ("How much is 3.5 times 8?", "calculate", {"expression": "3.5 * 8"}),
        ("What time is it in Paris?", "current_time", {"timezone": "Europe/Paris"}),
        ("What time is it now in Tokyo?", "current_time", {"timezone": "Asia/Tokyo"}),
        ("What is the date today?", "current_time", {}),
    ],
)
async def test_calls_the_tool_that_is_needed(
    agent: LocalAgent, prompt: str, name: str, arguments: dict[str, Any]
) -> None:
    session = await Session(prompt, tools=TOOLS, parameters={"max_tokens": 60}).run(agent)
    assert session.calls == [(name, arguments)]
    assert session.thoughts == f"Does this need a tool? Yes: {name} {json.dumps(arguments)}"
    assert ("391" if name == "calculate" else "2026-11-23") in session.text


@pytest.mark.parametrize(
    "prompt", ["What's 12+30?", "9*9", "Please multiply 19 by 21.", "What is 15% of 200?", "time in Oslo"]
)
async def test_arguments_fit_the_schema(agent: LocalAgent, prompt: str) -> None:
    session = await Session(prompt, tools=TOOLS, parameters={"max_tokens": 1}).run(agent)
    [(name, arguments)] = session.calls
    parameters = next(tool.parameters for tool in TOOLS if tool.name == name)
    jsonschema_rs.validate(dict(parameters), arguments)


@pytest.mark.parametrize("prompt", ["Tell me a story about a lighthouse.", "Hello!", "Explain how rainbows form."])
async def test_calls_nothing_for_a_story(agent: LocalAgent, prompt: str) -> None:
    session = await Session(prompt, tools=TOOLS, parameters={"max_tokens": 4}).run(agent)
    assert session.calls == []
    assert session.thoughts == "Does this need a tool? No."
    assert session.text


async def test_a_tool_that_fails_does_not_end_the_answer(agent: LocalAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RESULTS, "calculate", ToolError("TOOL_ERROR", "division by zero"))
    session = await Session("What is 1 / 0?", tools=TOOLS, parameters={"max_tokens": 20}).run(agent)
    assert len(session.calls) == 1
    assert session.text


async def test_a_schema_that_it_cannot_read_is_not_called(agent: LocalAgent) -> None:
    odd = Tool("search", "Searches.", {"type": "object", "properties": {"q": {"$ref": "#/nowhere"}}})
    session = await Session("Search for 1 cat", tools=(odd,), parameters={"max_tokens": 1}).run(agent)
    assert session.calls == []
    assert session.finish


# ---- what clients ask for

FORECAST = Tool(
    "get_forecast",
    "The weather in a city.",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 2, "maximum": 7}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
    client=True,
)
NOTE = Tool(
    "take_note", "", {"properties": {"text": {"type": "string", "minLength": 3}}, "required": ["text"]}, client=True
)
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "born": {"type": "string", "format": "date"},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "kinds": {"type": "array", "items": {"enum": ["home", "work"]}, "minItems": 1},
    },
    "required": ["name", "age", "born", "score", "kinds"],
}


def as_json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}}


@pytest.mark.parametrize(
    ("prompt", "choice", "names"),
    [
        ("Hello", "required", {"get_forecast", "take_note"}),
        ("What is the forecast for Oslo?", "auto", {"get_forecast"}),
    ],
)
async def test_an_answer_ends_with_a_call_of_the_clients_tool(
    agent: LocalAgent, prompt: str, choice: object, names: set[str]
) -> None:
    tools = {tool.name: tool for tool in (FORECAST, NOTE)}
    session = await Session(prompt, tools=(*TOOLS, *tools.values()), parameters={"tool_choice": choice}).run(agent)
    assert session.finish
    (made,) = session.finish.calls
    assert made.name in names
    jsonschema_rs.validate(dict(tools[made.name].parameters), json.loads(made.arguments_json))
    assert (session.text, session.calls) == ("", [])


async def test_no_tool_of_the_clients_is_called_where_none_is_wanted(agent: LocalAgent) -> None:
    parameters = {"tool_choice": "none", "max_tokens": 2}
    session = await Session("What is the forecast for Oslo?", tools=(FORECAST,), parameters=parameters).run(agent)
    assert session.finish
    assert session.finish.reason == "length"


async def test_a_result_of_the_clients_is_answered_with(agent: LocalAgent) -> None:
    call = ClientCall("get_forecast", {"city": "Oslo", "days": 2}, "a")
    session = Session("What is the forecast for Oslo?", tools=(FORECAST,), parameters={"max_tokens": 30})
    earlier = (Message("assistant", "", (call,)), Message("tool", "21 degrees and sunny", tool_call_id="a"))
    session.turn = replace(session.turn, messages=(*session.turn.messages, *earlier))
    assert "21" in (await session.run(agent)).text


@pytest.mark.parametrize("limit", [0, 1, 200])
async def test_an_answer_fits_its_schema_wherever_it_is_cut(agent: LocalAgent, limit: int) -> None:
    parameters = as_json(PERSON) | ({"max_tokens": limit} if limit else {})
    session = await Session(
        "Tell me of Ada Lovelace.", parameters=parameters, history=History("" if limit else '{"na')
    ).run(agent)
    jsonschema_rs.validate(PERSON, json.loads(session.text if limit else '{"na' + session.text))
    assert session.finish
    assert session.finish.reason == ("length" if 0 < limit < 200 else "stop")


async def test_a_tools_result_goes_into_an_answer_of_the_schema(agent: LocalAgent) -> None:
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}
    session = await Session("What is 17 * 23?", tools=TOOLS, parameters=as_json(schema)).run(agent)
    assert session.calls == [("calculate", {"expression": "17 * 23"})]
    assert json.loads(session.text) == {"answer": 391}


async def test_what_it_cannot_hold_to_is_refused_before_a_word(agent: LocalAgent) -> None:
    patterned = {"type": "object", "properties": {"q": {"type": "string", "pattern": "^a$"}}, "required": ["q"]}
    for asked in (
        Session("Hi", parameters=as_json(patterned)),
        Session("Hi", tools=(Tool("search", "", patterned, client=True),), parameters={"tool_choice": "required"}),
    ):
        with pytest.raises(ValueError, match="#/properties/q: pattern is not supported"):
            await asked.run(agent)
        assert asked.text == ""


async def test_goes_on_from_what_was_said(agent: LocalAgent) -> None:
    parameters = {"max_tokens": 24, "temperature": 0, "repeat_penalty": 1}
    whole = await Session("Tell me about Paris.", parameters=parameters).run(agent)
    half = whole.text[: whole.text.rindex(" ", 0, len(whole.text) // 2)]
    parameters = {"max_tokens": 5, "temperature": 0}
    rest = await Session("Tell me about Paris.", tools=TOOLS, history=History(half), parameters=parameters).run(agent)
    assert rest.text.startswith(" ")
    assert rest.thoughts == ""
    assert can_continue(agent)
    assert supported(agent) == ("tools", "structured", "sampling")


async def test_does_not_repeat_a_call(agent: LocalAgent) -> None:
    history = History(calls=(Call("id", "calculate", {"expression": "17 * 23"}, "OK", 391),))
    session = await Session("What is 17 * 23?", tools=TOOLS, history=history).run(agent)
    assert session.calls == []
    assert "391" in session.text


async def test_stops_between_two_tokens(agent: LocalAgent) -> None:
    story = Session("Write a very long story.", parameters={"max_tokens": 3000}).turn
    async with aclosing(agent(story)) as pieces:
        for _ in range(5):
            await anext(pieces)
    # its only slot is free: 3000 tokens would have taken half a minute
    await asyncio.wait_for(Session("Hi", parameters={"max_tokens": 1}).run(agent), 10)


async def test_stops_while_it_reads_the_prompt(agent: LocalAgent) -> None:
    begun = asyncio.Event()

    async def consume() -> None:
        chunks = agent._engine.chat({"messages": [{"role": "user", "content": "word " * 3500}]})
        async with aclosing(chunks):
            async for chunk in chunks:
                if "prompt_progress" in chunk:
                    begun.set()

    task = asyncio.create_task(consume())
    await asyncio.wait_for(begun.wait(), 20)
    task.cancel()
    await asyncio.wait_for(asyncio.wait({task}), 5)
    assert task.cancelled()
    await asyncio.wait_for(Session("Hi", parameters={"max_tokens": 1}).run(agent), 10)

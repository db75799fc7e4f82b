"""The scripted back-end: what other tests rely on."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import pytest

from commander.agent import ClientCall, Finish, Message, Thought, Tool, ToolError, Turn, Yielded
from commander.backends.scripted import ScriptedAgent, make, token
from commander.backends.settings import ScriptedSettings

QUICK = ScriptedSettings(tokens=3, interval_ms=0)


def said(prompt: str) -> tuple[Message, ...]:
    return (Message("user", prompt),)


async def played(turn: Turn, settings: ScriptedSettings = QUICK) -> list[Yielded]:
    return [piece async for piece in ScriptedAgent(settings)(turn)]


async def test_says_numbered_tokens_and_their_count() -> None:
    assert await played(Turn(said("hello"))) == ["w0 ", "w1 ", "w2 ", Finish(completion_tokens=3)]


async def test_parameters_say_how_many() -> None:
    pieces = await played(Turn(said("hello"), parameters={"tokens": 2, "interval_ms": 0, "temperature": 1}))
    assert pieces == ["w0 ", "w1 ", Finish(completion_tokens=2)]


async def test_a_prompt_that_is_a_script_is_followed() -> None:
    assert await played(Turn(said('{"tokens": 1}'))) == ["w0 ", Finish(completion_tokens=1)]


@pytest.mark.parametrize("prompt", ["{hello", '{"a": ' + "[" * 5_000 + "]" * 5_000 + "}"], ids=["no JSON", "too deep"])
async def test_a_prompt_that_only_looks_like_a_script_is_a_prompt(prompt: str) -> None:
    assert len(await played(Turn(said(prompt)))) == 4


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_a_limit_ends_it(name: str) -> None:
    assert await played(Turn(said("hi"), parameters={name: 1})) == ["w0 ", Finish("length", completion_tokens=1)]


async def test_every_step() -> None:
    async def tool(name: str, arguments: Mapping[str, Any]) -> Any:
        if name == "broken":
            raise ToolError("TOOL_ERROR", "it broke")
        return {name: dict(arguments)}

    steps = [
        {"think": "Planning", "text": "hm"},
        {"call": "search", "arguments": {"q": 1}},
        {"say": "got {result}; "},
        {"calls": [{"call": "a"}, {"call": "broken"}]},
        {"say": "{result}"},
        {"wait_ms": 0},
        {"tokens": 1},
        {"finish": "content_filter"},
        {"say": "never"},
    ]
    assert await played(Turn(said(""), parameters={"steps": steps}, tool_caller=tool)) == [
        Thought("Planning", "hm"),
        'got {"search": {"q": 1}}; ',
        '[{"a": {}}, {"error": {"code": "TOOL_ERROR", "message": "it broke"}}]',
        "w0 ",
        Finish("content_filter", completion_tokens=1),
    ]


WEATHER = Tool("weather", "", {"type": "object", "properties": {"city": {"type": "string"}}}, client=True)
FORM = {"response_format": {"type": "json_object"}}


async def test_a_script_ends_with_calls_of_the_clients_tools() -> None:
    steps = [{"tokens": 1}, {"client_calls": [{"call": "weather", "arguments": {"city": "Oslo"}}]}, {"say": "never"}]
    word, finish = await played(Turn(said(""), {"steps": steps}, (WEATHER,)))
    assert word == "w0 "
    assert isinstance(finish, Finish)
    assert (finish.reason, finish.completion_tokens) == ("tool_calls", 1)
    assert [(call.name, call.arguments) for call in finish.calls] == [("weather", {"city": "Oslo"})]


async def test_without_a_script_a_client_is_obeyed() -> None:
    (finish,) = await played(Turn(said("hello"), tools=(WEATHER,)))
    assert isinstance(finish, Finish)
    assert [call.name for call in finish.calls] == ["weather"]
    assert await played(Turn(said("hello"), FORM)) == ["{}", Finish(completion_tokens=1)]
    result = Message("tool", '{"tokens": 1}', tool_call_id="c")
    asked = Message("assistant", "", (ClientCall("weather", {}, "c"),))
    answer = ["weather: ", '{"tokens": ', "1}", Finish(completion_tokens=3)]
    assert await played(Turn((*said("hello"), asked, result), tools=(WEATHER,))) == answer


async def test_a_script_is_followed_whatever_a_client_asks_for() -> None:
    settings = ScriptedSettings.model_validate({"steps": [{"say": "as told"}]})
    assert await played(Turn(said("hello"), FORM, (WEATHER,)), settings) == ["as told", Finish(completion_tokens=0)]
    assert len(await played(Turn(said('{"tokens": 1}'), FORM, (WEATHER,)))) == 2


async def test_fails_where_the_script_says_so() -> None:
    with pytest.raises(RuntimeError, match="as told"):
        await played(Turn(said(""), parameters={"steps": [{"fail": "as told"}]}))


@pytest.mark.parametrize(
    "script",
    [
        {"tokens": "many"},
        {"steps": [{"sing": "la"}]},
        {"steps": [], "tokens": 1},
        {"steps": [{"finish": "tool_calls"}]},
        {"steps": [{"client_calls": []}]},
    ],
)
async def test_a_script_that_cannot_be_read_is_an_error(script: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the script cannot be read"):
        await played(Turn(said(""), parameters=script))


async def test_counts_what_it_made_when_it_is_stopped() -> None:
    agent = ScriptedAgent(QUICK)
    async with aclosing(agent(Turn(said(""), parameters={"tokens": 5000, "interval_ms": 0.1}))) as pieces:
        text = ""
        async for piece in pieces:
            assert isinstance(piece, str)
            text += piece
            if agent.produced == 10:
                break
    await asyncio.sleep(0)
    assert text == "".join(map(token, range(10)))
    assert agent.produced == 10


async def test_is_made_from_the_settings() -> None:
    agent = make(ScriptedSettings(tokens=1, interval_ms=0))
    assert [piece async for piece in agent(Turn(said("")))] == ["w0 ", Finish(completion_tokens=1)]

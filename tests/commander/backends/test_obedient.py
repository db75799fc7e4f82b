"""What a client's tests can rely on."""

from typing import Any

import pytest

from commander.agent import ClientCall, Finish, Message, Tool, Turn, supported
from commander.testing import ScriptedTurn, ask, obedient

CITY = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}, "days": {"type": "integer", "minimum": 2}}}
TOOLS = (Tool("weather", "", CITY), Tool("now", "", {}))
MAIL = {"type": "function", "function": {"name": "now"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": CITY}}


async def called(**parameters: Any) -> list[tuple[str, Any]]:
    answer = await ask(obedient, ScriptedTurn("go", client_tools=TOOLS, parameters=parameters))
    return [(call.name, call.arguments) for call in answer.finish.calls]


async def test_it_calls_what_it_is_offered() -> None:
    assert supported(obedient) == ("tools", "structured", "sampling", "reasoning")
    both = [("weather", {"city": "Oslo", "days": 2}), ("now", {})]
    assert await called() == both
    assert await called(tool_choice="required") == both
    assert await called(parallel_tool_calls=False) == both[:1]
    assert await called(tool_choice=MAIL) == both[1:]
    assert await called(tool_choice="none") == []


async def test_it_says_the_results_and_calls_again_only_if_it_must() -> None:
    asked = Message("assistant", "", (ClientCall("weather", {}, "a"), ClientCall("now", {}, "b")))
    messages = ("go", asked, Message("tool", "sunny", tool_call_id="a"), Message("tool", "noon", tool_call_id="b"))
    assert (await ask(obedient, ScriptedTurn(*messages, client_tools=TOOLS))).text == "weather: sunny; now: noon"
    turn = ScriptedTurn(*messages, client_tools=TOOLS, parameters={"tool_choice": "required"})
    assert len((await ask(obedient, turn)).finish.calls) == 2


async def test_it_answers_in_the_form_that_is_asked_for() -> None:
    turn = ScriptedTurn("go", parameters={"response_format": SCHEMA})
    assert (await ask(obedient, turn)).text == '{"city":"Oslo","days":2}'


@pytest.mark.parametrize("limit", [None, 2, 3])
async def test_its_limit_is_in_words(limit: int | None) -> None:
    pieces = [piece async for piece in obedient(Turn((Message("user", " one two  three"),), {"max_tokens": limit}))]
    whole = [" ", "one ", "two  ", "three", Finish(completion_tokens=4)]
    assert pieces == (whole if limit is None else [*whole[:limit], Finish("length", completion_tokens=limit)])


@pytest.mark.parametrize(
    ("parameters", "wrong"),
    [
        ({"response_format": {"type": "xml"}}, "a response_format that cannot be read"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"pattern": "a"}}}},
            "response_format: #: pattern is not supported",
        ),
        ({"tool_choice": "perhaps"}, "a tool_choice that cannot be read"),
    ],
)
async def test_what_it_cannot_keep_to_it_refuses(parameters: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValueError, match=f"^{wrong}$"):
        await ask(obedient, ScriptedTurn("go", client_tools=["mail"], parameters={"tool_choice": "none", **parameters}))


async def test_arguments_that_it_cannot_write_are_named() -> None:
    tool = Tool("search", "", {"properties": {"q": {"type": "string", "pattern": "a"}}})
    with pytest.raises(ValueError, match=r"^the arguments of search: #/properties/q: pattern is not supported$"):
        await ask(obedient, ScriptedTurn("go", client_tools=[tool]))

"""What an agent's author imports."""

import dataclasses
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest

from commander import agent
from commander.agent import (
    Call,
    ClientCall,
    Finish,
    History,
    Message,
    Thought,
    ToolError,
    Turn,
    User,
    Yielded,
    can_continue,
    continues,
    supported,
    supports,
)
from commander.turn import from_assignment
from shared import records


def test_what_an_author_gets_is_frozen() -> None:
    for thing in (Turn(()), Thought("a", "b"), Finish(), Message("user", "x"), Call("c", "t", {}, "OK", 1), History()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, dataclasses.fields(thing)[0].name, None)


def test_it_knows_who_asked() -> None:
    """None: the Dispatcher does not, or is an older one."""

    async def no_tools(name: str, arguments: Mapping[str, Any]) -> Any:
        raise AssertionError

    known = records.User("u-1", "acme", (("email", "a@b.example"),))
    for user, told in ((known, User("u-1", "acme", {"email": "a@b.example"})), (None, None)):
        assert from_assignment(records.Assignment("s", 1, "a", user=user), no_tools).user == told


def test_it_gets_a_message_whole() -> None:
    async def no_tools(name: str, arguments: Mapping[str, Any]) -> Any:
        raise AssertionError

    given = (
        records.Message("assistant", "ok", (records.ClientCall("c", "f", "{}"),), name="Ann", phase="commentary"),
        records.Message("tool", "sunny", (), "c", "f"),
        records.Message("user", "see", parts_json='[{"type": "text", "text": "see"}]'),
    )
    assert from_assignment(records.Assignment("s", 1, "a", given), no_tools).messages == (
        Message("assistant", "ok", (ClientCall("f", "{}", "c"),), name="Ann", phase="commentary"),
        Message("tool", "sunny", (), "c", "f"),
        Message("user", "see", parts=({"type": "text", "text": "see"},)),
    )


@pytest.mark.parametrize("written", ['{"city": ', "[" * 5_000 + "]" * 5_000], ids=["no JSON", "too deep"])
def test_arguments_in_a_history_that_cannot_be_read_stand_as_the_model_wrote_them(written: str) -> None:
    async def no_tools(name: str, arguments: Mapping[str, Any]) -> Any:
        raise AssertionError

    call = records.ToolCall("weather", written, "c")
    history = records.History(2, (call, records.ToolResult("weather", "null", "c", "INVALID_ARGUMENTS")))
    (known,) = from_assignment(records.Assignment("s", 2, "a", history=history), no_tools).history.calls
    assert known == Call("c", "weather", written, "INVALID_ARGUMENTS", None)


def test_sessions_share_their_tools_schemas() -> None:
    async def no_tools(name: str, arguments: Mapping[str, Any]) -> Any:
        raise AssertionError

    tools = tuple(records.Tool(name, "", schema) for name, schema in (("a", '{"type": "object"}'), ("b", "")))
    one, other = (from_assignment(records.Assignment(sid, 1, "a", tools=tools), no_tools).tools for sid in "st")
    assert [tool.parameters for tool in one] == [{"type": "object"}, {}]
    assert all(mine.parameters is theirs.parameters for mine, theirs in zip(one, other, strict=True))


def test_an_agent_continues_only_where_it_says_so() -> None:
    async def quiet(turn: Turn) -> AsyncGenerator[Yielded, None]:
        yield ""

    assert not can_continue(quiet)
    assert can_continue(continues(quiet))


def test_an_agent_supports_what_it_says() -> None:
    async def quiet(turn: Turn) -> AsyncGenerator[Yielded, None]:
        yield ""

    assert supported(quiet) is None
    assert supported(supports("tools", "images")(quiet)) == ("tools", "images")
    assert supported(supports()(quiet)) == (), "not even sampling"
    with pytest.raises(ValueError, match="'telepathy'"):
        supports("telepathy")  # type: ignore[arg-type]


CALL = ClientCall("weather", {"city": "Oslo"}, "a")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"calls": (CALL,)}, "'stop'"),
        ({"reason": "tool_calls"}, "calls go with"),
        ({"reason": "tool_calls", "calls": (CALL, CALL)}, "different call_ids"),
        ({"reason": "tool_calls", "calls": ("weather",)}, "must be ClientCall"),
        ({"reason": "tool_calls", "calls": tuple(ClientCall("t", {}) for _ in range(65))}, "at most 64"),
        ({"reason": "tool_calls", "calls": tuple(ClientCall("t", "x" * 60_000) for _ in range(5))}, "300000 bytes"),
    ],
)
def test_a_finish_whose_calls_are_wrong_is_refused_where_it_is_made(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Finish(**wrong)


@pytest.mark.parametrize(
    ("arguments", "why"), [({"x": object()}, "not JSON"), (5, "got int"), ("x" * 70_000, "70000 bytes")]
)
def test_a_wrong_call_is_refused_where_it_is_made(arguments: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ClientCall("weather", arguments)


def test_a_call_has_its_arguments_as_text_and_an_id() -> None:
    assert CALL.arguments_json == '{"city": "Oslo"}'
    assert ClientCall("weather", '{"city": ').arguments_json == '{"city": ', "as the model wrote it"
    assert ClientCall("t", {}).call_id != ClientCall("t", {}).call_id


@pytest.mark.parametrize("wrong", [{"reason": "done"}, {"prompt_tokens": -1}, {"completion_tokens": "7"}])
def test_a_wrong_finish_is_refused_where_it_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Finish(**wrong)


def test_a_wrong_thought_is_refused_where_it_is_made() -> None:
    with pytest.raises(TypeError, match="two str, got str, int"):
        Thought("plan", 5)  # type: ignore[arg-type]


async def test_a_turn_made_by_hand_has_no_tools() -> None:
    with pytest.raises(ToolError) as raised:
        await Turn(()).call_tool("search")
    assert raised.value.code == "UNKNOWN_TOOL"


def test_the_promised_names_are_there() -> None:
    for name in (
        "Turn",
        "Thought",
        "Finish",
        "Message",
        "Call",
        "History",
        "ToolError",
        "continues",
        "ClientCall",
        "supports",
    ):
        assert hasattr(agent, name)

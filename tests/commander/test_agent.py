"""What an agent's author imports."""

import dataclasses
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from commander import agent
from commander.agent import Call, Finish, History, Message, Thought, ToolError, Turn, Yielded, can_continue, continues


def test_what_an_author_gets_is_frozen() -> None:
    for thing in (Turn(()), Thought("a", "b"), Finish(), Message("user", "x"), Call("c", "t", {}, "OK", 1), History()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, dataclasses.fields(thing)[0].name, None)


def test_an_agent_continues_only_where_it_says_so() -> None:
    async def quiet(turn: Turn) -> AsyncGenerator[Yielded, None]:
        yield ""

    assert not can_continue(quiet)
    assert can_continue(continues(quiet))


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
    for name in ("Turn", "Thought", "Finish", "Message", "Call", "History", "ToolError", "continues"):
        assert hasattr(agent, name)

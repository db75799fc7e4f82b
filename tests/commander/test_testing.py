from collections.abc import AsyncGenerator

import pytest

from commander.agent import Call, ClientCall, Finish, Message, Thought, Tool, ToolError, Turn, Yielded, continues
from commander.testing import Answer, ScriptedTurn, ask


async def searching(turn: Turn) -> AsyncGenerator[Yielded, None]:
    """Calls each tool that there is, and one that is not."""
    yield Thought("Planning", turn.messages[-1].content)
    for tool in (*(tool.name for tool in turn.tools), "other"):
        try:
            yield f"{tool}: {await turn.call_tool(tool, {'q': (1, 2)})}; "
        except ToolError as error:
            yield f"{tool}: {error.code}; "
    yield Finish("length", 1, 2)


async def calling(turn: Turn) -> AsyncGenerator[Yielded, None]:
    """Ends with a call of each tool that it was named."""
    names = turn.messages[-1].content.split()
    yield Finish("tool_calls", calls=tuple(ClientCall(name, {}, name) for name in names))


async def test_an_agent_ends_with_calls_of_the_clients_tools_and_of_no_others() -> None:
    turn = ScriptedTurn("weather", tools={"search": 1}, client_tools=["weather", Tool("mail", "", {})])
    assert [(tool.name, tool.client) for tool in turn.tools] == [("search", False), ("weather", True), ("mail", True)]
    assert (await ask(calling, turn)).finish.calls == (ClientCall("weather", {}, "weather"),)
    with pytest.raises(ValueError, match="'search', which is no tool of the client's"):
        await ask(calling, ScriptedTurn("search", tools={"search": 1}, client_tools=["weather"]))


async def double(arguments: dict[str, list[int]]) -> list[int]:
    return arguments["q"] * 2


async def test_tools_follow_their_script_and_each_call_is_kept() -> None:
    tools = {"fixed": {"hits": ()}, "failing": ToolError("DENIED", "no"), "own": double, "plain": len}
    turn = ScriptedTurn(Message("system", "Be brief."), "Search.", tools=tools)
    answer = await ask(searching, turn)
    assert answer == Answer(
        "fixed: {'hits': []}; failing: DENIED; own: [1, 2, 1, 2]; plain: 1; other: UNKNOWN_TOOL; ",
        (Thought("Planning", "Search."),),
        Finish("length", 1, 2),
    )
    assert [(call.tool_name, call.status) for call in turn.made] == [
        ("fixed", "OK"), ("failing", "DENIED"), ("own", "OK"), ("plain", "OK"), ("other", "UNKNOWN_TOOL"),
    ]  # fmt: skip
    assert {str(call.arguments) for call in turn.made} == {"{'q': [1, 2]}"}, "as they come over the wire"
    assert turn.made[1].result == {"error": {"code": "denied", "message": "no"}}


async def test_what_no_session_would_take_is_refused() -> None:
    turn = ScriptedTurn("go", tools={"search": 1})
    with pytest.raises(ToolError, match="INVALID_ARGUMENTS"):
        await turn.call_tool("search", {"q": object()})

    async def says(*items: object) -> AsyncGenerator[Yielded, None]:
        for item in items:
            yield item  # type: ignore[misc]

    with pytest.raises(TypeError, match=r"yielded 5; it may yield"):
        await ask(lambda _: says("a", 5), turn)
    with pytest.raises(TypeError, match=r"yielded 'b'; nothing may come after Finish"):
        await ask(lambda _: says(Finish(), "b"), turn)
    with pytest.raises(TypeError, match=r"returned 'a'; it must be an async generator function"):
        await ask(lambda _: "a", turn)  # type: ignore[arg-type, return-value]
    assert await ask(lambda _: says("a"), turn) == Answer("a", (), Finish())


async def test_an_agent_goes_on_from_a_scripted_history() -> None:
    @continues
    async def counting(turn: Turn) -> AsyncGenerator[Yielded, None]:
        for number in range(len(turn.history.said.split()), 4):
            yield f"{number} "
        yield turn.history.calls[0].result

    earlier = [Call("c1", "search", {}, "OK", "found")]
    assert (await ask(counting, ScriptedTurn("Count.", said="0 1 ", earlier=earlier))).text == "2 3 found"

"""To test an agent without a network: a turn whose tools and history are scripted, and what the agent makes of it. To
test a client without a model: `obedient`, an agent that calls what it is offered and answers in the form asked for.

turn = ScriptedTurn("Will it rain?", tools={"weather": {"forecast": "sunny"}})
answer = await ask(agent, turn)
assert answer.text == "It is sunny."
assert turn.made[0].arguments == {"city": "Oslo"}
"""

import inspect
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from commander import calls
from commander.agent import Agent, Call, Finish, History, Message, Thought, Tool, ToolError, Turn, User
from commander.backends.obedient import obedient

__all__ = ["Answer", "ScriptedTurn", "ask", "obedient"]


class ScriptedTurn(Turn):
    """A Turn of these messages, the newest last; a str is a user's.

    client_tools   the client's, by which an answer may end: names, or a Tool each
    tools          name → what a call of it gives: JSON, a ToolError, or a function of the arguments that returns or
                   raises one of them, and may be async. Any other tool is UNKNOWN_TOOL, as in a real session
    said, earlier  what a predecessor said and called (`turn.history`)
    made           each call that the agent has made, with what it got
    """

    __slots__ = ("_script", "made")
    _script: Mapping[str, Any]
    made: list[Call]

    def __init__(
        self,
        *messages: str | Message,
        tools: Mapping[str, Any] | None = None,
        client_tools: Sequence[str | Tool] = (),
        parameters: Mapping[str, Any] | None = None,
        said: str = "",
        earlier: Sequence[Call] = (),
        session_id: str = "session-of-a-test",
        conversation_id: str = "",
        trace: str = "",
        user: User | None = None,
    ) -> None:
        script = dict(tools or {})
        super().__init__(
            messages=tuple(Message("user", message) if isinstance(message, str) else message for message in messages),
            parameters=dict(parameters or {}),
            tools=(*(Tool(name, "", {"type": "object"}) for name in script), *map(_clients, client_tools)),
            history=History(said, tuple(earlier)),
            session_id=session_id,
            tool_caller=self._run,
            conversation_id=conversation_id,
            trace=trace,
            user=user,
        )
        object.__setattr__(self, "_script", script)  # a Turn is frozen
        object.__setattr__(self, "made", [])

    async def _run(self, name: str, arguments: Mapping[str, Any]) -> Any:
        call = calls.request(name, arguments)  # refuses what a real session would
        given = json.loads(call.arguments_json)
        try:
            result = await self._result(name, given)
        except ToolError as error:
            failed = {"error": {"code": error.code.lower(), "message": error.message}}
            self.made.append(Call(call.call_id, name, given, error.code, failed))
            raise
        self.made.append(Call(call.call_id, name, given, "OK", result))
        return result

    async def _result(self, name: str, arguments: Mapping[str, Any]) -> Any:
        if name not in self._script:
            raise ToolError("UNKNOWN_TOOL", f"no tool {name!r}")
        result = self._script[name]
        if callable(result):
            result = result(arguments)
            if inspect.isawaitable(result):
                result = await result
        if isinstance(result, ToolError):
            raise result
        return json.loads(json.dumps(result, allow_nan=False))  # what comes over the wire is JSON


def _clients(tool: str | Tool) -> Tool:
    return Tool(tool, "", {"type": "object"}, client=True) if isinstance(tool, str) else replace(tool, client=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an agent said. text: to the user, all of it; thoughts: to operators, piece by piece; finish: why it ends,
    with the calls of the client's tools.
    """

    text: str
    thoughts: tuple[Thought, ...]
    finish: Finish


async def ask(agent: Agent, turn: Turn) -> Answer:
    """Run the agent to its end. Raises what it raises, and TypeError or ValueError for what no session would take."""
    text: list[str] = []
    thoughts: list[Thought] = []
    finish: Finish | None = None
    generator: object = agent(turn)
    if not isinstance(generator, AsyncIterator):
        if inspect.iscoroutine(generator):
            generator.close()
        raise TypeError(f"the agent returned {generator!r}; it must be an async generator function")
    async for item in generator:
        if finish:
            raise TypeError(f"the agent yielded {item!r}; nothing may come after Finish")
        match item:
            case str():
                text.append(item)
            case Thought():
                thoughts.append(item)
            case Finish():
                finish = item
                offered = {tool.name for tool in turn.tools if tool.client}
                if missing := [call.name for call in item.calls if call.name not in offered]:
                    raise ValueError(f"the agent calls {missing[0]!r}, which is no tool of the client's")
            case _:
                raise TypeError(f"the agent yielded {item!r}; it may yield str, Thought or Finish")
    return Answer("".join(text), tuple(thoughts), finish or Finish())

"""The client's own tools: what a request says of them, and what its messages hold of their calls and results."""

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from dispatcher.gateway.errors import HttpError
from dispatcher.gateway.namespaces import spellings
from shared.records import ClientCall, Message, Tool

MAX_CLIENT_TOOLS = 128  # as OpenAI takes
MAX_CLIENT_SCHEMA_BYTES = 64 * 1024  # of one, as of a tool of the Dispatcher's

MAX_TOOL_NAME = 128  # characters

# Says nothing by itself.
ToolName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]+$", max_length=MAX_TOOL_NAME)]
CallId = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class FunctionDefinition(msgspec.Struct, frozen=True):
    """parameters: JSON Schema of an object."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ChatTool(msgspec.Struct, frozen=True):
    function: FunctionDefinition


class Named(msgspec.Struct, frozen=True):
    name: ToolName


class NamedTool(msgspec.Struct, frozen=True):
    function: Named | None = None
    name: ToolName | None = None


class AllowedTools(msgspec.Struct, frozen=True):
    mode: Literal["auto", "required"]
    tools: list[NamedTool]


class ChosenTools(msgspec.Struct, frozen=True):
    """A named tool, or some of them; on Responses a level less deep than on Chat Completions."""

    type: Literal["function", "allowed_tools"]
    function: Named | None = None
    name: ToolName | None = None
    allowed_tools: AllowedTools | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[NamedTool] | None = None


ToolChoice = Literal["auto", "none", "required"] | ChosenTools


class CalledFunction(msgspec.Struct, frozen=True):
    name: ToolName
    arguments: str


class CalledTool(msgspec.Struct, frozen=True):
    """A call in an assistant's message."""

    id: CallId
    function: CalledFunction

    @property
    def call(self) -> ClientCall:
        return ClientCall(self.id, self.function.name, self.function.arguments)


def functions_of(tools: Sequence[ChatTool] | None) -> dict[str, FunctionDefinition]:
    """By where they stand in the request."""
    return {f"tools[{n}]": tool.function for n, tool in enumerate(tools or ())}


def tools_of(given: Mapping[str, FunctionDefinition], own: Sequence[Tool]) -> tuple[Tool, ...]:
    """The client's, as Commanders get them. given: by where they stand in the request. own: the Dispatcher's that the
    agent is shown. Raises HttpError 400.
    """
    if len(given) > MAX_CLIENT_TOOLS:
        raise _invalid("tools", f"at most {MAX_CLIENT_TOOLS} are taken, not {len(given)}")
    names = {tool.name for tool in own}
    tools: list[Tool] = []
    for where, function in given.items():
        if function.name in names:
            raise _invalid(where, f"there is a tool {function.name!r} already")
        names.add(function.name)
        schema = msgspec.json.encode(function.parameters or {"type": "object", "properties": {}})
        if len(schema) > MAX_CLIENT_SCHEMA_BYTES:
            raise _invalid(where, f"its parameters have more than {MAX_CLIENT_SCHEMA_BYTES} bytes")
        tools.append(Tool(function.name, function.description or "", schema.decode(), True, bool(function.strict)))
    return tuple(tools)


def parameters_of(
    choice: ToolChoice | None, parallel: bool | None, tools: Sequence[Tool], namespaces: Collection[str] = ()
) -> dict[str, Any]:
    """What an agent gets of a choice among tools: in the form of Chat Completions. Raises HttpError 400."""
    chosen: dict[str, Any] = {}
    if choice is not None and (tools or choice not in ("auto", "none")):
        chosen["tool_choice"] = _choice(choice, spellings((tool.name for tool in tools), namespaces))
    if parallel is not None and tools:
        chosen["parallel_tool_calls"] = parallel
    return chosen


def _choice(choice: ToolChoice, names: Mapping[str, str]) -> Any:
    """names: what the client may call them → what the agent does."""
    if not names:
        raise _invalid("tool_choice", "there are no `tools` to choose from")
    if not isinstance(choice, ChosenTools):
        return choice
    if choice.type == "function":
        return _named(choice, "tool_choice", names)
    allowed = choice.allowed_tools
    mode, given = (allowed.mode, allowed.tools) if allowed else (choice.mode, choice.tools)
    if mode is None or not given:
        raise _invalid("tool_choice", "`mode` and `tools` are needed")
    named = [_named(tool, f"tool_choice.tools[{n}]", names) for n, tool in enumerate(given)]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": named}}


def _named(chosen: ChosenTools | NamedTool, where: str, names: Mapping[str, str]) -> dict[str, Any]:
    name = chosen.function.name if chosen.function else chosen.name
    if name is None or name not in names:
        hint = "; of a namespace's it is `namespace.name`" if any(own != each for each, own in names.items()) else ""
        raise _invalid(where, f"there is no tool of this name among `tools`{hint}")
    return {"type": "function", "function": {"name": names[name]}}


def check_history(messages: Sequence[Message], field: str, earlier: Sequence[Message] = ()) -> None:
    """Each result answers a call that stands before it, or in what came earlier, once; one without an id answers none.
    Raises HttpError 400.
    """
    unanswered: set[str] = set()
    for message in earlier:
        unanswered.update(call.call_id for call in message.tool_calls)
        unanswered.discard(message.tool_call_id)
    for n, message in enumerate(messages):
        for call in message.tool_calls:
            if call.call_id in unanswered:
                raise _invalid(f"{field}[{n}]", "two calls that wait for their result have the same id")
            unanswered.add(call.call_id)
        if not message.tool_call_id:
            continue
        if message.tool_call_id not in unanswered:
            raise _invalid(f"{field}[{n}]", "it answers no call before it, or one that was answered already")
        unanswered.remove(message.tool_call_id)


def _invalid(param: str, message: str) -> HttpError:
    return HttpError(400, f"{param}: {message}", code="invalid_value", param=param)

"""What a request for a response says: its body, and what agents and its object get of it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from dispatcher.gateway import bodies
from dispatcher.gateway.client_tools import (
    MAX_TOOL_NAME,
    CalledFunction,
    CalledTool,
    CallId,
    FunctionDefinition,
    ToolChoice,
    ToolName,
)
from dispatcher.gateway.conversations import Earlier, joined
from dispatcher.gateway.formats import TextFormat
from dispatcher.gateway.namespaces import apart, full_name
from dispatcher.gateway.parts import Part, contents
from dispatcher.gateway.response_events import Echo
from shared.records import Message

TEXT_TYPES = ("input_text", "output_text")


# Bounds as OpenAI has them.
ResponseMetadata: TypeAlias = Annotated[
    dict[Annotated[str, msgspec.Meta(max_length=64)], Annotated[str, msgspec.Meta(max_length=512)]],
    msgspec.Meta(max_length=16),
]
Marker: TypeAlias = Annotated[str, msgspec.Meta(max_length=256)]


class InputItem(msgspec.Struct, frozen=True):
    type: str = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[Part] | None = None
    call_id: CallId | None = None
    name: ToolName | None = None
    namespace: ToolName | None = None
    arguments: str | None = None
    output: str | list[Part] | None = None
    phase: Literal["commentary", "final_answer"] | None = None
    id: str | None = None


class ResponseTool(msgspec.Struct, frozen=True):
    """A function, or a namespace of some; of what else there may be (`fields.RESPONSES`) nothing is read."""

    type: str = "function"
    name: ToolName | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    tools: list[FunctionDefinition] | None = None


class TextConfig(msgspec.Struct, frozen=True):
    format: TextFormat | None = None


class Reasoning(msgspec.Struct, frozen=True):
    effort: str | None = None


class ResponseBody(msgspec.Struct, frozen=True):
    """What is read of `fields.RESPONSES`. Fields from `max_output_tokens` on become the session's parameters, named as
    on Chat Completions, so that an agent need not know how it was asked.
    """

    model: bodies.Name
    input: Annotated[str, msgspec.Meta(min_length=1)] | list[InputItem]
    instructions: str | None = None
    stream: bool | None = None
    background: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    metadata: ResponseMetadata | None = None
    prompt_cache_key: Marker | None = None
    safety_identifier: Marker | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    tools: list[ResponseTool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None


class MessageBody(ResponseBody, frozen=True, kw_only=True):
    """A message of a WebSocket. generate: false: nothing is to be answered, but gone on from. stream_id: its lane."""

    type: Literal["response.create"]
    stream_id: Marker | None = None
    generate: bool | None = None


def messages_of(
    body: ResponseBody, earlier: tuple[Message, ...], referenced: Mapping[str, Message]
) -> tuple[Message, ...]:
    """The conversation, as agents get it. earlier: what stands before it. referenced: by their ids."""
    before = ((Message("system", body.instructions),) if body.instructions else ()) + earlier
    if isinstance(body.input, str):
        return (*before, Message("user", body.input))
    given = [_message(item, f"input[{n}]", referenced) for n, item in enumerate(body.input)]
    found = bodies.messages(given, "input", TEXT_TYPES, earlier)
    labelled = (_labelled(message, item) for message, item in zip(found, body.input, strict=True))
    return before + joined(list(labelled))


def _message(item: InputItem, where: str, referenced: Mapping[str, Message]) -> bodies.ChatMessage | Message:
    if item.type == "item_reference":
        return referenced[item.id or ""]
    if item.type == "function_call":
        if item.call_id is None or item.name is None or item.arguments is None:
            raise bodies.invalid(where, "a function_call has `call_id`, `name` and `arguments`")
        called = CalledTool(item.call_id, CalledFunction(full_name(item.namespace, item.name), item.arguments))
        return bodies.ChatMessage("assistant", None, [called])
    if item.type == "function_call_output":
        if item.output is None or (item.call_id or item.name) is None:
            raise bodies.invalid(
                where, "a function_call_output has `output`, and `call_id`, or `name` where none called"
            )
        name = full_name(item.namespace, item.name) if item.name else ""
        if item.call_id is None:  # Codex tells of its goals so
            output = item.output
            text = output if isinstance(output, str) else contents(output, f"{where}.output", TEXT_TYPES)[0]
            return Message("tool", text, name=name)
        return bodies.ChatMessage("tool", item.output, tool_call_id=item.call_id, name=name)
    if item.role is None:
        raise bodies.invalid(f"{where}.role", "is missing")
    if item.phase and item.role != "assistant":
        raise bodies.invalid(f"{where}.phase", "only an assistant's message has one")
    return bodies.ChatMessage(item.role, item.content)


def _labelled(message: Message, item: InputItem) -> Message:
    return replace(message, phase=item.phase) if item.phase and item.type == "message" else message


def namespaces_of(tools: Sequence[ResponseTool]) -> dict[str, str]:
    """Each one's name → its description."""
    return {tool.name: tool.description or "" for tool in tools if tool.type == "namespace" and tool.name}


def functions_of(tools: Sequence[ResponseTool]) -> dict[str, FunctionDefinition]:
    """As agents know them, by where they stand in the request. A namespace's description stands before each of its
    tools'. Raises HttpError 400.
    """
    namespaces = namespaces_of(tools)
    if len(namespaces) < sum(tool.type == "namespace" for tool in tools):
        raise bodies.invalid("tools", "each namespace has a `name` of its own")
    found: dict[str, FunctionDefinition] = {}
    for n, tool in enumerate(tools):
        where = f"tools[{n}]"
        if tool.type == "function":
            if tool.name is None:
                raise bodies.invalid(f"{where}.name", "is missing")
            found[where] = FunctionDefinition(tool.name, tool.description, tool.parameters, tool.strict)
            _check(where, tool.name, None, namespaces)
        elif tool.type == "namespace":
            for m, inner in enumerate(tool.tools or ()):
                name = full_name(tool.name, inner.name)
                _check(f"{where}.tools[{m}]", name, tool.name, namespaces)
                said = "\n\n".join(filter(None, (tool.description, inner.description)))
                found[f"{where}.tools[{m}]"] = replace(inner, name=name, description=said)
    return found


def _check(where: str, name: str, namespace: str | None, namespaces: Collection[str]) -> None:
    """Nobody can take it for another's."""
    if len(name) > MAX_TOOL_NAME:
        raise bodies.invalid(where, f"with its namespace its name has more than {MAX_TOOL_NAME} characters")
    if (other := apart(name, namespaces).get("namespace")) != namespace:
        raise bodies.invalid(where, f"its name is one of the namespace {other!r}")


def parameters_of_response(body: ResponseBody) -> dict[str, Any]:
    given = {
        "max_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "reasoning_effort": body.reasoning.effort if body.reasoning else None,
    }
    form = body.text.format.parameters("text.format") if body.text and body.text.format else {}
    return {name: value for name, value in given.items() if value is not None} | form


def shown_of(body: ResponseBody, before: Earlier) -> str:
    shown = Echo(
        body.metadata or {},
        bool(body.instructions),
        body.prompt_cache_key,
        body.safety_identifier,
        body.previous_response_id,
        body.store is not False,
        len(before.messages),
        before.links,
        namespaces=namespaces_of(body.tools or ()),
    )
    return "" if shown == Echo() else msgspec.json.encode(shown).decode()

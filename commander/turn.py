"""From an Assignment to what the agent gets."""

import json
from collections.abc import Callable
from sys import intern
from typing import Any

from commander.agent import Call, ClientCall, History, Message, Tool, ToolCaller, Turn, User
from commander.shared_json import parsed_once
from shared import records


def from_assignment(assignment: records.Assignment, tool_caller: ToolCaller) -> Turn:
    """Raises ValueError where the Dispatcher sent what is not JSON."""
    parameters = _parsed(assignment.parameters_json or "{}", "parameters")
    if not isinstance(parameters, dict):
        raise ValueError("the session's parameters are no JSON object")  # noqa: TRY004 # the peer's fault, not a type error here
    return Turn(
        messages=tuple(map(_message, assignment.messages)),
        parameters=parameters,
        tools=tuple(_tool(tool) for tool in assignment.tools),
        history=_history(assignment.history),
        session_id=assignment.session_id,
        tool_caller=tool_caller,
        conversation_id=assignment.conversation_id,
        trace=assignment.traceparent,
        user=_user(assignment.user),
        tracestate=assignment.tracestate,
    )


def from_prompt(prompt: str, session_id: str, tool_caller: ToolCaller) -> Turn:
    """Of a session that its Commander brought itself."""
    return Turn(messages=(Message("user", prompt),), session_id=session_id, tool_caller=tool_caller)


def _user(user: records.User | None) -> User | None:
    return User(user.subject, user.tenant, dict(user.claims)) if user else None


def _message(message: records.Message) -> Message:
    calls = tuple(ClientCall(call.name, call.arguments_json, call.call_id) for call in message.tool_calls)
    parts = tuple(_parsed(message.parts_json, "message's parts")) if message.parts_json else ()
    return Message(message.role, message.content, calls, message.tool_call_id, message.name, parts, message.phase)


def _tool(tool: records.Tool) -> Tool:
    schema = _parsed(tool.parameters_json_schema or "{}", "tool's schema", parsed_once)
    return Tool(intern(tool.name), intern(tool.description), schema, tool.client, tool.strict)


def _history(history: records.History | None) -> History:
    entries = history.entries if history else ()
    results = {entry.call_id: entry for entry in entries if isinstance(entry, records.ToolResult)}
    said = "".join(entry.text for entry in entries if isinstance(entry, records.Said))
    calls = (_call(entry, results.get(entry.call_id)) for entry in entries if isinstance(entry, records.ToolCall))
    return History(said, tuple(calls))


def _call(call: records.ToolCall, result: records.ToolResult | None) -> Call:
    try:
        arguments = json.loads(call.arguments_json or "{}")
    except (ValueError, RecursionError):
        arguments = call.arguments_json  # it was answered INVALID_ARGUMENTS
    if result is None:  # a Dispatcher gives each call its result; without one nothing is known
        return Call(call.call_id, call.tool_name, arguments, "UNKNOWN_OUTCOME", None)
    return Call(call.call_id, call.tool_name, arguments, result.status, _parsed(result.result_json or "null", "result"))


def _parsed(text: str, what: str, parse: Callable[[str], Any] = json.loads) -> Any:
    try:
        return parse(text)
    except (ValueError, RecursionError):
        raise ValueError(f"the {what} that the Dispatcher sent is not JSON") from None

"""A session as Chat Completions has it: its messages, its tools and the choice among them, what the model said."""

import json
from typing import Any

from commander.agent import Message, Tool, Turn
from commander.backends.calls import CallParts, parsed
from commander.backends.parameters import ClientChoice


def conversation(turn: Turn, developer_role: str) -> list[dict[str, Any]]:
    """The messages; what a predecessor asked and got; what it said. (How these two interleaved is not handed over.)"""
    messages = [_message(message, developer_role) for message in turn.messages]
    if calls := turn.history.calls:
        asked = [_asked(call.call_id, call.tool_name, json.dumps(call.arguments)) for call in calls]
        messages.append({"role": "assistant", "content": None, "tool_calls": asked})
        messages += [result(call.call_id, call.result) for call in calls]
    if turn.history.said:
        messages.append({"role": "assistant", "content": turn.history.said})
    return messages


def offered(turn: Turn, choice: ClientChoice, *, last: bool) -> dict[str, Any]:
    """The tools, and what is asked of the choice among them. last: calls of the Dispatcher's cannot be answered."""
    own = [tool for tool in turn.tools if not tool.client]
    if not choice.tools:
        # some servers refuse a conversation with calls but without tools
        tools = own or list(turn.tools)
        return _with_tools(tools, "none" if last or not own else None)
    offered = _with_tools([*([] if last else own), *choice.tools], choice.asked)
    if choice.parallel is not None:
        offered["parallel_tool_calls"] = choice.parallel
    return offered


def said(
    messages: list[dict[str, Any]], text: str, calls: list[CallParts], kept: dict[str, Any]
) -> list[dict[str, Any]]:
    """The messages with what the model said and asked for; a message that it continued stays one."""
    if is_continued(messages):
        *messages, before = messages
        text = before["content"] + text
    asked = [_asked_again(call) for call in calls]
    return [*messages, {"role": "assistant", "content": text or None, "tool_calls": asked, **kept}]


def is_continued(messages: list[dict[str, Any]]) -> bool:
    """The last message is one that the model goes on with."""
    return bool(messages) and messages[-1]["role"] == "assistant" and "tool_calls" not in messages[-1]


def result(call_id: str, value: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": json.dumps(value, ensure_ascii=False)}


def _message(message: Message, developer_role: str) -> dict[str, Any]:
    named = {"name": message.name} if message.name else {}
    if message.role == "tool" and message.tool_call_id:
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": message.content, **named}
    # a tool's message is refused without the call that it answers
    roles = {"developer": developer_role, "tool": "user"}
    written: dict[str, Any] = {
        "role": roles.get(message.role, message.role),
        "content": list(message.parts) or message.content,
        **named,
    }
    if message.tool_calls:
        asked = [_asked(call.call_id, call.name, call.arguments_json) for call in message.tool_calls]
        written |= {"content": message.content or None, "tool_calls": asked}
    return written


def _with_tools(tools: list[Tool], choice: Any) -> dict[str, Any]:
    if not tools:
        return {}
    return {"tools": [_tool(tool) for tool in tools], **({"tool_choice": choice} if choice else {})}


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _asked(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _asked_again(call: CallParts) -> dict[str, Any]:
    arguments = "{}" if parsed(call.arguments) == {} else call.arguments  # which may have come as null, or not at all
    asked = _asked(call.call_id, call.name, arguments)
    return asked | ({"extra_content": call.extra_content} if call.extra_content else {})

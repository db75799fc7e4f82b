"""What a local model is asked: which tool, which arguments (both held to a JSON Schema), and the answer itself."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from commander.agent import Call, Message, Tool
from commander.backends.calls import parsed
from commander.backends.schemas import JsonForm, form_of

NO_TOOL = "none"
SHOWN_SCHEMA = 2000  # characters: the context is small

_CALCULATE = "calculate: Calculate an arithmetic expression."
_CURRENT_TIME = "current_time: The current date and time in a time zone."
_EXAMPLES = (  # their order was chosen by trial, on other requests
    ("get_weather: The weather in a city.", "Is it sunny in Madrid?", {"city": "Madrid"}),
    (_CURRENT_TIME, "What time is it in Toronto now?", {"timezone": "America/Toronto"}),
    (_CALCULATE, "Compute (84 - 6) * 7.", {"expression": "(84 - 6) * 7"}),
    (_CURRENT_TIME, "Tell me the time in Rome.", {"timezone": "Europe/Rome"}),
    (_CALCULATE, "I buy 3 bags with 15 apples each. How many apples?", {"expression": "3 * 15"}),
    (_CALCULATE, "what is 250 plus 14", {"expression": "250 + 14"}),
    (_CURRENT_TIME, "time in Lisbon", {"timezone": "Europe/Lisbon"}),
    (_CALCULATE, "Compute 7 * (84 - 6).", {"expression": "7 * (84 - 6)"}),
    (_CALCULATE, "What is 20% of 50?", {"expression": "20 / 100 * 50"}),
    (_CALCULATE, "2 to the power of 5", {"expression": "2 ** 5"}),
    (_CALCULATE, "5+8=?", {"expression": "5 + 8"}),
    (_CALCULATE, "31*12", {"expression": "31 * 12"}),
)


def choosing(request: str, tools: Sequence[Tool], *, may_decline: bool) -> dict[str, Any]:
    """The completion that answers `{"tool": name}`."""
    names = [tool.name for tool in tools] + ([NO_TOOL] if may_decline else [])
    lines = [f"- {_line(tool)}" for tool in tools]
    if may_decline:
        lines.append(f"- {NO_TOOL}: The request can be answered without a tool.")
    system = "Choose the tool that the request needs, as JSON.\n" + "\n".join(lines)
    form = form_of({"type": "object", "properties": {"tool": {"enum": names}}, "required": ["tool"]})
    return _short([{"role": "system", "content": system}, {"role": "user", "content": request}]) | under(form)


def arguing(request: str, tool: Tool) -> dict[str, Any]:
    """The completion that answers with the tool's arguments, to be held to their schema."""
    messages = [{"role": "system", "content": "Write the arguments of the tool that answers the request, as JSON."}]
    for line, example, arguments in _EXAMPLES:
        messages.append({"role": "user", "content": f"{line}\n{example}"})
        messages.append({"role": "assistant", "content": json.dumps(arguments)})
    messages.append({"role": "user", "content": f"{_line(tool)}\n{request}"})
    return _short(messages)


def answering(
    messages: Sequence[Message], calls: Sequence[Call], said: str, schema: Mapping[str, Any] | None = None
) -> list[dict[str, str]]:
    """The conversation that the answer goes on from. `calls`: what tools were asked about the newest message; `said`:
    how the answer begins; `schema`: of the JSON that it is to be, if any."""
    # chat templates know three roles
    roles = {"developer": "system", "tool": "user"}
    chat = [
        {"role": roles.get(message.role, message.role), "content": _spoken(message)}
        for message in messages
        if message.content or not message.tool_calls  # of which the results tell
    ]
    system = []
    if calls:
        question = chat.pop()["content"] if chat else ""
        results = "\n".join(map(_result, calls))
        chat.append({"role": "user", "content": f"Question: {question}\n{results}"})
        if schema is None:
            system.append("Answer the question in one short sentence, with the result that is given.")
    if schema is not None:
        written = json.dumps(schema, ensure_ascii=False)
        system.append(
            f"Answer as JSON of this schema: {written}" if len(written) <= SHOWN_SCHEMA else "Answer as JSON."
        )
    if system:
        if chat and chat[0]["role"] == "system":
            system.insert(0, chat.pop(0)["content"])
        chat.insert(0, {"role": "system", "content": "\n".join(system)})
    if said and chat and chat[-1]["role"] == "assistant":
        said = chat.pop()["content"] + said
    if said:
        chat.append({"role": "assistant", "content": said})
    return chat


def asked(messages: Sequence[Message]) -> tuple[tuple[Message, ...], list[Call]]:
    """The conversation up to its question, and the results of the client's tools that came for it since, those that
    answer no call last. (A client's result is text, so it stands as that.)"""
    newest = max((n for n, message in enumerate(messages) if message.role == "user"), default=-1)
    since = messages[newest + 1 :]
    results = {message.tool_call_id: message.content for message in since if message.role == "tool"}
    if not since or since[-1].role != "tool":
        return tuple(messages), []
    calls = [
        Call(call.call_id, call.name, parsed(call.arguments_json), "OK", results[call.call_id])
        for message in since
        for call in message.tool_calls
        if call.call_id in results
    ]
    calls += [Call("", each.name, {}, "OK", each.content) for each in since if _uncalled(each)]
    return tuple(messages[: newest + 1]), calls


def _uncalled(message: Message) -> bool:
    return message.role == "tool" and not message.tool_call_id


def _spoken(message: Message) -> str:
    """Chat templates have no place for whose a message is."""
    return f"{message.name}: {message.content}" if message.name and message.role != "tool" else message.content


def _result(call: Call) -> str:
    arguments = call.arguments if isinstance(call.arguments, dict) else {}
    result = call.result if isinstance(call.result, str) else json.dumps(call.result, ensure_ascii=False)
    if call.status != "OK" and isinstance(call.result, dict) and isinstance(call.result.get("error"), dict):
        result = f"error: {call.result['error'].get('message', call.status)}"
    return f"Result of {call.tool_name}({', '.join(map(str, arguments.values()))}): {result}"


def _line(tool: Tool) -> str:
    return f"{tool.name}: {' '.join(tool.description.split())}"


def under(form: JsonForm) -> dict[str, Any]:
    """What holds a completion to the form, in one line: a small model never comes to the end of white space. (Of other
    schemas than forms llama.cpp's grammars pass over what they cannot hold to.)"""
    layout = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    return {"grammar": "%llguidance {}\nstart: %json " + json.dumps({**form, "x-guidance": layout})}


def _short(messages: list[dict[str, str]]) -> dict[str, Any]:
    # choices and arguments are short; a tiny model that runs on is cut off
    return {"messages": messages, "max_tokens": 256, "temperature": 0}

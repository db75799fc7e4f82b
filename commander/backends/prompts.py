"""What a local model is asked: which tool, which arguments (both held to a JSON Schema), and the answer itself."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from commander.agent import Call, Message, Tool

NO_TOOL = "none"

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
    schema = {"type": "object", "properties": {"tool": {"enum": names}}, "required": ["tool"]}
    return _constrained([{"role": "system", "content": system}, {"role": "user", "content": request}], schema)


def arguing(request: str, tool: Tool, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The completion that answers with the tool's arguments, under `schema`."""
    messages = [{"role": "system", "content": "Write the arguments of the tool that answers the request, as JSON."}]
    for line, example, arguments in _EXAMPLES:
        messages.append({"role": "user", "content": f"{line}\n{example}"})
        messages.append({"role": "assistant", "content": json.dumps(arguments)})
    messages.append({"role": "user", "content": f"{_line(tool)}\n{request}"})
    return _constrained(messages, schema)


def answering(messages: Sequence[Message], call: Call | None, said: str) -> list[dict[str, str]]:
    """The conversation that the answer goes on from. `call`: what a tool was asked; `said`: how the answer begins."""
    # chat templates know three roles; a tool's message belongs to a call that this conversation does not show
    roles = {"developer": "system", "tool": "user"}
    chat = [{"role": roles.get(message.role, message.role), "content": message.content} for message in messages]
    if call is not None:
        system = "Answer the question in one short sentence, with the result that is given."
        if chat and chat[0]["role"] == "system":
            system = f"{chat.pop(0)['content']}\n{system}"
        question = chat.pop()["content"] if chat else ""
        chat.insert(0, {"role": "system", "content": system})
        chat.append({"role": "user", "content": f"Question: {question}\n{_result(call)}"})
    if said and chat and chat[-1]["role"] == "assistant":
        said = chat.pop()["content"] + said
    if said:
        chat.append({"role": "assistant", "content": said})
    return chat


def _result(call: Call) -> str:
    arguments = call.arguments if isinstance(call.arguments, dict) else {}
    result = json.dumps(call.result, ensure_ascii=False)
    if call.status != "OK" and isinstance(call.result, dict) and isinstance(call.result.get("error"), dict):
        result = f"error: {call.result['error'].get('message', call.status)}"
    return f"Result of {call.tool_name}({', '.join(map(str, arguments.values()))}): {result}"


def _line(tool: Tool) -> str:
    return f"{tool.name}: {' '.join(tool.description.split())}"


def _constrained(messages: list[dict[str, str]], schema: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "messages": messages,
        "max_tokens": 256,  # arguments are short; a tiny model that runs on is cut off, and no tool is called
        "temperature": 0,
        "response_format": {"type": "json_schema", "json_schema": {"schema": schema}},
    }

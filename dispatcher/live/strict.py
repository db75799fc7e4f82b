"""What a session's answer has to fit: the schema that its client asked for as strict, and those of its strict tools."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from dispatcher.core.log import Request
from dispatcher.core.strict import Misfit
from dispatcher.tools.registry import UnusableSchemaError, misfit
from shared.records import ClientCall


def misfit_of(request: Request) -> Misfit | None:
    """None: nothing is strict. Schemas are kept as text, and read once, at the end."""
    tools = {tool.name: tool.parameters_json_schema for tool in request.tools if tool.strict}
    match msgspec.json.decode(request.parameters_json or "{}"):
        case {"response_format": {"type": "json_schema", "json_schema": {"strict": True, "schema": dict() as schema}}}:
            form = json.dumps(schema)
        case _:
            form = ""
    if not (form or tools):
        return None

    def found(text: str | None, calls: tuple[ClientCall, ...]) -> str:
        if form and text is not None and (detail := _detail(form, text)):
            return f"the answer: {detail}"
        return next(filter(None, (_of_call(tools, call) for call in calls)), "")

    return found


def _of_call(tools: Mapping[str, str], call: ClientCall) -> str:
    schema = tools.get(call.name)
    detail = _detail(schema, call.arguments_json) if schema else ""
    return f"the arguments of {call.name}: {detail}" if detail else ""


def _detail(schema: str, text: str) -> str:
    try:
        value: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return "is no JSON"
    try:
        return misfit(msgspec.json.decode(schema), value)
    except UnusableSchemaError as error:  # a session's own parameters, which nobody has read before
        return f"its schema is none: {error}"

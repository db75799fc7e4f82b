"""What of a session's parameters goes to a model."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from commander.agent import Tool, Turn
from commander.backends.schemas import JsonForm, form_of

# OpenAI's names. Others (n, stream …) are ours to set, or unknown to most servers.
SAMPLING = ("temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty")
LIMITS = ("max_tokens", "max_completion_tokens")


def sampling(parameters: Mapping[str, Any], *, limit_name: str | None = None) -> dict[str, Any]:
    """The sampling parameters and limits that are given. `limit_name`: what to call a limit; None: as it was given."""
    given = {name: parameters[name] for name in (*LIMITS, *SAMPLING) if parameters.get(name) is not None}
    return {limit_name if limit_name and name in LIMITS else name: value for name, value in given.items()}


def token_limit(parameters: Mapping[str, Any]) -> int | None:
    """Of the answer; None: not said."""
    limits = (parameters.get(name) for name in ("max_completion_tokens", "max_tokens"))
    return next((limit for limit in limits if limit is not None), None)


def answer_form(parameters: Mapping[str, Any]) -> JsonForm | None:
    """Of the JSON that `response_format` asks for; None: any text. Raises ValueError: it cannot be kept to."""
    match parameters.get("response_format"):
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            schema: Any = {"type": "object"}
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            pass
        case _:
            raise ValueError("a response_format that cannot be read")
    return _form("response_format", schema)


def form_of_arguments(tool: Tool) -> JsonForm:
    """Raises ValueError: they cannot be kept to."""
    return _form(f"the arguments of {tool.name}", {"type": "object", **tool.parameters})


def _form(what: str, schema: Any) -> JsonForm:
    try:
        return form_of(schema)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


class ClientChoice(NamedTuple):
    """What the client asks of the choice among its tools.

    tools     those that may be called; empty: none
    required  one of them has to be
    asked     as Chat Completions has it, where `tools` are all that are shown; None: as the model likes
    parallel  whether several may be called at once; None: not said
    """

    tools: tuple[Tool, ...]
    required: bool = False
    asked: Any = None
    parallel: bool | None = None


def choice(turn: Turn) -> ClientChoice:
    """From `tool_choice` and `parallel_tool_calls`. Raises ValueError: it cannot be read, or names no client's tool."""
    tools = tuple(tool for tool in turn.tools if tool.client)
    parallel = turn.parameters.get("parallel_tool_calls")
    if not tools:
        return ClientChoice(())
    match turn.parameters.get("tool_choice"):
        case None | "auto":
            return ClientChoice(tools, parallel=parallel)
        case "none":
            return ClientChoice(())
        case "required":
            return ClientChoice(tools, True, "required", parallel)
        case {"type": "function", "function": {"name": str(name)}} as asked:
            return ClientChoice(_named(tools, {name}), True, asked, parallel)
        case {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "auto" | "required" as mode, "tools": [_, *_] as some},
        }:
            # few servers know this form; to be shown no others comes to the same
            allowed = _named(tools, {_name(each) for each in some})
            return ClientChoice(allowed, mode == "required", "required" if mode == "required" else None, parallel)
    raise ValueError("a tool_choice that cannot be read")


def _name(tool: Any) -> Any:
    match tool:
        case {"function": {"name": str(name)}}:
            return name
    raise ValueError("a tool_choice that cannot be read")


def _named(tools: tuple[Tool, ...], names: set[Any]) -> tuple[Tool, ...]:
    found = tuple(tool for tool in tools if tool.name in names)
    if len(found) < len(names):
        raise ValueError("the tool_choice names a tool that the client does not have")
    return found

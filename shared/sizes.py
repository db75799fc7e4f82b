"""Whether a Commander's packet keeps to the sizes of the contract (`agent.proto`, Sizes)."""

from collections.abc import Sequence

from shared.records import (
    MAX_AGENTS,
    MAX_ARGUMENTS_BYTES,
    MAX_CLIENT_CALLS,
    MAX_CLIENT_CALLS_BYTES,
    MAX_FIELDS,
    MAX_NAME,
    MAX_TEXT_BYTES,
    ClientCall,
    Content,
    Error,
    Open,
    Status,
    Stopped,
    Thought,
    ToolCall,
    UpstreamPayload,
)


def oversize(payload: UpstreamPayload) -> str:
    """The first field that is too large; empty: none is. Arguments are not looked at: they are answered as a call's."""
    match payload:
        case Content(text=text, finish_reason="", client_calls=()):  # nearly every packet
            return "text" if _long(text) else ""
        case Content(text=text, finish_reason=reason, client_calls=calls):
            return "text" if _long(text) else _names(("finish_reason", reason)) or _calls(calls)
        case Thought(step_name, delta):
            return "delta" if _long(delta) else "step_name" if _long(step_name) else ""
        case ToolCall(tool_name, _, call_id):
            return "tool_name" if _long(tool_name) else _names(("call_id", call_id))
        case Error(code, message):
            return "message" if _long(message) else _names(("code", code))
        case Stopped(stop_id=stop_id):
            return _names(("stop_id", stop_id))
        case Open(commander_id, _, awaiting, token):
            return (
                _names(("commander_id", commander_id))
                or _all("awaiting_call_ids", awaiting, MAX_FIELDS)
                or ("token" if len(token) > MAX_NAME else "")
            )
        case Status(commander_id, agents, continues, running=running, supports=supports):
            return (
                _names(("commander_id", commander_id))
                or _all("agents", agents, MAX_AGENTS)
                or _all("continues", continues, MAX_AGENTS)
                or _all("running", [each.session_id for each in running], MAX_FIELDS)
                or _all("supports", [each.agent for each in supports], MAX_AGENTS)
                or _all("features", [feature for each in supports for feature in each.features], MAX_FIELDS)
            )
    return ""


def _long(text: str) -> bool:
    return len(text) * 4 > MAX_TEXT_BYTES and len(text.encode()) > MAX_TEXT_BYTES


def _calls(calls: Sequence[ClientCall]) -> str:
    if not calls:
        return ""
    sizes = [len(call.arguments_json.encode()) for call in calls]
    if len(calls) > MAX_CLIENT_CALLS or max(sizes) > MAX_ARGUMENTS_BYTES or sum(sizes) > MAX_CLIENT_CALLS_BYTES:
        return "client_calls"
    names = [name for call in calls for name in (call.call_id, call.name)]
    return _all("client_calls", names, len(names))


def _names(*fields: tuple[str, str]) -> str:
    return next((field for field, value in fields if len(value) > MAX_NAME), "")


def _all(field: str, values: Sequence[str], most: int) -> str:
    return field if len(values) > most or any(len(value) > MAX_NAME for value in values) else ""

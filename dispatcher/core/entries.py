"""What stands in a session's log: packets as they came (Thought, Content, Error, Stopped, Unknown), and these."""

from collections.abc import Mapping
from typing import Any, TypeAlias, get_args

import msgspec

from shared.records import ClientCall, Content, Error, Plain, Stopped, Thought, ToolResult, Unknown, Usage


class Text(Plain, tag="text", frozen=True):
    """Held text that something other than a content packet let out: the entry's `released`, no raw text of its own."""


class Finished(Plain, tag="finished", frozen=True):
    """The `is_finish` of a content packet; its text, if any, is the entry before. calls: of the client's tools, which
    policies have read.
    """

    finish_reason: str = "stop"
    usage: Usage | None = None
    calls: tuple[ClientCall, ...] = ()


class StopEntry(Plain, tag="stop", frozen=True):
    """The decision to stop. author: `user`, `operator`, `policy` or `dispatcher`. policy, detail: for operators."""

    stop_id: str
    reason: str
    author: str
    policy: str = ""
    detail: str = ""


class StopSent(Plain, tag="stop_sent", frozen=True):
    """A stop has been handed to gRPC, on its way to the Commander. logged_at: when the instance that has the session
    heard that the stop is in the log, Unix seconds; 0: it took the session over with it. An instance logs it once.
    """

    stop_id: str
    logged_at: float = 0.0


class Failed(Plain, tag="failed", frozen=True):
    """The Dispatcher ended the session: `commander_lost`, `no_commander`, `protocol_error`, `history_too_large`,
    `log_full`, or `invalid_output`, after which the entry with the Commander's end stands.
    """

    code: str
    detail: str = ""


class Assigned(Plain, tag="assigned", frozen=True):
    generation: int
    commander_id: str


class Call(Plain, tag="call", frozen=True):
    """A logged tool call, and the one instance that may run it. `refused`: its call_id was used before, so it is
    answered INVALID_ARGUMENTS and not run. `denied`: a policy denies it, and its result is the entry after it.
    `approval`: who has to approve it, `operator` or `user`; it is nobody's to run until then (rule 40).
    """

    tool_name: str
    arguments_json: str
    call_id: str
    instance: str
    refused: bool = False
    denied: bool = False
    approval: str = ""


class Approval(Plain, tag="approval", frozen=True):
    """A call waits for a decision: policies have read it, and its arguments fit the tool's schema.

    approval          who has to approve it: `operator` or `user`
    arguments_json    canonical (RFC 8785), of which arguments_sha256 is the digest in hex
    expires_at        Unix seconds; from then on nobody can approve it
    """

    call_id: str
    tool_name: str
    approval: str
    arguments_json: str
    arguments_sha256: str
    expires_at: float


class Decision(Plain, tag="decision", frozen=True):
    """What was decided on a call: `approve`, `deny`, or `expire`, as nobody had. After the last two stands its result.
    author: `user`, `operator` or `dispatcher`. note: for operators.
    """

    call_id: str
    decision: str
    author: str
    arguments_sha256: str
    note: str = ""


class Started(Plain, tag="started", frozen=True):
    """An approved call, and the one instance that may run it from here on."""

    call_id: str
    tool_name: str
    instance: str


Body: TypeAlias = (
    Thought
    | Content
    | Call
    | Approval
    | Decision
    | Started
    | ToolResult
    | Error
    | Stopped
    | Unknown
    | Text
    | Finished
    | StopEntry
    | StopSent
    | Failed
    | Assigned
)


class Entry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One entry of a session's log.

    offset      1, 2, 3 ... within the session; set by the store
    at          Unix seconds at the Dispatcher
    generation  under which it came; 0 for a session without Assignment
    sequence    the Commander's number; 0 where the Dispatcher made the entry. The entries of one packet share it
    released    the content that this entry lets out to users
    decided     raw content characters of the session let out, redacted or dropped so far, this entry included
    timestamp   the Commander's clock, Unix milliseconds; 0: not given
    redacted_by the policies that redacted some of what `released` was made of
    """

    body: Body
    at: float
    generation: int = 0
    sequence: int = 0
    released: str = ""
    decided: int = 0
    timestamp: int = 0
    offset: int = 0
    redacted_by: tuple[str, ...] = ()


_encode = msgspec.msgpack.Encoder().encode


def size_of(entry: Entry) -> int:
    """Its bytes, as stores keep it."""
    return len(_encode(entry))


def as_event(entry: Entry) -> tuple[str, dict[str, Any]]:
    """An entry as operators get it: its kind, and its fields by name, for in the log records stand as arrays."""
    body = entry.body
    return _kind(type(body)), {
        "at": entry.at,
        "generation": entry.generation,
        "sequence": entry.sequence,
        "timestamp": entry.timestamp,
        "released": entry.released,
        "decided": entry.decided,
        "redacted_by": list(entry.redacted_by),
        **fields_of(body),
    }


def _kind(body: type[Body]) -> str:
    # EventSource keeps the name `error` for itself
    return "agent_error" if body is Error else str(body.__struct_config__.tag)


def fields_of(record: msgspec.Struct) -> dict[str, Any]:
    """By name."""
    return {name: _plain(value) for name, value in msgspec.structs.asdict(record).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return fields_of(value)
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


_MEMBERS = {
    _kind(body): frozenset({*Entry.__struct_fields__, *body.__struct_fields__} - {"body", "offset"})
    for body in get_args(Body)
}

_ADDED = {
    _kind(body): {
        field.name: _plain(field.default)
        for field in (*msgspec.structs.fields(Entry), *msgspec.structs.fields(body))
        if field.name in _MEMBERS[_kind(body)] and not field.required and not field.default
    }
    for body in get_args(Body)
}


def members(kind: str) -> frozenset[str]:
    """The names of what `as_event` gives of such an entry. Raises KeyError."""
    return _MEMBERS[kind]


def completed(kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """With the members that such an entry of an older version lacks, which are empty. Raises KeyError."""
    return {**_ADDED[kind], **fields}

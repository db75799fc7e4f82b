"""The plain records that both sides work with instead of generated classes; `shared.wire` turns them into protobuf.

Frozen `msgspec.Struct`s: cheap to make (they are on the hot path) and, tagged, what the session log is made of. Field
meanings stand in `protos/agent.proto`.
"""

from typing import Literal, TypeAlias, get_args

import msgspec

MAX_TEXT_BYTES = 64 * 1024  # UTF-8, of `text`, `delta` and what else is text (agent.proto, Sizes)
MAX_ARGUMENTS_BYTES = 64 * 1024
MAX_RESULT_BYTES = 256 * 1024
# Tool calls of one session without a result; the next waits for one. The results of so many, each as large as it may
# be, are a message of the largest size; and an agent is no faster with more, as the tools' own bounds are lower.
MAX_OPEN_CALLS = 64
MAX_BATCH_BYTES = 256 * 1024
MAX_MESSAGE_BYTES = 16 * 1024 * 1024  # to a Commander: an assignment with its history
# From one: four times a batch, for a writer may look at the size only after each packet.
MAX_UPSTREAM_BYTES = 1024 * 1024
MAX_FIELDS = 4096  # packets of a batch, and what else may stand in a message: each costs far more than its two bytes
MAX_NAME = 256  # characters of an id, an agent's name, a code
MAX_AGENTS = 64  # that one Commander runs
MAX_HISTORY_BYTES = 8 * 1024 * 1024
MAX_CLIENT_CALLS = 64  # that an answer ends with: more than models make at once
MAX_CLIENT_CALLS_BYTES = 256 * 1024  # of their arguments, which the end carries in one packet

StopReason: TypeAlias = Literal["PolicyViolation", "RiskControl", "UserCancel", "Timeout", "Shutdown"]
STOP_REASONS: tuple[StopReason, ...] = get_args(StopReason)
FinishReason: TypeAlias = Literal["stop", "length", "content_filter", "tool_calls"]
FINISH_REASONS: tuple[FinishReason, ...] = get_args(FinishReason)
# What an agent may honour beyond a conversation of texts (agent.proto, Support).
Feature: TypeAlias = Literal["tools", "structured", "images", "audio", "files", "sampling", "reasoning", "logprobs"]
FEATURES: tuple[Feature, ...] = get_args(Feature)
UNSAID: tuple[Feature, ...] = ("sampling",)  # what an agent honours whose Commander does not say
# Of a tool's result; an older Dispatcher says none.
ToolStatus: TypeAlias = Literal[
    "OK", "TOOL_ERROR", "UNKNOWN_TOOL", "INVALID_ARGUMENTS", "TIMEOUT", "DENIED", "CANCELLED", "UNKNOWN_OUTCOME"
]
TOOL_STATUSES: tuple[ToolStatus, ...] = get_args(ToolStatus)


class Plain(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Base of the records that hold nothing but values, and tuples of such."""


class Thought(Plain, tag="thought", frozen=True):
    step_name: str
    delta: str


class Usage(Plain, frozen=True):
    prompt_tokens: int
    completion_tokens: int


class ClientCall(Plain, frozen=True):
    call_id: str
    name: str
    arguments_json: str


class Content(Plain, tag="content", frozen=True):
    text: str
    is_finish: bool = False
    finish_reason: str = ""
    usage: Usage | None = None
    client_calls: tuple[ClientCall, ...] = ()


class ToolCall(Plain, tag="tool_call", frozen=True):
    tool_name: str
    arguments_json: str
    call_id: str = ""


class Error(Plain, tag="error", frozen=True):
    code: str = ""
    message: str = ""
    retryable: bool = False


class Stopped(Plain, tag="stopped", frozen=True):
    stop_id: str
    last_sequence: int = 0
    deltas_after_stop: int = 0
    halt_micros: int = 0


class Unknown(Plain, tag="unknown", frozen=True):
    """A payload that this program does not know."""


class Open(msgspec.Struct, frozen=True):
    commander_id: str
    generation: int = 0
    awaiting_call_ids: tuple[str, ...] = ()
    token: bytes = b""


class Running(Plain, frozen=True):
    session_id: str
    generation: int


class Support(Plain, frozen=True):
    agent: str
    features: tuple[str, ...] = ()


class Status(msgspec.Struct, frozen=True):
    commander_id: str
    agents: tuple[str, ...] = ()
    continues: tuple[str, ...] = ()
    free_slots: int = 0
    assignments_received: int = 0
    running: tuple[Running, ...] = ()
    loop_lag_micros: int = 0
    supports: tuple[Support, ...] = ()

    def features(self, agent: str) -> frozenset[str]:
        """What that agent honours."""
        return frozenset(next((each.features for each in self.supports if each.agent == agent), UNSAID))


TALK = (Content, Thought)  # nearly every packet
UpstreamPayload: TypeAlias = Thought | Content | ToolCall | Error | Stopped | Unknown | Open | Status


class Upstream(msgspec.Struct, frozen=True, gc=False):
    """One packet from a Commander. `size`: its serialised bytes, each packet of a batch for itself (credit). `data`:
    these, where they were made here.
    """

    session_id: str
    payload: UpstreamPayload
    sequence: int = 0
    timestamp: int = 0
    size: int = 0
    data: bytes = b""


class Ack(Plain, frozen=True):
    sequence: int = 0


class Stop(Plain, frozen=True):
    reason: str
    stop_id: str = ""
    detail: str = ""


class ToolResult(Plain, tag="tool_result", frozen=True):
    """`status` is the enum's name without its prefix: `OK`, `TOOL_ERROR` ...; empty from an older server."""

    tool_name: str
    result_json: str
    call_id: str = ""
    status: str = ""


class Welcome(Plain, frozen=True):
    sequence: int
    max_unacked_packets: int
    max_unacked_bytes: int


class Closed(Plain, frozen=True):
    code: str
    message: str = ""


class Message(Plain, frozen=True):
    role: str
    content: str
    tool_calls: tuple[ClientCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""
    parts_json: str = ""
    phase: str = ""


class Tool(Plain, frozen=True):
    name: str
    description: str
    parameters_json_schema: str
    client: bool = False
    strict: bool = False


class Said(Plain, tag="said", frozen=True):
    text: str


HistoryEntry: TypeAlias = Said | ToolCall | ToolResult


class History(msgspec.Struct, frozen=True):
    sequence: int
    entries: tuple[HistoryEntry, ...] = ()


class User(msgspec.Struct, frozen=True):
    """Who asked for a session. claims: of their token, those that are passed on, by name."""

    subject: str
    tenant: str
    claims: tuple[tuple[str, str], ...] = ()


class Assignment(msgspec.Struct, frozen=True):
    session_id: str
    generation: int
    agent: str
    messages: tuple[Message, ...] = ()
    parameters_json: str = ""
    tools: tuple[Tool, ...] = ()
    history: History | None = None
    conversation_id: str = ""
    traceparent: str = ""
    token: bytes = b""
    user: User | None = None
    tracestate: str = ""


class Drain(Plain, frozen=True):
    reason: str


DownstreamSignal: TypeAlias = Ack | Stop | ToolResult | Welcome | Closed | Assignment | Drain | Unknown


class Downstream(msgspec.Struct, frozen=True, gc=False):
    """One packet from a Dispatcher."""

    session_id: str
    signal: DownstreamSignal

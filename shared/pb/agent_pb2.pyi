from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class UpstreamPacket(_message.Message):
    __slots__ = ("session_id", "timestamp", "thought", "content", "tool_call", "error", "open", "stopped", "status", "sequence", "batch")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    THOUGHT_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    timestamp: int
    thought: ThoughtChain
    content: ContentChunk
    tool_call: ToolCallRequest
    error: ErrorSignal
    open: Open
    stopped: Stopped
    status: CommanderStatus
    sequence: int
    batch: _containers.RepeatedCompositeFieldContainer[UpstreamPacket]
    def __init__(self, session_id: _Optional[str] = ..., timestamp: _Optional[int] = ..., thought: _Optional[_Union[ThoughtChain, _Mapping]] = ..., content: _Optional[_Union[ContentChunk, _Mapping]] = ..., tool_call: _Optional[_Union[ToolCallRequest, _Mapping]] = ..., error: _Optional[_Union[ErrorSignal, _Mapping]] = ..., open: _Optional[_Union[Open, _Mapping]] = ..., stopped: _Optional[_Union[Stopped, _Mapping]] = ..., status: _Optional[_Union[CommanderStatus, _Mapping]] = ..., sequence: _Optional[int] = ..., batch: _Optional[_Iterable[_Union[UpstreamPacket, _Mapping]]] = ...) -> None: ...

class ThoughtChain(_message.Message):
    __slots__ = ("step_name", "delta")
    STEP_NAME_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    step_name: str
    delta: str
    def __init__(self, step_name: _Optional[str] = ..., delta: _Optional[str] = ...) -> None: ...

class ContentChunk(_message.Message):
    __slots__ = ("text", "is_finish", "finish_reason", "usage", "client_calls")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IS_FINISH_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_CALLS_FIELD_NUMBER: _ClassVar[int]
    text: str
    is_finish: bool
    finish_reason: str
    usage: Usage
    client_calls: _containers.RepeatedCompositeFieldContainer[ClientCall]
    def __init__(self, text: _Optional[str] = ..., is_finish: _Optional[bool] = ..., finish_reason: _Optional[str] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., client_calls: _Optional[_Iterable[_Union[ClientCall, _Mapping]]] = ...) -> None: ...

class ClientCall(_message.Message):
    __slots__ = ("call_id", "name", "arguments_json")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_JSON_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    name: str
    arguments_json: str
    def __init__(self, call_id: _Optional[str] = ..., name: _Optional[str] = ..., arguments_json: _Optional[str] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("prompt_tokens", "completion_tokens")
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    completion_tokens: int
    def __init__(self, prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ...) -> None: ...

class ToolCallRequest(_message.Message):
    __slots__ = ("tool_name", "arguments_json", "call_id")
    TOOL_NAME_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_JSON_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    tool_name: str
    arguments_json: str
    call_id: str
    def __init__(self, tool_name: _Optional[str] = ..., arguments_json: _Optional[str] = ..., call_id: _Optional[str] = ...) -> None: ...

class ErrorSignal(_message.Message):
    __slots__ = ("code", "message", "retryable")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    retryable: bool
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., retryable: _Optional[bool] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("commander_id", "generation", "awaiting_call_ids", "token")
    COMMANDER_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    AWAITING_CALL_IDS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    commander_id: str
    generation: int
    awaiting_call_ids: _containers.RepeatedScalarFieldContainer[str]
    token: bytes
    def __init__(self, commander_id: _Optional[str] = ..., generation: _Optional[int] = ..., awaiting_call_ids: _Optional[_Iterable[str]] = ..., token: _Optional[bytes] = ...) -> None: ...

class Stopped(_message.Message):
    __slots__ = ("stop_id", "last_sequence", "deltas_after_stop", "halt_micros")
    STOP_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DELTAS_AFTER_STOP_FIELD_NUMBER: _ClassVar[int]
    HALT_MICROS_FIELD_NUMBER: _ClassVar[int]
    stop_id: str
    last_sequence: int
    deltas_after_stop: int
    halt_micros: int
    def __init__(self, stop_id: _Optional[str] = ..., last_sequence: _Optional[int] = ..., deltas_after_stop: _Optional[int] = ..., halt_micros: _Optional[int] = ...) -> None: ...

class CommanderStatus(_message.Message):
    __slots__ = ("commander_id", "agents", "continues", "free_slots", "assignments_received", "running", "loop_lag_micros", "supports")
    COMMANDER_ID_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    CONTINUES_FIELD_NUMBER: _ClassVar[int]
    FREE_SLOTS_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENTS_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    LOOP_LAG_MICROS_FIELD_NUMBER: _ClassVar[int]
    SUPPORTS_FIELD_NUMBER: _ClassVar[int]
    commander_id: str
    agents: _containers.RepeatedScalarFieldContainer[str]
    continues: _containers.RepeatedScalarFieldContainer[str]
    free_slots: int
    assignments_received: int
    running: _containers.RepeatedCompositeFieldContainer[Running]
    loop_lag_micros: int
    supports: _containers.RepeatedCompositeFieldContainer[Support]
    def __init__(self, commander_id: _Optional[str] = ..., agents: _Optional[_Iterable[str]] = ..., continues: _Optional[_Iterable[str]] = ..., free_slots: _Optional[int] = ..., assignments_received: _Optional[int] = ..., running: _Optional[_Iterable[_Union[Running, _Mapping]]] = ..., loop_lag_micros: _Optional[int] = ..., supports: _Optional[_Iterable[_Union[Support, _Mapping]]] = ...) -> None: ...

class Support(_message.Message):
    __slots__ = ("agent", "features")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    agent: str
    features: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, agent: _Optional[str] = ..., features: _Optional[_Iterable[str]] = ...) -> None: ...

class Running(_message.Message):
    __slots__ = ("session_id", "generation")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    generation: int
    def __init__(self, session_id: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class DownstreamPacket(_message.Message):
    __slots__ = ("ack", "stop", "tool_result", "welcome", "closed", "assignment", "drain", "session_id", "batch")
    ACK_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    TOOL_RESULT_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    ack: Ack
    stop: StopSignal
    tool_result: ToolCallResult
    welcome: Welcome
    closed: Closed
    assignment: Assignment
    drain: Drain
    session_id: str
    batch: _containers.RepeatedCompositeFieldContainer[DownstreamPacket]
    def __init__(self, ack: _Optional[_Union[Ack, _Mapping]] = ..., stop: _Optional[_Union[StopSignal, _Mapping]] = ..., tool_result: _Optional[_Union[ToolCallResult, _Mapping]] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., closed: _Optional[_Union[Closed, _Mapping]] = ..., assignment: _Optional[_Union[Assignment, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., session_id: _Optional[str] = ..., batch: _Optional[_Iterable[_Union[DownstreamPacket, _Mapping]]] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class StopSignal(_message.Message):
    __slots__ = ("reason", "stop_id", "detail")
    REASON_FIELD_NUMBER: _ClassVar[int]
    STOP_ID_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    reason: str
    stop_id: str
    detail: str
    def __init__(self, reason: _Optional[str] = ..., stop_id: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class ToolCallResult(_message.Message):
    __slots__ = ("tool_name", "result_json", "call_id", "status")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATUS_UNSPECIFIED: _ClassVar[ToolCallResult.Status]
        STATUS_OK: _ClassVar[ToolCallResult.Status]
        STATUS_TOOL_ERROR: _ClassVar[ToolCallResult.Status]
        STATUS_UNKNOWN_TOOL: _ClassVar[ToolCallResult.Status]
        STATUS_INVALID_ARGUMENTS: _ClassVar[ToolCallResult.Status]
        STATUS_TIMEOUT: _ClassVar[ToolCallResult.Status]
        STATUS_DENIED: _ClassVar[ToolCallResult.Status]
        STATUS_CANCELLED: _ClassVar[ToolCallResult.Status]
        STATUS_UNKNOWN_OUTCOME: _ClassVar[ToolCallResult.Status]
    STATUS_UNSPECIFIED: ToolCallResult.Status
    STATUS_OK: ToolCallResult.Status
    STATUS_TOOL_ERROR: ToolCallResult.Status
    STATUS_UNKNOWN_TOOL: ToolCallResult.Status
    STATUS_INVALID_ARGUMENTS: ToolCallResult.Status
    STATUS_TIMEOUT: ToolCallResult.Status
    STATUS_DENIED: ToolCallResult.Status
    STATUS_CANCELLED: ToolCallResult.Status
    STATUS_UNKNOWN_OUTCOME: ToolCallResult.Status
    TOOL_NAME_FIELD_NUMBER: _ClassVar[int]
    RESULT_JSON_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    tool_name: str
    result_json: str
    call_id: str
    status: ToolCallResult.Status
    def __init__(self, tool_name: _Optional[str] = ..., result_json: _Optional[str] = ..., call_id: _Optional[str] = ..., status: _Optional[_Union[ToolCallResult.Status, str]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("sequence", "max_unacked_packets", "max_unacked_bytes")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    MAX_UNACKED_PACKETS_FIELD_NUMBER: _ClassVar[int]
    MAX_UNACKED_BYTES_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    max_unacked_packets: int
    max_unacked_bytes: int
    def __init__(self, sequence: _Optional[int] = ..., max_unacked_packets: _Optional[int] = ..., max_unacked_bytes: _Optional[int] = ...) -> None: ...

class Closed(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("session_id", "generation", "agent", "messages", "parameters_json", "tools", "history", "conversation_id", "traceparent", "token", "user", "tracestate")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_JSON_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    generation: int
    agent: str
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    parameters_json: str
    tools: _containers.RepeatedCompositeFieldContainer[Tool]
    history: History
    conversation_id: str
    traceparent: str
    token: bytes
    user: User
    tracestate: str
    def __init__(self, session_id: _Optional[str] = ..., generation: _Optional[int] = ..., agent: _Optional[str] = ..., messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ..., parameters_json: _Optional[str] = ..., tools: _Optional[_Iterable[_Union[Tool, _Mapping]]] = ..., history: _Optional[_Union[History, _Mapping]] = ..., conversation_id: _Optional[str] = ..., traceparent: _Optional[str] = ..., token: _Optional[bytes] = ..., user: _Optional[_Union[User, _Mapping]] = ..., tracestate: _Optional[str] = ...) -> None: ...

class User(_message.Message):
    __slots__ = ("subject", "tenant", "claims")
    class ClaimsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    subject: str
    tenant: str
    claims: _containers.ScalarMap[str, str]
    def __init__(self, subject: _Optional[str] = ..., tenant: _Optional[str] = ..., claims: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("role", "content", "tool_calls", "tool_call_id", "name", "parts_json", "phase")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARTS_JSON_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    role: str
    content: str
    tool_calls: _containers.RepeatedCompositeFieldContainer[ClientCall]
    tool_call_id: str
    name: str
    parts_json: str
    phase: str
    def __init__(self, role: _Optional[str] = ..., content: _Optional[str] = ..., tool_calls: _Optional[_Iterable[_Union[ClientCall, _Mapping]]] = ..., tool_call_id: _Optional[str] = ..., name: _Optional[str] = ..., parts_json: _Optional[str] = ..., phase: _Optional[str] = ...) -> None: ...

class Tool(_message.Message):
    __slots__ = ("name", "description", "parameters_json_schema", "client", "strict")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_JSON_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    STRICT_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    parameters_json_schema: str
    client: bool
    strict: bool
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., parameters_json_schema: _Optional[str] = ..., client: _Optional[bool] = ..., strict: _Optional[bool] = ...) -> None: ...

class History(_message.Message):
    __slots__ = ("sequence", "entries")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    def __init__(self, sequence: _Optional[int] = ..., entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("said", "call", "result")
    SAID_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    said: str
    call: ToolCallRequest
    result: ToolCallResult
    def __init__(self, said: _Optional[str] = ..., call: _Optional[_Union[ToolCallRequest, _Mapping]] = ..., result: _Optional[_Union[ToolCallResult, _Mapping]] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

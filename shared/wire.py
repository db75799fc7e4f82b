"""Protobuf ⇄ plain records. The only importer of `agent_pb2`."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from google.protobuf.message import DecodeError

from shared.envelope import BATCH, MalformedPacketError
from shared.pb import agent_pb2 as pb
from shared.records import (
    MAX_BATCH_BYTES,
    MAX_TEXT_BYTES,
    Ack,
    Assignment,
    ClientCall,
    Closed,
    Content,
    Downstream,
    DownstreamSignal,
    Drain,
    Error,
    History,
    HistoryEntry,
    Message,
    Open,
    Running,
    Said,
    Status,
    Stop,
    Stopped,
    Support,
    Thought,
    Tool,
    ToolCall,
    ToolResult,
    Unknown,
    Upstream,
    UpstreamPayload,
    Usage,
    User,
    Welcome,
)

SERVICE: str = pb.DESCRIPTOR.services_by_name["AgentInteraction"].full_name
UpstreamMessage: TypeAlias = pb.UpstreamPacket
DownstreamMessage: TypeAlias = pb.DownstreamPacket


# ---- text


def well_formed(text: str) -> str:
    """The text with lone surrogates (a model's JSON may hold them; protobuf cannot) replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def split_text(text: str) -> list[str]:
    """Pieces of at most MAX_TEXT_BYTES of UTF-8 each, none empty; code points stay whole."""
    if len(text) * 4 <= MAX_TEXT_BYTES:
        return [text] if text else []
    pieces = []
    data = text.encode()
    start = 0
    while start < len(data):
        end = min(start + MAX_TEXT_BYTES, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        pieces.append(data[start:end].decode())
        start = end
    return pieces


# ---- upstream


def packed(session_id: str, payload: UpstreamPayload, sequence: int, timestamp: int) -> Upstream:
    """A packet and its bytes: they are made once, count against the credit, and are sent, if need be again."""
    data = _upstream_bytes(Upstream(session_id, payload, sequence, timestamp))
    return Upstream(session_id, payload, sequence, timestamp, len(data), data)


def encode_upstream(packets: Sequence[Upstream]) -> bytes:
    """One packet as itself, several as a batch. Of serialised packets that is made of their bytes: from messages it
    takes three times as long, for protobuf copies them into the batch.
    """
    each = [packet.data or _upstream_bytes(packet) for packet in packets]
    if len(each) == 1:
        return each[0]
    return b"".join([part for data in each for part in (_BATCH, _varint(len(data)), data)])


_BATCH = bytes([BATCH << 3 | 2])  # the tag of a field with a length


def _varint(number: int) -> bytes:
    groups = []
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*groups, number))


def _upstream_bytes(packet: Upstream) -> bytes:
    message = pb.UpstreamPacket(session_id=packet.session_id, timestamp=packet.timestamp, sequence=packet.sequence)
    match packet.payload:
        case Content(text, False):  # nearly every packet
            message.content.text = text
        case Content(text, _, finish_reason, usage, client_calls):
            content = message.content
            content.text = text
            content.is_finish = True
            content.finish_reason = finish_reason
            if usage:
                content.usage.prompt_tokens = usage.prompt_tokens
                content.usage.completion_tokens = usage.completion_tokens
            _add_client_calls(content.client_calls, client_calls)
        case Thought(step_name, delta):
            thought = message.thought
            thought.step_name = step_name
            thought.delta = delta
        case ToolCall() as call:
            message.tool_call.CopyFrom(_call_message(call))
        case Error(code, text, retryable):
            message.error.CopyFrom(pb.ErrorSignal(code=code, message=text, retryable=retryable))
        case Stopped(stop_id, last_sequence, deltas, micros):
            message.stopped.CopyFrom(
                pb.Stopped(stop_id=stop_id, last_sequence=last_sequence, deltas_after_stop=deltas, halt_micros=micros)
            )
        case Open(commander_id, generation, awaiting, token):
            message.open.CopyFrom(
                pb.Open(commander_id=commander_id, generation=generation, awaiting_call_ids=awaiting, token=token)
            )
        case Status() as status:
            message.status.CopyFrom(
                pb.CommanderStatus(
                    commander_id=status.commander_id,
                    agents=status.agents,
                    continues=status.continues,
                    free_slots=status.free_slots,
                    assignments_received=status.assignments_received,
                    running=[pb.Running(session_id=r.session_id, generation=r.generation) for r in status.running],
                    loop_lag_micros=min(status.loop_lag_micros, 0xFFFFFFFF),
                    supports=[pb.Support(agent=s.agent, features=s.features) for s in status.supports],
                )
            )
        case Unknown():
            pass
    return message.SerializeToString()


def decode_upstream(packet: bytes) -> Upstream:
    """One packet, as `shared.envelope.split` gives it. Raises MalformedPacketError."""
    try:
        message = pb.UpstreamPacket.FromString(packet)
    except DecodeError:
        raise MalformedPacketError("the message is malformed, or its text is not UTF-8") from None
    if message.batch:
        raise MalformedPacketError("a batch is never nested")
    payload: UpstreamPayload
    match message.WhichOneof("payload"):
        case "content":
            content = message.content
            if content.is_finish:
                usage = Usage(content.usage.prompt_tokens, content.usage.completion_tokens)
                has_usage = content.HasField("usage")
                calls = _client_calls(content.client_calls)
                payload = Content(content.text, True, content.finish_reason, usage if has_usage else None, calls)
            else:
                payload = Content(content.text)
        case "thought":
            payload = Thought(message.thought.step_name, message.thought.delta)
        case "tool_call":
            payload = _call(message.tool_call)
        case "error":
            payload = Error(message.error.code, message.error.message, message.error.retryable)
        case "open":
            opening = message.open
            awaiting = tuple(opening.awaiting_call_ids)
            payload = Open(opening.commander_id, opening.generation, awaiting, opening.token)
        case "stopped":
            done = message.stopped
            payload = Stopped(done.stop_id, done.last_sequence, done.deltas_after_stop, done.halt_micros)
        case "status":
            status = message.status
            payload = Status(
                status.commander_id,
                tuple(status.agents),
                tuple(status.continues),
                status.free_slots,
                status.assignments_received,
                tuple(Running(r.session_id, r.generation) for r in status.running),
                status.loop_lag_micros,
                tuple(Support(s.agent, tuple(s.features)) for s in status.supports),
            )
        case _:
            payload = Unknown()
    return Upstream(message.session_id, payload, message.sequence, message.timestamp, len(packet))


# ---- downstream


def _downstream_message(packet: Downstream) -> DownstreamMessage:
    message = pb.DownstreamPacket(session_id=packet.session_id)
    match packet.signal:
        case Ack(sequence):
            message.ack.SetInParent()
            message.ack.sequence = sequence
        case Stop(reason, stop_id, detail):
            message.stop.CopyFrom(pb.StopSignal(reason=reason, stop_id=stop_id, detail=detail))
        case ToolResult() as result:
            message.tool_result.CopyFrom(_result_message(result))
        case Welcome(sequence, packets, size):
            message.welcome.CopyFrom(pb.Welcome(sequence=sequence, max_unacked_packets=packets, max_unacked_bytes=size))
        case Closed(code, text):
            message.closed.CopyFrom(pb.Closed(code=code, message=text))
        case Assignment() as assignment:
            _fill(message.assignment, assignment)
        case Drain(reason):
            message.drain.CopyFrom(pb.Drain(reason=reason))
        case Unknown():
            pass
    return message


def encode_downstream(packets: Iterable[Downstream]) -> DownstreamMessage:
    """One packet as itself, several as a batch."""
    messages = [_downstream_message(packet) for packet in packets]
    return messages[0] if len(messages) == 1 else pb.DownstreamPacket(batch=messages)


def downstream_messages(packets: Iterable[Downstream]) -> Iterator[DownstreamMessage]:
    """Batches of at most MAX_BATCH_BYTES; a single larger packet goes as itself."""
    batch: list[DownstreamMessage] = []
    size = 0
    for packet in packets:
        message = _downstream_message(packet)
        own_size = message.ByteSize()
        if batch and size + own_size > MAX_BATCH_BYTES:
            yield batch[0] if len(batch) == 1 else pb.DownstreamPacket(batch=batch)
            batch, size = [], 0
        batch.append(message)
        size += own_size
    if batch:
        yield batch[0] if len(batch) == 1 else pb.DownstreamPacket(batch=batch)


def decode_downstream(message: DownstreamMessage) -> list[Downstream]:
    """The packets of a message in order: one, or those of a batch. Raises MalformedPacketError."""
    if not message.batch:
        return [_downstream(message)]
    if message.WhichOneof("signal") or message.session_id:
        raise MalformedPacketError("a batch has no signal or session_id of its own")
    if any(inner.batch for inner in message.batch):
        raise MalformedPacketError("a batch is never nested")
    return [_downstream(inner) for inner in message.batch]


def _downstream(message: DownstreamMessage) -> Downstream:
    signal: DownstreamSignal
    match message.WhichOneof("signal"):
        case "ack":
            signal = Ack(message.ack.sequence)
        case "stop":
            signal = Stop(message.stop.reason, message.stop.stop_id, message.stop.detail)
        case "tool_result":
            signal = _result(message.tool_result)
        case "welcome":
            welcome = message.welcome
            signal = Welcome(welcome.sequence, welcome.max_unacked_packets, welcome.max_unacked_bytes)
        case "closed":
            signal = Closed(message.closed.code, message.closed.message)
        case "assignment":
            signal = _assignment(message.assignment)
        case "drain":
            signal = Drain(message.drain.reason)
        case _:
            signal = Unknown()
    return Downstream(message.session_id, signal)


def _call_message(call: ToolCall) -> pb.ToolCallRequest:
    return pb.ToolCallRequest(tool_name=call.tool_name, arguments_json=call.arguments_json, call_id=call.call_id)


def _call(message: pb.ToolCallRequest) -> ToolCall:
    return ToolCall(message.tool_name, message.arguments_json, message.call_id)


def _add_client_calls(to: Any, calls: tuple[ClientCall, ...]) -> None:
    for call in calls:
        to.add(call_id=call.call_id, name=call.name, arguments_json=call.arguments_json)


def _client_calls(messages: Iterable[pb.ClientCall]) -> tuple[ClientCall, ...]:
    return tuple([ClientCall(call.call_id, call.name, call.arguments_json) for call in messages])


_STATUS_NAMES = {
    number: name.removeprefix("STATUS_")
    for name, number in pb.ToolCallResult.Status.items()
    if number != pb.ToolCallResult.STATUS_UNSPECIFIED
}


def _result_message(result: ToolResult) -> pb.ToolCallResult:
    return pb.ToolCallResult(
        tool_name=result.tool_name,
        result_json=result.result_json,
        call_id=result.call_id,
        status=f"STATUS_{result.status or 'UNSPECIFIED'}",
    )


def _result(message: pb.ToolCallResult) -> ToolResult:
    status = _STATUS_NAMES.get(message.status, "")
    return ToolResult(message.tool_name, message.result_json, message.call_id, status)


def _fill(message: pb.Assignment, assignment: Assignment) -> None:
    """In its place, for a copy of 8 MiB takes ten times as long as to set them."""
    message.session_id = assignment.session_id
    message.generation = assignment.generation
    message.agent = assignment.agent
    for each in assignment.messages:
        added = message.messages.add(
            role=each.role,
            content=each.content,
            tool_call_id=each.tool_call_id,
            name=each.name,
            parts_json=each.parts_json,
            phase=each.phase,
        )
        _add_client_calls(added.tool_calls, each.tool_calls)
    message.parameters_json = assignment.parameters_json
    for tool in assignment.tools:
        message.tools.add(
            name=tool.name,
            description=tool.description,
            parameters_json_schema=tool.parameters_json_schema,
            client=tool.client,
            strict=tool.strict,
        )
    message.conversation_id = assignment.conversation_id
    message.traceparent = assignment.traceparent
    message.tracestate = assignment.tracestate
    message.token = assignment.token
    if assignment.user:
        message.user.SetInParent()
        message.user.subject = assignment.user.subject
        message.user.tenant = assignment.user.tenant
        message.user.claims.update(assignment.user.claims)
    if assignment.history:
        message.history.sequence = assignment.history.sequence
        for entry in assignment.history.entries:
            held = message.history.entries.add()
            match entry:
                case Said(text):
                    held.said = text
                case ToolCall():
                    held.call.CopyFrom(_call_message(entry))
                case ToolResult():
                    held.result.CopyFrom(_result_message(entry))


def _assignment(message: pb.Assignment) -> Assignment:
    history = None
    if message.HasField("history"):
        history = History(message.history.sequence, tuple(_history(message.history.entries)))
    return Assignment(
        message.session_id,
        message.generation,
        message.agent,
        tuple(
            Message(m.role, m.content, _client_calls(m.tool_calls), m.tool_call_id, m.name, m.parts_json, m.phase)
            for m in message.messages
        ),
        message.parameters_json,
        tuple(Tool(t.name, t.description, t.parameters_json_schema, t.client, t.strict) for t in message.tools),
        history,
        message.conversation_id,
        message.traceparent,
        message.token,
        _user(message.user) if message.HasField("user") else None,
        message.tracestate,
    )


def _user(message: pb.User) -> User:
    return User(message.subject, message.tenant, tuple(sorted(message.claims.items())))


def _history(entries: Iterable[pb.Entry]) -> Iterator[HistoryEntry]:
    for entry in entries:
        match entry.WhichOneof("entry"):
            case "said":
                yield Said(entry.said)
            case "call":
                yield _call(entry.call)
            case "result":
                yield _result(entry.result)

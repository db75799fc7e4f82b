"""What a Commander that takes a session over is told of it (rules 1, 3 and 16)."""

from dispatcher.core import tokens
from dispatcher.core.entries import Call, Entry
from dispatcher.core.log import Record
from dispatcher.policies.ahead import Slices
from shared.records import (
    MAX_HISTORY_BYTES,
    Assignment,
    Content,
    History,
    HistoryEntry,
    Said,
    Tool,
    ToolCall,
    ToolResult,
    User,
)

SLICE = 1000  # entries, between which others have the loop


def assignment_of(record: Record, entries: list[Entry], tools: tuple[Tool, ...]) -> Slices[Assignment | None]:
    """What the Commander is sent that the record's head names. None: the history is larger than the contract allows.

    tools: the Dispatcher's. One that came to have the name of a client's after the client had asked is not offered.
    """
    request, head = record.request, record.head
    history = yield from history_of(head.sequence, entries)
    if history and _size_of(history) > MAX_HISTORY_BYTES:
        return None
    key = request.assignment_key
    token = tokens.assignment_token(key, record.session_id, head.generation, head.commander_id) if key else b""
    return Assignment(
        record.session_id,
        head.generation,
        request.agent,
        request.messages,
        request.parameters_json,
        (*(tool for tool in tools if tool.name not in {each.name for each in request.tools}), *request.tools),
        history,
        request.conversation_id,
        request.traceparent,
        token,
        User(request.subject, request.tenant, request.claims) if request.tenant else None,
        request.tracestate,
    )


def history_of(sequence: int, entries: list[Entry]) -> Slices[History | None]:
    """What predecessors said and got: consecutive content joined, each call followed by its result."""
    if not sequence:
        return None
    results = {entry.body.call_id: entry.body for entry in entries if isinstance(entry.body, ToolResult)}
    history: list[HistoryEntry] = []
    said: list[str] = []

    def flush() -> None:
        if said:
            history.append(Said("".join(said)))
            said.clear()

    for number, entry in enumerate(entries):
        if number % SLICE == 0:
            yield
        match entry.body:
            case Content(text=text) if text:
                said.append(text)
            case Call(tool_name, arguments_json, call_id, refused=False) if call_id in results:
                flush()
                history += [ToolCall(tool_name, arguments_json, call_id), results[call_id]]
    flush()
    return History(sequence, tuple(history))


def _size_of(history: History) -> int:
    """About its bytes on the wire."""
    total = 0
    for entry in history.entries:
        match entry:
            case Said(text):
                total += len(text.encode())
            case ToolCall(tool_name, arguments_json, call_id):
                total += len(tool_name) + len(arguments_json.encode()) + len(call_id)
            case ToolResult(tool_name, result_json, call_id):
                total += len(tool_name) + len(result_json.encode()) + len(call_id)
    return total

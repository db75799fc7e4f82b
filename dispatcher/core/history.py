"""What a Commander that takes a session over is told of it (rules 1, 3 and 16)."""

from dispatcher.core import tokens
from dispatcher.core.entries import Body, Call, Entry
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


def assignment_of(record: Record, history: History | None, tools: tuple[Tool, ...]) -> Assignment:
    """What the Commander is sent that the record's head names.

    tools: the Dispatcher's. One that came to have the name of a client's after the client had asked is not offered.
    """
    request, head = record.request, record.head
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


class HistoryReader:
    """What predecessors said and got, of a log that is taken part by part: consecutive content joined, each call
    followed by its result. too_large: it is larger than the contract allows, and nothing of it is kept.
    """

    def __init__(self) -> None:
        self.too_large = False
        self._size = 0  # about its bytes on the wire
        self._read: list[str | ToolCall] = []
        self._said: list[str] = []  # not in `_read` yet
        self._unanswered: dict[str, ToolCall] = {}
        self._results: dict[str, ToolResult] = {}

    def take(self, entries: list[Entry]) -> Slices[None]:
        """The log's next entries."""
        for number, entry in enumerate(entries):
            if number % SLICE == 0:
                yield
            if not self.too_large:
                self._take(entry.body)
        self._flush()

    def _take(self, body: Body) -> None:
        match body:
            case Content(text=text) if text:
                self._said.append(text)
                self._count(text)
            case Call(tool_name, arguments_json, call_id, refused=False):
                self._flush()
                call = self._unanswered[call_id] = ToolCall(tool_name, arguments_json, call_id)
                self._read.append(call)
            case ToolResult(tool_name, result_json, call_id) as result if call_id in self._unanswered:
                call = self._unanswered.pop(call_id)
                self._results[call_id] = result
                self._count(call.tool_name, call.arguments_json, call_id, tool_name, result_json, call_id)

    def _count(self, *texts: str) -> None:
        self._size += sum(len(text.encode()) for text in texts)
        if self._size > MAX_HISTORY_BYTES:
            self.too_large = True
            for kept in (self._read, self._said, self._unanswered, self._results):
                kept.clear()

    def _flush(self) -> None:
        if self._said:
            self._read.append("".join(self._said))
            self._said.clear()

    def history(self, sequence: int) -> History | None:
        """sequence: the log's highest; 0: nothing was said, and there is none."""
        if not sequence:
            return None
        history: list[HistoryEntry] = []
        said: list[str] = []
        for each in self._read:
            if isinstance(each, str):
                said.append(each)
            elif result := self._results.get(each.call_id):
                history += [*_joined(said), each, result]
                said.clear()
        return History(sequence, (*history, *_joined(said)))


def _joined(said: list[str]) -> list[Said]:
    return [Said("".join(said))] if said else []

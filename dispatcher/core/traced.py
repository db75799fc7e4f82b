"""What a session's log says in traces, once it is complete: its spans, told by whoever has it then.

A function of the session and its log alone: what a killed instance saw, the one that took over tells. The first
Commander's `invoke_agent` is the session's own and lasts as long as it; each later one's is a part of it, linked to the
first. Texts, arguments and results stand in it only where that is asked for, and then as users got them.
"""

import msgspec
from msgspec.structs import replace

from dispatcher.core.entries import Assigned, Call, Entry, Failed, Finished, Started, StopEntry
from dispatcher.core.log import Record
from dispatcher.core.receipts import MAX_INTEGER
from shared.records import MAX_NAME, Error, Message, Stopped, ToolResult
from shared.spans import (
    PROVIDER,
    Attribute,
    Span,
    SpanEvent,
    TraceContext,
    call_key,
    call_span,
    invocation_span,
    stop_span,
)

MAX_CALLS = 1000  # of a session, told as spans: more than an agent makes that anybody reads the trace of


def invoked(agent: str) -> str:
    """The name of a session's first span."""
    return f"invoke_agent {agent}".rstrip()


class SpanReader:
    """Of a log, entry by entry. texts: with what was asked and what users got."""

    def __init__(self, record: Record, context: TraceContext, *, texts: bool) -> None:
        request = record.request
        self._session_id, self._context = record.session_id, context
        self._root = invocation_span(record.session_id, 1)
        self._began = self._ended = request.created_at
        # Of each Commander's: tools know an agent by its operation alone. What `session.id` they are told, they show as
        # one: it would be the conversation's.
        self._common: dict[str, Attribute] = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": PROVIDER,
            **_known("gen_ai.agent.name", request.agent),
            **_known("gen_ai.conversation.id", request.conversation_id),
            "midsentence.session_id": record.session_id,
            **_known("midsentence.tenant", request.tenant),
        }
        self._attributes: dict[str, Attribute] = {**self._common, "midsentence.state": record.head.state}
        self._name = invoked(request.agent)
        self._messages = request.messages if texts else None
        self._said: list[str] = []
        self._ending = self._error = ""  # how the answer ended
        self._events: list[SpanEvent] = []
        self._invocations: list[Span] = []  # after the first; the last one's end is not known yet
        self._calls: dict[str, tuple[Call, int, float]] = {}  # without a result: generation, when it began
        self._tools: list[Span] = []
        self._stop: Span | None = None  # from its being logged to the Commander's halt
        self._given = self._decided = self._spoken = False

    def take(self, entry: Entry) -> None:
        body = entry.body
        self._given |= isinstance(body, Assigned) or entry.sequence > 0  # to a Commander
        self._ended = max(self._ended, entry.at)
        if self._messages is not None and entry.released:
            self._said.append(entry.released)
        if entry.released and not self._spoken:
            self._spoken = True
            self._events.append(SpanEvent("midsentence.first_word", entry.at))
        match body:
            case Assigned(generation, commander_id):
                self._assigned(generation, commander_id, entry.at)
            case Call(call_id=call_id, refused=False):
                self._calls[call_id] = (body, entry.generation, entry.at)
                if body.denied:
                    self._events.append(SpanEvent("midsentence.policy_hit", entry.at, {"gen_ai.tool.call.id": call_id}))
            case Started(call_id) if call_id in self._calls:  # what a person took is not the tool's time
                self._calls[call_id] = (*self._calls[call_id][:2], entry.at)
            case ToolResult(call_id=call_id, status=status) if call_id in self._calls:
                self._answered(*self._calls.pop(call_id), entry.at, status)
            case StopEntry():
                self._stopped(body, entry.at)
            case Stopped(_, _, deltas, micros) if self._stop:
                halted: dict[str, Attribute] = {"midsentence.halt_seconds": micros / 1e6}
                halted["midsentence.deltas_after_stop"] = min(deltas, MAX_INTEGER)
                self._stop = replace(self._stop, ended=entry.at, attributes={**self._stop.attributes, **halted})
            case Finished(reason, usage):
                self._attributes["gen_ai.response.finish_reasons"] = [reason]
                if usage and usage.prompt_tokens:  # 0: not counted
                    self._attributes["gen_ai.usage.input_tokens"] = min(usage.prompt_tokens, MAX_INTEGER)
                if usage and usage.completion_tokens:
                    self._attributes["gen_ai.usage.output_tokens"] = min(usage.completion_tokens, MAX_INTEGER)
                self._ending = self._ending or reason
                self._decided = True
            case Failed(code) | Error(code, _, False):
                self._failed(code)

    def _assigned(self, generation: int, commander_id: str, at: float) -> None:
        own: dict[str, Attribute] = {"midsentence.commander_id": commander_id, "midsentence.generation": generation}
        if generation <= 1:
            self._attributes |= own
            return
        own = {**self._common, **own}
        self._end_invocation(at)
        span_id = invocation_span(self._session_id, generation)
        self._invocations.append(Span(self._name, "client", span_id, self._root, at, at, own, linked=self._root))

    def _end_invocation(self, at: float) -> None:
        if self._invocations:
            self._invocations[-1] = replace(self._invocations[-1], ended=at)

    def _answered(self, call: Call, generation: int, began: float, at: float, status: str) -> None:
        if len(self._tools) == MAX_CALLS:
            return
        attributes: dict[str, Attribute] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": call.tool_name[:MAX_NAME],
            "gen_ai.tool.call.id": call.call_id[:MAX_NAME],
            "gen_ai.tool.type": "function",
            "midsentence.tool.status": status,
        }
        span_id = call_span(call_key(self._session_id, call.call_id))
        parent = invocation_span(self._session_id, generation)
        error = "" if status == "OK" else status or "UNKNOWN_OUTCOME"
        name = f"execute_tool {call.tool_name[:MAX_NAME]}"
        self._tools.append(Span(name, "internal", span_id, parent, began, max(began, at), attributes, error=error))

    def _stopped(self, stop: StopEntry, at: float) -> None:
        if self._decided:
            return
        attributes: dict[str, Attribute] = {
            "midsentence.stop.reason": stop.reason,
            "midsentence.stop.author": stop.author,
            **_known("midsentence.policy", stop.policy),
        }
        self._events.append(SpanEvent("midsentence.stop", at, attributes))
        if stop.policy:
            self._events.append(SpanEvent("midsentence.policy_hit", at, {"midsentence.policy": stop.policy}))
        self._ending = "content_filter" if stop.policy else "stopped"
        self._decided = True
        if self._given:
            span_id = stop_span(self._session_id)
            self._stop = Span("stop", "internal", span_id, self._root, at, at, attributes)

    def _failed(self, code: str) -> None:
        if not self._decided:
            self._error = code[:MAX_NAME]
            self._ending = "error"
            self._decided = True

    def spans(self) -> list[Span]:
        """The session's first. Call it once, when the log has been taken."""
        self._end_invocation(self._ended)
        texts = {} if self._messages is None else _texts(self._messages, "".join(self._said), self._ending)
        root = Span(
            self._name,
            "client",
            self._root,
            self._context.span,
            self._began,
            self._ended,
            {**self._attributes, **texts},
            tuple(self._events),
            error=self._error,
        )
        return [root, *self._invocations, *self._tools, *([self._stop] if self._stop else ())]


def _known(name: str, value: str) -> dict[str, Attribute]:
    return {name: value} if value else {}


def _texts(messages: tuple[Message, ...], said: str, ending: str) -> dict[str, Attribute]:
    """What was asked, and what the user got and why that ended, as the conventions' JSON."""
    asked = [_message(message.role, message.content) for message in messages]
    answered = _message("assistant", said) | {"finish_reason": "tool_call" if ending == "tool_calls" else ending}
    return {
        "gen_ai.input.messages": msgspec.json.encode(asked).decode(),
        "gen_ai.output.messages": msgspec.json.encode([answered]).decode(),
    }


def _message(role: str, text: str) -> dict[str, object]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}

"""What a session's log tells metrics and operators, counted and logged once; the core must not know of it."""

from collections.abc import Callable, Iterable
from time import perf_counter  # uvloop's own clock ticks in milliseconds

import structlog

from dispatcher.core.entries import Approval, Call, Decision, Entry, Failed, Finished, Started, StopEntry
from dispatcher.core.log import Applied, CommanderName, Offsets, Record, State
from dispatcher.metrics import UNKNOWN, Metrics
from shared.records import TALK, Content, Error, Stopped, Thought, ToolResult, Unknown
from shared.spans import SAMPLED, TraceContext

logger = structlog.get_logger()

# Of the ends that the Dispatcher made.
COMMANDERS_FAULT = ("commander_lost", "protocol_error")

# The oneof field's name of the packet that an entry came in.
KIND_OF: dict[type, str] = {
    Thought: "thought",
    Content: "content",
    Finished: "content",
    Call: "tool_call",
    Error: "error",
    Stopped: "stopped",
    Unknown: "unknown",
}


# Of one session: what a log's readers take whole, and more than an agent that is read by people thinks.
THOUGHT_LINE_CHARACTERS = 4096
THOUGHT_LINES = 1000


class _ThinkingStep:
    """A thinking step under way. text: what is not logged yet, where thoughts are."""

    def __init__(self, name: str) -> None:
        self.name, self.text, self.characters = name, "", 0


class SessionFacts:
    """Of one session, from when this instance got it."""

    def __init__(
        self,
        metrics: Metrics,
        record: Record,
        log_thoughts: bool,
        known: Callable[[str], bool],
        ended: Callable[[CommanderName, bool], None],
        trace: TraceContext | None = None,
    ) -> None:
        """known: whether a tool of that name is registered. ended: told whose session has ended, and whether well.
        trace: its id stands in its lines, and where it is sampled with what it is measured by; None: nobody is told of
        traces.
        """
        self._known, self._ended = known, ended
        self._head = record.head
        self._called = {call_id: call.at for call_id, call in record.head.calls.items()}
        self._metrics, self._log_thoughts = metrics, log_thoughts
        self._session_id, self._created_at = record.session_id, record.request.created_at
        self._traced = {"trace_id": trace.trace} if trace else {}
        self._exemplar = trace.trace if trace and trace.flags == SAMPLED else ""
        self._seen = Offsets(record.head.offset)
        self._final = record.head.final
        self._spoken = record.head.decided > 0
        self._step: _ThinkingStep | None = None
        self.last_step = ""  # the beginning of its name
        self._thought_lines = 0
        self._detected = 0.0  # perf_counter when the stop was detected
        self._heard_at = 0.0
        self.stop_logged_at = 0.0  # of the stop, when it was heard of
        self._stop_written = False

    def packets(self, batch: Iterable[tuple[Entry, float]]) -> None:
        """Packets are in the log: (entry, perf_counter at receipt). One packet may have made several entries."""
        now = perf_counter()
        counted = 0
        for entry, received in batch:
            if entry.sequence > counted and (kind := KIND_OF.get(type(entry.body))):
                counted = entry.sequence
                self._metrics.packet_logged(kind, now - received)

    def appended(self, outcome: Applied, now: float) -> None:
        """The log has grown, as was heard at that time."""
        self._heard_at = now
        self._head = outcome.head
        for entry in outcome.entries:
            if self._seen.add(entry.offset):
                self._entry(entry)

    def assigned(self, outcome: Applied) -> None:
        """A Commander has been given the session."""
        head = outcome.head
        self._info("session_assigned", generation=head.generation, commander_id=head.commander_id)

    def stop_detected(self) -> None:
        """Somebody wants the session stopped; the first time counts."""
        self._detected = self._detected or perf_counter()

    def stop_written(self, began: float) -> bool:
        """The Stop was handed to gRPC at that time. True: the first time, for it is sent again after each Welcome."""
        if self._stop_written:
            return False
        self._stop_written = True
        if self._detected:
            self._metrics.stop_sent(began - self._detected, self._exemplar)
        return True

    def _entry(self, entry: Entry) -> None:
        body = entry.body
        if entry.released and not self._spoken:
            self._spoken = True
            self._metrics.first_event(entry.at - self._created_at, self._exemplar)
        if isinstance(body, Thought):
            self._thought(body)
        elif self._step:
            self._end_step()
        if isinstance(body, TALK):
            if self._final:
                self._metrics.delta_after_stop()
            return
        match body:
            case Call(tool_name=tool_name, call_id=call_id, refused=refused):
                self._info("tool_called", tool_name=self._tool(tool_name), call_id=call_id[:100])
                if refused:
                    self._answered(tool_name, "INVALID_ARGUMENTS", 0)
                else:
                    self._called[call_id] = entry.at
            case Approval(call_id, tool_name, approval):
                self._info("approval_asked", tool_name=self._tool(tool_name), call_id=call_id[:100], approval=approval)
            case Decision(call_id, decision, author):
                self._info("approval_decided", call_id=call_id[:100], decision=decision, author=author)
            case Started(call_id):
                self._called[call_id] = entry.at  # what a person took is not the tool's time
            case ToolResult(tool_name=tool_name, call_id=call_id, status=status):
                self._answered(tool_name, status, entry.at - self._called.pop(call_id, entry.at))
            case StopEntry(_, reason, author, policy, detail):
                self.stop_logged_at = self._heard_at
                self._metrics.stopped(reason)
                self._over("stopped", reason=reason, author=author, policy=policy, detail=detail)
            case Stopped(_, _, deltas, micros):
                if self._detected:
                    self._metrics.stop_halted(perf_counter() - self._detected, self._exemplar)
                self._info("commander_halted", deltas_after_stop=deltas, halt_ms=micros / 1000)
                self._over("failed")
            case Finished(reason):
                self._judge(well=True)
                self._over("finished", finish_reason=reason)
            case Failed(code, detail):
                if code in COMMANDERS_FAULT:
                    self._judge(well=False)
                self._metrics.refused("chatstream", code)  # where it is for its size
                self._over("failed", code=code, detail=detail)
            case Error(code, message, retryable):
                self._info("agent_error", code=code[:100], retryable=retryable)
                logger.debug("agent_error_message", session_id=self._session_id, message=message[:1000])
                if not retryable:
                    self._judge(well=False)
                    self._over("failed", code=code[:100])

    def _answered(self, tool_name: str, status: str, seconds: float) -> None:
        self._metrics.tool_done(self._tool(tool_name), status, seconds, self._exemplar)

    def _tool(self, name: str) -> str:
        """The tool's name; of what a model merely calls so, nothing."""
        return name if self._known(name) else UNKNOWN

    def _judge(self, well: bool) -> None:
        """The Commander's part in the end; none in what comes after a stop."""
        if not self._final:
            self._ended(self._head.commander, well)

    def _over(self, outcome: State, **fields: object) -> None:
        """The first stop or end is the session's final state."""
        if not self._final:
            self._final = True
            self._metrics.session_over(outcome)
            self._info(f"session_{outcome}", **fields)

    def _thought(self, thought: Thought) -> None:
        """Thoughts are logged for each step, not for each delta; a long step's text in pieces."""
        if self._step and self._step.name != thought.step_name:
            self._end_step()
        if self._step is None:
            self._step = _ThinkingStep(thought.step_name)
            self.last_step = thought.step_name[:100]
        step = self._step
        step.characters += len(thought.delta)
        if self._log_thoughts:
            step.text += thought.delta
            while len(step.text) > THOUGHT_LINE_CHARACTERS:
                piece, step.text = step.text[:THOUGHT_LINE_CHARACTERS], step.text[THOUGHT_LINE_CHARACTERS:]
                self._thought_line(step=step.name[:100], text=piece)

    def _end_step(self) -> None:
        if step := self._step:
            self._step = None
            if self._log_thoughts:
                self._thought_line(step=step.name[:100], text=step.text)
            else:
                self._thought_line(characters=step.characters)

    def _thought_line(self, **fields: object) -> None:
        self._thought_lines += 1
        if self._thought_lines <= THOUGHT_LINES:
            self._info("thought", **fields)
        elif self._thought_lines == THOUGHT_LINES + 1:
            self._info("thoughts_left_out", lines=THOUGHT_LINES)

    def _info(self, event: str, **fields: object) -> None:
        logger.info(event, session_id=self._session_id, **self._traced, **fields, each=True)

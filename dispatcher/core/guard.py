"""The policies of one session as the core asks them: they may raise, and then the session is stopped (rule 26)."""

from typing import Protocol

from dispatcher.core.entries import Call, Entry
from dispatcher.policies.matches import Channel
from dispatcher.policies.outcomes import UNAVAILABLE, Reading, Release, Violation
from dispatcher.policies.questions import AskedPolicy, Question, Verdict
from shared.records import Content, Thought, ToolResult


class Gate(Protocol):
    """The policies' side of a session: `dispatcher.policies.gate.Gate`, which says what each method does."""

    @property
    def deadline(self) -> float | None: ...
    @property
    def held(self) -> int: ...
    def content(self, text: str, at: float) -> Release: ...
    def thought(self, step_name: str, delta: str, at: float) -> Reading: ...
    def arguments(self, tool_name: str, arguments_json: str, at: float) -> Reading: ...
    def result(self, result_json: str, at: float) -> Reading: ...
    def end(self, at: float) -> Release: ...
    def overdue(self, at: float) -> Violation | None: ...
    def resume(self, decided: int) -> None: ...
    @property
    def waiting(self) -> bool: ...
    def asked(self, channel: Channel) -> list[AskedPolicy]: ...
    def questions(self) -> list[Question]: ...
    def answered(self, question: Question, verdict: Verdict, at: float) -> Release: ...


class Guard:
    """A gate that never raises. decided: raw content characters let out, redacted or dropped so far."""

    def __init__(self, gate: Gate, decided: int) -> None:
        self.decided = decided
        self._gate = gate

    @property
    def deadline(self) -> float | None:
        """When `overdue` has to be asked, Unix seconds; None: never."""
        return self._gate.deadline

    @property
    def held(self) -> int:
        """Characters of content that are held back."""
        return self._gate.held

    def resume(self, decided: int) -> None:
        """The raw log was fed through: let out nothing up to `decided`."""
        self._gate.resume(decided)
        self.decided = decided

    def content(self, text: str, now: float) -> Release:
        """What is let out now; nothing where a policy raises."""
        try:
            release = self._gate.content(text, now)
        except Exception as error:
            return Release("", self.decided, _unavailable(error))
        self.decided = release.decided
        return release

    def end(self, now: float) -> Release:
        """The content is over: what is held is let out, unless a rule fires at the end."""
        try:
            release = self._gate.end(now)
        except Exception as error:
            return Release("", self.decided, _unavailable(error))
        self.decided = release.decided
        return release

    @property
    def waiting(self) -> bool:
        """Some content waits for a verdict, which will come."""
        return self._gate.waiting

    def asked(self, channel: Channel) -> list[AskedPolicy]:
        """The policies that are to be asked about a whole text of that channel."""
        return self._gate.asked(channel)

    def questions(self) -> list[Question]:
        """What is to be asked now, once."""
        return self._gate.questions()

    def answered(self, question: Question, verdict: Verdict, now: float) -> Release:
        """What a verdict lets out."""
        try:
            release = self._gate.answered(question, verdict, now)
        except Exception as error:
            return Release("", self.decided, _unavailable(error))
        self.decided = release.decided
        return release

    def read(self, body: Thought | Call | ToolResult, now: float) -> Reading:
        """A thought, a call before its tool runs, or a result before the Commander sees it."""
        try:
            match body:
                case Thought(step_name, delta):
                    return self._gate.thought(step_name, delta, now)
                case Call(tool_name, arguments_json):
                    return self._gate.arguments(tool_name, arguments_json, now)
                case ToolResult(result_json=result_json):
                    return self._gate.result(result_json, now)
        except Exception as error:
            return Reading(_unavailable(error))

    def again(self, entry: Entry) -> Violation | None:
        """What the policies say today to what was logged then. What was denied stays so; what was not has been seen."""
        match entry.body:
            case Content(text):
                return self.content(text, entry.at).violation
            case Thought() | Call() | ToolResult() as body:
                return self.read(body, entry.at).violation
        return None

    def overdue(self, now: float) -> Violation | None:
        """Whether a limit of time has been reached."""
        try:
            return self._gate.overdue(now)
        except Exception as error:
            return _unavailable(error)


def _unavailable(error: Exception) -> Violation:
    """Stop, with a reason for the user that says nothing, and a detail for operators that quotes nothing."""
    return Violation("unknown", "RiskControl", f"{UNAVAILABLE}: {type(error).__name__}")

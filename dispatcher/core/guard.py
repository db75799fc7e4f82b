"""The policies of one session as the core asks them: they may raise, and then the session is stopped (rule 26)."""

from collections.abc import Iterable

from dispatcher.core.entries import Call, Entry
from dispatcher.policies.ahead import Slices
from dispatcher.policies.gate import Gate
from dispatcher.policies.matches import Channel
from dispatcher.policies.outcomes import UNAVAILABLE, Reading, Release, Violation
from dispatcher.policies.questions import Question, Verdict
from shared.records import Content, Thought, ToolResult

LARGE = 256  # characters of a text that is read ahead


class Guard:
    """Asks the gate where it may raise. decided: raw content characters let out, redacted or dropped so far."""

    def __init__(self, gate: Gate, decided: int) -> None:
        self.gate, self.decided = gate, decided

    def resume(self, decided: int) -> None:
        """The raw log was fed through: let out nothing up to `decided`."""
        self.gate.resume(decided)
        self.decided = decided

    def read_ahead(self, channel: Channel, *texts: str, step_name: str = "") -> Slices[None]:
        """Read what comes next without taking it in, a slice at a time."""
        try:
            yield from self.gate.read_ahead(channel, *texts, step_name=step_name)
        except Exception:
            return  # it will raise again when the text is taken in

    def content(self, text: str, now: float) -> Release:
        """What is let out now; nothing where a policy raises."""
        try:
            release = self.gate.content(text, now)
        except Exception as error:
            return Release("", self.decided, _unavailable(error))
        self.decided = release.decided
        return release

    def end(self, now: float) -> Release:
        """The content is over: what is held is let out, unless a rule fires at the end."""
        try:
            release = self.gate.end(now)
        except Exception as error:
            return Release("", self.decided, _unavailable(error))
        self.decided = release.decided
        return release

    def answered(self, question: Question, verdict: Verdict, now: float) -> Release:
        """What a verdict lets out."""
        try:
            release = self.gate.answered(question, verdict, now)
        except Exception as error:
            return Release("", self.decided, _unavailable(error))
        self.decided = release.decided
        return release

    def read(self, body: Thought | Call | ToolResult, now: float) -> Reading:
        """A thought, a call before its tool runs, or a result before the Commander sees it."""
        try:
            match body:
                case Thought(step_name, delta):
                    return self.gate.thought(step_name, delta, now)
                case Call(tool_name, arguments_json):
                    return self.gate.arguments(tool_name, arguments_json, now)
                case ToolResult(result_json=result_json):
                    return self.gate.result(result_json, now)
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

    def ahead_of(self, entry: Entry) -> Slices[None]:
        """Read ahead what `again` reads of it."""
        match entry.body:
            case Content(text) if len(text) > LARGE:
                yield from self.read_ahead("content", text)
            case Thought(step_name, delta) if len(delta) > LARGE:
                yield from self.read_ahead("thoughts", delta, step_name=step_name)
            case Call(arguments_json=text) if len(text) > LARGE:
                yield from self.read_ahead("arguments", text)
            case ToolResult(result_json=text) if len(text) > LARGE:
                yield from self.read_ahead("results", text)

    def all_again(self, entries: Iterable[Entry]) -> Slices[Violation | None]:
        """What the policies say today to these, up to what stops."""
        for entry in entries:
            yield from self.ahead_of(entry)
            if found := self.again(entry):
                return found
            yield
        return None

    def overdue(self, now: float) -> Violation | None:
        """Whether a limit of time has been reached."""
        try:
            return self.gate.overdue(now)
        except Exception as error:
            return _unavailable(error)


def _unavailable(error: Exception) -> Violation:
    """Stop, with a reason for the user that says nothing, and a detail for operators that quotes nothing."""
    return Violation("unknown", "RiskControl", f"{UNAVAILABLE}: {type(error).__name__}")

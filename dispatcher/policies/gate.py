"""What one session's rules let out: all policies of a rule set, composed, with the state of one session. Pure.

Content is held while a phrase could still match through it, and only then. The first code point that completes a
violation stops the session, so that neither the split of the text nor the order of the policies changes the outcome.
Let out is then what stands before the first character of the violation, and before anything that another phrase could
still have matched through: undecided text never gets out.
"""

import msgspec

from dispatcher.policies.arguments import strings
from dispatcher.policies.automaton import Automaton
from dispatcher.policies.budget import Budget, Limit
from dispatcher.policies.phrases import Match, PhraseStream

MAX_STEPS = 64  # thinking steps with a phrase begun that are followed at once; of more, the oldest is forgotten


class Violation(msgspec.Struct, frozen=True):
    """reason: for the user and the Commander, one of STOP_REASONS. detail: for operators; never quotes the text."""

    policy: str
    reason: str
    detail: str = ""


class Release(msgspec.Struct, frozen=True):
    """text: content let out now. decided: raw content characters let out so far in the session."""

    text: str
    decided: int
    violation: Violation | None


class Phrase(msgspec.Struct, frozen=True):
    """Where a phrase stands in the rules. number: within its policy, from 1."""

    policy: str
    reason: str
    number: int


class PhraseSet(msgspec.Struct, frozen=True):
    """All phrases that are looked for in one channel; `phrases` by the automaton's numbers."""

    automaton: Automaton
    phrases: tuple[Phrase, ...]

    def violation(self, match: Match, channel: str) -> Violation:
        phrase = min((self.phrases[number] for number in match.phrases), key=lambda phrase: phrase.policy)
        return Violation(phrase.policy, phrase.reason, f"phrase {phrase.number} in {channel}")


class Rules(msgspec.Struct, frozen=True):
    """What a gate works with; shared by all sessions. A channel that no phrase is looked for in: None."""

    budget: Budget = Budget()
    content: PhraseSet | None = None
    thoughts: PhraseSet | None = None
    arguments: PhraseSet | None = None


class Gate:
    """One session's side of the rules. After a violation nothing is let out and every call answers with it.

    A session begins with `resume(decided)`, after its log, if it has one, was fed through in order. `at` is Unix
    seconds, from the log where it is fed.
    """

    def __init__(self, rules: Rules, started_at: float) -> None:
        self._rules = rules
        self._violation: Violation | None = None
        self._content = PhraseStream(rules.content.automaton) if rules.content else None
        self._steps: dict[str, PhraseStream] = {}
        self._total = self._decided = self._thought_characters = self._tool_calls = 0
        self._held: list[str] = []  # raw content from `_decided` on
        self._raw: list[str] | None = []  # all raw content, until `resume`
        limit = rules.budget.max_seconds
        self._deadline = started_at + limit.value if limit else None

    @property
    def deadline(self) -> float | None:
        """When `overdue` has to be asked, Unix seconds; None: never."""
        return None if self._violation else self._deadline

    @property
    def held(self) -> int:
        """Raw characters that are held back now."""
        return 0 if self._violation else self._total - self._decided

    def overdue(self, at: float) -> Violation | None:
        """The violation so far, or the time limit's if it has run out."""
        if self._deadline is not None and at >= self._deadline:
            self._exceed(self._rules.budget.max_seconds)
        return self._violation

    def content(self, text: str, at: float) -> Release:
        """The next raw content; answers with what it lets out."""
        if self.overdue(at):
            return self._let_out(self._decided)
        limit = self._rules.budget.max_characters
        room = len(text) if limit is None else int(limit.value) - self._total
        read = text if len(text) <= room else text[: room + 1]
        self._total += len(read)
        self._held.append(read)
        if self._raw is not None:
            self._raw.append(read)
        match, certain = None, self._total
        if self._content:
            match = self._content.feed(read)
            certain = self._content.hold()
        if match:
            certain = min(certain, match.start)
            self._match(self._rules.content, match, "content")
        elif len(read) > room:
            certain = min(certain, self._total - 1)
            self._exceed(limit)
        return self._let_out(certain)

    def end(self, at: float) -> Release:
        """The content is over: nothing can match any more through what is held."""
        if self.overdue(at):
            return self._let_out(self._decided)
        match = self._content.end() if self._content else None
        if match:
            self._match(self._rules.content, match, "content")
        return self._let_out(match.start if match else self._total)

    def thought(self, step_name: str, delta: str, at: float) -> Violation | None:
        """The next text of a thinking step, which is read but never let out."""
        if self.overdue(at):
            return self._violation
        limit = self._rules.budget.max_thought_characters
        self._thought_characters += len(delta)
        if rules := self._rules.thoughts:
            stream = self._steps.pop(step_name, None) or PhraseStream(rules.automaton)
            self._match(rules, stream.feed(delta), "thoughts")
            if not stream.idle:
                self._steps[step_name] = stream
                if len(self._steps) > MAX_STEPS:
                    del self._steps[next(iter(self._steps))]
        if limit and self._thought_characters > limit.value:
            self._exceed(limit)
        return self._violation

    def arguments(self, tool_name: str, arguments_json: str, at: float) -> Violation | None:
        """A tool call, before it runs; it counts as one whatever becomes of it."""
        if self.overdue(at):
            return self._violation
        limit = self._rules.budget.max_tool_calls
        self._tool_calls += 1
        if limit and self._tool_calls > limit.value:
            self._exceed(limit)
        if rules := self._rules.arguments:
            for text in strings(arguments_json):
                stream = PhraseStream(rules.automaton)
                self._match(rules, stream.feed(text) or stream.end(), "arguments")
        return self._violation

    def resume(self, decided: int) -> None:
        """The log was fed through, of which `decided` raw characters are decided for good, whatever these rules would
        have let out: what follows them is held, and goes out with what comes next or at the end.
        """
        if self._raw is not None:
            self._held = ["".join(self._raw)[decided:]]
            self._raw = None
        self._decided = decided

    def _match(self, rules: PhraseSet | None, match: Match | None, channel: str) -> None:
        if rules and match and not self._violation:
            self._violation = rules.violation(match, channel)

    def _exceed(self, limit: Limit | None) -> None:
        if limit and not self._violation:
            self._violation = Violation(limit.policy, limit.reason, limit.detail)

    def _let_out(self, certain: int) -> Release:
        """Let out the raw content before the index `certain`."""
        text = ""
        if certain > self._decided:
            held = "".join(self._held)
            count = certain - self._decided
            text, self._held, self._decided = held[:count], [held[count:]], certain
        if self._violation:
            self._held.clear()
        return Release(text, self._decided, self._violation)

"""Policies that something else decides: an operator's own function, or a guardrail's server. Pure: who asks it, and for
how long, is the runner's affair; here is what to ask, and what follows from the answer.

A gate's text waits for its verdict, and only its own; an observer's goes on, and a late verdict stops the session. One
question of a policy is under way at a time; what comes meanwhile makes the next.
"""

from typing import Literal, TypeAlias

import msgspec

from dispatcher.policies.changes import Edit, changes
from dispatcher.policies.matches import DEFAULT_READS, Action, Channel, Fallback, Match, Rule
from dispatcher.policies.outcomes import UNAVAILABLE, Hit, Reading, Violation

MAX_QUESTION = 16_000  # characters
MAX_BACKLOG = 1_000_000  # characters that may wait to be asked about
CONTEXT = 1_000  # characters that a question brings of what stands before


class UnusableAnswerError(Exception):
    """Its text says why, for operators, and holds nothing of the question."""


class BacklogError(Exception):
    """The answers come too slowly."""


AskedKind: TypeAlias = Literal["plugin", "http"]
Mode: TypeAlias = Literal["gate", "observer"]


class AskedPolicy(msgspec.Struct, frozen=True):
    """kind, target: whom to ask: a function `module:attribute`, or a URL.

    mode        gate or observer; what only observes is an observer
    on_failure  what becomes of a text to which there is no answer, or nonsense
    overlap     characters that are asked about again with what follows, and held until then: what is shorter than that
                is never parted by two questions
    headers     of the request; parameters_json: an object that goes with it
    """

    name: str
    kind: AskedKind
    target: str
    mode: Mode = "gate"
    timeout_seconds: float = 2.0
    on_failure: Fallback = "stop"
    overlap: int = 0
    reads: frozenset[Channel] = DEFAULT_READS
    reason: str = "PolicyViolation"
    action: Action = "stop"
    replacement: str = "[redacted]"
    headers: tuple[tuple[str, str], ...] = ()
    parameters_json: str = "{}"

    def holds(self, channel: Channel) -> bool:
        """What it reads there waits for its verdict. Thoughts are never let out."""
        return self.mode == "gate" and self.action != "observe" and channel != "thoughts"


class Question(msgspec.Struct, frozen=True):
    """number: of the policy's questions in a session. texts: what to decide about; of content and thoughts it is one.
    images: URLs of what stands beside them in a prompt, as they came, data: among them.
    context: what stood before it. tool_name, call_id: of arguments and results. session_id: empty before there is one.
    """

    policy: AskedPolicy
    number: int
    channel: Channel
    texts: tuple[str, ...]
    context: str = ""
    tool_name: str = ""
    session_id: str = ""
    call_id: str = ""
    images: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return "\n".join(self.texts)


class Verdict(msgspec.Struct, frozen=True):
    """texts: what to show instead, for `replace`. why: for operators, where there is no answer that can be used."""

    kind: Literal["pass", "violation", "replace", "unavailable"]
    texts: tuple[str, ...] = ()
    why: str = ""


PASS = Verdict("pass")


def reading_of(question: Question, verdict: Verdict) -> Reading:
    """What a verdict means for what is not let out."""
    policy = question.policy
    if verdict.kind == "unavailable":
        return Reading() if policy.on_failure == "release" else Reading(_unavailable(policy, verdict))
    if verdict.kind == "pass" or (verdict.kind == "replace" and verdict.texts == question.texts):
        return Reading()
    if policy.action == "observe" or (question.channel == "thoughts" and policy.action == "redact"):
        return Reading(hits=(Hit(policy.name, "observe"),))
    if policy.action == "redact" or verdict.kind == "replace":
        return Reading(None, policy.name, (Hit(policy.name, "redact"),))
    return Reading(Violation(policy.name, policy.reason, f"verdict on {question.channel}"))


class Asked:
    """One policy's view of one text that streams: content, or thoughts."""

    def __init__(self, policy: AskedPolicy, channel: Channel) -> None:
        self.policy, self.channel = policy, channel
        self._text = ""  # from `_undecided` on
        self._before = ""
        self._undecided = self._asked = self._total = 0  # raw indices
        self._under_way: Question | None = None
        self._number = 0
        self._resumed = self._ended = False

    def feed(self, text: str) -> None:
        """Raises BacklogError."""
        self._text += text
        self._total += len(text)
        if self._resumed and len(self._text) > MAX_BACKLOG:
            raise BacklogError

    def hold(self) -> int:
        """The index from which on content waits for a verdict."""
        return self._undecided if self.policy.holds(self.channel) else self._total

    def end(self) -> None:
        """The text is over."""
        self._ended = True
        if self._asked == self._total and not self._under_way:
            self._decide(self._total)

    def resume(self, decided: int) -> None:
        """The log was fed through: what is undecided is asked about, again or for the first time. An observer is asked
        about what came last.
        """
        self._resumed = True
        self._decide(decided if self.policy.holds(self.channel) else self._total - CONTEXT)
        self._asked = self._undecided

    def question(self) -> Question | None:
        """What is to be asked next."""
        if self._under_way or self._asked == self._total:
            return None
        self._number += 1
        text = self._text[:MAX_QUESTION]
        self._asked = self._undecided + len(text)
        self._under_way = Question(self.policy, self._number, self.channel, (text,), self._before)
        return self._under_way

    def answered(self, question: Question, verdict: Verdict) -> tuple[Reading, list[Match]]:
        """What follows, and what is redacted in content. Nothing, if it is not the question that is under way."""
        if question is not self._under_way:
            return Reading(), []
        self._under_way = None
        reading, matches = reading_of(question, verdict), []
        if reading.denied and self.channel == "content":
            matches = self._redactions(question.text, verdict.texts[0] if verdict.kind == "replace" else None)
        if not reading.violation:
            self._decide(
                self._asked if self._ended and self._asked == self._total else self._asked - self.policy.overlap
            )
        return reading, matches

    def _redactions(self, asked: str, shown: str | None) -> list[Match]:
        """Of all of it, or of what was changed in it."""
        rule = Rule(self.policy.name, "redact", "verdict", self.policy.reason, self.policy.replacement)
        whole: list[Edit] = [(0, len(asked), None)]
        changed = whole if shown is None else changes(asked, shown)
        return [Match(self._undecided + start, self._undecided + end, rule, text) for start, end, text in changed]

    def _decide(self, until: int) -> None:
        count = until - self._undecided
        if count > 0:
            self._before = (self._before + self._text[:count])[-CONTEXT:]
            self._text, self._undecided = self._text[count:], until


def _unavailable(policy: AskedPolicy, verdict: Verdict) -> Violation:
    return Violation(policy.name, "RiskControl", f"{UNAVAILABLE}: {verdict.why}")

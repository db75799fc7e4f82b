"""`dispatcher policy replay FILE`: today's rules over what a session's log holds. Pure.

The log is read as the operator's routes give it: raw text, what was let out of it then, when each entry came.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from dispatcher.events import Call
from dispatcher.guard import Guard
from dispatcher.policies.outcomes import Reading, Release, Violation
from dispatcher.policies.rules import RuleSet
from shared.records import Thought, ToolResult

SHOWN = 60  # characters of text before a stop and after it, where the text is shown at all

Event = tuple[int, str, dict[str, Any]]  # offset, kind, fields


class Stop(msgspec.Struct, frozen=True):
    """Where today's rules stop it. offset: of the entry; 0: the prompt. before, after: the text on both sides."""

    offset: int
    channel: str
    policy: str
    reason: str
    detail: str
    before: str
    after: str


class Denial(msgspec.Struct, frozen=True):
    offset: int
    channel: str
    policy: str


class Replayed(msgspec.Struct, frozen=True):
    """One session. then: its state, and the policy that stopped it, if one did.

    stop         None: it is not stopped
    denials      calls and results that are denied, the prompt too
    hits         times that each policy redacted or observed
    let_out_then, let_out_today  characters of content that users got, and would get
    same_text    what they would get is what they got, as far as both go (where it was cut, rules hold more or less)
    """

    session_id: str
    then: str
    then_policy: str
    stop: Stop | None
    denials: tuple[Denial, ...]
    hits: dict[str, int]
    let_out_then: int
    let_out_today: int
    same_text: bool

    @property
    def differs(self) -> bool:
        """Today's rules would have done something else than was done."""
        return bool(self.stop) != bool(self.then_policy) or bool(self.denials) or not self.same_text


def replayed(rules: RuleSet, session: dict[str, Any], events: Iterable[Event]) -> Replayed:
    """session: as `GET /operator/sessions/{session_id}` gives it."""
    replay = _Replay(rules, session)
    replay.prompt([message["content"] for message in session["messages"]])
    for offset, kind, fields in events:
        if not replay.take(offset, kind, fields):
            break
    return replay.result()


class _Replay:
    def __init__(self, rules: RuleSet, session: dict[str, Any]) -> None:
        self._rules = rules
        self._session = session
        self._guard = self._new_guard(session["created_at"])
        self._begun = False
        self._then_policy = ""
        self._stop: Stop | None = None
        self._denials: list[Denial] = []
        self._hits: Counter[str] = Counter()
        self._then: list[str] = []
        self._today: list[str] = []
        self._raw: list[str] = []

    def _new_guard(self, started_at: float) -> Guard:
        guard = Guard(self._rules.gate(started_at), 0)
        guard.resume(0)
        return guard

    def prompt(self, texts: list[str]) -> None:
        self._act(self._rules.prompt(texts), 0, "prompt", "")

    def take(self, offset: int, kind: str, fields: dict[str, Any]) -> bool:
        """The next entry. False: what follows it was never for users."""
        at = fields["at"]
        self._then.append(fields["released"])
        match kind:
            case "assigned" if not self._begun:
                self._guard, self._begun = self._new_guard(at), True  # what time limits count from
            case "content":
                self._raw.append(fields["text"])
                self._release(self._guard.content(fields["text"], at), offset)
            case "thought":
                thought = Thought(fields["step_name"], fields["delta"])
                self._act(self._guard.read(thought, at), offset, "thoughts", thought.delta)
            case "call":
                call = Call(fields["tool_name"], fields["arguments_json"], fields["call_id"], "")
                self._act(self._guard.read(call, at), offset, "arguments", call.arguments_json)
            case "tool_result":
                result = ToolResult(fields["tool_name"], fields["result_json"], fields["call_id"], fields["status"])
                self._act(self._guard.read(result, at), offset, "results", result.result_json)
            case "stop":
                self._then_policy = fields["policy"]
                return False
            case "finished" | "failed":
                self._release(self._guard.end(at), offset)
                return False
            case "agent_error" if not fields["retryable"]:
                self._release(self._guard.end(at), offset)
                return False
        return True

    def _release(self, release: Release, offset: int) -> None:
        if not self._stop:
            self._today.append(release.text)
            withheld = "".join(self._raw)[release.decided :] if release.violation else ""
            self._act(release, offset, "content", withheld)

    def _act(self, reading: Release | Reading, offset: int, channel: str, text: str) -> None:
        if self._stop:
            return
        self._hits.update(hit.policy for hit in reading.hits)
        if reading.violation:
            self._stop = self._stopped(reading.violation, offset, channel, text)
        elif isinstance(reading, Reading) and reading.denied:
            self._denials.append(Denial(offset, channel, reading.denied))

    def _stopped(self, violation: Violation, offset: int, channel: str, text: str) -> Stop:
        before = "".join(self._today)[-SHOWN:] if channel == "content" else ""
        return Stop(offset, channel, violation.policy, violation.reason, violation.detail, before, text[:SHOWN])

    def result(self) -> Replayed:
        session = self._session
        told = session["reason"] or session["code"]
        then, today = "".join(self._then), "".join(self._today)
        if any(denial.channel == "prompt" for denial in self._denials) or (self._stop and not self._stop.offset):
            today = ""  # it would not have begun
        return Replayed(
            session["session_id"],
            f"{session['state']} ({told})" if told else session["state"],
            self._then_policy,
            self._stop,
            tuple(self._denials),
            dict(self._hits),
            len(then),
            len(today),
            then.startswith(today) or today.startswith(then),
        )

"""What one session's rules let out: all policies of a rule set, composed, with the state of one session. Pure.

Content is held while a rule that stops or redacts could still match through it, and only then. The first code point
that completes a violation stops the session, so that neither the split of the text nor the order of the policies
changes the outcome. Let out is then what stands before the first character of the violation, and before anything that
another rule could still have matched through: undecided text never gets out. What is redacted is replaced on its way
out; every rule reads the raw text, so no redaction hides anything from another rule. Some policies are asked
(`questions`): what waits for their verdict is held too.
"""

from collections import Counter
from collections.abc import Iterable

import msgspec

from dispatcher.policies.ahead import Ahead, Slices, at_once, fed
from dispatcher.policies.arguments import strings
from dispatcher.policies.budget import Budget, Limit
from dispatcher.policies.matches import Action, Channel, Match, TextStream
from dispatcher.policies.outcomes import Hit, Reading, Release, Violation
from dispatcher.policies.questions import Asked, AskedPolicy, Question, Verdict
from dispatcher.policies.reader import ChannelRules, Findings, Tally
from dispatcher.policies.redactions import Redactions
from dispatcher.policies.tool_rules import ToolRules, broken

MAX_STEPS = 64  # thinking steps with something begun that are followed at once; of more, the oldest is forgotten


class Rules(msgspec.Struct, frozen=True):
    """What a gate works with; shared by all sessions."""

    budget: Budget = Budget()
    content: ChannelRules = ChannelRules()
    thoughts: ChannelRules = ChannelRules()
    arguments: ChannelRules = ChannelRules()
    tools: tuple[ToolRules, ...] = ()
    results: ChannelRules = ChannelRules()
    asked: tuple[AskedPolicy, ...] = ()


class Gate:
    """One session's side of the rules. After a violation nothing is let out and every call answers with it.

    A session begins with `resume(decided)`, after its log, if it has one, was fed through in order. `at` is Unix
    seconds, from the log where it is fed.
    """

    def __init__(self, rules: Rules, started_at: float) -> None:
        self._rules = rules
        self._violation: Violation | None = None
        self._content = rules.content.stream() if rules.content.policies else None
        self._redactions, self._tally = Redactions(), Tally()
        self._steps: dict[str, tuple[TextStream, Tally]] = {}  # by name
        self._total = self._decided = self._thought_characters = self._tool_calls = 0
        self._held: list[str] = []  # raw content from `_decided` on
        self._raw: list[str] | None = []  # all raw content, until `resume`
        self._ended = False
        self._ahead: Ahead | None = None
        self._whole_ahead: list[tuple[str, str, Reading]] = []  # channel, text; of one packet, in order
        streams: tuple[Channel, ...] = ("content", "thoughts")
        self._asked = [Asked(policy, each) for each in streams for policy in rules.asked if each in policy.reads]
        self._waiting = [asked for asked in self._asked if asked.policy.holds(asked.channel)]
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
        limit, room = self._rules.budget.max_characters, self._room(text)
        read = text if len(text) <= room else text[: room + 1]
        self._total += len(read)
        self._held.append(read)
        if self._raw is not None:
            self._raw.append(read)
        certain = self._total
        hits: tuple[Hit, ...] = ()
        if self._asked:
            self._feed("content", read)
        if self._content:
            self._content, self._tally, found = self._fed(self._content, self._tally, read)
            certain = self._content.hold()
            if found:
                certain, hits = self._match(found, certain)
        if len(read) > room:
            certain = min(certain, self._total - 1)
            self._exceed(limit)
        return self._let_out(certain, hits)

    def _room(self, text: str) -> int:
        """How much of that content its budget permits."""
        limit = self._rules.budget.max_characters
        return len(text) if limit is None else int(limit.value) - self._total

    def end(self, at: float) -> Release:
        """The content is over: nothing can match any more through what is held."""
        if self.overdue(at):
            return self._let_out(self._decided)
        self._ended = True
        for asked in self._asked:
            asked.end()
        if not self._content:
            return self._let_out(self._total)
        found = Findings()
        found.add(self._content.end(), self._tally)
        return self._let_out(*self._match(found, self._total))

    def thought(self, step_name: str, delta: str, at: float) -> Reading:
        """The next text of a thinking step, which is read but never let out."""
        if self.overdue(at):
            return Reading(self._violation)
        limit = self._rules.budget.max_thought_characters
        self._thought_characters += len(delta)
        if self._asked:
            self._feed("thoughts", delta)
        hits: tuple[Hit, ...] = ()
        if self._rules.thoughts.policies:
            stream, tally = self._steps.pop(step_name, (None, None))
            stream, tally, found = self._fed(stream, tally or Tally(), delta)
            if found:
                self._violate(found.stop, "thoughts")
                hits = found.hits
            if not stream.idle:
                self._steps[step_name] = stream, tally
                if len(self._steps) > MAX_STEPS:
                    del self._steps[next(iter(self._steps))]
        if limit and self._thought_characters > limit.value:
            self._exceed(limit)
        return Reading(self._violation, hits=hits)

    def arguments(self, tool_name: str, arguments_json: str, at: float) -> Reading:
        """A tool call, before it runs; it counts as one whatever becomes of it."""
        if self.overdue(at):
            return Reading(self._violation)
        limit = self._rules.budget.max_tool_calls
        self._tool_calls += 1
        if limit and self._tool_calls > limit.value:
            self._exceed(limit)
        denied, hits = "", []
        for rule in broken(self._rules.tools, tool_name, arguments_json):
            if rule.action == "stop":
                self._violation = self._violation or Violation(rule.policy, rule.reason, rule.what)
            else:
                hits.append(Hit(rule.policy, rule.action))
                denied = denied or (rule.policy if rule.action == "redact" else "")
        reading = self._whole("arguments", self._rules.arguments, arguments_json)
        return Reading(self._violation, denied or reading.denied, (*hits, *reading.hits))

    def result(self, result_json: str, at: float) -> Reading:
        """A tool's result, before the Commander sees it."""
        if self.overdue(at):
            return Reading(self._violation)
        return self._whole("results", self._rules.results, result_json)

    def resume(self, decided: int) -> None:
        """The log was fed through, of which `decided` raw characters are decided for good, whatever these rules would
        have let out: what follows them is held, and goes out with what comes next or at the end.
        """
        if self._raw is not None:
            self._held = ["".join(self._raw)[decided:]]
            self._raw = None
            for asked in self._asked:
                asked.resume(decided)
        self._redactions.resume(decided)
        self._decided = decided

    # ---- large texts

    def read_ahead(self, channel: Channel, *texts: str, step_name: str = "") -> Slices[None]:
        """Read what comes next (content, a delta of that thinking step, calls' arguments, a result), without taking it
        in.
        """
        rules: ChannelRules = getattr(self._rules, channel)
        if self._violation or not rules.policies:
            return
        if channel in ("content", "thoughts"):
            step = self._steps.get(step_name, (None, None))
            before, tally = (self._content, self._tally) if channel == "content" else step
            start, text = before.length if before else 0, "".join(texts)
            after = before.copy() if before else rules.stream()
            read = text[: self._room(text) + 1] if channel == "content" else text
            tally = tally.copy() if tally else Tally()
            found = yield from fed(after, read, rules.slice, tally)
            self._ahead = Ahead(read, before, start, after, tally, found)
        else:
            self._whole_ahead.clear()
            for text in texts:
                reading = yield from reading_whole(channel, rules, strings(text))
                self._whole_ahead.append((channel, text, reading))

    def _fed(self, stream: TextStream | None, tally: Tally, text: str) -> tuple[TextStream, Tally, Findings | None]:
        """A stream that has read that text, and what it found. None: one of thoughts that begins."""
        ahead, self._ahead = self._ahead, None
        if ahead and ahead.fits(text, stream):
            return ahead.after, ahead.tally, ahead.found
        stream = stream or self._rules.thoughts.stream()
        if not (matches := stream.feed(text)):
            return stream, tally, None
        found = Findings()
        found.add(matches, tally)
        return stream, tally, found

    # ---- policies that are asked

    def asked(self, channel: Channel) -> list[AskedPolicy]:
        """Those that the runner has to ask about a whole text of that channel."""
        return [policy for policy in self._rules.asked if channel in policy.reads]

    @property
    def waiting(self) -> bool:
        """Some content waits for a verdict."""
        return not self._violation and any(asked.hold() < self._total for asked in self._waiting)

    def questions(self) -> list[Question]:
        """What is to be asked now, once."""
        if not self._asked or self._violation:
            return []
        return [question for asked in self._asked if (question := asked.question())]

    def answered(self, question: Question, verdict: Verdict, at: float) -> Release:
        """A question's verdict; answers with what that lets out."""
        if self.overdue(at):
            return self._let_out(self._decided)
        reading = Reading()
        for asked in self._asked:
            if (asked.policy, asked.channel) == (question.policy, question.channel):
                reading, matches = asked.answered(question, verdict)
                for match in matches:
                    self._redactions.add(match)
        self._violation = reading.violation
        certain = self._content.hold() if self._content and not self._ended else self._total
        return self._let_out(certain, reading.hits)

    def _feed(self, channel: Channel, text: str) -> None:
        for asked in self._asked:
            if asked.channel == channel:
                asked.feed(text)

    def _whole(self, channel: str, rules: ChannelRules, json: str) -> Reading:
        if not rules.policies:
            return Reading(self._violation)
        ahead = self._whole_ahead.pop(0) if self._whole_ahead else None
        known = ahead[2] if ahead and ahead[:2] == (channel, json) else None
        reading = known or read_whole(channel, rules, strings(json))
        self._violation = self._violation or reading.violation
        return Reading(self._violation, reading.denied, reading.hits)

    def _match(self, found: Findings, certain: int) -> tuple[int, tuple[Hit, ...]]:
        """Take in what was found in content; answers with the index up to which it is certain, and what counts."""
        self._redactions.join(found.redacted)
        self._violate(found.stop, "content")
        return min(certain, found.stop.start) if found.stop else certain, found.hits

    def _violate(self, stop: Match | None, channel: str) -> None:
        if stop and not self._violation:
            self._violation = violation_of(stop, channel)

    def _exceed(self, limit: Limit | None) -> None:
        if limit and not self._violation:
            self._violation = Violation(limit.policy, limit.reason, limit.detail)

    def _let_out(self, certain: int, hits: tuple[Hit, ...] = ()) -> Release:
        """Let out the raw content before the index `certain`, and before what waits for a verdict."""
        text, redacted_by = "", tuple[str, ...]()
        if self._waiting:
            certain = self._redactions.whole(min([certain, *(asked.hold() for asked in self._waiting)]))
        if certain > self._decided:
            text = "".join(self._held)
            if certain == self._total:
                self._held.clear()
            else:
                count = certain - self._decided
                text, self._held = text[:count], [text[count:]]
            if self._redactions.runs:
                text = self._redactions.apply(text, self._decided)
                redacted_by = self._redactions.applied
            self._decided = certain
        if self._violation:
            self._held.clear()
        return Release(text, self._decided, self._violation, hits, redacted_by)


def read_whole(channel: str, rules: ChannelRules, texts: Iterable[str]) -> Reading:
    """Read whole texts, each for itself."""
    return at_once(reading_whole(channel, rules, texts))


def reading_whole(channel: str, rules: ChannelRules, texts: Iterable[str]) -> Slices[Reading]:
    violation, denied = None, ""
    times: Counter[tuple[str, Action]] = Counter()
    for text in texts:
        stream, tally = rules.stream(), Tally()
        found = yield from fed(stream, text, rules.slice, tally)
        if not found.stop:
            found.add(stream.end(), tally)
        if found.stop and not violation:
            violation = violation_of(found.stop, channel)
        denied = denied or found.denied
        for hit in found.hits:
            times[hit.policy, hit.action] += hit.times
    return Reading(violation, denied, tuple(Hit(policy, action, count) for (policy, action), count in times.items()))


def violation_of(match: Match, channel: str) -> Violation:
    return Violation(match.rule.policy, match.rule.reason, f"{match.rule.what} in {channel}")

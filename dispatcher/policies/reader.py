"""One text read by all rules of a channel together. Pure."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from dispatcher.policies.matches import Action, Match, TextStream
from dispatcher.policies.outcomes import Hit
from dispatcher.policies.redactions import Redactions

MAX_SLICE = 1024


class Source(Protocol):
    """Rules that are looked for together, compiled once for all sessions.

    slice  characters that they read at once from a large text: at worst in some 5 ms
    """

    @property
    def slice(self) -> int: ...

    def stream(self) -> TextStream: ...


class ChannelRules(msgspec.Struct, frozen=True):
    """holding: what may stop or redact; observing: what only counts. policies: the names of all."""

    holding: tuple[Source, ...] = ()
    observing: tuple[Source, ...] = ()
    policies: tuple[str, ...] = ()

    @property
    def slice(self) -> int:
        """Characters of a large text that are read at once."""
        return min((source.slice for source in (*self.holding, *self.observing)), default=MAX_SLICE)

    def stream(self) -> TextStream:
        if len(self.holding) == 1 and not self.observing:  # as nearly always
            return self.holding[0].stream()
        return Together(self)


class Together:
    """All streams of one text as one, in step: where a match stops the reading, none has read beyond the code point
    that completed it, so that the outcome depends neither on the split nor on the order of the policies.
    """

    __slots__ = ("_holding", "_observing", "length")

    def __init__(self, rules: ChannelRules) -> None:
        self.length = 0
        self._holding = [source.stream() for source in rules.holding]
        self._observing = [source.stream() for source in rules.observing]

    def copy(self) -> "Together":
        twin = Together(ChannelRules())
        twin.length = self.length
        twin._holding = [stream.copy() for stream in self._holding]
        twin._observing = [stream.copy() for stream in self._observing]
        return twin

    @property
    def idle(self) -> bool:
        return all(stream.idle for stream in (*self._holding, *self._observing))

    def feed(self, text: str) -> Sequence[Match]:
        base = self.length
        before = [stream.copy() for stream in self._holding] if len(self._holding) > 1 else []
        found = [match for stream in self._holding for match in stream.feed(text)]
        self.length = min((stream.length for stream in self._holding), default=base + len(text))
        read = text[: self.length - base]
        if any(stream.length > self.length for stream in self._holding):
            self._holding = before
            found = [match for stream in self._holding for match in stream.feed(read)]
        return found + [match for stream in self._observing for match in stream.feed(read)]

    def end(self) -> Sequence[Match]:
        return [match for stream in (*self._holding, *self._observing) for match in stream.end()]

    def hold(self) -> int:
        return min((stream.hold() for stream in self._holding), default=self.length)


class Tally:
    """Counts the matches in one text: of a policy's matches that overlap, one."""

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends: dict[str, int] = {}  # by policy: where its last match ends

    def copy(self) -> "Tally":
        twin = Tally()
        twin._ends = self._ends.copy()
        return twin

    def counts(self, match: Match) -> bool:
        """The next, in the order in which they are complete."""
        policy = match.rule.policy
        counted = self._ends.get(policy, 0)
        self._ends[policy] = max(match.end, counted)
        return match.start >= counted


class Findings:
    """What was found in a text, as far as it matters: however many matches there are, they come to as much as there are
    policies, and pieces of the text that are redacted.

    stop     of the matches that stop, the one that begins first
    denied   the policy of the first match that redacts; empty if none does
    redacted what is redacted
    """

    __slots__ = ("_times", "denied", "redacted", "stop")

    def __init__(self) -> None:
        self.stop: Match | None = None
        self.denied = ""
        self.redacted = Redactions()
        self._times: dict[tuple[str, Action], int] = {}

    def add(self, matches: Sequence[Match], tally: Tally) -> None:
        """tally: of that text, for what does not stop; that is counted where the stop is made."""
        for match in matches:
            policy, action = match.rule.policy, match.rule.action
            if action == "stop":
                self.stop = min(self.stop or match, match, key=_beginning)
                continue
            if action == "redact":
                self.redacted.add(match)
                self.denied = self.denied or policy
            if tally.counts(match):
                self._times[policy, action] = self._times.get((policy, action), 0) + 1

    @property
    def hits(self) -> tuple[Hit, ...]:
        return tuple(Hit(policy, action, times) for (policy, action), times in self._times.items())


def _beginning(match: Match) -> tuple[int, str, str]:
    """Where it begins; of those that begin there always the same comes first."""
    return match.start, match.rule.policy, match.rule.what

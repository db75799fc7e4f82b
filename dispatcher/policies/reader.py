"""One text read by all rules of a channel together. Pure."""

from collections.abc import Iterable, Sequence
from typing import ClassVar, Protocol

import msgspec

from dispatcher.policies.matches import Match, TextStream
from dispatcher.policies.outcomes import Hit

MAX_SLICE = 1024


class Source(Protocol):
    """Rules that are looked for together, compiled once for all sessions.

    slice  characters that they read at once from a large text: at worst in some 5 ms
    """

    slice: ClassVar[int]

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

    def hits(self, found: Iterable[Match]) -> tuple[Hit, ...]:
        """What counts of these; not what stops, which is counted where the stop is made."""
        hits = []
        for start, end, rule, _ in found:
            if rule.action == "stop":
                continue
            counted = self._ends.get(rule.policy, 0)
            if start >= counted:
                hits.append(Hit(rule.policy, rule.action))
            self._ends[rule.policy] = max(end, counted)
        return tuple(hits)


def stopping(found: Iterable[Match]) -> Match | None:
    """Of the matches that stop, the one that begins first."""
    stops = [match for match in found if match.rule.action == "stop"]
    return min(stops, key=lambda match: (match.start, match.rule.policy, match.rule.what), default=None)

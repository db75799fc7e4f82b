"""Regular expressions in a stream of text: found whatever the split, and what must be held back until they are decided.

Held is what an expression may still match through: from where the oldest begun match began, since its configuration
(`machine`) says exactly which are begun. A pattern's cap bounds that, in characters that patterns see (`visible`).
"""

import re
from collections.abc import Sequence

from dispatcher.policies.machine import MAX_AT_ONCE, MAX_PLACES, Machine, Pattern, Progress, Step
from dispatcher.policies.matches import Match
from dispatcher.policies.places import Places
from dispatcher.policies.visible import visible

CLEARS, BEGINS, MOVES = int(Progress.CLEARS), int(Progress.BEGINS), int(Progress.MOVES)
MAX_SLICE = 16  # characters, of what stands at MAX_AT_ONCE places: 0.2 to 0.4 ms each
NEVER = 1 << 62  # a place that no text comes to


class PatternSet:
    """Patterns that are looked for together. Raises UnusableExpressionError.

    places  at which a text may make them stand at once, all together (`cost`); None: as many as they may
    slice   so many characters that at worst they take some 5 ms
    """

    def __init__(self, patterns: Sequence[Pattern], places: int | None = None) -> None:
        self.machine = Machine(patterns)
        most = min(MAX_PLACES, len(patterns) * MAX_AT_ONCE if places is None else places)
        self.slice = MAX_SLICE * MAX_AT_ONCE // max(MAX_AT_ONCE, most)

    def stream(self) -> "PatternStream":
        return PatternStream(self.machine)


class PatternStream:
    """A `Stream` of a set's patterns. Places are counted in visible characters; `_places` leads back."""

    __slots__ = (
        "_begun", "_configuration", "_halted", "_machine", "_places", "_read", "_tail", "_tail_from", "length",
    )  # fmt: skip

    def __init__(self, machine: Machine) -> None:
        self.length = 0
        self._machine = machine
        self._configuration = machine.start
        self._begun: list[tuple[int, int]] = []  # for each item: where it began, and from where it is undecided
        self._read = 0  # visible characters
        self._places = Places()
        self._tail, self._tail_from = "", 0  # the last visible characters, where matches are checked
        self._halted = False

    def copy(self) -> "PatternStream":
        twin = PatternStream(self._machine)
        twin.length, twin._configuration, twin._begun = self.length, self._configuration, self._begun
        twin._read, twin._places, twin._halted = self._read, self._places.copy(), self._halted
        twin._tail, twin._tail_from = self._tail, self._tail_from
        return twin

    @property
    def idle(self) -> bool:
        return not self._begun and not self._machine.looks_back

    def feed(self, text: str) -> Sequence[Match]:
        if not text:
            return ()
        seen, ignored = visible(text)
        for count, index in enumerate(ignored):
            self._places.note(self._read + index - count, self.length + index + 1)
        if self._machine.checks:
            self._tail += seen
        found: list[Match] = []
        read = self._run(seen, found)
        if self._halted:
            self.length = self._places.raw(self._read + read - 1) + 1
        else:
            self.length += len(text)
        self._read += read
        self._forget()
        return found

    def end(self) -> Sequence[Match]:
        if self._halted:
            return ()
        ended = self._machine.end(self._configuration)
        matches = [self._match(number, self._begun[place][0], self._read) for place, number in ended]
        return [match for match in matches if match]

    def hold(self) -> int:
        if not self._begun:
            return self.length
        patterns = self._machine.patterns
        first, open_ended = self._read, False
        for (number, _), (start, undecided) in zip(self._configuration.begun, self._begun, strict=True):
            cap = None if patterns[number].beyond else patterns[number].cap
            place = undecided if cap is None else max(undecided, self._read - cap)
            if place <= first:
                goes_on = start < place == undecided
                first, open_ended = place, goes_on or (open_ended and place == first)
        # What is ignored after what has matched is covered, if the match goes on.
        return self._places.raw(first - 1) + 1 if open_ended else self._places.raw(first)

    def _run(self, seen: str, found: list[Match]) -> int:
        """Answers how many of the characters it read: all, unless one completed a match that stops."""
        first, at = self._machine.first, 0
        while at < len(seen) and not self._halted:
            if first and not self._begun and (passed := _before(first, seen, at)) > at:
                at = passed
                self._configuration = self._machine.idle_after(seen[at - 1])
                continue
            # No match that begins here can come to its cap before the end of this part.
            due = self._due()
            end = len(seen) if due is None else min(len(seen), at + self._machine.caps, due + 1 - self._read)
            at = self._scan(seen, at, end, found)
            if due is not None and self._read + at > due and not self._halted:
                self._give_up(self._read + at, found)
        return at

    def _scan(self, seen: str, start: int, end: int, found: list[Match]) -> int:
        """The hot path: read on up to `end`, or to a match, or to where nothing is begun and what follows can be passed
        over. Answers where it stopped.
        """
        machine, configuration, begun = self._machine, self._configuration, self._begun
        place = offset = self._read + start
        for place, character in enumerate(seen[start:end], offset):
            step = configuration[character]
            configuration = step.to
            progress = step.progress
            if not progress:
                continue
            if progress == CLEARS:
                begun = []
                if machine.first:
                    break
            elif progress == BEGINS:
                begun = [(place, place)]
            elif progress == MOVES:
                count = len(begun)
                begun = [begun[item] if item < count else (place, place) for item in step.came]
            else:
                self._configuration, self._begun = configuration, begun
                self._take(step, place, found)
                return place + 1 - self._read
        self._configuration, self._begun = configuration, begun
        return place + 1 - self._read

    def _take(self, step: Step, place: int, found: list[Match]) -> None:
        """The character at that place has completed matches."""
        begun, decided = self._begun, {}
        for item, number, with_it in step.found:
            start, end = begun[item][0] if item < len(begun) else place, place + with_it
            if match := self._match(number, start, end):
                found.append(match)
                decided[item] = end
                self._halted |= match.rule.action == "stop"
        self._begun = []
        for item in step.came:
            start, undecided = begun[item] if item < len(begun) else (place, place)
            self._begun.append((start, decided.get(item, undecided)))

    def _match(self, number: int, start: int, end: int) -> Match | None:
        pattern = self._machine.patterns[number]
        if pattern.check and not pattern.check(self._tail[start - self._tail_from : end - self._tail_from]):
            return None
        return Match(self._places.raw(start), self._places.raw(end - 1) + 1, pattern.rule)

    def _due(self) -> int | None:
        """The place of the character with which some match comes to its cap; None: that never matters."""
        if not self._machine.caps:
            return None
        patterns = self._machine.patterns
        caps = [
            undecided + (patterns[number].cap or 0)
            for (number, _), (_, undecided) in zip(self._configuration.begun, self._begun, strict=True)
            if patterns[number].beyond
        ]
        return min(caps, default=NEVER)

    def _give_up(self, read: int, found: list[Match]) -> None:
        """So many visible characters have been read: what is undecided and longer than its cap stops."""
        for (number, _), (_, undecided) in zip(self._configuration.begun, self._begun, strict=True):
            pattern = self._machine.patterns[number]
            if pattern.beyond and read - undecided > (pattern.cap or 0):
                found.append(Match(self._places.raw(undecided), self._places.raw(read - 1) + 1, pattern.beyond))
                self._halted = True

    def _forget(self) -> None:
        """What lies before everything that is begun is not needed any more."""
        oldest = min((start for start, _ in self._begun), default=self._read)
        self._places.forget(oldest)
        if self._machine.checks:
            self._tail = self._tail[max(0, oldest - self._tail_from) :]
            self._tail_from = max(self._tail_from, oldest)


def _before(first: re.Pattern[str], text: str, at: int) -> int:
    """Where the next character stands with which a match may begin; the text's end if there is none."""
    found = first.search(text, at)
    return found.start() if found else len(text)

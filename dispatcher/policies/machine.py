"""Runs several expressions over a text at once, in linear time: a lazy automaton, shared by all sessions.

A configuration is what may still match at a place in the text: for each place where a match may have begun, the nodes
of its expression at which it stands, in the order in which `re` would try them. Reading a character leads to the next
configuration; each such step is computed once and remembered. So a character costs one look-up, whatever the number
of expressions; text made up to need ever new steps costs time in the size of the expressions, never more.

From every place an expression matches what `re` matches from there. Where a match may have begun at two places and the
rest of it would be the same, only the earlier is followed: it covers the other.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from typing import TypeAlias

import msgspec

from dispatcher.policies.expressions import Accept, Boundary, Character, Look, Program, Split
from dispatcher.policies.matches import Rule

MAX_STEPS = 1 << 15  # that are remembered: some 30 MB at most
ITEMS_IN_ROOM = 8  # begun matches, beyond which a step or a configuration counts for more than one
MAX_SHORT_CUTS = 1 << 17  # from characters to steps: 15 MB at most
MAX_CLASSES = 1 << 16  # characters whose sets are remembered
MAX_AT_ONCE = 250  # of these, that one pattern may make of a text (`cost`): some 0.2 ms for a character
MAX_PLACES = 2_000  # nodes at which matches may stand at once: bounds the work for one character
EDGE = -1  # instead of a character's sets, where the text begins

Item: TypeAlias = tuple[int, tuple[int, ...]]  # the number of an expression, and nodes of it


class TooComplexError(Exception):
    """More may match at once than can be followed in reasonable time."""


class Pattern(msgspec.Struct, frozen=True):
    """One expression that is looked for.

    cap      characters that may be held undecided; None: it cannot match more, or holds nothing
    beyond   the rule that fires where more would have to be held; None: the oldest of them are let go
    check    whether what was matched counts
    whole    it has to match a whole text
    """

    expression: str
    rule: Rule
    cap: int | None = None
    beyond: Rule | None = None
    check: Callable[[str], bool] | None = None
    whole: bool = False


class Progress(IntEnum):
    """What a step does beside leading on."""

    NONE = 0
    CLEARS = 1  # nothing is begun any more
    BEGINS = 2  # one match begins, and no other is begun
    MOVES = 3
    FINDS = 4


class Step(msgspec.Struct, frozen=True, gc=False):
    """What a character leads to.

    came   for each that is begun in `to`: its place among the items that there were, new ones after them
    found  expressions that have matched: (place among the items, number, with this character or just before it)
    """

    to: "Configuration"
    progress: int
    came: tuple[int, ...]
    found: tuple[tuple[int, int, bool], ...]


class Configuration(dict[str, Step]):
    """`configuration[character]` is the step with it.

    begun   matches, the oldest first
    before  the sets of the last character, as far as they matter
    steps   by the sets of the character, as far as they were computed
    """

    __slots__ = ("_machine", "before", "begun", "steps")

    def __init__(self, machine: "Machine", begun: tuple[Item, ...], before: int) -> None:
        super().__init__()
        self._machine = machine
        self.begun, self.before = begun, before
        self.steps: dict[int, Step] = {}

    def __missing__(self, character: str) -> Step:
        return self._machine.step(self, character)


class Classes(dict[str, int]):
    """The sets that a character is of, one bit each."""

    def __init__(self, sets: Sequence[re.Pattern[str]]) -> None:
        super().__init__()
        self._sets = sets

    def __missing__(self, character: str) -> int:
        mask = sum(1 << which for which, one in enumerate(self._sets) if one.match(character))
        if len(self) < MAX_CLASSES:
            self[character] = mask
        return mask


class Machine:
    """Raises UnusableExpressionError.

    start    at the beginning of a text
    known    configurations that are remembered
    first    finds the next character with which a match may begin; None: nearly any may
    lengths  of each pattern's matches: the least and the most characters; None: no limit
    caps     the least cap beyond which a rule fires; 0: no rule does
    """

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self.patterns = tuple(patterns)
        program = Program()
        for pattern in patterns:
            program.add(pattern.expression, pattern.whole)
        self._nodes, self._starts, self.lengths = program.nodes, program.starts, program.lengths
        self.classes = Classes(program.sets)
        self.looks_back = self._matters_before(program)
        self.checks = any(pattern.check for pattern in patterns)
        self.caps = min((pattern.cap or 0 for pattern in patterns if pattern.beyond), default=0)
        # One that stops is over with its first match; of one that is checked every place has its own fate.
        self._shares = [pattern.rule.action == "stop" and not pattern.check for pattern in patterns]
        self.known: dict[tuple[tuple[Item, ...], int], Configuration] = {}
        self._begun: dict[int, tuple[Item, ...]] = {}
        self._room, self._short_cuts = MAX_STEPS, MAX_SHORT_CUTS
        self.start = self._configuration((), EDGE)
        self.first = _any_of([program.sets[which] for which in program.first(program.starts)])

    def idle_after(self, character: str) -> Configuration:
        """Nothing is begun, and this was the last character."""
        return self._configuration((), self.classes[character] & self.looks_back)

    def step(self, configuration: Configuration, character: str) -> Step:
        """Where that character leads to, which is remembered."""
        mask = self.classes[character]
        step = configuration.steps.get(mask)
        if step is None:
            step = self._step(configuration, mask)
            self._make_room(len(step.came))
            configuration.steps[mask] = step
        if self._short_cuts:
            self._short_cuts -= 1
            configuration[character] = step
        return step

    def end(self, configuration: Configuration) -> Iterator[tuple[int, int]]:
        """The text is over: what has matched, (place among the items, number)."""
        for place, (number, nodes) in enumerate(configuration.begun):
            if any(at is None for node in nodes for at in self._resolved(node, configuration.before, None, set())):
                yield place, number

    # ---- steps

    def _step(self, configuration: Configuration, mask: int) -> Step:
        old, before = configuration.begun, configuration.before
        items: list[Item] = []
        known: set[Item] = set()  # of a pattern that is not checked, each once
        came: list[int] = []
        found: list[tuple[int, int, bool]] = []
        shared: dict[int, tuple[set[int], set[int]]] = {}
        for place, (number, nodes) in enumerate((*old, *self._begin(before))):
            seen = shared.setdefault(number, (set(), set())) if self._shares[number] else (set(), set())
            onward, matched = self._read(number, nodes, before, mask, seen)
            found += [(place, number, with_it) for with_it in matched]
            item = (number, onward)
            if onward and (self.patterns[number].check or item not in known):
                known.add(item)
                items.append(item)
                came.append(place)
        if sum(len(nodes) for _, nodes in items) > MAX_PLACES:
            raise TooComplexError
        if found:
            progress = Progress.FINDS
        elif came == list(range(len(old))):
            progress = Progress.NONE
        elif not came:
            progress = Progress.CLEARS
        else:
            progress = Progress.BEGINS if came == [len(old)] else Progress.MOVES
        return Step(self._configuration(tuple(items), mask & self.looks_back), int(progress), tuple(came), tuple(found))

    def _begin(self, before: int) -> tuple[Item, ...]:
        """The items of matches that begin after such a character."""
        if before not in self._begun:
            items = []
            for number, start in enumerate(self._starts):
                nodes: list[int] = []
                self._spread(start, before, nodes, set(), number)
                items.append((number, tuple(nodes)))
            self._begun[before] = tuple(items)
        return self._begun[before]

    def _read(
        self, number: int, nodes: tuple[int, ...], before: int, mask: int, seen: tuple[set[int], set[int]]
    ) -> tuple[tuple[int, ...], list[bool]]:
        """From these nodes over a character: those that it leads to, and whether the expression has matched just
        before it (False) or with it (True). What `re` would try after a match is not followed.
        """
        resolved, spread = seen
        onward: list[int] = []
        matched: list[bool] = []
        goes_on = self.patterns[number].check is not None
        for node in nodes:
            for at in self._resolved(node, before, mask, resolved):
                if at is None:
                    accepted, with_it = True, False
                elif mask >> at.which & 1:
                    accepted, with_it = self._spread(at.to, mask, onward, spread, number), True
                else:
                    continue
                if accepted:
                    matched.append(with_it)
                    if not goes_on:
                        return tuple(onward), matched
        return tuple(onward), matched

    def _spread(self, node: int, before: int, nodes: list[int], seen: set[int], number: int) -> bool:
        """Add where one stands after reaching this node, the next character not being known. True: it has matched."""
        accepted = False
        waiting = [node]
        while waiting:
            at = waiting.pop()
            if at in seen:
                continue
            seen.add(at)
            match self._nodes[at]:
                case Split(to):
                    waiting += reversed(to)
                case Look(behind=True, to=to) as look:
                    if look.holds(None if before == EDGE else before):
                        waiting.append(to)
                case Accept():
                    accepted = True
                    if not self.patterns[number].check:
                        return True
                case Character() | Look() | Boundary():
                    nodes.append(at)
        return accepted

    def _resolved(self, node: int, before: int, after: int | None, seen: set[int]) -> Iterator[Character | None]:
        """What stands after this node, the next character being known: characters to read; None: it has matched."""
        behind = None if before == EDGE else before
        waiting = [node]
        while waiting:
            at = waiting.pop()
            if at in seen:
                continue
            seen.add(at)
            match self._nodes[at]:
                case Character() as character:
                    yield character
                case Accept():
                    yield None
                case Split(to):
                    waiting += reversed(to)
                case Look(to=to) as look:
                    if look.holds(behind if look.behind else after):
                        waiting.append(to)
                case Boundary(to=to) as boundary:
                    if boundary.holds(behind, after):
                        waiting.append(to)

    def _configuration(self, items: tuple[Item, ...], before: int) -> Configuration:
        key = (items, before)
        found = self.known.get(key)
        if found is None:
            found = Configuration(self, items, before)
            self._make_room(len(items))
            self.known[key] = found
        return found

    def _make_room(self, items: int) -> None:
        """For a step or configuration more, with so many begun matches. Where there is none all is forgotten: what is
        kept while some is not would be kept alive by what leads to it.
        """
        if self._room <= 0:
            for each in (*self.known.values(), self.start):
                each.steps.clear()
                each.clear()
            self.known.clear()
            self._room, self._short_cuts = MAX_STEPS, MAX_SHORT_CUTS
        self._room -= 1 + items // ITEMS_IN_ROOM

    @staticmethod
    def _matters_before(program: Program) -> int:
        """The sets by which a character matters for what comes after it."""
        mask = 0
        for node in program.nodes:
            match node:
                case Look(behind=True, sets=sets):
                    for which in sets:
                        mask |= 1 << which
                case Boundary(word=word):
                    mask |= 1 << word
        return mask


def _any_of(sets: Sequence[re.Pattern[str]]) -> re.Pattern[str] | None:
    """Finds a character of these sets; None where that would hardly pass anything over."""
    if any(one.match(letter) for one in sets for letter in "etaoinshrdlu"):
        return None
    return re.compile("|".join(f"(?{_flags(one)}:{one.pattern})" for one in sets))


def _flags(one: re.Pattern[str]) -> str:
    known = ((re.IGNORECASE, "i"), (re.ASCII, "a"), (re.DOTALL, "s"))
    return "".join(letter for flag, letter in known if one.flags & flag)

"""Regular expressions of Python's `re` as programs that can be run on a text while it comes, in linear time.

`re` itself cannot say how far a text that goes on is decided, and it backtracks. Its parser is used, so that an
expression means what it means there; what has no meaning for a text that goes on is refused: what looks at more than
one character beside a match, back-references, atomic groups. (The parser is not public; Hypothesis relies on it too.)

Of what is linear, RE2 keeps no state from one part of a text to the next, and Hyperscan does, but tells what has
matched and not what still may; neither takes look-around. `regex` tells that a match may go on, and backtracks.
"""

import re
import warnings
from collections.abc import Iterable
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, TypeAlias

import msgspec

from dispatcher.policies.folding import is_ignorable

MAX_UNSEEN = 0x1000  # characters in a row that are not seen: those of plane 14 are the most
MAX_NODES = 10_000  # that one expression may be expanded to: `(?:x{100}){100}` is 10,000


class UnusableExpressionError(ValueError):
    """Why it cannot be used, for the operator."""


class Character(msgspec.Struct, frozen=True):
    """Read one character of that set, and go on."""

    which: int
    to: int


class Split(msgspec.Struct, frozen=True):
    """Go on at each of these; the first is preferred."""

    to: tuple[int, ...]


class Look(msgspec.Struct, frozen=True):
    """Go on if the character before (`behind`) or after is of one of the sets; `edge`: what counts where the text
    begins or ends. negated: if it is not.
    """

    behind: bool
    sets: tuple[int, ...]
    edge: bool
    negated: bool
    to: int

    def holds(self, mask: int | None) -> bool:
        """mask: the sets that the character is of, one bit each; None: there is none."""
        there = self.edge if mask is None else any(mask >> which & 1 for which in self.sets)
        return there is not self.negated


class Boundary(msgspec.Struct, frozen=True):
    """Go on if a word begins or ends here; negated: if none does. word: the set of its characters."""

    word: int
    negated: bool
    to: int

    def holds(self, before: int | None, after: int | None) -> bool:
        sides = [mask is not None and bool(mask >> self.word & 1) for mask in (before, after)]
        return (sides[0] is not sides[1]) is not self.negated


class Accept(msgspec.Struct, frozen=True):
    """The expression of that number has matched."""

    number: int


Node: TypeAlias = Character | Split | Look | Boundary | Accept

CATEGORIES = {
    codes.CATEGORY_DIGIT: r"\d",
    codes.CATEGORY_NOT_DIGIT: r"\D",
    codes.CATEGORY_SPACE: r"\s",
    codes.CATEGORY_NOT_SPACE: r"\S",
    codes.CATEGORY_WORD: r"\w",
    codes.CATEGORY_NOT_WORD: r"\W",
}
REFUSED = {
    codes.GROUPREF: "a back-reference",
    codes.GROUPREF_EXISTS: "a condition on a group",
    codes.ATOMIC_GROUP: "an atomic group",
    codes.POSSESSIVE_REPEAT: "a possessive quantifier",
}
BEGINNINGS = (codes.AT_BEGINNING, codes.AT_BEGINNING_STRING)
ENDS = (codes.AT_END, codes.AT_END_STRING)


class Program:
    """The nodes of several expressions, and the sets of characters that they name.

    sets     each as an expression for one character
    starts   by number: the node at which the expression begins
    lengths  by number: the least and the most characters that it can match; None: no limit

    What is the same up to the end of an expression is there once: alternatives that end alike share their tails.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._numbers: dict[Node, int] = {}
        self._loops: dict[tuple[str, int, int, bool], int] = {}
        self.sets: list[re.Pattern[str]] = []
        self.starts: list[int] = []
        self.lengths: list[tuple[int, int | None]] = []
        self._known: dict[tuple[str, int], int] = {}
        self._limit = 0

    def add(self, expression: str, whole: bool = False) -> int:
        """Its number. whole: it has to match a whole text. Raises UnusableExpressionError."""
        tree, flags = _parsed(expression)
        number = len(self.starts)
        self._limit = len(self.nodes) + MAX_NODES
        end = self._node(Accept(number))
        if whole:
            end = self._node(Look(False, (), True, False, end))
        start = self._sequence(tree, flags, end)
        if whole:
            start = self._node(Look(True, (), True, False, start))
        shortest, longest = _width(tree)
        if not whole and shortest == 0 and self._reaches(start, number):
            raise UnusableExpressionError("can match nothing at all")
        self.starts.append(start)
        self.lengths.append((shortest, longest))
        return number

    def first(self, starts: Iterable[int]) -> set[int]:
        """The sets of the characters with which matches from these nodes may begin."""
        nodes = (self.nodes[at] for at in self._onward(starts))
        return {node.which for node in nodes if isinstance(node, Character)}

    def _reaches(self, start: int, number: int) -> bool:
        return any(self.nodes[at] == Accept(number) for at in self._onward([start]))

    def _onward(self, starts: Iterable[int]) -> set[int]:
        """All nodes that can be reached from these without reading a character, whatever stands beside."""
        seen: set[int] = set()
        waiting = list(starts)
        while waiting:
            at = waiting.pop()
            if at in seen:
                continue
            seen.add(at)
            match self.nodes[at]:
                case Split(to):
                    waiting += to
                case Look(to=onward) | Boundary(to=onward):
                    waiting.append(onward)
        return seen

    # ---- from the parser's tree, from the end to the beginning: each part is told the node after it

    def _node(self, node: Node) -> int:
        if (number := self._numbers.get(node)) is None:
            self._numbers[node] = number = self._new(node)
        return number

    def _new(self, node: Node) -> int:
        if len(self.nodes) >= self._limit:
            raise UnusableExpressionError(f"is too large: its repeats expand to more than {MAX_NODES} parts")
        self.nodes.append(node)
        return len(self.nodes) - 1

    def _sequence(self, parts: Any, flags: int, to: int) -> int:
        for operation, value in reversed(list(parts)):
            to = self._part(operation, value, flags, to)
        return to

    def _part(self, operation: Any, value: Any, flags: int, to: int) -> int:
        if operation in (codes.LITERAL, codes.NOT_LITERAL, codes.ANY, codes.IN):
            if (unseen := _unseen(operation, value)) is not None:
                raise UnusableExpressionError(f"asks for U+{unseen:04X}, which is not seen, and so never matches")
            return self._node(Character(self._set(operation, value, flags), to))
        if operation is codes.SUBPATTERN:
            _, added, removed, parts = value
            return self._sequence(parts, (flags | added) & ~removed, to)
        if operation is codes.BRANCH:
            return self._node(Split(tuple(self._sequence(branch, flags, to) for branch in value[1])))
        if operation in (codes.MAX_REPEAT, codes.MIN_REPEAT):
            least, most, parts = value
            return self._repeat(least, most, parts, flags, to, lazy=operation is codes.MIN_REPEAT)
        if operation is codes.AT:
            return self._anchor(value, flags, to)
        if operation in (codes.ASSERT, codes.ASSERT_NOT):
            direction, parts = value
            behind = direction < 0
            sets, edge = self._one_character(parts, flags, behind)
            return self._node(Look(behind, sets, edge, operation is codes.ASSERT_NOT, to))
        raise UnusableExpressionError(
            f"has {REFUSED.get(operation, str(operation).lower())}, which cannot be decided while the text comes"
        )

    def _repeat(self, least: int, most: int, parts: Any, flags: int, to: int, lazy: bool) -> int:
        def either(again: int) -> Split:
            return Split((after, again) if lazy else (again, after))

        after = to
        if most == codes.MAXREPEAT:
            loop = (repr(parts), flags, after, lazy)
            if loop not in self._loops:
                self._loops[loop] = to = self._new(Split(()))
                self.nodes[to] = either(self._sequence(parts, flags, to))
            to = self._loops[loop]
        else:
            for _ in range(most - least):
                to = self._node(either(self._sequence(parts, flags, to)))
        for _ in range(least):
            to = self._sequence(parts, flags, to)
        return to

    def _anchor(self, where: Any, flags: int, to: int) -> int:
        newline = (self._set(codes.LITERAL, 10, 0),)
        if where in BEGINNINGS:
            lines = where is codes.AT_BEGINNING and flags & re.MULTILINE
            return self._node(Look(True, newline if lines else (), True, False, to))
        if where in ENDS:
            # `$` is the end of a line, also without (?m): whether a newline is the last is not known when it comes.
            return self._node(Look(False, newline if where is codes.AT_END else (), True, False, to))
        word = self._set(codes.IN, [(codes.CATEGORY, codes.CATEGORY_WORD)], flags)
        return self._node(Boundary(word, where is codes.AT_NON_BOUNDARY, to))

    def _one_character(self, parts: Any, flags: int, behind: bool) -> tuple[tuple[int, ...], bool]:
        """What is looked at beside a match: sets of characters, and whether the text's edge counts too."""
        if len(parts) == 1:
            operation, value = parts[0]
            if operation in (codes.LITERAL, codes.NOT_LITERAL, codes.ANY, codes.IN):
                return (self._set(operation, value, flags),), False
            if operation is codes.SUBPATTERN:
                _, added, removed, inner = value
                return self._one_character(inner, (flags | added) & ~removed, behind)
            if operation is codes.BRANCH:
                branches = [self._one_character(branch, flags, behind) for branch in value[1]]
                return tuple(each for sets, _ in branches for each in sets), any(edge for _, edge in branches)
            if operation is codes.AT and value in (BEGINNINGS if behind else ENDS):
                lines = value is codes.AT_END or (value is codes.AT_BEGINNING and flags & re.MULTILINE)
                return (self._set(codes.LITERAL, 10, 0),) if lines else (), True
        raise UnusableExpressionError(
            "looks at more than one character beside a match, which cannot be decided while the text comes"
        )

    def _set(self, operation: Any, value: Any, flags: int) -> int:
        """The number of a set of characters. Its flags are those that matter for one."""
        relevant = flags & (re.IGNORECASE | re.ASCII | (re.DOTALL if operation is codes.ANY else 0))
        key = (_written(operation, value), relevant)
        if key not in self._known:
            self._known[key] = len(self.sets)
            self.sets.append(re.compile(*key))
        return self._known[key]


def _parsed(expression: str) -> tuple[Any, int]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what may mean something else in a later Python
            re.compile(expression)
            tree = parser.parse(expression)
    except (re.error, OverflowError, RecursionError) as error:
        raise UnusableExpressionError(f"does not compile: {error}") from None
    return tree, tree.state.flags


def _unseen(operation: Any, value: Any) -> int | None:
    """A character of the set, if patterns see none of it (`visible`)."""
    parts = [(operation, value)] if operation is codes.LITERAL else value if operation is codes.IN else []
    named: list[int] = []
    for kind, inner in parts:
        if kind is codes.LITERAL:
            named.append(inner)
        elif kind is codes.RANGE and inner[1] - inner[0] < MAX_UNSEEN:
            named += range(inner[0], inner[1] + 1)
        else:
            return None
    return named[0] if named and all(is_ignorable(chr(code)) for code in named) else None


def _written(operation: Any, value: Any) -> str:
    """One character of this kind, as an expression."""
    if operation is codes.ANY:
        return "."
    if operation is codes.LITERAL:
        return _escaped(value)
    if operation is codes.NOT_LITERAL:
        return f"[^{_escaped(value)}]"
    written = ""
    for kind, inner in value:
        if kind is codes.NEGATE:
            written += "^"
        elif kind is codes.LITERAL:
            written += _escaped(inner)
        elif kind is codes.RANGE:
            written += f"{_escaped(inner[0])}-{_escaped(inner[1])}"
        else:
            written += CATEGORIES[inner]
    return f"[{written}]"


def _escaped(code: int) -> str:
    return f"\\U{code:08x}"


def _width(parts: Any) -> tuple[int, int | None]:
    """The least and the most characters that they match; None: no limit."""
    least, most = 0, 0
    endless = False
    for operation, value in parts:
        low, high = _width_of(operation, value)
        least += low
        if high is None:
            endless = True
        else:
            most += high
    return least, None if endless else most


def _width_of(operation: Any, value: Any) -> tuple[int, int | None]:
    if operation in (codes.LITERAL, codes.NOT_LITERAL, codes.ANY, codes.IN):
        return 1, 1
    if operation is codes.SUBPATTERN:
        return _width(value[3])
    if operation is codes.BRANCH:
        widths = [_width(branch) for branch in value[1]]
        highs = [high for _, high in widths]
        return min(low for low, _ in widths), None if None in highs else max(high for high in highs if high is not None)
    if operation in (codes.MAX_REPEAT, codes.MIN_REPEAT):
        least, most, parts = value
        low, high = _width(parts)
        if high == 0:
            return 0, 0
        return least * low, None if high is None or most == codes.MAXREPEAT else int(most) * high
    return 0, 0

"""Banned phrases in a stream of text: found whatever the split, and what must be held back until they are ruled out.

A phrase occurs in a text if a text canonically equivalent to the folded one contains the folded phrase: so a mark
after the phrase's last letter does not hide it, wherever canonical order puts that mark.
"""

from collections.abc import Iterable, Sequence
from unicodedata import combining

import msgspec

from dispatcher.policies.automaton import Automaton, MarkRun, Node
from dispatcher.policies.folding import Pending, Placed, fold_character, is_open_syllable, plain_end


class Match(msgspec.Struct, frozen=True):
    """start: raw index of its first code point. phrases: the numbers of those that begin there."""

    start: int
    phrases: tuple[int, ...]


class PhraseStream:
    """Reads one text in pieces. After the first match it reads no further.

    length  raw code points read; after a match: up to and including the one that completed it
    """

    __slots__ = ("_automaton", "_found", "_node", "_pending", "_window", "length")

    def __init__(self, automaton: Automaton) -> None:
        self.length = 0
        self._automaton = automaton
        self._node = automaton.root
        self._window: list[int] = []  # raw indices of the node's symbols
        self._pending = Pending()
        self._found: Match | None = None

    @property
    def idle(self) -> bool:
        """Nothing that was read can matter for what follows."""
        return self._node is self._automaton.root and not self._pending

    def feed(self, text: str) -> Match | None:
        """Read on. Answers with the match, if one is complete: the earliest of those that the same code point completes
        (it stops there, so that the outcome does not depend on how much came at once).
        """
        base, index = self.length, 0
        while index < len(text) and not self._found:
            end = index if self._pending else len(text) if text.isascii() else plain_end(text, index)
            if end > index:
                index += self._scan(text[index:end].casefold(), base + index)
            else:
                for symbol in fold_character(text[index]):
                    self._push(symbol, base + index)
                index += 1
            self.length = base + index
        return self._found

    def end(self) -> Match | None:
        """The text is over: what was pending is decided."""
        if not self._found:
            self._advance(self._pending.flush())
        return self._found

    def hold(self) -> int:
        """The raw index from which on the text may still become part of a match; `length` if no part of it may."""
        if self._pending.jamo:
            return self._hold_jamo(self._pending.jamo)
        if self._pending.marks:
            return self._hold_marks(self._pending.marks)
        return min(self._window) if self._window else self.length

    def _scan(self, run: str, start: int) -> int:
        """The hot path: symbols decided as they come, one for each raw code point. Answers how many it read."""
        node, read = self._node, 0
        for read, symbol in enumerate(run, 1):  # noqa: B007  where it stopped is the answer
            node = node[symbol]
            if node.hit:
                break
        self._node = node
        self._keep(range(start, start + read))
        if node.hit:
            self._record(node)
        return read

    def _keep(self, indices: Sequence[int]) -> None:
        """Add the raw indices of what was read, and keep those of the node's symbols."""
        if depth := self._node.depth:
            self._window += indices[-depth:]
            del self._window[: len(self._window) - depth]
        else:
            self._window.clear()

    def _push(self, symbol: str, index: int) -> None:
        self._advance(self._pending.push(symbol, index))
        # What is pending can already be enough for a phrase to end with it, whatever follows.
        if self._pending.marks:
            self._look_for_ending(self._pending.marks)
        elif self._pending.jamo:
            self._look_for_syllable(self._pending.jamo, symbol)

    def _advance(self, symbols: Iterable[Placed]) -> None:
        for symbol, index in symbols:
            self._node = self._node[symbol]
            self._keep((index,))
            if self._node.hit:
                self._record(self._node)

    def _record(self, node: Node) -> None:
        """The longest phrase that ends at this node begins first."""
        longest = node.longest_end()
        self._take(self._start(longest.depth), longest.ends)

    def _take(self, start: int, phrases: Iterable[int]) -> None:
        if self._found is None or start < self._found.start:
            self._found = Match(start, tuple(phrases))
        elif start == self._found.start:
            self._found = Match(start, (*self._found.phrases, *phrases))

    def _start(self, depth: int) -> int:
        # The least, not the first: in a run of marks canonical order is not raw order.
        return min(self._window[-depth:])

    # ---- pending marks

    def _look_for_ending(self, run: list[Placed]) -> None:
        for node in self._node.suffixes() if self._automaton.has_runs else ():
            for ending in node.runs:
                if ending.phrase >= 0 and _begins_with(run, ending.marks):
                    self._take(self._start(node.depth), (ending.phrase,))

    def _hold_marks(self, run: list[Placed]) -> int:
        for node in self._node.suffixes() if self._automaton.has_runs else ():
            if any(_may_become(run, wanted) for wanted in node.runs):
                return self._start(node.depth)
        return next((index for mark, index in run if mark in self._automaton.root_marks), self.length)

    # ---- pending jamo

    def _look_for_syllable(self, jamo: Placed, symbol: str) -> None:
        """A syllable that came whole ends a phrase at once, as a letter does: a trailing consonant that might follow
        is like a mark. One spelled in jamo waits, for the next of them may be a part of it.
        """
        if symbol == jamo[0] and is_open_syllable(symbol) and (node := self._node[symbol]).hit:
            longest = node.longest_end()
            self._take(self._start_with(jamo, longest), longest.ends)

    def _hold_jamo(self, jamo: Placed) -> int:
        nodes = (self._node[syllable] for syllable in self._automaton.syllables.get(jamo[0], ()))
        return min((self._start_with(jamo, node) for node in nodes if node.depth), default=self.length)

    def _start_with(self, jamo: Placed, node: Node) -> int:
        """Where the node's prefix begins, if `jamo` is to become its last symbol."""
        return self._start(node.depth - 1) if node.depth > 1 else jamo[1]


# ---- mark runs. Marks of different classes may change places, marks of one class may not (canonical equivalence).


def _by_class(marks: Iterable[str]) -> dict[int, str]:
    classes: dict[int, str] = {}
    for mark in marks:
        order = combining(mark)
        classes[order] = classes.get(order, "") + mark
    return classes


def _begins_with(run: list[Placed], marks: str) -> bool:
    """The run can be written so that it begins with these marks."""
    came = _by_class(mark for mark, _ in run)
    return all(came.get(order, "").startswith(wanted) for order, wanted in _by_class(marks).items())


def _may_become(run: list[Placed], wanted: MarkRun) -> bool:
    """With more marks the run can be written as the wanted one; if a phrase ends with that, as one beginning so."""
    classes = _by_class(wanted.marks)
    for order, came in _by_class(mark for mark, _ in run).items():
        marks = classes.get(order, "")
        if not (marks.startswith(came) or (wanted.phrase >= 0 and came.startswith(marks))):
            return False
    return True

"""Aho–Corasick over folded phrases: one table, shared by all sessions.

A node stands for a prefix of a phrase and is a multiple of 2**21, so that `node | code point` is the key of a
transition: one dictionary for the whole automaton (10,000 phrases make some 150,000 nodes, too many for one each).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from unicodedata import combining

import msgspec

from dispatcher.policies.folding import L_BASE, MAX_MARKS, S_BASE, S_LAST, T_COUNT, V_COUNT, is_leading

SHIFT = 21  # a code point has at most 21 bits
ROOT = 0
MAX_SHORT_CUTS = 1 << 17  # some 15 MB; text made up to exhaust them costs time, not memory


class MarkRun(msgspec.Struct, frozen=True):
    """A run of combining marks that some phrase has after a node. phrase: the one that ends with it; -1: it goes on."""

    marks: str
    phrase: int


class Automaton:
    """Phrases are numbered as given; each is folded and not empty.

    transitions  node | code point → node: those of the phrases, and short cuts past `fails` as text needs them
    depths       length of each node's prefix, by node number
    fails        the longest proper suffix of each node that is a node too, by node number
    ends         phrases that are exactly this node's prefix
    hits         nodes at which some phrase ends
    runs         the mark runs after a node
    root_marks   marks in the runs that phrases begin with
    syllables    jamo or open syllable → the symbols of phrases that it may become
    """

    def __init__(self, phrases: Sequence[str]) -> None:
        self.transitions: dict[int, int] = {}
        self.depths = [0]
        self.ends: dict[int, list[int]] = {}
        self.runs: dict[int, list[MarkRun]] = {}
        self.root_marks: frozenset[str] = frozenset()
        self._insert(phrases)
        self.fails = [ROOT] * len(self.depths)
        self.hits = set(self.ends)
        self._link()
        self._room = MAX_SHORT_CUTS
        self.syllables = _syllables({symbol for phrase in phrases for symbol in phrase if not symbol.isascii()})

    def _insert(self, phrases: Sequence[str]) -> None:
        transitions, depths = self.transitions, self.depths
        for number, phrase in enumerate(phrases):
            node = ROOT
            for depth, code in enumerate(map(ord, phrase), 1):
                key = node | code
                child = transitions.get(key)
                if child is None:
                    child = transitions[key] = len(depths) << SHIFT
                    depths.append(depth)
                node = child
            self.ends.setdefault(node, []).append(number)
            if not phrase.isascii():
                self._note_runs(phrase, number)

    def _note_runs(self, phrase: str, number: int) -> None:
        node = ROOT
        for end, part in _parts(phrase):
            if combining(part[0]) and node == ROOT:
                self.root_marks |= set(part)
            elif combining(part[0]):
                run = MarkRun(part, number if end == len(phrase) else -1)
                if run not in (runs := self.runs.setdefault(node, [])):
                    runs.append(run)
            for symbol in part:
                node = self.transitions[node | ord(symbol)]

    def _link(self) -> None:
        """Breadth first, so that a node's suffixes, which are shorter, are linked before it."""
        levels: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for key, child in self.transitions.items():
            levels[self.depths[child >> SHIFT]].append((key, child))
        mask = (1 << SHIFT) - 1
        transitions, fails, hits = self.transitions, self.fails, self.hits
        for depth in range(2, len(levels) + 1):
            for key, child in levels[depth]:
                code, suffix = key & mask, fails[key >> SHIFT]
                while (link := transitions.get(suffix | code)) is None and suffix:
                    suffix = fails[suffix >> SHIFT]
                if link is not None:
                    fails[child >> SHIFT] = link
                    if link in hits:
                        hits.add(child)

    def step(self, node: int, code: int) -> int:
        """The longest suffix of the node's prefix and this code point that is a node. What is not a transition yet
        becomes one, so that text costs about one look-up a character.
        """
        suffix = node
        while (following := self.transitions.get(suffix | code)) is None and suffix:
            suffix = self.fails[suffix >> SHIFT]
        following = following or ROOT
        if suffix != node and self._room:
            self._room -= 1
            self.transitions[node | code] = following
        return following

    def suffixes(self, node: int) -> Iterator[int]:
        """The node and its suffixes, longest first, without the root."""
        while node:
            yield node
            node = self.fails[node >> SHIFT]

    def longest_end(self, node: int) -> int:
        """Of a node in `hits`: itself or its longest suffix at which a phrase ends."""
        return next(suffix for suffix in self.suffixes(node) if suffix in self.ends)

    def depth(self, node: int) -> int:
        return self.depths[node >> SHIFT]


def _parts(phrase: str) -> Iterator[tuple[int, str]]:
    """Its starters, one by one, and its runs of marks, cut as folding cuts them; each with the index of its end."""
    start = 0
    while start < len(phrase):
        end = start
        while end < len(phrase) and end - start < MAX_MARKS and combining(phrase[end]):
            end += 1
        end = max(end, start + 1)
        yield end, phrase[start:end]
        start = end


def _syllables(symbols: set[str]) -> dict[str, tuple[str, ...]]:
    """For each leading consonant and open syllable: which of the symbols it is a beginning of, itself among them."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for symbol in sorted(symbols):
        code = ord(symbol)
        if is_leading(symbol):
            found[symbol].append(symbol)
        elif S_BASE <= code <= S_LAST:
            found[chr(L_BASE + (code - S_BASE) // (V_COUNT * T_COUNT))].append(symbol)
            found[chr(code - (code - S_BASE) % T_COUNT)].append(symbol)
    return {beginning: tuple(whole) for beginning, whole in found.items()}

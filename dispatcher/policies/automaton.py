"""Aho–Corasick over folded phrases, shared by all sessions. A node stands for a prefix of a phrase; being a dictionary
from symbols to nodes that finds what it misses, it costs one look-up a character, whatever the number of phrases.

pyahocorasick goes on from one part of a text to the next too, but does not tell how deep it stands: what must be held.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from unicodedata import combining

import msgspec

from dispatcher.policies.folding import L_BASE, MAX_MARKS, S_BASE, S_LAST, T_COUNT, V_COUNT, in_word, is_leading

MAX_SHORT_CUTS = 1 << 17  # 30 MB at most; text made up to exhaust them costs time, not memory


class MarkRun(msgspec.Struct, frozen=True):
    """A run of combining marks that some phrase has after a node. phrase: the one that ends with it; -1: it goes on."""

    marks: str
    phrase: int


class Room:
    """How many more short cuts the nodes of an automaton may remember."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_SHORT_CUTS


class Node(dict[str, "Node"]):
    """`node[symbol]` is the longest suffix of the node's prefix and the symbol that is a node.

    depth    length of the prefix
    fail     the longest proper suffix of the prefix that is a node; None: this is the root
    ends     numbers of the phrases that are the prefix
    hit      a phrase ends here: the prefix or a suffix of it
    runs     of marks that phrases have next
    grows    some phrase goes on after the prefix
    partial  depth of the longest suffix, or the node itself, that grows
    bounded  no word may go on into the prefix from the left
    """

    __slots__ = ("_room", "bounded", "depth", "ends", "fail", "grows", "hit", "partial", "runs")

    def __init__(self, depth: int, room: Room, bounded: bool) -> None:
        self.depth = depth
        self.bounded = bounded
        self.fail: Node | None = None
        self.ends: tuple[int, ...] = ()
        self.hit = self.grows = False
        self.partial = 0
        self.runs: tuple[MarkRun, ...] = ()
        self._room = room

    def __missing__(self, symbol: str) -> "Node":
        node: Node = self
        while (following := node.get(symbol)) is None:
            if node.fail is None:
                following = node
                break
            node = node.fail
        if self._room.left:
            self._room.left -= 1
            self[symbol] = following
        return following

    def suffixes(self) -> Iterator["Node"]:
        """The node and its suffixes, longest first, without the root."""
        node = self
        while node.fail is not None:
            yield node
            node = node.fail


class Automaton:
    """Phrases are numbered as given; each is folded and not empty. words: they count as whole words only.

    has_runs    some phrase has marks after a starter
    root_marks  marks in the runs that phrases begin with
    syllables   jamo or open syllable → the symbols of phrases that it may become
    closed      numbers of the phrases after which no word may go on
    """

    def __init__(self, phrases: Sequence[str], words: bool = False) -> None:
        self._room = Room()
        self.root = Node(0, self._room, bounded=False)
        self.words = words
        self.closed = frozenset(n for n, phrase in enumerate(phrases) if words and in_word(_last_starter(phrase)))
        self.has_runs = False
        self.root_marks: frozenset[str] = frozenset()
        for number, phrase in enumerate(phrases):
            self._insert(phrase, number)
        self._link()
        self.syllables = _syllables({symbol for phrase in phrases for symbol in phrase if not symbol.isascii()})

    def _insert(self, phrase: str, number: int) -> None:
        node = self.root
        for depth, symbol in enumerate(phrase, 1):
            child = node.get(symbol)
            if child is None:
                bounded = node.bounded if node.depth else self.words and in_word(symbol)
                child = node[symbol] = Node(depth, self._room, bounded)
                node.grows = True
            node = child
        node.ends += (number,)
        if not phrase.isascii():
            self._note_runs(phrase, number)

    def _note_runs(self, phrase: str, number: int) -> None:
        node = self.root
        for end, part in _parts(phrase):
            if combining(part[0]) and node is self.root:
                self.root_marks |= set(part)
            elif combining(part[0]):
                run = MarkRun(part, number if end == len(phrase) else -1)
                if run not in node.runs:
                    node.runs += (run,)
                self.has_runs = True
            for symbol in part:
                node = node[symbol]

    def _link(self) -> None:
        """Breadth first, so that a node's suffixes, which are shorter, are linked before it."""
        level = [self.root]
        while level:
            following = []
            for node in level:
                for symbol, child in node.items():
                    suffix = node.fail
                    while suffix is not None and symbol not in suffix:
                        suffix = suffix.fail
                    child.fail = suffix[symbol] if suffix is not None else self.root
                    child.hit = bool(child.ends) or child.fail.hit
                    child.partial = child.depth if child.grows else child.fail.partial
                    following.append(child)
            level = following


def _last_starter(phrase: str) -> str:
    return next((symbol for symbol in reversed(phrase) if not combining(symbol)), phrase[-1])


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

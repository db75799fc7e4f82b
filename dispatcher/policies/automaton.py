"""Aho–Corasick over folded phrases, shared by all sessions, in flat arrays.

The phrases stand in order without their marks, so that those that begin with the same symbols are a range. A state
stands for such a beginning. Where there are many, there are states only until a phrase is alone in its range; the rest
of it is compared as it stands (`phrases`). So the size of the automaton depends on how many phrases there are, not on
how long they are. Reading a symbol is one look-up in the column of the symbol, whatever the number of phrases; what a
column does not know yet is found over the suffixes, and remembered.

pyahocorasick goes on from one part of a text to the next too, but does not tell how deep it stands: what must be held.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeAlias
from unicodedata import combining

from dispatcher.policies.folding import L_BASE, S_BASE, S_LAST, T_COUNT, V_COUNT, in_word, is_leading

SMALL = 20_000  # states, up to which those of phrases that are alone go on
MAX_DENSE = 12_000_000  # entries of 4 bytes in the columns of frequent symbols, together
MAX_SHORT_CUTS = 1 << 16  # that all other columns remember, together: 10 MB at most
NEVER = 1 << 30  # symbols that no phrase has
UNKNOWN = -(1 << 31)
MAX_STRANGE = 1 << 14  # symbols of no phrase that are remembered

Column: TypeAlias = "array[int] | Sparse"


class Room:
    """How many more short cuts the columns may remember."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_SHORT_CUTS


class Sparse(dict[int, int]):
    """The column of a rare symbol."""

    __slots__ = ("_room",)

    def __init__(self, room: Room) -> None:
        super().__init__()
        self._room = room

    def __missing__(self, state: int) -> int:
        return UNKNOWN

    def remember(self, state: int, to: int) -> None:
        if self._room.left:
            self._room.left -= 1
            self[state] = to


class Columns(dict[str, Column]):
    """`columns[symbol][state]` is the longest suffix of the state's symbols and this one that is a state; `~` of it,
    which is negative, where that is an event; or UNKNOWN.
    """

    def __init__(self) -> None:
        super().__init__()
        self.strange = array("i", [0])  # the column of symbols of no phrase

    def __missing__(self, symbol: str) -> Column:
        if len(self) < MAX_STRANGE:
            self[symbol] = self.strange
        return self.strange


class Automaton:
    """Phrases are numbered as given; each is folded, and begins with no mark. words: they count as whole words only.
    exact: a text's accents count, too.

    bases      the phrases without marks, in order
    numbers    of the phrases, in that order
    wanted     by number, of phrases with marks: those on each symbol
    most       marks that are wanted on one symbol
    longest    symbols of the longest phrase
    syllables  jamo or open syllable → the symbols of phrases that it may become
    closed     numbers of the phrases after which no word may go on

    By state:
    depth      its symbols
    fail       the longest proper suffix that is a state; of 0, the root, itself
    low, high  the range of phrases that begin with it; those up to `mid` are it
    event      a phrase, or one that is alone from here on, has come: the state's or that of a suffix
    partial    depth of the longest suffix, or itself, after which some state goes on, if no symbol has marks yet
    next       of states that are an event only as a phrase is alone from there on: the first symbols of its rest
    """

    def __init__(self, phrases: Sequence[str], words: bool = False, exact: bool = False) -> None:
        self.words, self.exact = words, exact
        self.closed = frozenset(n for n, phrase in enumerate(phrases) if words and in_word(_last_starter(phrase)))
        self.wanted = {n: _wanted(phrase) for n, phrase in enumerate(phrases) if _has_marks(phrase)}
        self.most = max((len(marks) for wanted in self.wanted.values() for marks in wanted), default=0)
        plain = [
            "".join(symbol for symbol in phrase if not combining(symbol)) if n in self.wanted else phrase
            for n, phrase in enumerate(phrases)
        ]
        self.numbers = array("i", sorted(range(len(plain)), key=plain.__getitem__))
        self.bases = [plain[number] for number in self.numbers]
        self._bare = [_bare(self.wanted[n]) if n in self.wanted else NEVER for n in self.numbers]
        self.longest = max(map(len, plain), default=0)
        self.columns = Columns()
        self.depth, self.fail, self.partial = array("i", [0]), array("i", [0]), array("i", [0])
        self.low, self.mid, self.high = array("i", [0]), array("i", [0]), array("i", [len(plain)])
        self.event, self._leads = bytearray(1), bytearray(1)
        self.next: dict[int, str] = {}
        self._link(*self._grow())
        self.syllables = _syllables({symbol for base in plain if not base.isascii() for symbol in base})
        self._kinds: dict[tuple[int, int, int], tuple[tuple[str, ...], ...]] = {}

    def step(self, state: int, symbol: str) -> int:
        """As the columns have it, but never unknown."""
        column = self.columns[symbol]
        to = column[state]
        if to == UNKNOWN:
            suffix = state
            while to == UNKNOWN:
                suffix = self.fail[suffix]
                to = column[suffix]
            if isinstance(column, Sparse):
                column.remember(state, to)
            else:
                column[state] = to
        return to

    def leads(self, state: int) -> bool:
        """Some state goes on after it."""
        return bool(self._leads[state])

    def is_alone(self, state: int) -> bool:
        """One phrase goes on after it, and no state does."""
        return not self._leads[state] and self.mid[state] < self.high[state]

    def suffixes(self, state: int) -> Iterator[int]:
        """The state and its suffixes, longest first, without the root."""
        while state:
            yield state
            state = self.fail[state]

    def events(self, state: int) -> Iterator[int]:
        """Those of them that are events by themselves."""
        while self.event[state]:
            if not self._leads[state] or self.low[state] < self.mid[state]:
                yield state
            state = self.fail[state]

    def may_be_bare(self, low: int, high: int, depth: int) -> bool:
        """Some phrase of a range wants no marks on its first symbols before the last of these, which may get some."""
        return not self.wanted or max(self._bare[low:high]) >= depth - 1

    def kinds(self, low: int, high: int, depth: int) -> tuple[tuple[str, ...], ...]:
        """The marks that phrases of a range want on their first symbols, each kind once; of none, an empty tuple."""
        if not self.wanted:
            return ((),)
        key = (low, high, depth)
        if (kinds := self._kinds.get(key)) is None:
            found = {self.wanted[n][:depth] if n in self.wanted else () for n in self.numbers[low:high]}
            kinds = tuple(sorted({kind if any(kind) else () for kind in found}))
            if len(self._kinds) < MAX_SHORT_CUTS:
                self._kinds[key] = kinds
        return kinds

    # ---- the states, level by level, so that a state's suffixes, which are shorter, are linked before it

    def _grow(self) -> tuple[list[int], "array[int]", list[str]]:
        """The states without their links: where each level ends; of each state the one before, and its last symbol."""
        before, symbols, ends = array("i", [0]), [""], [1]
        first = depth = 0
        bases = self.bases
        while first < len(symbols):
            last = len(symbols)
            for state in range(first, last):
                at, high = self.mid[state], self.high[state]
                if at == high or (len(symbols) > SMALL and bases[at] == bases[high - 1]):
                    continue
                self._leads[state] = 1
                while at < high:
                    symbol, low = bases[at][depth], at
                    at = high if bases[high - 1][depth] == symbol else at + 1
                    while at < high and bases[at][depth] == symbol:
                        at += 1
                    before.append(state)
                    symbols.append(symbol)
                    self.depth.append(depth + 1)
                    self.low.append(low)
                    self.high.append(at)
                    while low < at and len(bases[low]) == depth + 1:
                        low += 1
                    self.mid.append(low)
                    self._leads.append(0)
            ends.append(len(symbols))
            first, depth = last, depth + 1
        return ends, before, symbols

    def _link(self, ends: list[int], before: "array[int]", symbols: list[str]) -> None:
        count = len(symbols)
        columns, fail, room = self.columns, self.fail, Room()
        columns.strange = array("i", bytes(4 * count))
        for number, (symbol, _) in enumerate(Counter(symbols[1:]).most_common(), 1):
            dense = number * count <= MAX_DENSE
            columns[symbol] = column = array("i", [UNKNOWN]) * count if dense else Sparse(room)
            column[0] = 0
        for state in range(1, count):
            parent, symbol = before[state], symbols[state]
            to = self.step(fail[parent], symbol) if parent else 0
            suffix = to if to >= 0 else ~to
            fail.append(suffix)
            low, mid, high, depth = self.low[state], self.mid[state], self.high[state], self.depth[state]
            leads = self._leads[state]
            event = not leads or low < mid or self.event[suffix]
            self.event.append(event)
            if low == mid and not leads and not self.event[suffix]:
                self.next[state] = self.bases[low][depth : depth + 4]
            self.partial.append(depth if leads and self.may_be_bare(low, high, depth) else self.partial[suffix])
            columns[symbol][parent] = ~state if event else state


def _has_marks(phrase: str) -> bool:
    return not phrase.isascii() and any(map(combining, phrase))


def _last_starter(phrase: str) -> str:
    return next(symbol for symbol in reversed(phrase) if not combining(symbol))


def _wanted(phrase: str) -> tuple[str, ...]:
    marks: list[str] = []
    for symbol in phrase:
        if combining(symbol):
            marks[-1] += symbol
        else:
            marks.append("")
    return tuple(marks)


def _bare(wanted: tuple[str, ...]) -> int:
    """How many symbols there are before the first with marks."""
    return next(at for at, marks in enumerate(wanted) if marks)


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

"""Aho–Corasick over folded phrases, shared by all sessions, in flat arrays.

The phrases stand in order without their marks, so that those that begin with the same symbols are a range. A state
stands for such a beginning. Where there are many, there are states only until a phrase is alone in its range; the rest
of it is compared as it stands (`phrases`). So the size of the automaton depends on how many phrases there are, not on
how long they are. Reading a symbol is one look-up in the column of the symbol, whatever the number of phrases; what a
rare symbol's column does not know yet is found over the suffixes, and remembered. What many phrases begin with, texts
come to more often: such states have the lowest numbers, so that what is looked up lies close together in the caches.

pyahocorasick goes on from one part of a text to the next too, but does not tell how deep it stands: what must be held;
and doing so it corrupts the heap where a text has characters beyond the BMP (its issue 221, open). ahocorasick_rs goes
on from nothing. Asked first, it passes over a packet of 5,000 characters in a fifth of the time, but among 10,000
phrases in three times what it takes among ten, and in slices of 128 (`phrases`) nothing is gained among so many. Asked
for the state after a token, with all states as its patterns, it takes longer than the look-ups.
"""

from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeAlias
from unicodedata import combining

from dispatcher.policies.folding import L_BASE, S_BASE, S_LAST, T_COUNT, V_COUNT, in_word, is_leading

SMALL = 50_000  # states, up to which those of phrases that are alone go on; two bytes are enough to number them
MAX_DENSE = 12_000_000  # entries of two or four bytes in the columns of frequent symbols, together
MAX_SHORT_CUTS = 1 << 16  # that all other columns remember, together: 10 MB at most
NEVER = 1 << 30  # symbols that no phrase has
MAX_STRANGE = 1 << 14  # symbols of no phrase that are remembered

Column: TypeAlias = "array[int] | Sparse"
# Symbols that have come, the range of phrases that are all alike, and what they go on with.
Lone: TypeAlias = tuple[int, int, int, str]


class Sparse(dict[int, int]):
    """The column of a rare symbol."""

    __slots__ = ("_columns",)

    def __init__(self, columns: "Columns") -> None:
        super().__init__()
        self._columns = columns

    def __missing__(self, state: int) -> int:
        return self._columns.unknown

    def remember(self, state: int, to: int) -> None:
        if self._columns.room:
            self._columns.room -= 1
            self[state] = to


class Columns(dict[str, Column]):
    """`columns[symbol][state]` is the longest suffix of the state's symbols and this one that is a state; or `unknown`.

    unknown  beyond all states
    room     how many more short cuts the columns may remember
    """

    def __init__(self, states: int) -> None:
        super().__init__()
        self.unknown, self.room = states, MAX_SHORT_CUTS
        self._kind = "H" if states < 1 << 16 else "I"
        self._strange = array(self._kind, [0]) * states  # the column of symbols of no phrase

    def __missing__(self, symbol: str) -> Column:
        if len(self) < MAX_STRANGE:
            self[symbol] = self._strange
        return self._strange

    def fill(self, trie: "Trie", fail: "array[int]", numbers: "array[int]") -> None:
        """Make the columns of all symbols that the trie has. fail, numbers: of its beginnings.

        Those of the most frequent symbols know it all, as far as there is room: a state leads where its longest suffix
        leads, but for where it goes on itself. Others know where it goes on.
        """
        symbols = sorted(trie.edges, key=lambda symbol: -len(trie.edges[symbol]))
        dense = symbols[: MAX_DENSE // self.unknown]
        width, codes = len(dense), {symbol: code for code, symbol in enumerate(dense)}
        table = array(self._kind, [0]) * (width * self.unknown)  # by state, then by symbol
        child = 1
        for at, number in enumerate(numbers):
            row, suffix = number * width, numbers[fail[at]] * width
            table[row : row + width] = table[suffix : suffix + width]
            while child < self.unknown and trie.before[child] == at:
                if (code := codes.get(trie.last[child], -1)) >= 0:
                    table[row + code] = numbers[child]
                child += 1
        for symbol, code in codes.items():
            self[symbol] = table[code::width]
        for symbol in symbols[width:]:
            self[symbol] = column = Sparse(self)
            column[0] = 0
            column.update((numbers[at], numbers[to]) for at, to in trie.edges[symbol].items())


class Trie:
    """The beginnings of phrases, those of each length after all shorter ones.

    By beginning:
    depth      its symbols
    before     it without its last symbol, which is `last`
    low, high  the range of phrases that begin with it; those up to `mid` are it
    leads      some beginning goes on after it
    edges      by symbol: what it goes on to
    """

    def __init__(self, bases: Sequence[str]) -> None:
        self.depth, self.before = array("i", [0]), array("i", [0])
        self.low, self.mid, self.high = array("i", [0]), array("i", [0]), array("i", [len(bases)])
        self.leads, self.last = bytearray(1), [""]
        self.edges: defaultdict[str, dict[int, int]] = defaultdict(dict)
        first = depth = 0
        while first < len(self.depth):
            last = len(self.depth)
            for at in range(first, last):
                mid, high = self.mid[at], self.high[at]
                if mid < high and (len(self.depth) <= SMALL or bases[mid] != bases[high - 1]):
                    self._grow(at, depth, bases)
            first, depth = last, depth + 1

    def _grow(self, state: int, depth: int, bases: Sequence[str]) -> None:
        self.leads[state] = 1
        at, high = self.mid[state], self.high[state]
        while at < high:
            symbol, low = bases[at][depth], at
            at = high if bases[high - 1][depth] == symbol else at + 1
            while at < high and bases[at][depth] == symbol:
                at += 1
            self.edges[symbol][state] = len(self.depth)
            self.depth.append(depth + 1)
            self.before.append(state)
            self.last.append(symbol)
            self.low.append(low)
            self.high.append(at)
            while low < at and len(bases[low]) == depth + 1:
                low += 1
            self.mid.append(low)
            self.leads.append(0)

    def suffixes(self) -> "array[int]":
        """Of each beginning the longest proper suffix that is one; of 0, which is empty, itself."""
        fail = array("i", [0]) * len(self.depth)
        for at in range(1, len(fail)):
            edges, suffix = self.edges[self.last[at]], self.before[at]
            while suffix:
                suffix = fail[suffix]
                if suffix in edges:
                    fail[at] = edges[suffix]
                    break
        return fail


class Automaton:
    """Phrases are numbered as given; each is folded, and begins with no mark. words: they count as whole words only.
    exact: a text's accents count, too.

    bases      the phrases without marks, in order
    numbers    of the phrases, in that order
    wanted     by number, of phrases with marks: those on each symbol
    most       marks that are wanted on one symbol
    loose      accents of the text never matter
    longest    symbols of the longest phrase
    syllables  jamo or open syllable → the symbols of phrases that it may become
    closed     numbers of the phrases after which no word may go on
    columns    where the text's symbols lead
    events     the first state after which a phrase is alone: the state's or that of a suffix
    ends       the first of these that is a phrase, or has a suffix that is

    By state:
    depth      its symbols
    fail       the longest proper suffix that is a state; of 0, the root, itself
    low, high  the range of phrases that begin with it; those up to `mid` are it
    leads      some state goes on after it
    partial    depth of the longest suffix, or itself, after which some state goes on, if no symbol has marks yet
    """

    def __init__(self, phrases: Sequence[str], words: bool = False, exact: bool = False) -> None:
        self.words, self.exact = words, exact
        self.closed = frozenset(n for n, phrase in enumerate(phrases) if words and in_word(_last_starter(phrase)))
        self.wanted = {n: _wanted(phrase) for n, phrase in enumerate(phrases) if _has_marks(phrase)}
        self.most = max((len(marks) for wanted in self.wanted.values() for marks in wanted), default=0)
        self.loose = not (exact or self.most)
        plain = [
            "".join(symbol for symbol in phrase if not combining(symbol)) if n in self.wanted else phrase
            for n, phrase in enumerate(phrases)
        ]
        self.numbers = array("i", sorted(range(len(plain)), key=plain.__getitem__))
        self.bases = [plain[number] for number in self.numbers]
        self._bare = [_bare(self.wanted[n]) if n in self.wanted else NEVER for n in self.numbers]
        self.longest = max(map(len, plain), default=0)
        self._number(Trie(self.bases))
        self.syllables = _syllables({symbol for base in plain if not base.isascii() for symbol in base})
        self._kinds: dict[tuple[int, int, int], tuple[tuple[str, ...], ...]] = {}
        self._begun: dict[int, Sequence[Lone]] = {}
        self._room = MAX_SHORT_CUTS  # for what that remembers

    def step(self, state: int, symbol: str) -> int:
        """As the columns have it, but never unknown."""
        column, unknown = self.columns[symbol], self.columns.unknown
        suffix = state
        while (to := column[suffix]) == unknown:
            suffix = self.fail[suffix]
        if suffix != state and isinstance(column, Sparse):
            column.remember(state, to)
        return to

    def is_alone(self, state: int) -> bool:
        """One phrase goes on after it, and no state does."""
        return not self.leads[state] and self.mid[state] < self.high[state]

    def begun(self, state: int) -> Sequence[Lone]:
        """What is alone from that state on, or from a suffix, longest first."""
        if (begun := self._begun.get(state)) is None:
            begun = tuple(
                (self.depth[each], self.mid[each], self.high[each], self.bases[self.mid[each]][self.depth[each] :])
                for each in self.come(state)
                if self.is_alone(each)
            )
            if self._room > 0:
                self._room -= 1 + len(begun)
                self._begun[state] = begun
        return begun

    def may_follow(self, state: int, run: str, read: int) -> bool:
        """Something is alone from that state on, or from a suffix; whether it may go on like the run from there on."""
        size = len(run) - read
        for _, _, _, rest in self.begun(state):
            if run.startswith(rest, read) or (size < len(rest) and rest.startswith(run[read:])):
                return True
        return False

    def suffixes(self, state: int) -> Iterator[int]:
        """The state and its suffixes, longest first, without the root."""
        while state:
            yield state
            state = self.fail[state]

    def come(self, state: int) -> Iterator[int]:
        """Those of them that are a phrase, or after which one is alone."""
        while state >= self.events:
            if not self.leads[state] or self.low[state] < self.mid[state]:
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

    def _number(self, trie: Trie) -> None:
        """Make the trie's beginnings states: those that more phrases begin with before others, and events last."""
        fail = trie.suffixes()
        event = bytearray(len(fail))  # 1: some phrase is alone from here on; 2: some has come
        for at in range(1, len(fail)):
            event[at] = max(2 * (trie.low[at] < trie.mid[at]), not trie.leads[at], event[fail[at]])
        many = len(self.bases)
        order = sorted(range(len(fail)), key=lambda at: event[at] * many + trie.low[at] - trie.high[at])
        numbers = array("i", fail)
        for number, at in enumerate(order):
            numbers[at] = number
        self.events = event.count(0)
        self.ends = len(order) - event.count(2)
        self.depth, self.fail = _ordered(trie.depth, order), array("i", [numbers[fail[at]] for at in order])
        self.low, self.mid, self.high = (_ordered(each, order) for each in (trie.low, trie.mid, trie.high))
        self.leads = bytes([trie.leads[at] for at in order])
        partial = array("i", fail)
        for at, (low, high, depth) in enumerate(zip(trie.low, trie.high, trie.depth, strict=True)):
            goes_on = trie.leads[at] and self.may_be_bare(low, high, depth)
            partial[at] = depth if goes_on else partial[fail[at]]
        self.partial = _ordered(partial, order)
        self.columns = Columns(len(order))
        self.columns.fill(trie, fail, numbers)


def _ordered(values: "array[int]", order: Sequence[int]) -> "array[int]":
    return array("i", [values[at] for at in order])


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

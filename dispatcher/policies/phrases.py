"""Phrases in a stream of text: found whatever the split, and what must be held back until they are ruled out.

A phrase occurs in a text if its symbols do, each with the marks that it has in the phrase. More marks do not hide it:
accents nowhere, others not after its last symbol (`marks`). Where only whole words count, a letter or digit of the
phrase may stand beside none of the text (marks between them do not part them).

Symbols are counted as places. What is open at a place are the suffixes of the automaton's state, and phrases that are
alone, each with where it began and how many of its symbols have come.
"""

from collections.abc import Iterator, Sequence
from operator import length_hint
from typing import ClassVar, NamedTuple
from unicodedata import combining

import msgspec

from dispatcher.policies.automaton import Automaton
from dispatcher.policies.folding import (
    MAX_STRETCH,
    compose,
    fold_character,
    fold_plain,
    in_word,
    is_leading,
    is_open_syllable,
    plain_end,
    white_end,
)
from dispatcher.policies.marks import Marks, begins_with, may_begin_with
from dispatcher.policies.matches import Match, Rule
from dispatcher.policies.places import Places

MAX_GLANCE = 32  # characters of a piece that are read twice if something comes of it


class PhraseSet(msgspec.Struct, frozen=True):
    """What is looked for together; `rules` by the automaton's numbers."""

    automaton: Automaton
    rules: tuple[Rule, ...]
    slice: ClassVar[int] = 128  # ligatures of 18 letters take 40 µs each

    def stream(self) -> "PhraseStream":
        return PhraseStream(self)


class Alone(NamedTuple):
    """Phrases that are all alike, of which so many symbols have come. low, high: their range."""

    start: int
    low: int
    high: int
    read: int


class Jamo(NamedTuple):
    """A leading consonant or open syllable that what follows may still change, with its raw code points.

    taken   it came whole, and so counts as it is, as a letter does, unless a trailing consonant follows
    state   and `alone`: what was open before it
    """

    symbol: str
    first: int
    after: int
    taken: bool
    state: int
    alone: list[Alone]


class PhraseStream:
    """A `Stream` of a set's phrases."""

    __slots__ = (
        "_alone", "_automaton", "_ending", "_found", "_halted", "_jamo", "_marks", "_phrases", "_place", "_places",
        "_quiet", "_shifted", "_spaced", "_spaces", "_state", "_symbols", "_symbols_from", "_wanting", "length",
    )  # fmt: skip

    def __init__(self, phrases: PhraseSet) -> None:
        self.length = 0
        self._phrases = phrases
        self._automaton = phrases.automaton
        self._state = 0
        self._place = 0  # symbols read
        self._places = Places()
        self._shifted = False  # some symbols that matter are not one code point each, or have marks
        self._alone: list[Alone] = []
        self._jamo: Jamo | None = None
        self._found: list[Match] = []
        self._halted = False
        self._spaced = False  # the last symbol is a space
        self._spaces: list[Match] = []  # that ended with it: more white space belongs to them
        self._marks = Marks(self._automaton.exact, self._automaton.most)
        self._wanting: list[tuple[int, int]] = []  # complete but for marks: (start, number)
        self._quiet = not self._automaton.words  # all that is open is what the state says, and what is alone
        # Of whole words only:
        self._ending: list[Match] = []  # complete, unless the word goes on
        self._symbols, self._symbols_from = "", 0  # the last that were read, and the place of the first of them

    def copy(self) -> "PhraseStream":
        twin = PhraseStream(self._phrases)
        twin.length, twin._state, twin._place, twin._halted = self.length, self._state, self._place, self._halted
        twin._places, twin._alone, twin._jamo = self._places.copy(), self._alone[:], self._jamo
        twin._quiet, twin._shifted, twin._spaced, twin._spaces = (
            self._quiet,
            self._shifted,
            self._spaced,
            self._spaces[:],
        )
        twin._marks, twin._wanting = self._marks.copy(), self._wanting[:]
        twin._ending, twin._symbols, twin._symbols_from = self._ending[:], self._symbols, self._symbols_from
        return twin

    @property
    def idle(self) -> bool:
        open_ended = self._state or self._alone or self._jamo or self._wanting or self._ending or self._spaces
        return not (open_ended or (self._symbols and in_word(self._symbols[-1])))

    def feed(self, text: str) -> Sequence[Match]:
        loose = self._automaton.loose
        if text.isascii():
            simple = text.isprintable() and "  " not in text
        else:
            simple = len(text) <= MAX_GLANCE and plain_end(text, 0, loose) == len(text)
        folded = fold_plain(text) if simple else ""
        if self._quiet and simple and len(text) <= MAX_GLANCE and self._passes(folded):
            return ()
        base, index = self.length, 0
        while index < len(text) and not self._halted:
            if self._spaced and not text[index].isalnum() and (end := white_end(text, index)) > index:
                self._widen(base + end)
                self._shifted = True
            elif simple and not (self._jamo or self._ending):
                end = index + self._scan(folded[index : index + MAX_STRETCH], base + index)
            elif not (self._jamo or self._ending) and (end := plain_end(text, index, loose)) > index:
                end = index + self._scan(fold_plain(text[index:end]), base + index)
            else:
                end = self._take(text, index, base)
            index = end
            self.length = base + index
        if self._shifted:
            self._forget()
        self._quiet = not (
            self._wanting
            or self._spaces
            or self._ending
            or self._jamo
            or self._shifted
            or self._halted
            or self._automaton.words
        )
        return self._take_found()

    def end(self) -> Sequence[Match]:
        if not self._halted:
            self._settle()
            for match in self._ending:
                self._report(match)
            self._ending = []
        return self._take_found()

    def hold(self) -> int:
        automaton = self._automaton
        if self._quiet:  # as nearly always
            first = self._place - automaton.partial[self._state]
            for start, low, high, read in self._alone:
                if start < first and (not automaton.wanted or automaton.may_be_bare(low, high, read)):
                    first = start
            return self.length - self._place + first
        held = [self.length, *(match.start for match in self._ending)]
        if self._jamo:
            held.append(self._hold_jamo(self._jamo))
        if not self._jamo or self._jamo.taken:
            held += [self._places.raw(start) for start in self._open()]
        return min(held)

    def _open(self) -> Iterator[int]:
        """Where what may go on, or wants marks on the last symbol, begins."""
        automaton = self._automaton
        for state in automaton.suffixes(self._state):
            start = self._place - automaton.depth[state]
            going_on = (start, automaton.mid[state], automaton.high[state], automaton.depth[state])
            if automaton.leads[state] and self._may_begin(state, start) and self._may_go_on(*going_on):
                yield start
                break
        yield from (each.start for each in self._alone if self._may_go_on(*each))
        run = self._marks.on(self._place - 1)
        yield from (start for start, number in self._wanting if may_begin_with(run, automaton.wanted[number][-1]))

    def _take_found(self) -> Sequence[Match]:
        if not self._found:
            return ()
        found, self._found = self._found, []
        return found

    # ---- symbols

    def _passes(self, folded: str) -> bool:
        """The hot path of tokens: read them, one symbol for each raw code point, if no phrase is complete by then. If
        one is, nothing was read.
        """
        if not folded or (self._spaced and folded[0] == " "):
            return False
        automaton, size, alone = self._automaton, len(folded), self._alone
        if alone:
            alone, end = self._compare(alone, folded)
            if end < size:
                return False
            alone = [Alone(start, low, high, read + size) for start, low, high, read in alone]
        columns, events, ends, state = automaton.columns, automaton.events, automaton.ends, self._state
        symbols = iter(folded)
        for symbol in symbols:
            to = columns[symbol][state]
            if to >= events:
                to = automaton.step(state, symbol) if to >= ends else to
                if to >= ends:
                    return False
                if to >= events:
                    read = size - length_hint(symbols)
                    coming = folded[read:]
                    for depth, low, high, rest in automaton.begun(to):
                        if coming.startswith(rest):
                            return False
                        if rest.startswith(coming):
                            alone = [*alone, Alone(self._place + read - depth, low, high, depth + size - read)]
            state = to
        self._alone = alone
        self._state = state
        self._place += size
        self.length += size
        self._spaced = symbol == " "
        return True

    def _scan(self, run: str, raw: int) -> int:
        """The hot path: symbols decided as they come, one for each raw code point from that one on. Answers how many it
        read: up to where something came of them.
        """
        if self._shifted:
            self._places.note(self._place, raw)
        if self._wanting or self._spaces:
            self._wanting, self._spaces = [], []
        alone: list[Alone] = []
        if self._alone:
            alone, end = self._compare(self._alone, run)
            if not end:
                self._step(run[0], raw, raw + 1)
                return 1
            run = run[:end]
        before, words = self._place, self._automaton.words
        if words:
            self._symbols += run
        columns, events, ends = self._automaton.columns, self._automaton.events, self._automaton.ends
        state, size, self._alone = self._state, len(run), []
        symbols = iter(run)
        for symbol in symbols:
            to = columns[symbol][state]
            if to >= events:
                to = self._automaton.step(state, symbol) if to >= ends else to
                read = size - length_hint(symbols)
                if to < events or (to < ends and not self._automaton.may_follow(to, run, read)):
                    state = to
                    continue
                state = self._state = to
                self._place, self._spaced = before + read, symbol == " "
                if self._arrive(state, raw + read, [], run, read):
                    break
            else:
                state = to
        read = size - length_hint(symbols)
        self._state, self._place, self._spaced = state, before + read, run[read - 1] == " "
        if alone:
            self._alone += [Alone(each.start, each.low, each.high, each.read + read) for each in alone]
        if words:
            self._symbols = self._symbols[: len(self._symbols) + read - len(run)]
            self._trim()
        return read

    def _compare(self, alone: list[Alone], run: str) -> tuple[list[Alone], int]:
        """Of what is alone: what this may be more of, and how many symbols may be read before one of it is complete."""
        kept, end = [], len(run)
        for each in alone:
            base, read = self._automaton.bases[each.low], each.read
            if base.startswith(run, read) or run.startswith(base[read:]):
                kept.append(each)
            else:
                continue
            end = min(end, len(base) - read - 1)
        return kept, end

    def _take(self, text: str, index: int, base: int) -> int:
        """One character of any kind. Answers with the index of the next."""
        for symbol in fold_character(text[index]):
            self._push(symbol, base + index)
        self._widen(base + index + 1)
        self._shifted = True
        return index + 1

    def _push(self, symbol: str, raw: int) -> None:
        """Take a symbol of that raw code point, which may have to wait for what follows."""
        if combining(symbol):
            self._settle()
            self._mark(symbol, raw)
            return
        jamo = self._jamo
        if jamo and (syllable := compose(jamo.symbol, symbol)):
            self._jamo = None
            if jamo.taken:
                self._state, self._alone = jamo.state, jamo.alone
                self._place -= 1
                self._symbols = self._symbols[:-1]
            self._syllable(syllable, jamo.first, raw + 1, whole=False)
            return
        self._settle()
        if symbol == " " and self._spaced:
            return
        if is_leading(symbol) or is_open_syllable(symbol):
            self._syllable(symbol, raw, raw + 1, whole=True)
        else:
            self._step(symbol, raw, raw + 1)

    def _syllable(self, symbol: str, first: int, after: int, whole: bool) -> None:
        """A syllable, or a leading consonant. whole: it is one code point."""
        if not (is_leading(symbol) or is_open_syllable(symbol)):
            self._step(symbol, first, after)
            return
        taken = whole and is_open_syllable(symbol)
        jamo = Jamo(symbol, first, after, taken, self._state, self._alone)
        if self._ending:
            self._end_words(symbol)
        if taken:
            self._step(symbol, first, after)
        else:
            self._wanting, self._spaces, self._spaced = [], [], False
        self._jamo = jamo

    def _settle(self) -> None:
        """What follows does not change the jamo."""
        jamo, self._jamo = self._jamo, None
        if jamo and not jamo.taken:
            self._step(jamo.symbol, jamo.first, jamo.after)

    def _step(self, symbol: str, first: int, after: int) -> None:
        """Read a symbol, of these raw code points."""
        if self._ending:
            self._end_words(symbol)
        self._wanting, self._spaces, self._spaced = [], [], symbol == " "
        self._places.note(self._place, first)
        self._place += 1
        if self._automaton.words:
            self._symbols += symbol
            self._trim()
        done, alone = [], []
        for each in self._alone:
            base = self._automaton.bases[each.low]
            if base[each.read] == symbol:
                if each.read + 1 == len(base):
                    done.append((each.start, each.low, each.high))
                else:
                    alone.append(each._replace(read=each.read + 1))
        self._alone = alone
        self._state = self._automaton.step(self._state, symbol)
        if self._state >= self._automaton.events or done:
            self._arrive(self._state, after, done)

    def _arrive(self, state: int, after: int, done: list[tuple[int, int, int]], run: str = "", read: int = 0) -> bool:
        """The state is an event, or what is alone is done: (start, low, high). run: what is to come, from `read` on, as
        far as it is known. Answers whether something came of it.
        """
        automaton, came = self._automaton, False
        for suffix in automaton.come(state):
            depth = automaton.depth[suffix]
            start, low, mid = self._place - depth, automaton.low[suffix], automaton.mid[suffix]
            if not self._may_begin(suffix, start):
                continue
            if low < mid:
                done.append((start, low, mid))
            if automaton.is_alone(suffix):
                base = automaton.bases[mid]
                rest = len(base) - depth
                if run.startswith(base[depth:], read) or (
                    len(run) - read < rest and base.startswith(run[read:], depth)
                ):
                    self._alone.append(Alone(start, mid, automaton.high[suffix], depth))
                    came = True
        done.sort()
        for start, low, high in done:
            for number in automaton.numbers[low:high]:
                self._complete(number, start, after)
        return came or bool(done)

    def _complete(self, number: int, start: int, end: int) -> None:
        """All symbols of a phrase have come, whatever their marks."""
        wanted = self._automaton.wanted.get(number)
        if not wanted:
            if self._marks.barred < start:
                self._finish(number, start, end)
        elif self._marks.are_inside(wanted[:-1], start):
            if wanted[-1]:
                self._wanting.append((start, number))
            else:
                self._finish(number, start, end)

    def _finish(self, number: int, start: int, end: int) -> None:
        match = Match(self._places.raw(start), end, self._phrases.rules[number])
        if number in self._automaton.closed:
            self._ending.append(match)
        else:
            self._report(match)
        if self._spaced:
            self._spaces.append(match)

    def _report(self, match: Match) -> None:
        self._found.append(match)
        self._halted |= match.rule.action == "stop"

    def _widen(self, end: int) -> None:
        """White space goes on up to that raw index, with what is not seen in it."""
        self._found += [match._replace(end=end) for match in self._spaces if match.end < end]

    # ---- words

    def _end_words(self, symbol: str) -> None:
        """Where the next symbol goes on with the word, what was complete is no match."""
        if not in_word(symbol):
            for match in self._ending:
                self._report(match)
        self._ending = []

    def _may_begin(self, state: int, start: int) -> bool:
        """No word goes on into the state's symbols, where it matters."""
        if not self._automaton.words:
            return True
        at = start - 1 - self._symbols_from
        into = at >= 0 and in_word(self._symbols[at])
        return not (into and in_word(self._automaton.bases[self._automaton.low[state]][0]))

    def _trim(self) -> None:
        """Keep the symbols that may be asked about."""
        dropped = max(0, len(self._symbols) - self._automaton.longest - 1)
        self._symbols = self._symbols[dropped:]
        self._symbols_from += dropped

    # ---- marks

    def _mark(self, mark: str, raw: int) -> None:
        """The last symbol has a mark more."""
        place = self._place - 1
        if place < 0:
            return
        run = self._marks.add(place, mark)
        wanting, self._wanting = self._wanting, []
        for start, number in wanting:
            if begins_with(run, self._automaton.wanted[number][-1]):
                self._finish(number, start, raw + 1)
            else:
                self._wanting.append((start, number))

    def _may_go_on(self, start: int, low: int, high: int, read: int) -> bool:
        """So many symbols of some phrase of the range have come with its marks, or with some that may be more."""
        return self._marks.may_go_on(self._automaton.kinds(low, high, read), start, start + read - 1)

    # ---- jamo

    def _hold_jamo(self, jamo: Jamo) -> int:
        """The raw index from which on some syllable that it may become is a part of what may match."""
        automaton = self._automaton
        place = self._place - jamo.taken
        starts = []
        for syllable in automaton.syllables.get(jamo.symbol, ()):
            if jamo.taken and syllable == jamo.symbol:
                continue  # has been read
            here = [each for each in jamo.alone if automaton.bases[each.low][each.read] == syllable]
            starts += [each.start for each in here if self._may_go_on(*each)]
            for state in automaton.suffixes(automaton.step(jamo.state, syllable)):
                start = place + 1 - automaton.depth[state]
                low, high = automaton.low[state], automaton.high[state]
                if self._may_begin(state, start) and self._may_go_on(start, low, high, automaton.depth[state]):
                    starts.append(start)
        return min([jamo.first if start == place else self._places.raw(start) for start in starts], default=self.length)

    def _forget(self) -> None:
        """What lies before everything that is open is not needed any more."""
        depth = self._automaton.depth
        first = [self._place - depth[self._state] - 1]
        first += [each.start for each in self._alone]
        first += [start for start, _ in self._wanting]
        if self._jamo:
            first.append(self._place - depth[self._jamo.state] - 1)
            first += [each.start for each in self._jamo.alone]
        self._places.forget(min(first))
        self._marks.forget(min(first))
        self._places.note(self._place, self.length)
        self._shifted = bool(self._places or self._marks)

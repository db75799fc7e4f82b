"""Phrases in a stream of text: found whatever the split, and what must be held back until they are ruled out.

A phrase occurs in a text if a text canonically equivalent to the folded one contains the folded phrase: so a mark
after the phrase's last letter does not hide it, wherever canonical order puts that mark. Where only whole words count,
a letter or digit of the phrase may stand beside none of the text (marks between them do not part them).
"""

from collections.abc import Iterable, Sequence
from unicodedata import combining

import msgspec

from dispatcher.policies.automaton import Automaton, MarkRun, Node
from dispatcher.policies.folding import Pending, Placed, fold_character, in_word, is_open_syllable, plain_end
from dispatcher.policies.matches import Match, Rule


class PhraseSet(msgspec.Struct, frozen=True):
    """What is looked for together; `rules` by the automaton's numbers."""

    automaton: Automaton
    rules: tuple[Rule, ...]

    def stream(self) -> "PhraseStream":
        return PhraseStream(self)


class PhraseStream:
    """A `Stream` of a set's phrases."""

    __slots__ = (
        "_automaton", "_early", "_ending", "_found", "_halted", "_inner", "_inside", "_node", "_pending", "_phrases",
        "_slow", "_window", "length",
    )  # fmt: skip

    def __init__(self, phrases: PhraseSet) -> None:
        self.length = 0
        self._phrases = phrases
        self._automaton = phrases.automaton
        self._node = self._automaton.root
        self._window: list[int] = []  # raw indices of the node's symbols
        self._pending = Pending()
        self._early: list[Match] = []  # that what is pending was already enough for
        self._found: list[Match] = []
        self._halted = False
        # Of whole words only:
        self._ending: list[Match] = []  # complete, unless the word goes on
        self._inner: list[bool] = []  # for each of the node's symbols: a word goes on into it
        self._inside = False  # the last starter belongs to a word
        self._slow = False  # something is pending or ending

    def copy(self) -> "PhraseStream":
        twin = PhraseStream(self._phrases)
        twin.length, twin._node, twin._halted = self.length, self._node, self._halted
        twin._window, twin._pending = self._window[:], self._pending.copy()
        twin._early, twin._ending, twin._inner = self._early[:], self._ending[:], self._inner[:]
        twin._inside, twin._slow = self._inside, self._slow
        return twin

    @property
    def idle(self) -> bool:
        return self._node is self._automaton.root and not self._slow and not self._inside

    def feed(self, text: str) -> Sequence[Match]:
        base, index = self.length, 0
        while index < len(text) and not self._halted:
            end = index if self._slow else len(text) if text.isascii() else plain_end(text, index)
            if end > index:
                index += self._scan(text[index:end].casefold(), base + index)
            else:
                for symbol in fold_character(text[index]):
                    self._push(symbol, base + index)
                index += 1
            self.length = base + index
        return self._take_found()

    def end(self) -> Sequence[Match]:
        if not self._halted:
            self._advance(self._pending.flush(), decided=True)
            for match in self._ending:
                self._report(match)
            self._ending, self._slow = [], False
        return self._take_found()

    def hold(self) -> int:
        if not (self._slow or self._automaton.words):  # as nearly always
            depth = self._node.partial
            return min(self._window[-depth:]) if depth else self.length
        if self._pending.jamo:
            held = self._hold_jamo(self._pending.jamo)
        elif self._pending.marks:
            held = self._hold_marks(self._pending.marks)
        else:
            growing = (node for node in self._node.suffixes() if node.grows and self._may_begin(node))
            held = next((self._start(node.depth) for node in growing), self.length)
        return min([held, *(match.start for match in self._ending)])

    def _take_found(self) -> Sequence[Match]:
        if not self._found:
            return ()
        found, self._found = self._found, []
        return found

    def _scan(self, run: str, start: int) -> int:
        """The hot path: symbols decided as they come, one for each raw code point. Answers how many it read."""
        node, read, kept = self._node, 0, 0
        for read, symbol in enumerate(run, 1):
            node = node[symbol]
            if node.hit:
                self._node = node
                self._keep(run, kept, read, start)
                kept = read
                self._record(node, (start + read,))
                if self._halted or self._slow:
                    return read
        self._node = node
        self._keep(run, kept, read, start)
        return read

    def _keep(self, run: str, kept: int, read: int, start: int) -> None:
        """Add the raw indices of what was read of a run, and keep those of the node's symbols."""
        depth = self._node.depth
        if self._automaton.words and read > kept:
            parts = range(max(kept, read - depth), read)
            self._inner += [in_word(run[part - 1]) if part else self._inside for part in parts]
            del self._inner[: len(self._inner) - depth]
            self._inside = in_word(run[read - 1])
        if depth:
            self._window += range(start + max(kept, read - depth), start + read)
            del self._window[: len(self._window) - depth]
        else:
            self._window.clear()

    def _push(self, symbol: str, index: int) -> None:
        """Take a symbol of that raw code point, which may have to wait for what follows."""
        pending, before = self._pending, self._pending.jamo
        if decided := pending.push(symbol, index):
            self._advance(decided, decided=decided[0] is before)
            self._early = []
        # What is pending can already be enough for a phrase to end with it, whatever follows.
        if pending.marks:
            self._look_for_ending(pending.marks)
        elif pending.jamo:
            if self._ending:
                self._end_words(pending.jamo[0])
            if not pending.spelled:
                self._look_for_syllable(pending.jamo)
        self._slow = bool(pending.marks or pending.jamo or self._ending)

    def _advance(self, symbols: Iterable[Placed], decided: bool) -> None:
        """decided: the first of them was pending, and what it ends has been looked at."""
        ends: list[int] = []
        for symbol, first, after in symbols:
            ends.append(after)
            if self._ending and not (combining(symbol) or decided):
                self._end_words(symbol)
            decided = False
            self._node = node = self._node[symbol]
            self._window.append(first)
            del self._window[: len(self._window) - node.depth]
            if self._automaton.words:
                self._inner.append(self._inside)
                del self._inner[: len(self._inner) - node.depth]
                if not combining(symbol):
                    self._inside = in_word(symbol)
            if node.hit:
                self._record(node, ends)

    def _record(self, node: Node, ends: Sequence[int]) -> None:
        """Phrases end at this node. ends: of its last symbols, all before them having ended earlier."""
        for suffix in node.suffixes():
            if suffix.ends and self._may_begin(suffix):
                # The greatest, not the last: in a run of marks canonical order is not raw order.
                end = max(ends[-suffix.depth :])
                for number in suffix.ends:
                    self._complete(number, self._start(suffix.depth), end)

    def _complete(self, number: int, start: int, end: int) -> Match:
        match = Match(start, end, self._phrases.rules[number])
        if match in self._early:
            return match
        if number in self._automaton.closed:
            self._ending.append(match)
            self._slow = True
        else:
            self._report(match)
        return match

    def _report(self, match: Match) -> None:
        self._found.append(match)
        self._halted |= match.rule.action == "stop"

    def _end_words(self, starter: str) -> None:
        """Where the next starter goes on with the word, what was complete is no match."""
        if not in_word(starter):
            for match in self._ending:
                self._report(match)
        self._ending = []

    def _may_begin(self, node: Node) -> bool:
        """No word goes on into the node's prefix, where it matters."""
        return not (node.bounded and self._inner[-node.depth])

    def _start(self, depth: int) -> int:
        # The least, not the first: in a run of marks canonical order is not raw order.
        return min(self._window[-depth:])

    # ---- pending marks

    def _look_for_ending(self, run: list[Placed]) -> None:
        for node in self._node.suffixes() if self._automaton.has_runs else ():
            if not self._may_begin(node):
                continue
            for ending in node.runs:
                # Once, with the mark that completes it.
                if ending.phrase >= 0 and _begins_with(run, ending.marks) and not _begins_with(run[:-1], ending.marks):
                    self._early.append(self._complete(ending.phrase, self._start(node.depth), run[-1][2]))

    def _hold_marks(self, run: list[Placed]) -> int:
        for node in self._node.suffixes() if self._automaton.has_runs else ():
            if self._may_begin(node) and any(_may_become(run, wanted) for wanted in node.runs):
                return self._start(node.depth)
        return next((first for mark, first, _ in run if mark in self._automaton.root_marks), self.length)

    # ---- pending jamo

    def _look_for_syllable(self, jamo: Placed) -> None:
        """A syllable that came whole ends a phrase at once, as a letter does: a trailing consonant that might follow
        is like a mark. One spelled in jamo waits, for the next of them may be a part of it.
        """
        symbol, _, end = jamo
        if is_open_syllable(symbol):
            for node in self._node[symbol].suffixes():
                if node.ends and self._may_begin_with(node):
                    for number in node.ends:
                        self._early.append(self._complete(number, self._start_with(jamo, node), end))

    def _hold_jamo(self, jamo: Placed) -> int:
        held = self.length
        whole = is_open_syllable(jamo[0]) and not self._pending.spelled
        for syllable in self._automaton.syllables.get(jamo[0], ()):
            complete = whole and syllable == jamo[0]  # reported, if a phrase ends with it
            for node in self._node[syllable].suffixes():
                if (node.grows or (node.ends and not complete)) and self._may_begin_with(node):
                    held = min(held, self._start_with(jamo, node))
                    break
        return held

    def _start_with(self, jamo: Placed, node: Node) -> int:
        """Where the node's prefix begins, if `jamo` is to become its last symbol."""
        return self._start(node.depth - 1) if node.depth > 1 else jamo[1]

    def _may_begin_with(self, node: Node) -> bool:
        into = self._inner[1 - node.depth] if node.depth > 1 and node.bounded else self._inside
        return not (node.bounded and into)


# ---- mark runs. Marks of different classes may change places, marks of one class may not (canonical equivalence).


def _by_class(marks: Iterable[str]) -> dict[int, str]:
    classes: dict[int, str] = {}
    for mark in marks:
        order = combining(mark)
        classes[order] = classes.get(order, "") + mark
    return classes


def _begins_with(run: list[Placed], marks: str) -> bool:
    """The run can be written so that it begins with these marks."""
    came = _by_class(mark for mark, _, _ in run)
    return all(came.get(order, "").startswith(wanted) for order, wanted in _by_class(marks).items())


def _may_become(run: list[Placed], wanted: MarkRun) -> bool:
    """With more marks the run can be written as the wanted one; if a phrase ends with that, as one beginning so."""
    if wanted.phrase >= 0 and _begins_with(run, wanted.marks):
        return False  # it has, and was reported
    classes = _by_class(wanted.marks)
    for order, came in _by_class(mark for mark, _, _ in run).items():
        marks = classes.get(order, "")
        if not (marks.startswith(came) or (wanted.phrase >= 0 and came.startswith(marks))):
            return False
    return True

"""Folding: text reduced to symbols in which look-alikes are equal, decided as it streams.

Per code point: NFKD, casefold, NFKD; default-ignorable characters vanish. What then still depends on neighbours is
decided as soon as the text decides it, never by where a packet ends (rule 25):

- A run of combining marks stands in canonical order (Unicode standard, 3.11), known when the next starter comes.
- Hangul syllables are one symbol each, so that 가 is not found in 각; conjoining jamo are composed to them
  (Unicode standard, 3.12), known when the next code point comes.

A symbol is one code point of folded text, with the raw code points that it came from. (An iota subscript
is the letter that it casefolds to, no mark: marks written after it, against canonical order, stay after it.)
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TypeAlias
from unicodedata import category, combining, normalize

Placed: TypeAlias = tuple[str, int, int]  # a symbol, the index of its first raw code point, and that after its last

# Default_Ignorable_Code_Point, from DerivedCoreProperties.txt of the Unicode Character Database, version 15.1.
IGNORABLE_RANGES = (
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)

# Hangul composition, Unicode standard 3.12. T_BASE stands for "no trailing consonant".
S_BASE, S_LAST, L_BASE, V_BASE, T_BASE = 0xAC00, 0xD7A3, 0x1100, 0x1161, 0x11A7
L_COUNT, V_COUNT, T_COUNT = 19, 21, 28

# A longer run of marks is cut here: the bound of Stream-Safe Text (UAX 15, 13), so that a run costs linear time.
MAX_MARKS = 30


def is_ignorable(character: str) -> bool:
    code = ord(character)
    return any(first <= code <= last for first, last in IGNORABLE_RANGES)


@lru_cache(maxsize=1 << 14)
def fold_character(character: str) -> str:
    """The symbols of one code point, before its neighbours count; empty if it is ignored."""
    if is_ignorable(character):
        return ""
    if S_BASE <= ord(character) <= S_LAST:
        return character
    folded = normalize("NFKD", normalize("NFKD", character).casefold())
    return "".join(symbol for symbol in folded if not is_ignorable(symbol))


def is_leading(symbol: str) -> bool:
    """A leading consonant, which a vowel may make a syllable."""
    return L_BASE <= ord(symbol) < L_BASE + L_COUNT


def is_open_syllable(symbol: str) -> bool:
    """A syllable that a trailing consonant may still become part of."""
    code = ord(symbol)
    return S_BASE <= code <= S_LAST and (code - S_BASE) % T_COUNT == 0


def compose(left: str, right: str) -> str:
    """The Hangul syllable of a leading consonant and a vowel, or of an open syllable and a trailing consonant;
    empty if they make none.
    """
    code = ord(right)
    if is_leading(left) and V_BASE <= code < V_BASE + V_COUNT:
        return chr(S_BASE + ((ord(left) - L_BASE) * V_COUNT + code - V_BASE) * T_COUNT)
    if T_BASE < code < T_BASE + T_COUNT and is_open_syllable(left):
        return chr(ord(left) + code - T_BASE)
    return ""


class Pending:
    """The end of a folded stream that what follows may still change: jamo or marks, never both.

    jamo    a leading consonant or an open syllable
    spelled that open syllable came as jamo, not as one code point
    marks   a run of combining marks in the order in which they came
    """

    __slots__ = ("jamo", "marks", "spelled")

    def __init__(self) -> None:
        self.jamo: Placed | None = None
        self.spelled = False
        self.marks: list[Placed] = []

    def __bool__(self) -> bool:
        return self.jamo is not None or bool(self.marks)

    def copy(self) -> "Pending":
        twin = Pending()
        twin.jamo, twin.spelled, twin.marks = self.jamo, self.spelled, self.marks[:]
        return twin

    def push(self, symbol: str, index: int) -> list[Placed]:
        """Take the next symbol, of that raw code point; answers with what it decides, in canonical order."""
        placed = (symbol, index, index + 1)
        if combining(symbol):
            decided = self.flush() if self.jamo or len(self.marks) == MAX_MARKS else []
            self.marks.append(placed)
            return decided
        if self.jamo and (syllable := compose(self.jamo[0], symbol)):
            whole = (syllable, self.jamo[1], index + 1)
            self.jamo, self.spelled = whole if is_open_syllable(syllable) else None, True
            return [] if self.jamo else [whole]
        decided = self.flush()
        if is_leading(symbol) or is_open_syllable(symbol):
            self.jamo, self.spelled = placed, False
        else:
            decided.append(placed)
        return decided

    def flush(self) -> list[Placed]:
        """Decide what is pending: a starter or the end has come."""
        if self.jamo:
            decided = [self.jamo]
            self.jamo = None
        else:
            decided = sorted(self.marks, key=lambda mark: combining(mark[0]))
            self.marks = []
        return decided


def fold(text: str) -> str:
    """A whole text, folded."""
    if is_plain(text):
        return text.casefold()
    pending = Pending()
    symbols: list[Placed] = []
    for index, character in enumerate(text):
        for symbol in fold_character(character):
            symbols += pending.push(symbol, index)
    return "".join(symbol for symbol, _, _ in symbols + pending.flush())


# ---- the short cut: characters that fold to one symbol each, whatever stands beside them


def _is_plain_character(character: str) -> bool:
    folded = fold_character.__wrapped__(character)
    return (
        len(folded) == 1
        and folded == character.casefold()
        and not combining(folded)
        and not is_leading(folded)
        and not is_open_syllable(folded)
    )


def _ranges(codes: Iterable[int]) -> Iterator[str]:
    """Consecutive codes as ranges of a regular expression's set."""
    first = last = -1
    for code in codes:
        if code != last + 1 or first < 0:
            if first >= 0:
                yield f"\\U{first:08x}-\\U{last:08x}"
            first = code
        last = code
    if first >= 0:
        yield f"\\U{first:08x}-\\U{last:08x}"


def _plain_codes() -> Iterator[int]:
    """Letters and signs of living scripts below U+2000, punctuation, kana, unified ideographs, closed syllables."""
    for first, last in ((0x0000, 0x1FFF), (0x2010, 0x2027), (0x3000, 0x30FF)):
        yield from (code for code in range(first, last + 1) if _is_plain_character(chr(code)))
    yield from range(0x3400, 0x4DC0)
    yield from range(0x4E00, 0xA000)
    yield from (code for code in range(S_BASE, S_LAST + 1) if (code - S_BASE) % T_COUNT)


_PLAIN = re.compile(f"[{''.join(_ranges(_plain_codes()))}]*")


def plain_end(text: str, start: int) -> int:
    """Where the stretch of characters from `start` ends of which each folds to its casefold, one symbol, decided."""
    match = _PLAIN.match(text, start)
    return match.end() if match else start


def is_plain(text: str) -> bool:
    return text.isascii() or plain_end(text, 0) == len(text)


# ---- words

# Scripts that are written without spaces: there a word may begin and end anywhere.
UNSPACED_RANGES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x30FF),  # kana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


@lru_cache(maxsize=1 << 14)
def in_word(symbol: str) -> bool:
    """A letter or digit (or _) that makes a longer word of a phrase beside which it stands; or a sign of a vowel, which
    in Indic scripts stands for a letter.
    """
    code = ord(symbol)
    if any(first <= code <= last for first, last in UNSPACED_RANGES):
        return False
    return symbol.isalnum() or symbol == "_" or (category(symbol) in ("Mn", "Mc") and not combining(symbol))

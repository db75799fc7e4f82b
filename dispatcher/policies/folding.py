"""Folding: text reduced to symbols in which look-alikes are equal, decided as it streams.

Per code point: NFKD, casefold, NFKD; what is not seen vanishes; dashes, apostrophes and quotation marks become those of
ASCII, and every white space a space. What then still depends on neighbours is decided as soon as the text decides it,
never by where a packet ends (rule 25):

- White space beside white space is one symbol.
- Combining marks belong to the symbol before them; `marks` compares them, in any order that means the same.
- Hangul syllables are one symbol each, so that 가 is not found in 각; conjoining jamo are composed to them
  (Unicode standard, 3.12), known when the next code point comes.

A symbol is one code point of folded text, with the raw code points that it came from. (An iota subscript
is the letter that it casefolds to, no mark.)
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from unicodedata import category, combining, normalize

from dispatcher.policies.marks import LETTER_CLASSES

# Control characters that are no white space.
CONTROL_RANGES = ((0x0000, 0x0008), (0x000E, 0x001F), (0x007F, 0x0084), (0x0086, 0x009F))

# Default_Ignorable_Code_Point, from DerivedCoreProperties.txt of the Unicode Character Database, version 15.1; and the
# characters of interlinear annotation.
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
    (0xFFF0, 0xFFFB),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)

# Hangul composition, Unicode standard 3.12. T_BASE stands for "no trailing consonant".
S_BASE, S_LAST, L_BASE, V_BASE, T_BASE = 0xAC00, 0xD7A3, 0x1100, 0x1161, 0x11A7
L_COUNT, V_COUNT, T_COUNT = 19, 21, 28

MAX_STRETCH = 1000  # characters that are looked at and folded at once, however soon something comes of them

# White space, and what looks like one stroke, apostrophe or quotation mark of ASCII; NFKD makes them of some others.
WHITE_SPACE = "\t\n\v\f\r \x85\u1680\u2028\u2029"
_DASHES = "\u02d7\u058a\u05be\u1806\u2010\u2011\u2012\u2013\u2014\u2015\u2043\u2212\u2796\u2e3a\u2e3b\U00010ead"
_APOSTROPHES = (
    "\u00b4\u02b9\u02bb\u02bc\u02bd\u02c8\u02ca\u055a\u05f3\u1fbd\u1fbf\u1ffd\u1ffe"
    "\u2018\u2019\u201b\u2032\u2035\ua78b\ua78c"
)
_QUOTATION_MARKS = "\u02ba\u02dd\u05f4\u201c\u201d\u201f\u301d\u301e"
_LOOK_ALIKES = {
    ord(character): plain
    for alike, plain in ((WHITE_SPACE, " "), (_DASHES, "-"), (_APOSTROPHES, "'"), (_QUOTATION_MARKS, '"'))
    for character in alike
}
# Letters that NFKD leaves whole, and UTS 10 takes for a letter with a stroke through it (decomps.txt).
_LOOK_ALIKES |= {ord("đ"): "d\u0335", ord("ħ"): "h\u0335", ord("ł"): "l\u0335", ord("ø"): "o\u0338"}

# Tables below ask for all of Unicode as the program starts: a set takes a tenth of the ranges' time.
_IGNORABLE = frozenset(chr(code) for first, last in IGNORABLE_RANGES for code in range(first, last + 1))
_CONTROL = frozenset(chr(code) for first, last in CONTROL_RANGES for code in range(first, last + 1))


def is_ignorable(character: str) -> bool:
    return character in _IGNORABLE


def is_control(character: str) -> bool:
    return character in _CONTROL


@lru_cache(maxsize=1 << 14)
def fold_character(character: str) -> str:
    """The symbols of one code point, before its neighbours count; empty if it is ignored."""
    if is_ignorable(character) or is_control(character):
        return ""
    if S_BASE <= ord(character) <= S_LAST:
        return character
    character = character.translate(_LOOK_ALIKES)  # before NFKD, which makes a space and a mark of an acute accent
    folded = normalize("NFKD", normalize("NFKD", character).casefold()).translate(_LOOK_ALIKES)
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


def fold(text: str) -> str:
    """A whole text, folded; marks stand in canonical order (Unicode standard, 3.11)."""
    if text.isascii() and text.isprintable():
        return _SPACES.sub(" ", text.casefold()) if "  " in text else text.casefold()
    symbols: list[str] = []
    last, marks = "", 0  # symbol that is no mark, and marks after it
    for symbol in "".join(map(fold_character, text)):
        if combining(symbol):
            marks += 1
            symbols.append(symbol)
        elif last and not marks and (syllable := compose(last, symbol)):
            symbols[-1] = last = syllable
        elif symbol != " " or last != " ":
            _order(symbols, marks)
            symbols.append(symbol)
            last, marks = symbol, 0
    _order(symbols, marks)
    return "".join(symbols)


def _order(symbols: list[str], marks: int) -> None:
    if marks > 1:
        symbols[-marks:] = sorted(symbols[-marks:], key=combining)


# ---- the short cut: characters that fold to one symbol each, whatever stands beside them


def _is_plain_character(character: str) -> bool:
    folded = fold_character.__wrapped__(character)
    return (
        len(folded) == 1
        and folded == character.casefold()
        and not combining(folded)
        and not L_BASE <= ord(folded) < L_BASE + 0x100
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
    """Letters and signs of living scripts below U+2000 but jamo, punctuation, kana, unified ideographs, syllables."""
    for first, last in ((0x0000, 0x1FFF), (0x2010, 0x2027), (0x3000, 0x30FF)):
        yield from (code for code in range(first, last + 1) if _is_plain_character(chr(code)))
    yield from range(0x3400, 0x4DC0)
    yield from range(0x4E00, 0xA000)
    yield from range(S_BASE, S_LAST + 1)  # but for the last of a stretch, if it is open


def _accented() -> Iterator[tuple[str, str]]:
    """Letters below U+2000 that fold to one symbol and accents, with that symbol."""
    for code in range(0x2000):
        symbol, *marks = [*fold_character.__wrapped__(chr(code))] or [" "]
        accents = all(combining(mark) and combining(mark) not in LETTER_CLASSES for mark in marks)
        if marks and accents and symbol != " " and not combining(symbol) and not is_leading(symbol):
            yield chr(code), symbol


_UNACCENTED = dict(_accented())
_ACCENTED = re.compile(f"[{''.join(_ranges(map(ord, _UNACCENTED)))}]")
_SET = "".join(_ranges(_plain_codes()))
_PLAIN = re.compile(f"[{_SET}]{{0,{MAX_STRETCH}}}")
_PLAIN_OR_ACCENTED = re.compile(f"(?:[{_SET}]|{_ACCENTED.pattern}){{0,{MAX_STRETCH}}}")
_SPACES = re.compile(" +")
_WHITE = re.compile(f"[{''.join(chr(code) for code in range(0x3001) if fold_character(chr(code)) == ' ')}]*")


def plain_end(text: str, start: int, accented: bool = False) -> int:
    """Where the stretch from `start` ends of characters that fold to their casefold, one symbol each, decided; a space
    beside white space ends it. accented: also of such with accents, to which nobody looks.
    """
    match = (_PLAIN_OR_ACCENTED if accented else _PLAIN).match(text, start)
    end = match.end() if match else start
    if end > start and is_open_syllable(text[end - 1]):
        end -= 1
    twice = text.find("  ", start, end)
    return end if twice < 0 else twice + 1


def fold_plain(stretch: str) -> str:
    """The symbols of such a stretch."""
    if not stretch.isascii():
        stretch = _ACCENTED.sub(lambda found: _UNACCENTED[found[0]], stretch)
    return stretch.casefold()


def white_end(text: str, start: int) -> int:
    """Where the white space from `start` on ends."""
    match = _WHITE.match(text, start)
    return match.end() if match else start


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

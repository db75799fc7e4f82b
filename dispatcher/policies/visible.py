"""The text that patterns see: without ignorable characters, all in their usual width, in the case they have. Control
characters stay: patterns ask for them, such as the escapes of terminals.
"""

import re
from unicodedata import decomposition

from dispatcher.policies.folding import IGNORABLE_RANGES

WIDE_RANGES = ((0x3000, 0x3000), (0xFF01, 0xFFEE))  # all code points with a <wide> or <narrow> decomposition


def _in_usual_width() -> dict[int, str]:
    found = {}
    for first, last in WIDE_RANGES:
        for code in range(first, last + 1):
            kind, _, usual = decomposition(chr(code)).partition(" ")
            if kind in ("<wide>", "<narrow>"):
                found[code] = chr(int(usual, 16))
    return found


def _set_of(ranges: tuple[tuple[int, int], ...]) -> str:
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)


_IGNORED = re.compile(f"[{_set_of(IGNORABLE_RANGES)}]")
_SPECIAL = re.compile(f"[{_set_of(IGNORABLE_RANGES + WIDE_RANGES)}]")
_TABLE: dict[int, str | None] = {
    **_in_usual_width(),
    **{code: None for first, last in IGNORABLE_RANGES for code in range(first, last + 1)},
}


def visible(text: str) -> tuple[str, list[int]]:
    """What is seen of the text, one character for each that is not ignored; and the indices of those that are."""
    if text.isascii() or not _SPECIAL.search(text):
        return text, []
    return text.translate(_TABLE), [ignored.start() for ignored in _IGNORED.finditer(text)]

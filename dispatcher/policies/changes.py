"""Which stretches of a text were changed in another, as guardrails change what they mask."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import accumulate
from typing import TypeAlias

from dispatcher.policies.folding import fold

MAX_WORDS = 400  # that are compared one by one: more cost too much time, and count as one change

_WORD = re.compile(r"\w+|\s+|[^\w\s]")

Edit: TypeAlias = tuple[int, int, str | None]  # start, end, what stands there instead; None: nothing


def changes(asked: str, shown: str) -> list[Edit]:
    """In the order of `asked`; none is empty: what was put between two characters takes one of them along."""
    before = _common(asked, shown)
    after = _common(asked[before:][::-1], shown[before:][::-1])
    old, new = _words(asked[before : len(asked) - after]), _words(shown[before : len(shown) - after])
    if len(old) > MAX_WORDS or len(new) > MAX_WORDS:
        old, new = ["".join(old)], ["".join(new)]
    old_ends, new_ends = _ends(old, before), _ends(new, before)
    found: list[tuple[int, int, str]] = []
    for kind, first, last, new_first, new_last in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        start, end, text = old_ends[first], old_ends[last], shown[new_ends[new_first] : new_ends[new_last]]
        if found and start == end and start <= found[-1][1]:
            found[-1] = (found[-1][0], found[-1][1], found[-1][2] + text)
        else:
            found.append(_wide(asked, start, end, text))
    return [(start, end, text if fold(text) else None) for start, end, text in found]


def _common(one: str, other: str) -> int:
    """How many characters both begin with."""
    length = min(len(one), len(other))
    return next((at for at in range(length) if one[at] != other[at]), length)


def _words(text: str) -> list[str]:
    return _WORD.findall(text)


def _ends(words: Sequence[str], start: int) -> list[int]:
    """Where the words begin, and the last ends."""
    return list(accumulate(map(len, words), initial=start))


def _wide(asked: str, start: int, end: int, text: str) -> tuple[int, int, str]:
    if start < end:
        return start, end, text
    return (start - 1, end, asked[start - 1] + text) if start else (start, end + 1, text + asked[end])

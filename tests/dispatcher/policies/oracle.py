"""What phrases hide, decided naively: whole texts, no streaming, no automaton, no code of `dispatcher`.

A text that stops at some code point is either over or goes on. `matches` knows every match in it that nothing that
follows can undo; the first code point at which one of them stops decides.
"""

import itertools
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple
from unicodedata import combining, normalize

# The characters of the alphabet in `strategies` that are not seen, are white space, or look like one of ASCII; the
# whole sets are checked in test_folding.py.
IGNORED = set("\u00ad\u034f\u200b\u200d\u2060\ufe0f\ufeff\u115f\u1160\u3164\U000e0041\0\x9f\ufff9")
ALIKE = {"\t": " ", "\n": " ", "\x85": " ", "\u2028": " ", "\u2010": "-", "\u2014": "-", "\u2019": "'", "\u00b4": "'"}
ALIKE["ø"] = "o\u0338"  # a letter with a stroke
LETTERS_OWN = {8, 9, 103}  # classes of marks of the alphabet that are no accents


class Wanted(NamedTuple):
    """One phrase, as a policy of its own."""

    phrase: str
    action: str = "stop"
    words: bool = False
    exact: bool = False


class Symbol(NamedTuple):
    """end: after the first raw code point that made it whole. wide: where the next begins."""

    text: str
    raw: int
    end: int
    wide: int
    pending: bool  # jamo that the next code point may still change
    marks: tuple["Symbol", ...] = ()


class Found(NamedTuple):
    start: int
    end: int
    number: int


@lru_cache(maxsize=10_000)
def folded(text: str, over: bool = True) -> list[Symbol]:
    """Symbols with the marks on them, as they came; marks before all others on an empty one."""
    symbols = [
        Symbol(symbol, raw, raw + 1, raw + 1, False)
        for raw, character in enumerate(text)
        for symbol in _folded(character)
    ]
    found = [Symbol("", 0, 0, 0, False)]
    for symbol in _composed(symbols, over):
        if combining(symbol.text):
            found[-1] = found[-1]._replace(marks=(*found[-1].marks, symbol))
        elif not symbol.text == found[-1].text == " ":
            found[-1] = found[-1]._replace(wide=symbol.raw)
            found.append(symbol)
    found[-1] = found[-1]._replace(wide=len(text))
    return found if found[0].marks else found[1:]


@lru_cache(maxsize=1000)
def string(text: str) -> str:
    return "".join(symbol.text + _ordered("".join(mark.text for mark in symbol.marks)) for symbol in folded(text))


def _folded(character: str) -> str:
    if character in IGNORED:
        return ""
    if re.fullmatch("[가-힣]", character):
        return character
    character = ALIKE.get(character, character)
    folded = normalize("NFKD", normalize("NFKD", character).casefold())
    return "".join(ALIKE.get(c, c) for c in folded if c not in IGNORED)


def _composed(symbols: list[Symbol], over: bool) -> list[Symbol]:
    """Leading consonant, vowel, trailing consonant → the syllable that NFC makes of them."""
    result: list[Symbol] = []
    text = "".join(symbol.text for symbol in symbols)
    for block in re.finditer("([\u1100-\u1112][\u1161-\u1175]|[가-힣])[\u11a8-\u11c2]?|(?s:.)", text):
        syllable = normalize("NFC", block[0])
        if len(syllable) == 1:
            spelled = bool(re.match("[\u1100-\u1112]", block[0]))
            open_ended = len(normalize("NFD", syllable)) < 3 and block.end() == len(text)
            first, last = symbols[block.start()], symbols[block.end() - 1]
            result.append(Symbol(syllable, first.raw, last.end, last.end, spelled and open_ended and not over))
        else:  # a closed syllable before a trailing consonant
            result += symbols[block.start() : block.end()]
    return result


def _ordered(marks: str) -> str:
    return normalize("NFD", "x" + marks)[1:]


def matches(text: str, wanted: Sequence[Wanted], over: bool) -> set[Found]:
    """Every match that is certain; where it ends with white space, all of that."""
    found = set()
    for number, each in enumerate(wanted):
        for start, end, wide in _spans(text, each, over):
            found |= {Found(start, end, number), Found(start, wide, number)}
    return found


@lru_cache(maxsize=10_000)
def _spans(text: str, wanted: Wanted, over: bool) -> set[tuple[int, int, int]]:
    """Where the phrase stands: start, end, and the end with all its white space."""
    symbols = folded(text, over)
    phrase = folded(wanted.phrase)
    found = set()
    for start in range(len(symbols)):
        here = symbols[start : start + len(phrase)]
        if [symbol.text for symbol in here] != [symbol.text for symbol in phrase]:
            continue
        pairs = [(symbol, "".join(m.text for m in each.marks)) for symbol, each in zip(here, phrase, strict=True)]
        last, marks = pairs.pop()
        needed = _needed(last.marks, marks)
        if needed is None or any(symbol.pending for symbol in here):
            continue
        if not all(_has(symbol.marks, marks, wanted.exact) for symbol, marks in pairs):
            continue
        if wanted.words and not _stands_alone(symbols, start, start + len(phrase), over):
            continue
        end = max(symbol.end for symbol in (last, *needed))
        found.add((here[0].raw, end, max(end, last.wide) if last.text == " " else end))
    return found


def _stands_alone(symbols: list[Symbol], start: int, end: int, over: bool) -> bool:
    if _lettered(symbols[start].text) and any(_lettered(symbol.text) for symbol in symbols[max(0, start - 1) : start]):
        return False
    if _lettered(symbols[end - 1].text):
        return not _lettered(symbols[end].text) if end < len(symbols) else over
    return True


def _lettered(symbol: str) -> bool:
    """Of a script that parts its words."""
    return bool(re.fullmatch(r"\w", symbol)) and not re.fullmatch("[ぁ-ヿ一-鿿]", symbol)


def _has(run: Sequence[Symbol], marks: str, exact: bool) -> bool:
    """The run can be written as these marks and accents; exactly: as these marks."""
    came = "".join(mark.text for mark in run)
    return any(
        (not rest or not exact) and all(combining(mark) not in LETTERS_OWN for mark in rest)
        for rest in _remainders(came, marks)
    )


def _needed(run: Sequence[Symbol], marks: str) -> Sequence[Symbol] | None:
    """The least part of the run that can be written to begin with the marks."""
    for length in range(len(run) + 1):
        if _remainders("".join(mark.text for mark in run[:length]), marks):
            return run[:length]
    return None


@lru_cache(maxsize=10_000)
def _remainders(run: str, marks: str) -> list[tuple[str, ...]]:
    """What may stand after the marks in runs that begin with them and are canonically equivalent to this one."""
    size = len(run) - len(marks)
    rests = itertools.combinations(run, size) if size >= 0 else ()
    return [rest for rest in rests if _ordered(marks + "".join(rest)) == _ordered(run)]


def completed(text: str, wanted: Sequence[Wanted]) -> list[set[Found]]:
    """For each length of the text: the matches that are complete by then."""
    known: list[set[Found]] = [set()]
    for length in range(1, len(text) + 1):
        known.append(known[-1] | matches(text[:length], wanted, over=False))
    return known


def held_from(text: str, wanted: Sequence[Wanted]) -> int:
    """The least start of a match that some continuation of the text makes; its length if there is none."""
    holding = [each for each in wanted if each.action != "observe"]
    known = completed(text, holding)[-1]
    starts = [len(text)]
    for number, each in enumerate(holding):
        complete = {(f.start, f.end) for f in known if f.number == number}
        for continuation in _continuations(string(each.phrase)):
            for over in (False, True):
                found = {(start, end) for start, end, _ in _spans(text + continuation, each, over)} - complete
                starts += [start for start, _ in found]
    return min(starts)


@lru_cache(maxsize=1000)
def _continuations(wanted: str) -> set[str]:
    """Every way in which the rest of a phrase may come: from any symbol on, spelled or whole, with any part of a run
    of marks that has come already left out.
    """
    result = set()
    for form in (wanted, normalize("NFD", wanted)):
        for start in range(len(form) + 1):
            rest = form[start:]
            run = "".join(itertools.takewhile(combining, rest))
            for size in range(len(run) + 1):
                for part in itertools.combinations(run, size):
                    result.add("".join(part) + rest[len(run) :])
    return result


class Outcome(NamedTuple):
    """shown: what a user sees. stopped: after this many code points; None: never. hits: by number, of what does not
    stop. decided: raw characters that were let out or redacted.
    """

    shown: str
    stopped: int | None
    hits: dict[int, int]
    decided: int


def outcome(text: str, wanted: Sequence[Wanted], replacement: str = "[redacted]") -> Outcome:
    known = completed(text, wanted)
    stops = {number for number, each in enumerate(wanted) if each.action == "stop"}
    for length in range(1, len(text) + 1):
        if starts := [f.start for f in known[length] if f.number in stops]:
            # What another phrase could still match through is undecided, and stays so.
            until = min(*starts, held_from(text[:length], wanted))
            return _outcome(text[:until], known[: length + 1], wanted, replacement, length)
    known.append(known[-1] | matches(text, wanted, over=True))
    until = min([f.start for f in known[-1] if f.number in stops], default=len(text))
    return _outcome(text[:until], known, wanted, replacement, len(text) if until < len(text) else None)


def _outcome(
    text: str, known: list[set[Found]], wanted: Sequence[Wanted], replacement: str, stopped: int | None
) -> Outcome:
    covered = {index for f in known[-1] if wanted[f.number].action == "redact" for index in range(f.start, f.end)}
    marked = "".join("\uffff" if index in covered else character for index, character in enumerate(text))
    shown = re.sub("\uffff+", lambda _: replacement, marked)
    hits = {}
    for number, each in enumerate(wanted):
        if each.action != "stop":
            hits[number] = _apart([{f for f in found if f.number == number} for found in known])
    return Outcome(shown, stopped, hits, len(text))


def _apart(known: list[set[Found]]) -> int:
    """How many matches there are, in the order in which they were complete, of those that overlap one."""
    count = last = 0
    for before, after in itertools.pairwise(known):
        for found in sorted(after - before):
            count += found.start >= last
            last = max(last, found.end)
    return count

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

# The characters of the alphabet below that Unicode says to ignore; the whole property is checked in test_folding.py.
IGNORED = set("\u00ad\u034f\u200b\u200d\u2060\ufe0f\ufeff\u115f\u1160\u3164\U000e0041")


class Wanted(NamedTuple):
    """One phrase, as a policy of its own."""

    phrase: str
    action: str = "stop"
    words: bool = False


class Symbol(NamedTuple):
    text: str
    raw: int
    end: int
    pending: bool  # jamo that the next code point may still change


class Found(NamedTuple):
    start: int
    end: int
    number: int


@lru_cache(maxsize=10_000)
def folded(text: str, over: bool = True) -> list[Symbol]:
    symbols = [
        Symbol(symbol, raw, raw + 1, False) for raw, character in enumerate(text) for symbol in _folded(character)
    ]
    return _ordered(_composed(symbols, over))


@lru_cache(maxsize=1000)
def string(text: str) -> str:
    return "".join(symbol.text for symbol in folded(text))


def _folded(character: str) -> str:
    if character in IGNORED:
        return ""
    if re.fullmatch("[가-힣]", character):
        return character
    folded = normalize("NFKD", normalize("NFKD", character).casefold())
    return "".join(c for c in folded if c not in IGNORED)


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
            result.append(Symbol(syllable, first.raw, last.end, spelled and open_ended and not over))
        else:  # a closed syllable before a trailing consonant
            result += symbols[block.start() : block.end()]
    return result


def _ordered(symbols: list[Symbol]) -> list[Symbol]:
    """Swap marks until no pair stands against canonical order."""
    result = list(symbols)
    for _ in result:
        for i in range(len(result) - 1):
            left, right = combining(result[i].text), combining(result[i + 1].text)
            if left > right > 0:
                result[i], result[i + 1] = result[i + 1], result[i]
    return result


def matches(text: str, wanted: Sequence[Wanted], over: bool) -> set[Found]:
    """Every match that is certain."""
    spans = ((number, _spans(text, each.phrase, each.words, over)) for number, each in enumerate(wanted))
    return {Found(start, end, number) for number, found in spans for start, end in found}


@lru_cache(maxsize=10_000)
def _spans(text: str, phrase: str, words: bool, over: bool) -> set[tuple[int, int]]:
    symbols = folded(text, over)
    found = set()
    body, marks = _split(string(phrase))
    for start in range(len(symbols)):
        end = start + len(body)
        if "".join(symbol.text for symbol in symbols[start:end]) != body:
            continue
        run = list(itertools.takewhile(lambda s: combining(s.text), symbols[end:]))
        if body:
            needed = _needed(run, marks)
            if needed is None or any(symbol.pending for symbol in symbols[start:end]):
                continue
            covered = symbols[start:end] + needed
        else:
            # Marks alone are looked for in a run that is decided.
            if "".join(s.text for s in run[: len(marks)]) != marks or not (over or end + len(run) < len(symbols)):
                continue
            covered = run[: len(marks)]
        if words and not _stands_alone(symbols, start, end, body, over):
            continue
        found.add((min(s.raw for s in covered), max(s.end for s in covered)))
    return found


def _stands_alone(symbols: list[Symbol], start: int, end: int, body: str, over: bool) -> bool:
    before = [s.text for s in symbols[:start] if not combining(s.text)]
    after = [s.text for s in symbols[end:] if not combining(s.text)]
    if body and _lettered(body[0]) and before and _lettered(before[-1]):
        return False
    if body and _lettered([c for c in body if not combining(c)][-1]):
        return not _lettered(after[0]) if after else over
    return True


def _lettered(symbol: str) -> bool:
    """Of a script that parts its words."""
    return bool(re.fullmatch(r"\w", symbol)) and not re.fullmatch("[ぁ-ヿ一-鿿]", symbol)


def _split(wanted: str) -> tuple[str, str]:
    """The phrase up to its last starter, and the marks after it."""
    end = len(wanted)
    while end and combining(wanted[end - 1]):
        end -= 1
    return wanted[:end], wanted[end:]


def _needed(run: list[Symbol], marks: str) -> list[Symbol] | None:
    """The least part of the run, in the order in which it came, that can be written to begin with the marks."""
    came = sorted(run, key=lambda symbol: (symbol.raw, -symbol.end))
    for length in range(len(came) + 1):
        if _can_begin_with("".join(symbol.text for symbol in came[:length]), marks):
            return came[:length]
    return None


def _can_begin_with(run: str, marks: str) -> bool:
    """Some canonically equivalent order of the run begins with the marks."""
    return any(
        normalize("NFD", "x" + marks + "".join(rest)) == normalize("NFD", "x" + run)
        for rest in _remainders(run, len(run) - len(marks))
    )


def _remainders(run: str, length: int) -> list[tuple[str, ...]]:
    return list(itertools.combinations(run, length)) if length >= 0 else []


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
                found = _spans(text + continuation, each.phrase, each.words, over) - complete
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
    marked = "".join("\0" if index in covered else character for index, character in enumerate(text))
    shown = re.sub("\0+", lambda _: replacement, marked)
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

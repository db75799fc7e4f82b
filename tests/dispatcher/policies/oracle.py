"""What phrases hide, decided naively: whole texts, no streaming, no automaton, no code of `dispatcher`.

A text that stops at some code point is either over or goes on. `matches` knows every match in it that nothing that
follows can undo; the first code point at which there is one decides (`cut`).
"""

import itertools
import re
from typing import NamedTuple
from unicodedata import combining, normalize

# The characters of the alphabet below that Unicode says to ignore; the whole property is checked in test_folding.py.
IGNORED = set("\u00ad\u034f\u200b\u200d\u2060\ufe0f\ufeff\u115f\u1160\u3164\U000e0041")


class Symbol(NamedTuple):
    text: str
    raw: int
    pending: bool  # jamo that the next code point may still change


class Found(NamedTuple):
    start: int
    phrase: int


def folded(text: str, over: bool = True) -> list[Symbol]:
    symbols = [Symbol(symbol, raw, False) for raw, character in enumerate(text) for symbol in _folded(character)]
    return _ordered(_composed(symbols, over))


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
            result.append(Symbol(syllable, symbols[block.start()].raw, spelled and open_ended and not over))
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


def matches(text: str, phrases: list[str], over: bool) -> list[Found]:
    symbols = folded(text, over)
    found = []
    for number, phrase in enumerate(phrases):
        wanted = string(phrase)
        body, marks = _split(wanted)
        for start in range(len(symbols)):
            end = start + len(body)
            if "".join(symbol.text for symbol in symbols[start:end]) != body:
                continue
            run = "".join(s.text for s in itertools.takewhile(lambda s: combining(s.text), symbols[end:]))
            if body:
                if not any(symbol.pending for symbol in symbols[start:end]) and _can_begin_with(run, marks):
                    found.append(Found(min(symbol.raw for symbol in symbols[start:end]), number))
            elif run.startswith(marks) and (over or end + len(run) < len(symbols)):
                # Marks alone are looked for in a run that is decided.
                found.append(Found(min(symbol.raw for symbol in symbols[start : start + len(marks)]), number))
    return found


def _split(wanted: str) -> tuple[str, str]:
    """The phrase up to its last starter, and the marks after it."""
    end = len(wanted)
    while end and combining(wanted[end - 1]):
        end -= 1
    return wanted[:end], wanted[end:]


def _can_begin_with(run: str, marks: str) -> bool:
    """Some canonically equivalent order of the run begins with the marks."""
    return any(
        normalize("NFD", "x" + marks + "".join(rest)) == normalize("NFD", "x" + run)
        for rest in _remainders(run, len(run) - len(marks))
    )


def _remainders(run: str, length: int) -> list[tuple[str, ...]]:
    return list(itertools.combinations(run, length)) if length >= 0 else []


def held_from(text: str, phrases: list[str]) -> int:
    """The least start of a match that some continuation of the text makes; its length if there is none."""
    starts = [len(text)]
    for number, phrase in enumerate(phrases):
        for continuation in _continuations(string(phrase)):
            for over in (False, True):
                starts += [f.start for f in matches(text + continuation, phrases, over) if f.phrase == number]
    return min(starts)


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
    """shown: raw characters. stopped: after this many; None: never."""

    shown: int
    stopped: int | None


def outcome(text: str, phrases: list[str]) -> Outcome:
    for length in range(1, len(text) + 1):
        if found := matches(text[:length], phrases, over=False):
            # What another phrase could still match through is undecided, and stays so.
            return Outcome(min(*(f.start for f in found), held_from(text[:length], phrases)), length)
    if found := matches(text, phrases, over=True):
        return Outcome(min(f.start for f in found), len(text))
    return Outcome(len(text), None)

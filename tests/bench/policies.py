"""What rules cost: nanoseconds of CPU for a character that no rule matches, and milliseconds to load them.

No text is read twice: what rules have learnt of one is of use for the next only as far as texts are alike. All are made
of words as they are frequent in a language, and the phrases of every second of these words, so that a text goes
part of the way into many of them and never to an end. In packets as a model's tokens come, and in large ones as floods
make, which are read ahead in slices.
"""

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import accumulate

from dispatcher.core import guard
from dispatcher.policies.ahead import at_once
from dispatcher.policies.budget import Limit
from dispatcher.policies.presets import PRESETS
from dispatcher.policies.rules import BudgetPolicy, PatternsPolicy, PhrasesPolicy, Policy, RuleSet
from tests.bench.measures import Figures

CHARACTERS = 20_000  # of a text
TOKEN, LARGE = 5, 5000  # characters of a packet
REPEATS = 5
LEAST = 0.1  # seconds of CPU that one repeat takes at least

_SYLLABLES = [
    onset + nucleus + coda
    for onset in ("", "b", "c", "d", "f", "g", "l", "m", "n", "p", "pr", "r", "s", "st", "t", "th", "w")
    for nucleus in ("a", "e", "i", "o", "u", "ea", "ou")
    for coda in ("", "n", "r", "s", "t", "ng", "ck")
]


class Words:
    """A vocabulary of 10,000 words, drawn as Zipf's law has it. `accents`: some have one, and some are Chinese."""

    def __init__(self, accents: bool) -> None:
        chance = random.Random(5)
        self._words = ["".join(chance.choices(_SYLLABLES, k=1 + number % 3)) for number in range(10_000)]
        if accents:
            self._words[8::9] = [word + "é" for word in self._words[8::9]]
            self._words[4::25] = ["".join(chance.choices("的一是不了人我在有他这", k=3)) for _ in self._words[4::25]]

    def texts(self) -> Iterator[str]:
        """The same ones for whoever asks; none comes twice."""
        draw = _drawing(self._words, seed=6)
        while True:
            yield " ".join(draw(CHARACTERS // 4))[:CHARACTERS]

    def phrases(self, count: int) -> tuple[str, ...]:
        """Each ends with what no word has."""
        draw = _drawing(self._words[::2], seed=7)
        return tuple(f"{' '.join(draw(3))}q{number}" for number in range(count))


def _drawing(words: list[str], seed: int) -> Callable[[int], list[str]]:
    chance, weights = random.Random(seed), list(accumulate(1 / (rank + 2) for rank in range(len(words))))
    return lambda count: chance.choices(words, cum_weights=weights, k=count)


def _rules(words: Words) -> dict[str, Callable[[], list[Policy]]]:
    def phrases(count: int) -> Callable[[], list[Policy]]:
        chosen = words.phrases(count)
        return lambda: [PhrasesPolicy("phrases", chosen)]

    return {
        "10 phrases": phrases(10),
        "1,000 phrases": phrases(1000),
        "10,000 phrases": phrases(10_000),
        "presets": lambda: [PatternsPolicy("presets", presets=tuple(PRESETS))],
        "only a budget": lambda: [BudgetPolicy("limits", (Limit("max_seconds", 600, "limits", "Timeout"),))],
    }


def measured() -> dict[str, dict[str, list[Figures]]]:
    """Text and packets → rules → figures."""
    found: dict[str, dict[str, list[Figures]]] = {}
    for language, accents in (("text", False), ("text with accents and Chinese", True)):
        words = Words(accents)
        for name, policies in _rules(words).items():
            began = time.process_time()
            rules = RuleSet(policies())
            load_micros = (time.process_time() - began) * 1e6
            for size, packets in ((TOKEN, "tokens"), (LARGE, "large packets")):
                nanos = _nanos(rules, words.texts(), size)
                figures = {"policy_nanos": nanos, "policy_load_micros": load_micros}
                found.setdefault(f"rules: {language}, {packets}", {}).setdefault(name, []).append(figures)
    return found


def _nanos(rules: RuleSet, texts: Iterator[str], size: int) -> float:
    """A character's, the median over the repeats."""
    costs = []
    gc.collect()
    gc.disable()
    for _ in range(REPEATS):
        took, characters = 0.0, 0
        while took < LEAST:
            text = next(texts)
            packets = [text[start : start + size] for start in range(0, len(text), size)]
            began = time.process_time()
            gate = rules.gate(0.0)
            gate.resume(0)
            for packet in packets:
                if len(packet) > guard.LARGE:
                    at_once(gate.read_ahead("content", packet))
                release = gate.content(packet, 1.0)
                assert release.violation is None
            took += time.process_time() - began
            characters += len(text)
        costs.append(took / characters)
    gc.enable()
    return statistics.median(costs) * 1e9

"""What rules cost: nanoseconds of CPU for a character that no rule matches, and milliseconds to load them.

The text is made of words as they are frequent in a language, and the phrases of the same words, so that it goes part of
the way into many of them and never to an end. In packets as a model's tokens come, and in large ones as floods make.
"""

import gc
import random
import statistics
import time
from collections.abc import Callable
from itertools import accumulate

from dispatcher.policies.budget import Limit
from dispatcher.policies.presets import PRESETS
from dispatcher.policies.rules import BudgetPolicy, PatternsPolicy, PhrasesPolicy, Policy, RuleSet
from tests.bench.measures import Figures

CHARACTERS = 200_000
TOKEN, LARGE = 5, 5000  # characters of a packet
REPEATS = 5
LEAST = 0.05  # seconds of CPU that one repeat takes at least

_SYLLABLES = [
    onset + nucleus + coda
    for onset in ("", "b", "c", "d", "f", "g", "l", "m", "n", "p", "pr", "r", "s", "st", "t", "th", "w")
    for nucleus in ("a", "e", "i", "o", "u", "ea", "ou")
    for coda in ("", "n", "r", "s", "t", "ng", "ck")
]


class Words:
    """A vocabulary of 5,000 words, drawn as Zipf's law has it. `accents`: every tenth has one, and some are Chinese."""

    def __init__(self, accents: bool) -> None:
        self._chance = random.Random(5)
        self._words = ["".join(self._chance.choices(_SYLLABLES, k=1 + number % 3)) for number in range(5000)]
        if accents:
            self._words[9::10] = [word + "é" for word in self._words[9::10]]
            self._words[4::50] = [
                "".join(self._chance.choices("的一是不了人我在有他这", k=3)) for _ in self._words[4::50]
            ]
        self._weights = list(accumulate(1 / (rank + 2) for rank in range(5000)))

    def draw(self, count: int) -> list[str]:
        return self._chance.choices(self._words, cum_weights=self._weights, k=count)

    def text(self) -> str:
        return " ".join(self.draw(CHARACTERS // 4))[:CHARACTERS]

    def phrases(self, count: int) -> tuple[str, ...]:
        """Each ends with what no word has."""
        return tuple(f"{' '.join(self.draw(3))}q{number}" for number in range(count))


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
        text = words.text()
        for name, policies in _rules(words).items():
            began = time.process_time()
            rules = RuleSet(policies())
            load_micros = (time.process_time() - began) * 1e6
            for size, packets in ((TOKEN, "tokens"), (LARGE, "large packets")):
                nanos = _nanos(rules, [text[start : start + size] for start in range(0, len(text), size)])
                figures = {"policy_nanos": nanos, "policy_load_micros": load_micros}
                found.setdefault(f"rules: {language}, {packets}", {}).setdefault(name, []).append(figures)
    return found


def _nanos(rules: RuleSet, packets: list[str]) -> float:
    """A character's, the median over the repeats."""
    took = []
    gc.collect()
    gc.disable()
    for _ in range(REPEATS):
        characters = 0
        began = time.process_time()
        while time.process_time() - began < LEAST:
            gate = rules.gate(0.0)
            gate.resume(0)
            for packet in packets:
                release = gate.content(packet, 1.0)
                assert release.violation is None
            characters += sum(map(len, packets))
        took.append((time.process_time() - began) / characters)
    gc.enable()
    return statistics.median(took) * 1e9

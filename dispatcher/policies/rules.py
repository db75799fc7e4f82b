"""Policies as they are written, and the rule set that is compiled from them once for all sessions."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from dispatcher.policies.automaton import Automaton
from dispatcher.policies.budget import Budget, Limit, strictest
from dispatcher.policies.folding import fold
from dispatcher.policies.gate import Gate, Phrase, PhraseSet, Rules

Channel: TypeAlias = Literal["content", "thoughts", "arguments"]


class PhrasesPolicy(msgspec.Struct, frozen=True):
    name: str
    phrases: tuple[str, ...]
    reads: frozenset[Channel] = frozenset({"content", "arguments"})
    reason: str = "PolicyViolation"


class BudgetPolicy(msgspec.Struct, frozen=True):
    name: str
    limits: tuple[Limit, ...]


Policy: TypeAlias = PhrasesPolicy | BudgetPolicy


class RuleSet:
    """policies: as they were loaded."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.policies = tuple(policies)
        compiled: dict[tuple[PhrasesPolicy, ...], PhraseSet | None] = {(): None}

        def phrase_set(channel: Channel) -> PhraseSet | None:
            readers = tuple(p for p in self.policies if isinstance(p, PhrasesPolicy) and channel in p.reads)
            if readers not in compiled:
                compiled[readers] = _compile(readers)
            return compiled[readers]

        self._rules = Rules(
            budget=_budget(self.policies),
            content=phrase_set("content"),
            thoughts=phrase_set("thoughts"),
            arguments=phrase_set("arguments"),
        )

    def readers(self, channel: Channel) -> list[str]:
        """The names of the policies that read that channel's text."""
        return [
            policy.name for policy in self.policies if isinstance(policy, PhrasesPolicy) and channel in policy.reads
        ]

    def gate(self, started_at: float) -> Gate:
        """A new session's gate. started_at: Unix seconds, what time limits count from."""
        return Gate(self._rules, started_at)


def _compile(policies: Sequence[PhrasesPolicy]) -> PhraseSet:
    """One automaton for all, so that the cost of a character does not depend on how many policies there are."""
    phrases = [
        (fold(phrase), Phrase(policy.name, policy.reason, number))
        for policy in policies
        for number, phrase in enumerate(policy.phrases, 1)
    ]
    return PhraseSet(Automaton([folded for folded, _ in phrases]), tuple(phrase for _, phrase in phrases))


def _budget(policies: Sequence[Policy]) -> Budget:
    return strictest(limit for policy in policies if isinstance(policy, BudgetPolicy) for limit in policy.limits)

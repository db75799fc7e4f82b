"""Policies as they are written, and the rule set that is compiled from them once for all sessions."""

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias, get_args

import msgspec

from dispatcher.policies.automaton import Automaton
from dispatcher.policies.budget import Budget, Limit, strictest
from dispatcher.policies.folding import fold
from dispatcher.policies.gate import Gate, Reading, Rules, read_whole
from dispatcher.policies.matches import Action, Rule
from dispatcher.policies.phrases import PhraseSet
from dispatcher.policies.reader import ChannelRules, Source

Channel: TypeAlias = Literal["content", "thoughts", "arguments", "prompt", "results"]
CHANNELS: tuple[Channel, ...] = get_args(Channel)
DEFAULT_READS: frozenset[Channel] = frozenset({"content", "arguments"})


class PhrasesPolicy(msgspec.Struct, frozen=True):
    """words: only whole words count."""

    name: str
    phrases: tuple[str, ...]
    reads: frozenset[Channel] = DEFAULT_READS
    reason: str = "PolicyViolation"
    action: Action = "stop"
    replacement: str = "[redacted]"
    words: bool = False


class BudgetPolicy(msgspec.Struct, frozen=True):
    name: str
    limits: tuple[Limit, ...]


Policy: TypeAlias = PhrasesPolicy | BudgetPolicy


class RuleSet:
    """policies: as they were loaded."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.policies = tuple(policies)
        self._compiled: dict[tuple[tuple[str, Action], ...], tuple[Source, ...]] = {}
        self._channels = {channel: self._channel(channel) for channel in CHANNELS}
        self._rules = Rules(
            budget=_budget(self.policies),
            content=self._channels["content"],
            thoughts=self._channels["thoughts"],
            arguments=self._channels["arguments"],
            results=self._channels["results"],
        )

    def readers(self, channel: Channel) -> tuple[str, ...]:
        """The names of the policies that read that channel's text."""
        return self._channels[channel].policies

    def gate(self, started_at: float) -> Gate:
        """A new session's gate. started_at: Unix seconds, what time limits count from."""
        return Gate(self._rules, started_at)

    def prompt(self, texts: Iterable[str]) -> Reading:
        """What a user asks with, before anything is logged: a violation and a denial both refuse it."""
        return read_whole("prompt", self._channels["prompt"], texts)

    def _channel(self, channel: Channel) -> ChannelRules:
        readers = [policy for policy in self.policies if isinstance(policy, PhrasesPolicy) and channel in policy.reads]
        acting = [(policy, "observe" if _only_observes(policy, channel) else policy.action) for policy in readers]
        return ChannelRules(
            self._sources([(policy, action) for policy, action in acting if action != "observe"]),
            self._sources([(policy, action) for policy, action in acting if action == "observe"]),
            tuple(policy.name for policy in readers),
        )

    def _sources(self, acting: Sequence[tuple[PhrasesPolicy, Action]]) -> tuple[Source, ...]:
        """Compiled once for all channels that these policies read alike."""
        key = tuple((policy.name, action) for policy, action in acting)
        if key not in self._compiled:
            kinds = [[each for each in acting if each[0].words == words] for words in (False, True)]
            self._compiled[key] = tuple(_phrases(kind) for kind in kinds if kind)
        return self._compiled[key]


def _only_observes(policy: PhrasesPolicy, channel: Channel) -> bool:
    """Thoughts are never let out, so there is nothing to redact in them."""
    return channel == "thoughts" and policy.action == "redact"


def _phrases(acting: Sequence[tuple[PhrasesPolicy, Action]]) -> PhraseSet:
    """One automaton for all, so that the cost of a character does not depend on how many policies there are."""
    folded = [
        (fold(phrase), Rule(policy.name, action, f"phrase {number}", policy.reason, policy.replacement))
        for policy, action in acting
        for number, phrase in enumerate(policy.phrases, 1)
    ]
    automaton = Automaton([phrase for phrase, _ in folded], words=acting[0][0].words)
    return PhraseSet(automaton, tuple(rule for _, rule in folded))


def _budget(policies: Sequence[Policy]) -> Budget:
    return strictest(limit for policy in policies if isinstance(policy, BudgetPolicy) for limit in policy.limits)

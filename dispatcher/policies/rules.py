"""Policies as they are written, and the rule set that is compiled from them once for all sessions."""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeAlias

import msgspec

from dispatcher.policies.ahead import Slices, at_once
from dispatcher.policies.automaton import Automaton
from dispatcher.policies.budget import Budget, Limit, strictest
from dispatcher.policies.expressions import Program
from dispatcher.policies.folding import fold
from dispatcher.policies.gate import Gate, Rules, reading_whole
from dispatcher.policies.machine import MAX_AT_ONCE, Pattern
from dispatcher.policies.matches import CHANNELS, DEFAULT_READS, Action, Channel, Fallback, Rule
from dispatcher.policies.outcomes import Reading
from dispatcher.policies.patterns import PatternSet
from dispatcher.policies.phrases import PhraseSet
from dispatcher.policies.presets import PRESET_PLACES, PRESETS
from dispatcher.policies.questions import AskedPolicy
from dispatcher.policies.reader import ChannelRules, Source
from dispatcher.policies.repeats import Repeats
from dispatcher.policies.tool_rules import ToolRules, ToolsPolicy

Accents: TypeAlias = Literal["any", "exact"]


class PhrasesPolicy(msgspec.Struct, frozen=True):
    """words: only whole words count. accents: "any" that a phrase has not are looked through, or none ("exact")."""

    name: str
    phrases: tuple[str, ...]
    reads: frozenset[Channel] = DEFAULT_READS
    reason: str = "PolicyViolation"
    action: Action = "stop"
    replacement: str = "[redacted]"
    words: bool = False
    accents: Accents = "any"


class PatternsPolicy(msgspec.Struct, frozen=True):
    """cap: characters that a pattern may hold undecided. beyond_cap: what becomes of more. Presets have caps of their
    own, which nothing that they look for exceeds. places: at which a text may make the patterns stand at once, all
    together (`cost`); None: as many as they may.
    """

    name: str
    patterns: tuple[str, ...] = ()
    presets: tuple[str, ...] = ()
    cap: int = 1000
    beyond_cap: Fallback = "stop"
    reads: frozenset[Channel] = DEFAULT_READS
    reason: str = "PolicyViolation"
    action: Action = "stop"
    replacement: str = "[redacted]"
    places: int | None = None


class BudgetPolicy(msgspec.Struct, frozen=True):
    """repeats: of content, and of each thinking step."""

    name: str
    limits: tuple[Limit, ...] = ()
    repeats: Repeats | None = None


TextPolicy: TypeAlias = PhrasesPolicy | PatternsPolicy
Policy: TypeAlias = TextPolicy | BudgetPolicy | ToolsPolicy | AskedPolicy
Acting: TypeAlias = Sequence[tuple[TextPolicy, Action]]  # with what a policy does in some channel


class RuleSet:
    """policies: as they were loaded. notices: (policy, what its operator should know). rules: for a gate."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.policies = tuple(policies)
        self.notices = tuple(
            (policy.name, notice)
            for policy in policies
            if isinstance(policy, PatternsPolicy)
            for notice in _notices(policy)
        )
        self._compiled: dict[object, tuple[Source, ...]] = {}
        self._channels = {channel: self._channel(channel) for channel in CHANNELS}
        self.rules = Rules(
            budget=_budget(self.policies),
            content=self._channels["content"],
            thoughts=self._channels["thoughts"],
            arguments=self._channels["arguments"],
            tools=tuple(ToolRules(policy) for policy in policies if isinstance(policy, ToolsPolicy)),
            results=self._channels["results"],
            asked=tuple(policy for policy in policies if isinstance(policy, AskedPolicy)),
        )

    def readers(self, channel: Channel) -> tuple[str, ...]:
        """The names of the policies that read that channel's text."""
        return self._channels[channel].policies

    def gate(self, started_at: float) -> Gate:
        """A new session's gate. started_at: Unix seconds, what time limits count from."""
        return Gate(self.rules, started_at)

    def asked(self, channel: Channel) -> list[AskedPolicy]:
        """The policies that are to be asked about texts of that channel."""
        return [policy for policy in self.rules.asked if channel in policy.reads]

    def prompt(self, texts: Iterable[str]) -> Reading:
        """What a user asks with, before anything is logged: a violation and a denial both refuse it."""
        return at_once(self.in_slices("prompt", texts))

    def in_slices(self, channel: Channel, texts: Iterable[str]) -> Slices[Reading]:
        """What the rules say to whole texts of that channel, each for itself."""
        return reading_whole(channel, self._channels[channel], texts)

    def _channel(self, channel: Channel) -> ChannelRules:
        readers = [policy for policy in self.policies if isinstance(policy, TextPolicy) and channel in policy.reads]
        acting: Acting = [(policy, _action(policy, channel)) for policy in readers]
        holding = [each for each in acting if each[1] != "observe"]
        budgets = [policy for policy in self.policies if isinstance(policy, BudgetPolicy) and policy.repeats]
        loops = budgets if channel in ("content", "thoughts") else []
        tools = [policy for policy in self.policies if isinstance(policy, ToolsPolicy) and channel == "arguments"]
        return ChannelRules(
            self._sources(holding, capped=channel == "content") + tuple(each.repeats for each in loops if each.repeats),
            self._sources([each for each in acting if each not in holding], capped=False),
            tuple(policy.name for policy in (*readers, *loops, *tools)),
        )

    def _sources(self, acting: Acting, capped: bool) -> tuple[Source, ...]:
        """All of a kind together, so that the cost of a character does not depend on how many policies there are."""
        names = tuple((policy.name, action) for policy, action in acting)
        phrases = self._once(("phrases", names), lambda: _phrase_sets(acting))
        return phrases + self._once(("patterns", names, capped), lambda: _pattern_sets(acting, capped))

    def _once(self, key: object, compiled: Callable[[], tuple[Source, ...]]) -> tuple[Source, ...]:
        """Compiled once for all channels that these policies read alike."""
        if key not in self._compiled:
            self._compiled[key] = compiled()
        return self._compiled[key]


def _phrase_sets(acting: Acting) -> tuple[Source, ...]:
    sorts: dict[tuple[bool, Accents], list[tuple[str, Rule]]] = {}
    for policy, action in acting:
        if isinstance(policy, PhrasesPolicy):
            sorts.setdefault((policy.words, policy.accents), []).extend(_phrases(policy, action))
    return tuple(
        PhraseSet(Automaton([phrase for phrase, _ in phrases], words, accents == "exact"), tuple(r for _, r in phrases))
        for (words, accents), phrases in sorted(sorts.items())
    )


def _pattern_sets(acting: Acting, capped: bool) -> tuple[Source, ...]:
    patterns = [pattern for policy, action in acting for pattern in _patterns(policy, action, capped)]
    return (PatternSet(patterns, sum(_places(policy) for policy, _ in acting)),) if patterns else ()


def _action(policy: TextPolicy, channel: Channel) -> Action:
    """Thoughts are never let out, so there is nothing to redact in them."""
    return "observe" if channel == "thoughts" and policy.action == "redact" else policy.action


def _phrases(policy: PhrasesPolicy, action: Action) -> list[tuple[str, Rule]]:
    """Folded."""
    return [
        (fold(phrase), Rule(policy.name, action, f"phrase {number}", policy.reason, policy.replacement))
        for number, phrase in enumerate(policy.phrases, 1)
    ]


def _patterns(policy: TextPolicy, action: Action, capped: bool) -> list[Pattern]:
    """capped: what is undecided is held. What is read whole, or not let out, needs no cap."""
    if not isinstance(policy, PatternsPolicy):
        return []
    found = []
    for number, expression in enumerate(policy.patterns, 1):
        rule = Rule(policy.name, action, f"pattern {number}", policy.reason, policy.replacement)
        what = f"pattern {number}, undecided after {policy.cap} characters,"
        beyond = Rule(policy.name, "stop", what, policy.reason) if policy.beyond_cap == "stop" else None
        found.append(Pattern(expression, rule, policy.cap, beyond) if capped else Pattern(expression, rule))
    for preset in policy.presets:
        rule = Rule(policy.name, action, f"preset {preset}", policy.reason, policy.replacement)
        found += [
            Pattern(form.expression, rule, form.longest if capped else None, check=form.check)
            for form in PRESETS[preset]
        ]
    return found


def _places(policy: TextPolicy) -> int:
    if not isinstance(policy, PatternsPolicy):
        return 0
    own = len(policy.patterns) * MAX_AT_ONCE if policy.places is None else policy.places
    return own + sum(PRESET_PLACES[preset] for preset in policy.presets)


def _notices(policy: PatternsPolicy) -> list[str]:
    if policy.action == "observe" or "content" not in policy.reads:
        return []
    notices = []
    for number, expression in enumerate(policy.patterns, 1):
        program = Program()
        _, longest = program.lengths[program.add(expression)]
        if longest is None or longest > policy.cap:
            then = "stops the session" if policy.beyond_cap == "stop" else "is released"
            more = f"pattern {number} can match more than {policy.cap} characters (`cap`)"
            notices.append(f"{more}; what is undecided by then {then}")
    return notices


def _budget(policies: Sequence[Policy]) -> Budget:
    return strictest(limit for policy in policies if isinstance(policy, BudgetPolicy) for limit in policy.limits)

"""Which tools may be called, and with which arguments."""

from collections.abc import Sequence

import msgspec

from dispatcher.policies.arguments import Value, named, parsed, strings_of
from dispatcher.policies.machine import Machine, Pattern
from dispatcher.policies.matches import Action, Rule
from dispatcher.policies.patterns import PatternStream
from dispatcher.policies.visible import visible


class ToolSelector(msgspec.Struct, frozen=True):
    """argument: the keys that lead to it, with dots between; empty: all arguments. pattern: empty: any value."""

    tool: str
    argument: str = ""
    pattern: str = ""


class ToolsPolicy(msgspec.Struct, frozen=True):
    """allow: if there are any, a call has to fit one of them. deny: it may fit none of these."""

    name: str
    allow: tuple[ToolSelector, ...] = ()
    deny: tuple[ToolSelector, ...] = ()
    reason: str = "PolicyViolation"
    action: Action = "stop"


class ToolRules:
    """A policy, compiled."""

    def __init__(self, policy: ToolsPolicy) -> None:
        self._allow = [_Fitting(entry, whole=True) for entry in policy.allow]
        self._deny = [_Fitting(entry, whole=False) for entry in policy.deny]
        self._denied = [
            Rule(policy.name, policy.action, f"`deny` entry {number}", policy.reason)
            for number in range(1, len(self._deny) + 1)
        ]
        self._not_allowed = Rule(policy.name, policy.action, "no `allow` entry", policy.reason)

    def broken(self, tool_name: str, arguments: Value) -> Rule | None:
        """What a call breaks, if anything."""
        for entry, rule in zip(self._deny, self._denied, strict=True):
            if entry.fits(tool_name, arguments):
                return rule
        if self._allow and not any(entry.fits(tool_name, arguments) for entry in self._allow):
            return self._not_allowed
        return None


def broken(rules: Sequence[ToolRules], tool_name: str, arguments_json: str) -> list[Rule]:
    """What a call breaks of these."""
    if not rules:
        return []
    arguments = parsed(arguments_json)
    return [rule for each in rules if (rule := each.broken(tool_name, arguments))]


class _Fitting:
    """Whether a call fits an entry. whole: every value of the argument has to match, from its first character to its
    last, as it stands; else it is enough that some value contains a match, in any disguise.
    """

    def __init__(self, entry: ToolSelector, whole: bool) -> None:
        self._entry, self._whole = entry, whole
        self._path = entry.argument.split(".") if entry.argument else []
        rule = Rule("", "stop", "")
        self._machine = Machine([Pattern(entry.pattern, rule, whole=whole)]) if entry.pattern else None

    def fits(self, tool_name: str, arguments: Value) -> bool:
        if tool_name != self._entry.tool:
            return False
        values = named(arguments, self._path)
        if self._path and not isinstance(arguments, list):
            return not self._whole  # no object: whether the argument is there cannot be told
        if not self._machine:
            return bool(values)
        texts = [text for value in values for text in strings_of(value, keys=not self._path and not self._whole)]
        if self._whole:
            return bool(texts) and all(self._matches(text) and visible(text)[0] == text for text in texts)
        return any(self._matches(text) for text in texts)

    def _matches(self, text: str) -> bool:
        machine = self._machine
        if machine is None or not text:
            return machine is not None and machine.lengths[0][0] == 0
        stream = PatternStream(machine)
        return bool(stream.feed(text) or stream.end())

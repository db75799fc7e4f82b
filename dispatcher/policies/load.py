"""`[[policy]]` entries of the operators' files, checked and made into rules."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args

from dispatcher.files import FileError, entries, quoted
from dispatcher.policies.budget import Limit, Quantity
from dispatcher.policies.folding import fold
from dispatcher.policies.matches import Action
from dispatcher.policies.rules import CHANNELS, DEFAULT_READS, BudgetPolicy, Channel, PhrasesPolicy, Policy, RuleSet
from shared.records import STOP_REASONS

QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
ACTIONS: tuple[Action, ...] = get_args(Action)

# In the published format, but not carried out yet: refused, for a rule that does nothing would be believed in.
PLANNED = ("patterns", "tools", "plugin", "http")
LATER = "not supported by this version"

# Built in where no file is given (`promises.md`).
DEFAULT: tuple[Policy, ...] = (
    BudgetPolicy("default time limit", (Limit("max_seconds", 600, "default time limit", "Timeout"),)),
    BudgetPolicy(
        "default length limit", (Limit("max_characters", 200_000, "default length limit", "PolicyViolation"),)
    ),
)


def load(path: Path | None) -> RuleSet:
    """The rules of a TOML file, of all *.toml files in a folder, or, for None, the built-in ones. Raises FileError
    with all that is wrong.
    """
    if path is None:
        return RuleSet(DEFAULT)
    errors: list[str] = []
    found = [_Entry(where, entry, errors).policy() for where, entry in entries(path, "policy", errors)]
    if errors:
        raise FileError(errors)
    return RuleSet([policy for policy in found if policy])


class _Entry:
    """One [[policy]] while it is checked; what is wrong is added to `errors`."""

    def __init__(self, where: str, entry: dict[str, Any], errors: list[str]) -> None:
        self._entry = entry
        self._where = where
        self._errors = errors
        name = self._entry.get("name")
        self._name = name if isinstance(name, str) else ""

    def _wrong(self, reason: str) -> None:
        self._errors.append(f"{self._where}: {reason}")

    def policy(self) -> Policy | None:
        """None: something is wrong with it."""
        before = len(self._errors)
        if not self._name.strip():
            self._wrong("`name` has to be a text that is not empty")
        kinds: dict[str, Callable[[], Policy]] = {"phrases": self._phrases, "budget": self._budget}
        kind = self._entry.get("kind")
        make = kinds.get(kind) if isinstance(kind, str) else None
        if make is None:
            wrong = f"unknown kind {kind!r}" if "kind" in self._entry else "`kind` is missing"
            if kind in PLANNED:
                wrong = f"kind {kind!r} is {LATER}"
            self._wrong(f"{wrong}; kinds are {_listed(kinds)}")
            return None
        policy = make()
        return policy if len(self._errors) == before else None

    def _phrases(self) -> PhrasesPolicy:
        self._only("phrases", "reads", "words", "replacement")
        words = self._entry.get("words", False)
        self._check(isinstance(words, bool), "`words` has to be true or false")
        return PhrasesPolicy(
            self._name,
            self._phrase_list(),
            self._reads(),
            self._reason(),
            self._action(),
            self._replacement(),
            bool(words),
        )

    def _phrase_list(self) -> tuple[str, ...]:
        phrases = self._entry.get("phrases")
        if not isinstance(phrases, list) or not phrases:
            self._wrong("`phrases` has to be a list of texts that is not empty")
            return ()
        for number, phrase in enumerate(phrases, 1):
            if not isinstance(phrase, str):
                self._wrong(f"phrase {number} is not a text")
            elif not phrase:
                self._wrong(f"phrase {number} is empty")
            elif not fold(phrase):
                self._wrong(f"phrase {number} has only characters that are ignored")
        return tuple(phrase for phrase in phrases if isinstance(phrase, str))

    def _reads(self) -> frozenset[Channel]:
        reads = self._entry.get("reads", [*DEFAULT_READS])
        if not isinstance(reads, list) or not reads:
            self._wrong(f"`reads` has to be a list of some of {_listed(CHANNELS)}")
            return frozenset()
        for channel in reads:
            if channel not in CHANNELS:
                self._wrong(f"cannot read {channel!r}; `reads` takes {_listed(CHANNELS)}")
        return frozenset(channel for channel in CHANNELS if channel in reads)

    def _budget(self) -> BudgetPolicy:
        self._only(*QUANTITIES)
        self._check(self._action() == "stop", "a budget can only stop")
        reason = self._reason()
        limits = []
        for quantity in QUANTITIES:
            if quantity not in self._entry:
                continue
            value = self._entry[quantity]
            if quantity == "max_seconds":
                right = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
                self._check(right, f"`{quantity}` has to be a number above 0")
            else:
                right = isinstance(value, int) and not isinstance(value, bool) and value >= 0
                self._check(right, f"`{quantity}` has to be a whole number, 0 or more")
            if right:
                limits.append(Limit(quantity, value, self._name, reason))
        self._check(any(key in self._entry for key in QUANTITIES), f"a budget needs one of {_listed(QUANTITIES)}")
        return BudgetPolicy(self._name, tuple(limits))

    def _check(self, right: bool, reason: str) -> None:
        if not right:
            self._wrong(reason)

    def _only(self, *keys: str) -> None:
        for key in self._entry:
            if key not in ("name", "kind", "action", "reason", *keys):
                self._wrong(f"unknown key {quoted(key)} for kind {quoted(self._entry['kind'])}")

    def _action(self) -> Action:
        action = self._entry.get("action", "stop")
        found = next((known for known in ACTIONS if known == action), None)
        self._check(found is not None, f"unknown action {action!r}; actions are {_listed(ACTIONS)}")
        return found or "stop"

    def _replacement(self) -> str:
        replacement = self._entry.get("replacement", "[redacted]")
        # If nothing stood between them, what is left on both sides could make up what another rule forbids.
        seen = isinstance(replacement, str) and bool(fold(replacement).strip())
        self._check(seen, "`replacement` has to be a text that can be seen")
        redacts = self._entry.get("action") == "redact"
        self._check(redacts or "replacement" not in self._entry, '`replacement` is for action "redact"')
        return str(replacement)

    def _reason(self) -> str:
        reason = self._entry.get("reason", "PolicyViolation")
        self._check(reason in STOP_REASONS, f"unknown reason {reason!r}; reasons are {_listed(STOP_REASONS)}")
        return reason if isinstance(reason, str) else ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(quoted(name) for name in names)

"""Policy files: TOML, one file or a folder of them, checked whole, so that one run names every error."""

import json
import math
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args

from dispatcher.policies.budget import Limit, Quantity
from dispatcher.policies.folding import fold
from dispatcher.policies.rules import BudgetPolicy, Channel, PhrasesPolicy, Policy, RuleSet
from shared.wire import STOP_REASONS

__all__ = ["DEFAULT", "PolicyFileError", "RuleSet", "load"]

QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
CHANNELS: tuple[Channel, ...] = get_args(Channel)
ACTIONS = ("stop",)

# In the published format, but not carried out yet: refused, for a rule that does nothing would be believed in.
PLANNED = {
    "kind": ("patterns", "tools", "plugin", "http"),
    "action": ("redact", "observe"),
    "reads": ("prompt", "results"),
}
LATER = "not supported by this version"

# Built in where no file is given (`promises.md`).
DEFAULT: tuple[Policy, ...] = (
    BudgetPolicy("default time limit", (Limit("max_seconds", 600, "default time limit", "Timeout"),)),
    BudgetPolicy(
        "default length limit", (Limit("max_characters", 200_000, "default length limit", "PolicyViolation"),)
    ),
)


class PolicyFileError(ValueError):
    """errors: one line each, with the file, the entry and the reason."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


def load(path: Path | None) -> RuleSet:
    """The rules of a TOML file, of all *.toml files in a folder, or, for None, the built-in ones. Raises
    PolicyFileError with all that is wrong.
    """
    if path is None:
        return RuleSet(DEFAULT)
    errors: list[str] = []
    policies: list[Policy] = []
    names: dict[str, str] = {}
    for file in _files(path, errors):
        for number, entry in enumerate(_entries(file, errors), 1):
            where = f"{file}: policy {number}"
            if not isinstance(entry, dict):
                errors.append(f"{where}: is not a table")
                continue
            policy = _Entry(where, entry, errors).policy()
            name = entry.get("name")
            if isinstance(name, str) and name:
                if name in names:
                    errors.append(f"{where} {_quoted(name)}: its name is taken by {names[name]}")
                names.setdefault(name, where)
            if policy:
                policies.append(policy)
    if errors:
        raise PolicyFileError(errors)
    return RuleSet(policies)


def _files(path: Path, errors: list[str]) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.toml"))
    if not files:
        errors.append(f"{path}: no *.toml file in this folder")
    return files


def _entries(file: Path, errors: list[str]) -> list[Any]:
    try:
        document = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        errors.append(f"{file}: {error.strerror}")
    except UnicodeDecodeError:
        errors.append(f"{file}: not UTF-8")
    except tomllib.TOMLDecodeError as error:
        errors.append(f"{file}: {error}")
    else:
        # Tools may stand in the same file; their loader reads them.
        errors += [f"{file}: unknown key {_quoted(key)}" for key in document if key not in ("policy", "tool")]
        entries = document.get("policy", [])
        if isinstance(entries, list):
            return entries
        errors.append(f"{file}: policies are written as [[policy]]")
    return []


class _Entry:
    """One [[policy]] while it is checked; what is wrong is added to `errors`."""

    def __init__(self, where: str, entry: dict[str, Any], errors: list[str]) -> None:
        self._entry = entry
        self._where = where
        self._errors = errors
        name = self._entry.get("name")
        self._name = name if isinstance(name, str) else ""
        if self._name:
            self._where = f"{where} {_quoted(self._name)}"

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
            wrong = _unknown("kind", kind) if "kind" in self._entry else "`kind` is missing"
            self._wrong(f"{wrong}; kinds are {_listed(kinds)}")
            return None
        policy = make()
        return policy if len(self._errors) == before else None

    def _phrases(self) -> PhrasesPolicy:
        self._only("phrases", "reads")
        return PhrasesPolicy(self._name, self._phrase_list(), self._reads(), self._reason())

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
        reads = self._entry.get("reads", ["content", "arguments"])
        if not isinstance(reads, list) or not reads:
            self._wrong(f"`reads` has to be a list of some of {_listed(CHANNELS)}")
            return frozenset()
        for channel in reads:
            if channel not in CHANNELS:
                wrong = f"reading {channel!r} is {LATER}" if channel in PLANNED["reads"] else f"cannot read {channel!r}"
                self._wrong(f"{wrong}; `reads` takes {_listed(CHANNELS)}")
        return frozenset(channel for channel in CHANNELS if channel in reads)

    def _budget(self) -> BudgetPolicy:
        self._only(*QUANTITIES)
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
                self._wrong(f"unknown key {_quoted(key)} for kind {_quoted(self._entry['kind'])}")
        action = self._entry.get("action", "stop")
        self._check(action in ACTIONS, f"{_unknown('action', action)}; actions are {_listed(ACTIONS)}")

    def _reason(self) -> str:
        reason = self._entry.get("reason", "PolicyViolation")
        self._check(reason in STOP_REASONS, f"unknown reason {reason!r}; reasons are {_listed(STOP_REASONS)}")
        return reason if isinstance(reason, str) else ""


def _unknown(key: str, value: object) -> str:
    return f"{key} {value!r} is {LATER}" if value in PLANNED[key] else f"unknown {key} {value!r}"


def _quoted(text: str) -> str:
    """As in TOML, on one line."""
    return json.dumps(text, ensure_ascii=False)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(_quoted(name) for name in names)

"""`[[policy]]` entries of the operators' files, checked and made into rules."""

import contextlib
import gc
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args
from unicodedata import combining
from urllib.parse import urlsplit

from msgspec.structs import replace

from dispatcher.files.document import Fault, FileError, Where, entries, quoted
from dispatcher.files.entry import FileEntry, listed
from dispatcher.policies.budget import Limit, Quantity
from dispatcher.policies.cost import places_at_once
from dispatcher.policies.expressions import Program, UnusableExpressionError
from dispatcher.policies.folding import fold
from dispatcher.policies.machine import MAX_AT_ONCE
from dispatcher.policies.matches import ACTIONS, CHANNELS, DEFAULT_READS, Action, Channel, Fallback, Rule
from dispatcher.policies.presets import PRESETS
from dispatcher.policies.questions import MAX_QUESTION, AskedKind, AskedPolicy, Mode
from dispatcher.policies.repeats import MAX_BLOCK, Repeats
from dispatcher.policies.rules import (
    Accents,
    BudgetPolicy,
    PatternsPolicy,
    PhrasesPolicy,
    Policy,
    RuleSet,
)
from dispatcher.policies.tool_rules import ToolSelector, ToolsPolicy
from dispatcher.policing.guardrail import PATH as GUARDRAIL_PATH
from dispatcher.policing.plugins import plugin
from shared.errors import ConfigError
from shared.records import STOP_REASONS

QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
EVERYWHERE = ("name", "kind", "action", "reason")
MAX_CAP = 100_000  # characters
MAX_REPEATS = 100  # with the longest block, 200 KB of text that a session has to keep
ASKED = ("mode", "timeout_seconds", "on_failure", "overlap", "reads", "replacement")

# Built in where no file is given.
DEFAULT: tuple[Policy, ...] = (
    BudgetPolicy("default time limit", (Limit("max_seconds", 600, "default time limit", "Timeout"),)),
    BudgetPolicy(
        "default length limit", (Limit("max_characters", 200_000, "default length limit", "PolicyViolation"),)
    ),
    BudgetPolicy(  # some 250,000 tokens, beyond what models think for one answer
        "default thoughts limit",
        (Limit("max_thought_characters", 1_000_000, "default thoughts limit", "PolicyViolation"),),
    ),
)


def load(path: Path | None) -> RuleSet:
    """The rules of a TOML file, of all *.toml files in a folder, or, for None, the built-in ones. Raises FileError
    with all that is wrong.
    """
    if path is None:
        return RuleSet(DEFAULT)
    faults: list[Fault] = []
    found = [_policy(where, table, faults) for where, table in entries(path, faults, "policy")]
    if faults:
        raise FileError(faults)
    with _no_collection():
        return RuleSet([policy for policy in found if policy])


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Phrases are as many rules, none of them garbage: looking for some takes as long again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _policy(where: Where, table: dict[str, Any], faults: list[Fault]) -> Policy | None:
    """None: something is wrong with it."""
    entry = FileEntry(where, table, faults)
    entry.text("name")
    kind = table.get("kind")
    make = KINDS.get(kind) if isinstance(kind, str) else None
    if make is None:
        wrong = f"unknown kind {kind!r}" if "kind" in entry else "`kind` is missing"
        entry.wrong(f"{wrong}; kinds are {listed(KINDS)}", "kind")
        return None
    policy = make(entry)
    return policy if entry.faultless else None


def _phrases(entry: FileEntry) -> Policy:
    _only(entry, "phrases", "phrases", "words", "accents", "reads", "replacement")
    phrases = entry.texts("phrases", "phrase")
    for number, phrase in enumerate(phrases, 1):
        if phrase and not (folded := fold(phrase)):
            entry.wrong(f"phrase {number} has only characters that are ignored", "phrases", number)
        elif phrase and combining(folded[0]):
            entry.wrong(
                f"phrase {number} begins with a combining mark, which has to stand on a character", "phrases", number
            )
    return PhrasesPolicy(
        entry.get("name"),
        tuple(phrases),
        _reads(entry),
        _reason(entry),
        _action(entry),
        _replacement(entry),
        entry.flag("words"),
        entry.choice("accents", get_args(Accents), "any"),
    )


def _patterns(entry: FileEntry) -> Policy:
    _only(entry, "patterns", "patterns", "presets", "cap", "beyond_cap", "reads", "replacement")
    cap = entry.count("cap", 1000, least=1, most=MAX_CAP)
    action = _action(entry)
    patterns = entry.texts("patterns", "pattern") if "patterns" in entry or "presets" not in entry else []
    places = 0
    for number, pattern in enumerate(patterns, 1):
        if pattern:
            try:
                program = Program()
                shortest, _ = program.lengths[program.add(pattern)]
            except UnusableExpressionError as error:
                entry.wrong(f"pattern {number} {error}", "patterns", number)
            else:
                reason = f"pattern {number} matches {shortest} characters or more, beyond `cap`"
                entry.check(shortest <= cap, reason, "patterns", number)
                at_once = places_at_once(pattern, action)
                places += at_once
                cost = _cost(at_once)
                entry.check(not cost, f"pattern {number} {cost}", "patterns", number)
    presets = entry.texts("presets", "preset") if "presets" in entry else []
    for number, preset in enumerate(presets, 1):
        known = f"presets are {listed(PRESETS)}"
        entry.check(preset in ("", *PRESETS), f"unknown preset {preset!r}; {known}", "presets", number)
    return PatternsPolicy(
        entry.get("name"),
        tuple(patterns),
        tuple(presets),
        cap,
        entry.choice("beyond_cap", get_args(Fallback), "stop"),
        _reads(entry),
        _reason(entry),
        action,
        _replacement(entry),
        places,
    )


def _cost(places: int) -> str:
    """What is wrong with a pattern's cost; empty if nothing is."""
    if places <= MAX_AT_ONCE:
        return ""
    return f"costs too much: a text can make it stand at {places} places at once, beyond {MAX_AT_ONCE}"


def _tools(entry: FileEntry) -> Policy:
    _only(entry, "tools", "allow", "deny")
    entry.check("allow" in entry or "deny" in entry, "a policy of tools needs `allow` or `deny`")
    allow, deny = (_tool_entries(entry, key) for key in ("allow", "deny"))
    return ToolsPolicy(entry.get("name"), allow, deny, _reason(entry), _action(entry))


def _tool_entries(entry: FileEntry, key: str) -> tuple[ToolSelector, ...]:
    listed_ = entry.get(key) if key in entry else []
    if not isinstance(listed_, list) or (key in entry and not listed_):
        entry.wrong(f"`{key}` has to be a list of tools that is not empty", key)
        return ()
    found = []
    for number, each in enumerate(listed_, 1):
        table = {"tool": each} if isinstance(each, str) else each
        right = isinstance(table, dict) and all(isinstance(value, str) and value for value in table.values())
        if not right or "tool" not in table or not set(table) <= {"tool", "argument", "pattern"}:
            reason = f"`{key}` entry {number} has to be a tool's name, or {{tool, argument?, pattern?}}, all texts"
            entry.wrong(reason, key, number)
            continue
        try:
            if pattern := table.get("pattern"):
                whole = key == "allow"
                Program().add(pattern, whole)
                cost = _cost(places_at_once(pattern, "stop", whole))
                entry.check(not cost, f"`{key}` entry {number}: the pattern {cost}", key, number)
        except UnusableExpressionError as error:
            entry.wrong(f"`{key}` entry {number}: the pattern {error}", key, number)
        found.append(ToolSelector(**table))
    return tuple(found)


def _plugin(entry: FileEntry) -> Policy:
    _only(entry, "plugin", "use", *ASKED)
    use = entry.text("use")
    try:
        if use:
            plugin(use)
    except ConfigError as error:
        entry.wrong(f"`use`: {error}", "use")
    return _asked(entry, "plugin", use)


def _http(entry: FileEntry) -> Policy:
    _only(entry, "http", "url", "headers", "parameters", *ASKED)
    url = entry.text("url")
    parts = urlsplit(url)
    reachable = parts.scheme in ("http", "https") and bool(parts.hostname)
    entry.check(not url or reachable, "`url` has to be http(s)://…", "url")
    if not url.endswith(GUARDRAIL_PATH):
        url = url.rstrip("/") + GUARDRAIL_PATH
    headers = []
    for name, written in entry.table("headers").items():
        variable = written[1:] if isinstance(written, str) and written.startswith("$") else ""
        value = os.environ.get(variable) if variable else written
        right = isinstance(value, str) and re.fullmatch(r"[\w-]+", name, re.ASCII) and re.fullmatch(r"[!-~ ]*", value)
        unset = f": the variable {variable} is not set" if variable and value is None else ""
        entry.check(bool(right), f"header {quoted(name)} cannot be sent{unset}", "headers")
        headers.append((name, str(value)))
    parameters = json.dumps(entry.table("parameters"), default=str)
    return replace(_asked(entry, "http", url), headers=tuple(headers), parameters_json=parameters)


def _asked(entry: FileEntry, kind: AskedKind, target: str) -> AskedPolicy:
    mode: Mode = entry.choice("mode", get_args(Mode), "gate")
    action = _action(entry)
    entry.check(
        not (mode == "observer" and action == "redact"), "an observer cannot redact: its text has gone on", "action"
    )
    return AskedPolicy(
        entry.get("name"),
        kind,
        target,
        mode,
        entry.seconds("timeout_seconds", 2.0),
        entry.choice("on_failure", get_args(Fallback), "stop"),
        entry.count("overlap", 0, most=MAX_QUESTION // 2),
        _reads(entry),
        _reason(entry),
        action,
        _replacement(entry),
    )


def _budget(entry: FileEntry) -> Policy:
    _only(entry, "budget", *QUANTITIES, "max_repeats", "repeat_length")
    entry.check(_action(entry) == "stop", "a budget can only stop", "action")
    reason = _reason(entry)
    limits = []
    for quantity in QUANTITIES:
        if quantity in entry:
            value = entry.seconds(quantity, 1) if quantity == "max_seconds" else entry.count(quantity, 0)
            limits.append(Limit(quantity, value, entry.get("name"), reason))
    repeats = None
    if "max_repeats" in entry:
        most = entry.count("max_repeats", 1, least=1, most=MAX_REPEATS)
        rule = Rule(entry.get("name"), "stop", f"max_repeats = {most} exceeded", reason)
        repeats = Repeats(most, entry.count("repeat_length", 20, least=1, most=MAX_BLOCK), rule)
    entry.check(
        "repeat_length" not in entry or repeats is not None, "`repeat_length` is for `max_repeats`", "repeat_length"
    )
    entry.check(bool(limits or repeats), f"a budget needs one of {listed([*QUANTITIES, 'max_repeats'])}")
    return BudgetPolicy(entry.get("name"), tuple(limits), repeats)


KINDS: dict[str, Callable[[FileEntry], Policy]] = {
    "phrases": _phrases,
    "patterns": _patterns,
    "budget": _budget,
    "tools": _tools,
    "plugin": _plugin,
    "http": _http,
}

# ---- what policies of several kinds have


def _only(entry: FileEntry, kind: str, *keys: str) -> None:
    entry.only((*EVERYWHERE, *keys), f'kind "{kind}"')


def _action(entry: FileEntry) -> Action:
    return entry.choice("action", ACTIONS, "stop")


def _reason(entry: FileEntry) -> str:
    return entry.choice("reason", STOP_REASONS, "PolicyViolation")


def _replacement(entry: FileEntry) -> str:
    redacts = entry.get("action") == "redact"
    entry.check(redacts or "replacement" not in entry, '`replacement` is for action "redact"', "replacement")
    if "replacement" not in entry:
        return "[redacted]"
    # If nothing stood between them, what is left on both sides could make up what another rule forbids.
    replacement = entry.text("replacement")
    seen = not replacement or bool(fold(replacement).strip())
    entry.check(seen, "`replacement` has to be a text that can be seen", "replacement")
    return replacement


def _reads(entry: FileEntry) -> frozenset[Channel]:
    reads = entry.get("reads") if "reads" in entry else [*DEFAULT_READS]
    if not isinstance(reads, list) or not reads:
        entry.wrong(f"`reads` has to be a list of some of {listed(CHANNELS)}", "reads")
        return frozenset()
    for number, channel in enumerate(reads, 1):
        reason = f"cannot read {channel!r}; `reads` takes {listed(CHANNELS)}"
        entry.check(channel in CHANNELS, reason, "reads", number)
    return frozenset(channel for channel in CHANNELS if channel in reads)

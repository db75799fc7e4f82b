"""`dispatcher policy check FILE`: everything that is wrong with the operators' rules, each with its line."""

import re
from collections.abc import Sequence
from pathlib import Path

from dispatcher.files import FileError, quoted
from dispatcher.policies.matches import CHANNELS, Channel
from dispatcher.policies.rules import RuleSet
from dispatcher.policing.load import load
from dispatcher.policy_tools.lines import places

# How the loaders begin what they say of an entry, and how they name what is wrong in it.
_ENTRY = re.compile(r"(?P<file>.*?): (?P<kind>policy|tool|case) (?P<number>\d+)\b(?P<rest>.*)", re.DOTALL)
_ITEM = re.compile(r"\b(phrase|pattern|preset) (\d+)\b|`(allow|deny)` entry (\d+)\b")
_KEY = re.compile(r'`(\w+)`|unknown key "(\w+)"|(?:unknown|its) (kind|action|reason|name)\b')


def check(path: Path) -> RuleSet:
    """The rules. Raises FileError: its errors begin with `FILE:LINE: `."""
    try:
        return load(path)
    except FileError as error:
        raise located(error) from None


def located(error: FileError) -> FileError:
    """The same, each error with its line where it is of an entry."""
    return FileError([with_line(text) for text in error.errors])


def with_line(text: str) -> str:
    """What is said of an entry, `FILE: KIND N …`, as `FILE:LINE: KIND N …`."""
    found = _ENTRY.fullmatch(text)
    line = found and _line(Path(found["file"]), found["kind"], int(found["number"]), found["rest"])
    return f"{found['file']}:{line}:{text.removeprefix(found['file'] + ':')}" if found and line else text


def _line(file: Path, kind: str, number: int, reason: str) -> int | None:
    """Of what the reason names: an item of a list, a key; else of the entry's heading."""
    try:
        place = places(file.read_text("utf-8"), kind)[number - 1]
    except (OSError, UnicodeDecodeError, IndexError):  # changed meanwhile, or written in another way
        return None
    if item := _ITEM.search(reason):
        key, number = (f"{item[1]}s", int(item[2])) if item[1] else (item[3], int(item[4]))
        lines = place.items.get(key, [])
        if number <= len(lines):
            return lines[number - 1]
    named = _KEY.search(reason)
    return place.keys.get(named[named.lastindex or 0], place.line) if named else place.line


def summary(path: Path, rules: RuleSet) -> str:
    """What the rules are, and what reads what."""
    names = [policy.name for policy in rules.policies]
    rows = [(channel, (*rules.readers(channel), *_asked(rules, channel))) for channel in CHANNELS]
    lines = [f"{path}: right; {_count(len(names), 'policy', 'policies')}: {_listed(names)}"]
    lines += [f"  {channel:10} read by {_listed(readers)}" for channel, readers in rows if readers]
    lines += [f"  note: {quoted(policy)}: {notice}" for policy, notice in rules.notices]
    return "\n".join(lines)


def _asked(rules: RuleSet, channel: Channel) -> list[str]:
    return [policy.name for policy in rules.asked(channel)]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(quoted, names)) or "none"


def _count(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"

"""`dispatcher policy check FILE`: everything that is wrong with the operators' rules, each with its line."""

from collections.abc import Sequence
from pathlib import Path

from dispatcher.files.document import Fault, quoted
from dispatcher.policies.matches import CHANNELS, Channel
from dispatcher.policies.rules import RuleSet
from dispatcher.policy_tools.lines import places


def located(fault: Fault) -> str:
    """`FILE:LINE: KIND N: reason`; without the line where it is of no entry, or the file cannot be read any more."""
    line = _line(fault) if fault.where.number else None
    text = str(fault)
    return f"{fault.where.file}:{line}:{text.removeprefix(f'{fault.where.file}:')}" if line else text


def _line(fault: Fault) -> int | None:
    """Of the item, else of the key, else of the entry's heading."""
    where = fault.where
    try:
        place = places(where.file.read_text("utf-8"), where.kind)[where.number - 1]
    except (OSError, UnicodeDecodeError, IndexError):  # changed meanwhile, or written in another way
        return None
    items = place.items.get(fault.key, [])
    if 0 < fault.item <= len(items):
        return items[fault.item - 1]
    return place.keys.get(fault.key, place.line)


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

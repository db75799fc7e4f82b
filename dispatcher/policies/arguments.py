"""What stands in a tool call's arguments, as a rule has to see it: decoded, so that `\\u004e` is an N."""

import json
from collections.abc import Sequence
from typing import TypeAlias

# Objects as the pairs that they were written as, so that a key that comes twice hides nothing; numbers as written.
Value: TypeAlias = "str | bool | list[Value] | Pairs | None"


class Pairs(list[tuple[str, Value]]):
    """An object."""


def parsed(arguments_json: str) -> Value:
    """What is not strictly JSON, or nested too deeply to be parsed, is one string as it stands; no tool runs on it."""
    try:
        value: Value = json.loads(
            arguments_json, parse_int=str, parse_float=str, parse_constant=_refuse, object_pairs_hook=Pairs
        )
    except (ValueError, RecursionError):
        return arguments_json
    return value


def strings(arguments_json: str) -> list[str]:
    """Keys and values, nested ones too."""
    return strings_of(parsed(arguments_json))


def strings_of(value: Value, keys: bool = True) -> list[str]:
    """All strings in it, in their order; keys: also those."""
    found: list[str] = []
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str() as text:
                found.append(text)
            case Pairs() as pairs:
                for key, inner in reversed(pairs):
                    waiting += [inner, key] if keys else [inner]
            case list() as values:
                waiting += reversed(values)
    return found


def named(value: Value, path: Sequence[str]) -> list[Value]:
    """All that stands under these keys, each within the one before; in a list, of each of its elements."""
    found = [value]
    for name in path:
        inner: list[Value] = []
        while found:
            match found.pop(0):
                case Pairs() as pairs:
                    inner += [held for key, held in pairs if key == name]
                case list() as values:
                    found = [*values, *found]
        found = inner
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")

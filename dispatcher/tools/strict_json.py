"""JSON as the standard has it, with bounds: for what a model wrote, and for what a tool answers.

`json.loads` takes NaN and duplicate keys, and depth raises RecursionError.
"""

import json
import math
import re
import time
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

from pydantic_core import to_jsonable_python

from dispatcher.tools.errors import ResultTooLargeError
from shared.wire import well_formed

MAX_DEPTH = 64  # of a text that is read
MAX_LEVELS = 1000  # of a value that is written: neither pydantic nor json goes deeper
TURN_VALUES = 512  # measured until other threads get a turn
MAX_NUMBER_LENGTH = 400  # characters: more than any float has, and far below where int() becomes slow
MAX_QUOTED = 100  # characters of the text that a message repeats

# A string, complete or not, or a bracket. Possessive, so that an unfinished string cannot cost quadratic time.
_STRINGS_AND_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[][{}]', re.DOTALL)
_STRINGS_AND_CONSTANTS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|-?Infinity|NaN', re.DOTALL)

_END = object()
_SURROGATE = "a string holds half of a surrogate pair (\\ud800 to \\udfff)"


class StrictJSONError(ValueError):
    """What is wrong, and where."""


def parse(text: str, max_bytes: int) -> Any:
    """The value. Raises StrictJSONError.

    max_bytes  of the text in UTF-8
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise StrictJSONError(_SURROGATE) from None
    if size > max_bytes:
        raise StrictJSONError(f"{size} bytes, more than {max_bytes}")
    _check_depth(text)
    try:
        value = _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise StrictJSONError(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except _ConstantError as error:
        match = next(m for m in _STRINGS_AND_CONSTANTS.finditer(text) if m[0] == str(error))
        raise StrictJSONError(f"{error} is no JSON number, at {_place(text, match.start())}") from None
    if "\\u" in text:
        _check_surrogates(value)
    return value


def encode(value: object, max_bytes: int) -> str:
    """The value as JSON; dataclasses, pydantic models, dates and the like too. Raises ValueError for what JSON cannot
    say: NaN, infinities, cycles, depth, unknown types; ResultTooLargeError for what surely has more than max_bytes in
    UTF-8.

    It is measured before it is converted, and before it is written, so that a large value costs what a small one does;
    what models and iterators make of themselves is measured only then.
    """
    _measure(value, max_bytes)
    try:
        plain = to_jsonable_python(value)
        _measure(plain, max_bytes)
        text = json.dumps(plain, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return well_formed(text)


class _ConstantError(ValueError):
    """NaN, Infinity or -Infinity."""


def _measure(value: object, max_bytes: int) -> None:
    """Raise ResultTooLargeError if what is written of it is surely larger: a character for each value, and strings."""
    room = max_bytes
    levels: list[Iterator[object]] = [iter((value,))]
    while levels:
        each = next(levels[-1], _END)
        if each is _END:
            levels.pop()
            continue
        room -= 1
        if room % TURN_VALUES == 0:
            time.sleep(0)  # gives up the interpreter's lock: several of these would keep the event loop from its turn
        match each:
            case str() | bytes():
                room -= len(each)
            case dict():
                levels.append(chain.from_iterable(each.items()))
            case list() | tuple() | set() | frozenset():
                levels.append(iter(each))
        if room < 0:
            raise ResultTooLargeError
        if len(levels) > MAX_LEVELS:
            raise ValueError("nested too deeply")


def _check_depth(text: str) -> None:
    # Up to the first error a parser sees the same strings and brackets, so it never gets deeper than what is counted.
    depth = 0
    for match in _STRINGS_AND_BRACKETS.finditer(text):
        if match[0] in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise StrictJSONError(f"nested deeper than {MAX_DEPTH}, at {_place(text, match.start())}")
        elif match[0] in "]}":
            depth -= 1


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise StrictJSONError(_SURROGATE) from None


def _place(text: str, position: int) -> str:
    line = text.count("\n", 0, position) + 1
    return f"line {line}, column {position - text.rfind(chr(10), 0, position)}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise StrictJSONError(f"the key {json.dumps(twice[:MAX_QUOTED])} stands twice in one object")
    return found


def _integer(digits: str) -> int:
    _check_length(digits)
    return int(digits)


def _float(digits: str) -> float:
    _check_length(digits)
    number = float(digits)
    if not math.isfinite(number):
        raise StrictJSONError(f"the number {digits[:MAX_QUOTED]} is too large")
    return number


def _check_length(digits: str) -> None:
    if len(digits) > MAX_NUMBER_LENGTH:
        raise StrictJSONError(f"the number {digits[:20]}… has more than {MAX_NUMBER_LENGTH} digits")


def _constant(name: str) -> None:
    raise _ConstantError(name)


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant)

import dataclasses
import datetime
import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.tools.errors import ResultTooLargeError
from dispatcher.tools.strict_json import StrictJSONError, encode, parse

LIMIT = 64 * 1024

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
json_like = st.text(st.sampled_from('[]{}",:\\ud8001eE+-.NaIfinty \n\U0001f600é'), max_size=60)


@given(values, st.booleans())
def test_what_json_writes_is_read_back(value: Any, ascii_only: bool) -> None:
    assert parse(json.dumps(value, ensure_ascii=ascii_only), LIMIT) == value
    assert parse(encode(value, LIMIT), LIMIT) == value


@given(json_like | st.text())
@example('["\\ud83d\\ude00"]')
@example("[" * 65 + "]" * 65)
def test_any_text_is_read_as_json_reads_it_or_refused(text: str) -> None:
    try:
        value = parse(text, LIMIT)
    except StrictJSONError:
        return
    assert json.loads(text) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value at line 1, column 1"),
        ('{"a": 1,\n  b}', "Expecting property name enclosed in double quotes at line 2, column 3"),
        ('{"a": "NaN",\n "b": NaN}', "NaN is no JSON number, at line 2, column 7"),
        ("[-Infinity]", "-Infinity is no JSON number, at line 1, column 2"),
        ("[1e999]", "the number 1e999 is too large"),
        ("9" * 401, "the number 99999999999999999999… has more than 400 digits"),
        ('{"a": {"b": 1, "c": 2, "b": 3}}', 'the key "b" stands twice in one object'),
        ("[" * 65, "nested deeper than 64, at line 1, column 65"),
        ('{"a":' * 65, "nested deeper than 64, at line 1, column 321"),
        ('"\\ud800"', "a string holds half of a surrogate pair (\\ud800 to \\udfff)"),
        ('"\ud800"', "a string holds half of a surrogate pair (\\ud800 to \\udfff)"),
        ('"' + "é" * 32768 + '"', "65538 bytes, more than 65536"),
        ("1 2", "Extra data at line 1, column 3"),
    ],
)
def test_reasons_say_what_and_where(text: str, reason: str) -> None:
    with pytest.raises(StrictJSONError) as raised:
        parse(text, LIMIT)
    assert str(raised.value) == reason


def test_the_limits_themselves_are_allowed() -> None:
    assert parse("[" * 64 + "]" * 64, LIMIT)
    assert parse('"[[' + "[" * 100 + '\\"{"', LIMIT)
    assert parse('"' + "x" * (LIMIT - 2) + '"', LIMIT)


@pytest.mark.parametrize(
    "text",
    [
        '"' + '\\"' * 32000,  # a string that never ends
        "{" + ",".join(f'"{n}":0' for n in range(7000)) + ',"6999":0}',
        "[" + "1," * 32000 + "]",
        '"\\' * 16000,
    ],
)
def test_no_text_within_the_limit_takes_long(text: str) -> None:
    started = time.process_time()
    with pytest.raises(StrictJSONError):
        parse(text, LIMIT)
    assert time.process_time() - started < 0.5


def test_results_that_are_more_than_plain_values() -> None:
    @dataclasses.dataclass
    class Point:
        x: int
        day: datetime.date

    assert encode([Point(1, datetime.date(2026, 1, 2)), (2, "é")], LIMIT) == '[{"x":1,"day":"2026-01-02"},[2,"é"]]'
    assert encode("\ud800", LIMIT) == '"\ufffd"'


def test_results_that_json_cannot_say() -> None:
    cycle: list[object] = []
    cycle.append(cycle)
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (float("nan"), [float("-inf")], cycle, deep, object(), {"a": print}):
        with pytest.raises(ValueError, match=r"."):
            encode(value, LIMIT)


def bomb() -> list[object]:
    """2 to the power of 60 values, in 60 lists."""
    value: list[object] = [0]
    for _ in range(60):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    "make",
    [
        lambda: "x" * 50_000_000,
        lambda: b"x" * 50_000_000,
        lambda: {"x" * 50_000_000: 1},
        lambda: [0] * 5_000_000,
        lambda: dict.fromkeys(range(1_000_000)),
        lambda: {"a": [("x" * 1000,)] * 1_000_000},
        bomb,
    ],
    ids=["text", "bytes", "key", "list", "dict", "nested", "bomb"],
)
def test_what_is_too_large_is_neither_converted_nor_written(make: Callable[[], object]) -> None:
    value = make()
    tracemalloc.start()
    try:
        with pytest.raises(ResultTooLargeError):
            encode(value, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 10 * LIMIT
    finally:
        tracemalloc.stop()


@given(values)
def test_nothing_that_fits_is_refused(value: Any) -> None:
    written = encode(value, LIMIT)
    assert encode(value, len(written.encode())) == written

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.policies.arguments import strings

values = st.recursive(
    st.text() | st.booleans() | st.none(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,  # more only takes long to draw
)


@given(values)
def test_it_finds_every_key_and_value(value: object) -> None:
    def expected(value: object) -> list[str]:
        if isinstance(value, str):
            return [value]
        if isinstance(value, list):
            return [text for item in value for text in expected(item)]
        if isinstance(value, dict):
            return [text for key, item in value.items() for text in (key, *expected(item))]
        return []

    assert strings(json.dumps(value)) == expected(value)


def test_what_is_repeated_is_read_too() -> None:
    assert strings('{"a": "b", "a": "c"}') == ["a", "b", "a", "c"]


@pytest.mark.parametrize("text", ["", "{", "{'a': 1}", '{"a": NaN}', '"a\nb"', '"\\x41"', "[1] 2", "[" * 100_000])
def test_what_is_not_json_is_read_as_it_stands(text: str) -> None:
    assert strings(text) == [text]

"""JSON that sessions share."""

import copy
import gc
import json
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commander.shared_json import SharedList, SharedObject, parsed_once

TEXT = '{"type": "object", "required": ["q"], "properties": {"q": {"enum": [[1], {"a": 2}]}}}'
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def plain(value: Any) -> bool:
    """Nothing in it is shared."""
    if isinstance(value, dict):
        return type(value) is dict and all(map(plain, value.values()))
    return type(value) is list and all(map(plain, value)) if isinstance(value, list) else True


@given(VALUES)
def test_it_is_what_the_text_says(value: Any) -> None:
    text = json.dumps(value)
    parsed = parsed_once(text)
    assert parsed == value
    assert json.dumps(parsed) == text
    assert msgspec.json.encode(parsed) == msgspec.json.encode(value)
    for copied in (copy.deepcopy(parsed), pickle.loads(pickle.dumps(parsed))):  # noqa: S301 - our own
        assert copied == value
        assert plain(copied)


def test_it_is_the_same_for_all_that_hold_it() -> None:
    one, other = parsed_once(TEXT), parsed_once(TEXT)
    assert one is other
    held = weakref.ref(one)
    del one, other
    gc.collect()
    assert held() is None


@pytest.mark.parametrize(
    "change",
    [
        lambda schema: schema.update(type="array"),
        lambda schema: schema.pop("type"),
        lambda schema: schema.clear(),
        lambda schema: schema.setdefault("title", "x"),
        lambda schema: schema.__setitem__("type", "array"),
        lambda schema: schema.__delitem__("type"),
        lambda schema: schema.__ior__({"type": "array"}),
        lambda schema: schema["required"].append("r"),
        lambda schema: schema["required"].clear(),
        lambda schema: schema["properties"]["q"].pop("enum"),
        lambda schema: schema["properties"]["q"]["enum"][0].__setitem__(0, 2),
        lambda schema: schema["properties"]["q"]["enum"][1].__setitem__("a", 3),
    ],
)
def test_nobody_changes_it(change: Callable[[Any], Any]) -> None:
    schema = parsed_once(TEXT)
    with pytest.raises(TypeError, match="change a copy of it"):
        change(schema)
    assert schema == json.loads(TEXT)


def test_every_method_that_changes_is_refused() -> None:
    for kind, base in ((SharedObject, dict), (SharedList, list)):
        reading = {"get", "items", "keys", "values", "copy", "count", "index", "fromkeys"}
        for name in {name for name in vars(base) if not name.startswith("_")} - reading:
            assert getattr(kind, name) is not getattr(base, name), name


def test_a_copy_can_be_changed() -> None:
    schema = parsed_once(TEXT)
    changed = {**schema, "required": [*schema["required"], "r"]} | {"title": "x"}
    changed["properties"] = dict(schema["properties"])
    assert plain({name: value for name, value in changed.items() if name != "properties"})
    assert schema == json.loads(TEXT)


@pytest.mark.parametrize("text", ["", "{", "{'a': 1}", '{"a": 1} 2'])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="line 1"):
        parsed_once(text)

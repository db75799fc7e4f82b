"""What is written fits its schema, wherever a model broke off."""

import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commander.backends.filling import completed, example
from commander.backends.schemas import form_of

TEXT = {"type": "string"}
LEAF: list[dict[str, Any]] = [
    {},
    TEXT,
    {"type": "string", "minLength": 3, "maxLength": 5},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "time"},
    {"type": "string", "format": "uuid"},
    {"type": "integer"},
    {"type": "integer", "minimum": 17, "maximum": 123},
    {"type": "integer", "exclusiveMinimum": -250, "exclusiveMaximum": -30},
    {"type": "integer", "minimum": -5, "maximum": 5},
    {"type": "number"},
    {"type": "number", "minimum": 0, "maximum": 1},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 1000},
    {"type": "boolean"},
    {"type": "null"},
    {"type": ["string", "null"]},
    {"enum": ["a", "ab", "\u00e9\U0001f30d", 1, 12, None, True]},
    {"const": {"a": [1, "x"], "b": []}},
]


def _inner(schemas: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(["a", "ab", 'q"', "\u00e9"])
    return st.one_of(
        st.builds(
            lambda properties, keep: {
                "type": "object",
                "properties": properties,
                "required": [name for name, kept in zip(properties, keep, strict=False) if kept],
            },
            st.dictionaries(names, schemas, max_size=3),
            st.lists(st.booleans(), min_size=3, max_size=3),
        ),
        st.builds(lambda values: {"type": "object", "additionalProperties": values}, schemas),
        st.builds(
            lambda items, least: {"type": "array", "items": items, "minItems": least}, schemas, st.integers(0, 2)
        ),
        st.builds(lambda items: {"type": "array", "prefixItems": items}, st.lists(schemas, min_size=1, max_size=2)),
        st.builds(lambda schemas: {"anyOf": schemas}, st.lists(schemas, min_size=1, max_size=3)),
    )


FORMATTED = {
    "date": ["1999-12-31", "2024-02-09"],
    "time": ["23:59:59Z", "09:00:00.5+12:30", "01:02:03.1234Z"],
    "date-time": ["1999-12-20T23:59:59Z", "2024-01-01T09:00:00.5-02:30", "2024-10-08T01:02:03.123456Z"],
    "uuid": ["9b2fb4cb-0e2b-4b7e-9d5c-5cf8f5bd2c39"],
}
SCHEMAS = st.recursive(st.sampled_from(LEAF), _inner, max_leaves=6)


def fits(schema: Any, value: Any) -> bool:
    return jsonschema_rs.is_valid(schema, value, validate_formats=True)


@st.composite
def values(draw: st.DrawFn, form: dict[str, Any]) -> Any:
    """Of a form, as a model might write them."""
    if "enum" in form:
        value = draw(st.sampled_from(form["enum"]))
        return int(value) if isinstance(value, float) and value.is_integer() else value  # as llama.cpp writes it
    if "anyOf" in form:
        return draw(values(draw(st.sampled_from(form["anyOf"]))))
    match form.get("type"):
        case "null":
            return None
        case "boolean":
            return draw(st.booleans())
        case "number":
            return draw(st.floats(allow_nan=False, allow_infinity=False))
        case "integer":
            return draw(st.integers(form.get("minimum", -(10**9)), form.get("maximum", 10**9)))
        case "string":
            if "format" in form:
                return draw(st.sampled_from(FORMATTED[form["format"]]))
            return draw(st.text(min_size=form.get("minLength", 0), max_size=form.get("maxLength", 1009)))
        case "array" if "prefixItems" in form:
            return [draw(values(each)) for each in form["prefixItems"]]
        case "array":
            most = min(form.get("maxItems", 3), 3)
            return [draw(values(form["items"])) for _ in range(draw(st.integers(form["minItems"], most)))]
        case "object" if "properties" in form:
            names = [name for name in form["properties"] if name in form["required"] or draw(st.booleans())]
            return {name: draw(values(form["properties"][name])) for name in names}
        case "object":
            return {
                name: draw(values(form["additionalProperties"]))
                for name in draw(st.sets(st.text(max_size=3), max_size=2))
            }
    return draw(st.sampled_from([{"a": [1.5, "x"]}, [], 'x\\"', -2e-5, None, True]))


@settings(derandomize=True)
@given(st.data(), SCHEMAS, st.booleans())
def test_what_was_begun_is_ended_so_that_it_fits(data: st.DataObject, schema: Any, spaced: bool) -> None:
    form = form_of(schema)
    separators = (" ,\n", " : ") if spaced else (",", ":")
    text = json.dumps(data.draw(values(form)), ensure_ascii=False, separators=separators)
    begun = text[: data.draw(st.integers(0, len(text)))]
    whole = completed(form, begun)
    assert whole.startswith(begun)
    assert fits(schema, json.loads(whole)), whole
    assert completed(form, text) == text


@settings(derandomize=True)
@given(SCHEMAS)
def test_an_example_fits(schema: Any) -> None:
    form = form_of(schema)
    assert fits(schema, example(form))
    assert fits(schema, example(form, least=True))


@pytest.mark.parametrize(
    ("schema", "begun"),
    [
        (TEXT, "1"),
        ({"type": "integer", "maximum": 9}, "10"),
        ({"type": "integer"}, "1."),
        ({"enum": ["a"]}, '"b'),
        ({"type": "array", "items": TEXT}, "{"),
        ({"type": "array", "items": TEXT, "minItems": 2}, '["a"]'),
        ({"type": "object", "properties": {"a": TEXT}, "required": ["a"]}, "{}"),
        ({"type": "object", "properties": {"a": TEXT}}, '{"b'),
        ({"type": "object", "properties": {"a": TEXT}}, '{"a":"","a"'),
        ({"type": "object", "properties": {"a": TEXT}}, '{"a" 1'),
        (TEXT, '"a" "b"'),
    ],
)
def test_what_does_not_fit_is_not_ended(schema: Any, begun: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 # nobody reads its text
        completed(form_of(schema), begun)


@pytest.mark.parametrize("begun", ['"\\ud83c', '"\\ud83c\\', '"\\ud8', '"a\\', '"\\u', '"\\\\\\ud83c'])
def test_a_character_that_was_begun_is_ended(begun: str) -> None:
    assert json.loads(completed(form_of(TEXT), begun)).encode()

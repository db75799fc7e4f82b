"""Which schemas can be held to, and how the others are refused."""

from typing import Any

import pytest

from commander.backends.schemas import MAX_FORMS, bounded, form_of

TEXT = {"type": "string"}
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": TEXT,
                "left": {"$ref": "#/$defs/node"},
                "more": {"type": "array", "items": {"$ref": "#"}},
            },
            "required": ["name", "more"],
        }
    },
}


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


NONE = {"type": "array", "items": {}, "minItems": 0, "maxItems": 0}


def several(*items: Any) -> dict[str, Any]:
    """Exactly these."""
    count = len(items)
    return {"type": "array", "prefixItems": [*items], "items": False, "minItems": count, "maxItems": count}


def kind(name: str) -> dict[str, Any]:
    return {"properties": {"kind": {"const": name}}, "required": ["kind"], "type": "object"}


@pytest.mark.parametrize(
    ("schema", "form"),
    [
        (True, {}),
        ({"title": "anything", "x-order": 1}, {}),
        ({"properties": {"a": TEXT}, "required": ["a"], "title": "A"}, closed(a=TEXT)),
        ({"type": "object", "required": ["a"]}, closed(a={})),
        ({"type": "object", "properties": {}, "additionalProperties": False}, closed()),
        (
            {"type": ["string", "null"], "minLength": 1},
            {"anyOf": [TEXT | {"minLength": 1}, {"type": "null"}]},
        ),
        ({"type": "string", "enum": ["a", 1]}, {"enum": ["a"]}),
        ({"const": True, "enum": [1, True]}, {"enum": [True]}),
        ({"type": "integer", "exclusiveMinimum": 1, "maximum": 2.5}, {"type": "integer", "minimum": 2, "maximum": 2}),
        ({"type": "number", "minimum": 5}, {"type": "integer", "minimum": 5}),
        (
            {"type": "array", "items": TEXT, "uniqueItems": True},
            {"type": "array", "items": TEXT, "minItems": 0, "maxItems": 1},
        ),
        ({"type": "array", "items": [TEXT]}, several(TEXT)),
        ({"const": {"a": [1]}}, closed(a=several({"enum": [1]}))),
        ({"enum": [[], "a"]}, {"anyOf": [NONE, {"enum": ["a"]}]}),
        ({"allOf": [{"$ref": "#/definitions/a"}], "definitions": {"a": TEXT}}, TEXT),
        ({"anyOf": [{"type": "string", "pattern": "a"}, {"type": "number"}]}, {"type": "number"}),
        (
            {"oneOf": [kind("a"), kind("b")], "discriminator": {"propertyName": "kind"}},
            {"anyOf": [closed(kind={"enum": ["a"]}), closed(kind={"enum": ["b"]})]},
        ),
        ({"oneOf": [TEXT, {"type": "integer"}]}, {"anyOf": [TEXT, {"type": "integer"}]}),
        ({"type": "string", "minimum": 3}, TEXT),
    ],
)
def test_a_schema_becomes_a_form(schema: Any, form: Any) -> None:
    assert form_of(schema) == form


def test_what_stands_within_itself_ends() -> None:
    node = form_of(TREE)
    for _ in range(2):
        node = node["properties"]["left"]
    assert node == closed(name=TEXT, more=NONE)


@pytest.mark.parametrize(
    ("schema", "wrong"),
    [
        (False, "#: nothing fits it"),
        ([], "#: not a schema"),
        ({"type": "array", "minItems": "1"}, "#: not a schema"),
        ({"properties": {"a": {"pattern": "^a$"}}}, "#/properties/a: pattern is not supported"),
        ({"items": {"not": {}}, "type": "array"}, "#/items: not is not supported"),
        ({"type": "text"}, "#: the type 'text' is not supported"),
        ({"type": "string", "format": "email"}, "#: the format 'email' is not supported, or not with a length"),
        ({"type": "string", "minLength": 2, "maxLength": 1}, "#: minLength of more than 1000, or than maxLength"),
        ({"enum": []}, "#: nothing fits it"),
        ({"enum": ["a"], "minLength": 2}, "#: enum or const together with minLength"),
        ({"anyOf": [TEXT], "type": "string"}, "#: anyOf together with type"),
        ({"allOf": [TEXT, TEXT]}, "#: allOf of several"),
        ({"oneOf": [TEXT, {"enum": ["a"]}]}, "#: oneOf is supported where"),
        ({"oneOf": [TEXT, {"type": "integer", "multipleOf": 2}]}, "#: oneOf is supported where"),
        ({"$ref": "https://example.org/schema"}, "#: $ref to elsewhere"),
        ({"$ref": "#/$defs/a"}, "#: $ref to nothing"),
        ({"$ref": "#"}, "#: nothing that ends fits it"),
        (
            {"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 1}}, "$ref": "#/$defs/a"},
            "#: nothing",
        ),
        ({"type": "integer", "minimum": 2, "maximum": 1}, "#: nothing fits it"),
        ({"type": "integer", "exclusiveMinimum": True}, "#: bounds that are no numbers"),
        ({"type": "object", "minProperties": 1}, "#: minProperties and maxProperties"),
        ({"type": "array", "uniqueItems": True, "minItems": 2}, "#: so many items, or several with uniqueItems"),
        ({"type": "array", "prefixItems": [TEXT], "minItems": 2}, "#: prefixItems with another number"),
        (
            {"type": "array", "prefixItems": [TEXT] * MAX_FORMS},
            f"#/prefixItems/{MAX_FORMS - 1}: the schema is too large",
        ),
    ],
)
def test_what_cannot_be_held_to_is_refused_with_its_place(schema: Any, wrong: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 # its text is compared
        form_of(schema)
    assert str(refused.value).startswith(wrong)


def test_a_bounded_form_is_short_where_it_may_be() -> None:
    long = {"type": "array", "items": TEXT, "minItems": 20}
    schema = closed(a=long, b={"anyOf": [TEXT, {"type": "array"}]}, c={"type": "array", "prefixItems": [TEXT]})
    short = TEXT | {"maxLength": 200}
    assert bounded(form_of(schema)) == closed(
        a=long | {"items": short, "maxItems": 20},
        b={"anyOf": [short, {"type": "array", "items": {}, "minItems": 0, "maxItems": 8}]},
        c=several(short),
    )
    number = {"minimum": -1_000_000, "maximum": 1_000_000}
    assert bounded(form_of({"additionalProperties": {"type": "number"}})) == {
        "type": "object",
        "additionalProperties": {"type": "number", "multipleOf": 0.01, **number},
    }
    assert bounded(form_of({"type": "integer", "minimum": 5})) == {"type": "integer", "minimum": 5}


def test_a_schema_that_is_too_deep_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(3000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(ValueError, match="#: too deep"):
        form_of(schema)

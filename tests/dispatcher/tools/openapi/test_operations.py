"""What of a document can be a tool, and why the rest cannot."""

import json
from typing import Any

import jsonschema_rs
import pytest

from dispatcher.tools.openapi.document import Document, UnusableDocumentError
from dispatcher.tools.openapi.operations import SAID, MappedOperation, found, mapped

TEXT = {"type": "string"}
FIELDS = {"type": "object", "properties": {"a": TEXT, "b": {"type": "object"}}}
FORM = "application/x-www-form-urlencoded"


def document(operation: dict[str, Any], path: str = "/x", version: str = "3.1.0", **more: Any) -> Document:
    root = {"openapi": version, "paths": {path: {"post": {"operationId": "op"} | operation}}, **more}
    return Document(json.dumps(root).encode())


def one(*arguments: Any, **more: Any) -> MappedOperation:
    read = document(*arguments, **more)
    (only,) = found(read)
    return mapped(read, only)


def parameter(name: str, place: str = "query", **more: Any) -> dict[str, Any]:
    return {"name": name, "in": place, "schema": TEXT} | more


def body(schema: Any, media: str = "application/json", **more: Any) -> dict[str, Any]:
    return {"requestBody": {"content": {media: {"schema": schema}}} | more}


def form(encoding: Any) -> dict[str, Any]:
    return {"requestBody": {"content": {FORM: {"schema": FIELDS, "encoding": encoding}}}}


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        ({"parameters": [parameter("a", "cookie")]}, 'its parameter "a" stands in cookie'),
        ({"parameters": [parameter("a", "path")]}, '"a" is a parameter of its path in one place only'),
        ({"parameters": [parameter("a", style="matrix")]}, 'its parameter "a" has the style matrix'),
        ({"parameters": [parameter("a b", "header")]}, 'its parameter "a b" is no header\'s name'),
        ({"parameters": [parameter("Host", "header")]}, 'its parameter "Host" is the Dispatcher\'s own to send'),
        ({"parameters": [parameter("a"), parameter("a", "header")]}, 'two parameters are named "a"'),
        ({"parameters": [parameter("")]}, "a parameter has no name"),
        ({"parameters": {}}, "its parameters are no list"),
        ({"parameters": [7]}, "a parameter is no object"),
        ({"parameters": [parameter("a", content={"text/csv": {}})]}, 'its parameter "a" is no JSON'),
        ({"parameters": [{"$ref": "other.yaml#/x"}]}, '"other.yaml#/x" refers to another document'),
        ({"parameters": [{"$ref": "#/nothing"}]}, '"#/nothing" refers to nothing'),
        ({"parameters": [{"$ref": "#/paths/~1x/post/parameters/0"}]}, "a parameter refers to itself"),
        ({"requestBody": {}}, "its body has no content"),
        (body(TEXT, "application/xml"), "its body is neither JSON nor a form, but application/xml"),
        (body(TEXT, FORM), "its body is a form, and no object of named properties"),
        (body({"anyOf": [FIELDS]}, FORM), "its body is a form, and no object of named properties"),
        (form({"a": {"style": "matrix"}}), 'its form\'s field "a" has the style matrix'),
        (form({"a": {"contentType": "image/png"}}), 'its form\'s field "a" is neither text nor JSON'),
        (form({"a": 7}), 'its form\'s field "a" is no object'),
        (form([]), "its form's encoding is no object"),
        (body({"$id": "x"}), "a schema has $id"),
        (body({"properties": {"a": 7}}), "a schema is no object"),
        (body({"anyOf": [TEXT]}) | {"parameters": [parameter("body")]}, 'a parameter is named "body", as its body is'),
    ],
)
def test_what_cannot_be_mapped(operation: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnusableDocumentError) as raised:
        one(operation)
    assert str(raised.value) == reason


def test_a_path_whose_parameter_is_missing() -> None:
    with pytest.raises(UnusableDocumentError, match='"id" is a parameter of its path in one place only'):
        one({}, "/x/{id}")


def test_methods_without_use_for_an_agent() -> None:
    read = Document(
        json.dumps({"openapi": "3.1.0", "paths": {"/x": {"head": {"operationId": "op"}, "get": {}}}}).encode()
    )
    (only,) = found(read)
    with pytest.raises(UnusableDocumentError, match="its method is HEAD"):
        mapped(read, only)


def test_headers_that_no_agent_is_asked_for() -> None:
    named = ("Accept", "authorization", "Idempotency-Key", "X-Api-Key", "X-Page")
    read = document({"parameters": [parameter(name, "header", required=True) for name in named]})
    (only,) = found(read)
    assert [*mapped(read, only, SAID | {"x-api-key"}).schema["properties"]] == ["X-Page"]


def test_a_bodys_properties_stand_beside_the_parameters() -> None:
    schema = {
        "type": "object",
        "properties": {"a": TEXT},
        "required": ["a"],
        "additionalProperties": {"type": "integer"},
    }
    operation = one({"parameters": [parameter("q")]} | body(schema, required=True))
    assert operation.schema == {
        "type": "object",
        "properties": {"q": TEXT, "a": TEXT},
        "required": ["a"],
        "additionalProperties": {"type": "integer"},
    }
    assert not operation.whole


@pytest.mark.parametrize(
    "schema",
    [
        TEXT,
        {"type": "array", "items": TEXT},
        {"type": "object"},
        {"type": "object", "properties": {"q": TEXT}},  # a parameter's name
        {"type": "object", "properties": {"a": TEXT}, "minProperties": 1},
        {"allOf": [{"type": "object", "properties": {"a": TEXT}}]},
        True,
    ],
)
def test_another_body_is_one_argument(schema: Any) -> None:
    operation = one({"parameters": [parameter("q")]} | body(schema, required=True))
    assert operation.whole
    assert operation.schema["properties"] == {"q": TEXT, "body": schema}
    assert operation.schema["required"] == ["body"]


def test_json_is_taken_before_a_form() -> None:
    both = {FORM: {"schema": FIELDS}, "application/json": {"schema": TEXT}}
    operation = one({"requestBody": {"content": both}})
    assert (operation.media, operation.form) == ("application/json", None)


def test_a_form_s_fields_are_arguments_written_as_its_encoding_says() -> None:
    operation = one(form({"b": {"style": "deepObject", "explode": True}, "a": {"contentType": "application/json"}}))
    assert operation.schema["properties"] == FIELDS["properties"]
    assert (operation.media, operation.whole) == (FORM, False)
    assert operation.form
    assert operation.form.encoded({"a": "x", "b": {"k": 1}}) == b"a=%22x%22&b%5Bk%5D=1"


def test_an_operations_own_parameter_stands_for_its_paths() -> None:
    own = parameter("id", "path", description="own")
    read = document({"parameters": [own]}, "/x/{id}")
    read.root["paths"]["/x/{id}"]["parameters"] = [parameter("id", "path", description="shared"), parameter("q")]
    (only,) = found(read)
    operation = mapped(read, only)
    assert operation.schema["properties"] == {"id": TEXT | {"description": "own"}, "q": TEXT}
    assert operation.schema["required"] == ["id"]


def test_schemas_of_three_zero() -> None:
    old = {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "minimum": 1, "exclusiveMinimum": True, "maximum": 9, "exclusiveMaximum": False},
            "b": {"type": "string", "nullable": True},
            "c": {"$ref": "#/components/schemas/C", "description": "which counts for nothing"},
            "d": {"type": "string", "readOnly": True},
        },
        "required": ["a", "d"],
        "discriminator": {"propertyName": "a"},
        "x-internal": True,
    }
    made = one(body(old, required=True), version="3.0.3", components={"schemas": {"C": {"type": "boolean"}}}).schema
    assert made["properties"] == {
        "a": {"type": "integer", "exclusiveMinimum": 1, "maximum": 9},
        "b": {"type": ["string", "null"]},
        "c": {"$ref": "#/$defs/C"},
    }
    assert made["required"] == ["a"]
    assert made["$defs"] == {"C": {"type": "boolean"}}
    check = jsonschema_rs.validator_for(made)
    assert check.is_valid({"a": 2, "b": None, "c": True})
    assert not check.is_valid({"a": 1})


def test_references_of_one_name_are_kept_apart() -> None:
    schemas = {"A": {"$ref": "#/components/more/A"}}
    made = one(
        body({"type": "object", "properties": {"a": {"$ref": "#/components/schemas/A"}}}),
        components={"schemas": schemas, "more": {"A": {"type": "integer"}}},
    ).schema
    check = jsonschema_rs.validator_for(made)
    assert check.is_valid({"a": 1})
    assert not check.is_valid({"a": "x"})


def test_a_tree_that_aliases_make_huge_is_refused() -> None:
    levels = "\n".join(f"    s{n}: &s{n} {{anyOf: [{', '.join([f'*s{n - 1}'] * 9)}]}}" for n in range(1, 9))
    text = (
        f"openapi: 3.1.0\ncomponents:\n  schemas:\n    s0: &s0 {{type: string}}\n{levels}\npaths:\n  /x:\n    post:\n"
        "      operationId: op\n"
        "      requestBody: {content: {application/json: {schema: {$ref: '#/components/schemas/s8'}}}}\n"
    )
    read = Document(text.encode())
    (only,) = found(read)
    with pytest.raises(UnusableDocumentError, match="its schema is too large"):
        mapped(read, only)

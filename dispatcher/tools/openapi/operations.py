"""A document's operations: what each is called with, and how that is asked of the service."""

import json
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

from dispatcher.tools.http.tool import is_ours
from dispatcher.tools.openapi.document import Document, UnusableDocumentError
from dispatcher.tools.openapi.schemas import Schemas
from dispatcher.tools.openapi.styles import STYLES, FormBody, Parameter

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
SENT = ("get", "put", "post", "delete", "patch")
BODY = "body"  # the argument that is the request's body, where that is no object of named properties
# Header parameters that no agent is asked for: OpenAPI has the first ignored, and the last are the call's identity.
SAID = frozenset({"accept", "content-type", "authorization", "idempotency-key", "traceparent", "tracestate"})
# What an object's schema may say so that its properties can stand beside the parameters.
_PLAIN = frozenset({"type", "properties", "required", "additionalProperties", "title", "description", "default"})
_JSON = re.compile(r"application/(?:[\w.-]+\+)?json(?:\s*;.*)?|\*/\*", re.IGNORECASE)
_FORM = re.compile(r"application/x-www-form-urlencoded(?:\s*;.*)?", re.IGNORECASE)


class WrittenOperation(NamedTuple):
    """An operation as it stands in the document; shared: the parameters of its path."""

    operation_id: str
    method: str
    path: str
    operation: dict[str, Any]
    shared: Any


@dataclass(frozen=True, slots=True)
class MappedOperation:
    """body: the arguments that make up the request's body; None: there is none. whole: one argument is all of it.
    media: what the body is. form: how its fields are written, where it is one; else it is JSON.
    """

    operation_id: str
    description: str
    schema: dict[str, Any]
    method: str
    path: str
    parameters: tuple[Parameter, ...]
    body: bool
    body_required: bool
    whole: bool
    media: str
    form: FormBody | None

    @property
    def tool_name(self) -> str:
        """The operation's id, with an underscore for each character that a tool's name cannot have."""
        return re.sub(r"[^a-zA-Z0-9_-]", "_", self.operation_id)


def found(document: Document) -> Iterator[WrittenOperation]:
    """Each operation that has an id. Raises UnusableDocumentError."""
    paths = document.root.get("paths", {})
    if not isinstance(paths, dict):
        raise UnusableDocumentError("`paths` is no object")
    for path, written in paths.items():
        if path.startswith("x-"):
            continue
        item = document.table(written, f"the path {json.dumps(path)[:100]}")
        for method in METHODS:
            operation = item.get(method)
            if isinstance(operation, dict) and isinstance(operation.get("operationId"), str):
                yield WrittenOperation(operation["operationId"], method, path, operation, item.get("parameters", []))


def mapped(document: Document, one: WrittenOperation, said: Set[str] = SAID) -> MappedOperation:
    """said: the headers that no agent is asked for, in lower case. Raises UnusableDocumentError: why it cannot be a
    tool.
    """
    if one.method not in SENT:
        raise UnusableDocumentError(f"its method is {one.method.upper()}")
    schemas = Schemas(document)
    properties: dict[str, Any] = {}
    required: list[str] = []
    parameters = []
    for parameter, written in _parameters(document, one, said):
        if parameter.name in properties:
            raise UnusableDocumentError(f"two parameters are named {json.dumps(parameter.name)}")
        parameters.append(parameter)
        properties[parameter.name] = _described(schemas.converted(_schema_of(document, written)), written)
        required += [parameter.name] if parameter.required else []
    _check_path(one.path, parameters)
    body = _body(document, one.operation)
    more: Any = False
    whole = False
    if body is not None:
        converted = schemas.converted(body.schema)
        plain = _properties(converted, schemas.defs)
        if plain is None and body.form:
            raise UnusableDocumentError("its body is a form, and no object of named properties")
        whole = plain is None or bool(plain.get("properties", {}).keys() & properties.keys())
        if plain is None or whole:
            if BODY in properties:
                raise UnusableDocumentError(f"a parameter is named {json.dumps(BODY)}, as its body is")
            properties[BODY] = converted
            required += [BODY] if body.required else []
        else:
            properties |= plain.get("properties", {})
            required += plain.get("required", []) if body.required else []
            more = plain.get("additionalProperties", False)
    schema = {"type": "object", "properties": properties, "additionalProperties": more}
    schema |= {"required": required} if required else {}
    defs = schemas.needed(schema)
    schema |= {"$defs": defs} if defs else {}
    return MappedOperation(
        one.operation_id,
        _description(one.operation),
        schema,
        one.method.upper(),
        one.path,
        tuple(parameters),
        body is not None,
        body is not None and body.required,
        whole,
        body.media if body else "",
        body.form if body else None,
    )


def _description(operation: Mapping[str, Any]) -> str:
    said = [operation.get("summary"), operation.get("description")]
    return "\n\n".join(dict.fromkeys(text.strip() for text in said if isinstance(text, str) and text.strip()))


def _parameters(
    document: Document, one: WrittenOperation, said: Set[str]
) -> Iterator[tuple[Parameter, dict[str, Any]]]:
    """An operation's own stand for its path's of the same name and place."""
    by_key: dict[tuple[object, object], dict[str, Any]] = {}
    for written in (*_list(one.shared), *_list(one.operation.get("parameters", []))):
        table = document.table(written, "a parameter")
        by_key[table.get("name"), table.get("in")] = table
    for (name, place), table in by_key.items():
        if not isinstance(name, str) or not name:
            raise UnusableDocumentError("a parameter has no name")
        if place == "header" and name.lower() in said:
            continue
        yield _parameter(name, place, table), table


def _parameter(name: str, place: object, table: Mapping[str, Any]) -> Parameter:
    shown = json.dumps(name)[:100]
    if place not in STYLES:
        raise UnusableDocumentError(f"its parameter {shown} stands in {str(place)[:20]}")
    place = str(place)
    style = table.get("style", STYLES[place][0])
    if style not in STYLES[place]:
        raise UnusableDocumentError(f"its parameter {shown} has the style {str(style)[:20]}")
    if place == "header" and not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise UnusableDocumentError(f"its parameter {shown} is no header's name")
    if place == "header" and is_ours(name):
        raise UnusableDocumentError(f"its parameter {shown} is the Dispatcher's own to send")
    content = table.get("content")
    as_json = content is not None
    if as_json and (place == "path" or not isinstance(content, dict) or not all(map(_JSON.fullmatch, content))):
        raise UnusableDocumentError(f"its parameter {shown} is no JSON")
    explode = table.get("explode", style == "form")
    required = place == "path" or table.get("required") is True
    return Parameter(name, place, style, explode is True, required, as_json)


def _schema_of(document: Document, table: Mapping[str, Any]) -> Any:
    content = table.get("content")
    if isinstance(content, dict) and content:
        return document.table(next(iter(content.values())), "a parameter's content").get("schema", {})
    return table.get("schema", {})


def _described(schema: Any, table: Mapping[str, Any]) -> Any:
    """The parameter's own description stands before its schema's."""
    text = table.get("description")
    return {**schema, "description": text} if isinstance(text, str) and isinstance(schema, dict) else schema


def _check_path(path: str, parameters: list[Parameter]) -> None:
    if not path.startswith("/"):
        raise UnusableDocumentError(f"its path does not begin with /: {json.dumps(path)[:100]}")
    written = set(re.findall(r"\{([^{}]*)\}", path))
    named = {parameter.name for parameter in parameters if parameter.place == "path"}
    if different := written ^ named:
        raise UnusableDocumentError(f"{json.dumps(min(different))[:100]} is a parameter of its path in one place only")


class WrittenBody(NamedTuple):
    """As it stands in the document."""

    media: str
    schema: Any
    required: bool
    form: FormBody | None


def _body(document: Document, operation: Mapping[str, Any]) -> WrittenBody | None:
    """None: there is none. JSON is taken before a form."""
    if "requestBody" not in operation:
        return None
    table = document.table(operation["requestBody"], "its body")
    content = table.get("content")
    if not isinstance(content, dict) or not content:
        raise UnusableDocumentError("its body has no content")
    required = table.get("required") is True
    for kind in (_JSON, _FORM):
        for media, value in content.items():
            if kind.fullmatch(media):
                said = document.table(value, "its body")
                form = _form(document, said.get("encoding", {})) if kind is _FORM else None
                return WrittenBody(
                    "application/json" if media == "*/*" else media, said.get("schema", {}), required, form
                )
    raise UnusableDocumentError(f"its body is neither JSON nor a form, but {', '.join(map(str, content))[:100]}")


def _form(document: Document, encoding: Any) -> FormBody:
    """encoding: how some of its fields are written, by https://spec.openapis.org/oas/v3.1.1#encoding-object"""
    fields: dict[str, Parameter] = {}
    for name, written in document.table(encoding, "its form's encoding").items():
        shown = f"its form's field {json.dumps(name)[:100]}"
        table = document.table(written, shown)
        if not {"style", "explode", "allowReserved"} & table.keys():
            media = table.get("contentType", "text/plain")
            if media != "text/plain" and not (isinstance(media, str) and _JSON.fullmatch(media)):
                raise UnusableDocumentError(f"{shown} is neither text nor JSON")
            if media != "text/plain":
                fields[name] = Parameter(name, "form", "form", True, as_json=True)
            continue
        style = table.get("style", "form")
        if style not in STYLES["query"]:
            raise UnusableDocumentError(f"{shown} has the style {str(style)[:20]}")
        fields[name] = Parameter(name, "form", style, table.get("explode", style == "form") is True)
    return FormBody(fields)


def _properties(schema: Any, defs: Mapping[str, Any]) -> dict[str, Any] | None:
    """An object of named properties, and nothing that is said of them together; None: it is not that."""
    while isinstance(schema, dict) and schema.keys() == {"$ref"}:
        schema = defs[schema["$ref"].removeprefix("#/$defs/")]
    right = isinstance(schema, dict) and schema.get("type") == "object" and "properties" in schema
    return schema if right and schema.keys() <= _PLAIN else None


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise UnusableDocumentError("its parameters are no list")
    return value

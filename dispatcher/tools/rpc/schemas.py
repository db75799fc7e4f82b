"""JSON Schema of messages, as protobuf's JSON mapping has them: https://protobuf.dev/programming-guides/json/"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from dispatcher.tools.rpc.descriptors import UnusableDescriptorsError

MAX_SCHEMA_BYTES = 64 * 1024  # of a method's request: a model reads it
MAX_NAME = 256  # characters of a type's full name

_STRING = {"type": "string"}
_NUMBER = {"type": "number"}
_WHOLE = r"^-?[0-9]+$"
_BASE64 = r"^[A-Za-z0-9+/_-]*={0,2}$"  # of either alphabet; `json_format` passes over what is neither
_OBJECT = {"type": "object"}


def _whole(bits: int, signed: bool) -> dict[str, Any]:
    """Beyond 32 bits the mapping has a text, for readers that would round it; a number is taken as well."""
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if bits == 32:
        return {"type": "integer", "minimum": least, "maximum": most}
    return {"type": ["string", "integer"], "pattern": _WHOLE, "minimum": least, "maximum": most}


_SCALARS: dict[int, dict[str, Any]] = {
    FieldDescriptor.TYPE_DOUBLE: _NUMBER,
    FieldDescriptor.TYPE_FLOAT: _NUMBER,
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: _STRING,
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64", "pattern": _BASE64},
    **dict.fromkeys(
        (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SFIXED32), _whole(32, True)
    ),
    **dict.fromkeys(
        (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_SINT64, FieldDescriptor.TYPE_SFIXED64), _whole(64, True)
    ),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_FIXED32), _whole(32, False)),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_FIXED64), _whole(64, False)),
}
_WRAPPED = {
    "DoubleValue": FieldDescriptor.TYPE_DOUBLE,
    "FloatValue": FieldDescriptor.TYPE_FLOAT,
    "Int64Value": FieldDescriptor.TYPE_INT64,
    "UInt64Value": FieldDescriptor.TYPE_UINT64,
    "Int32Value": FieldDescriptor.TYPE_INT32,
    "UInt32Value": FieldDescriptor.TYPE_UINT32,
    "BoolValue": FieldDescriptor.TYPE_BOOL,
    "StringValue": FieldDescriptor.TYPE_STRING,
    "BytesValue": FieldDescriptor.TYPE_BYTES,
}
_WELL_KNOWN: dict[str, dict[str, Any]] = {
    "google.protobuf.Any": {**_OBJECT, "properties": {"@type": _STRING}, "required": ["@type"]},
    "google.protobuf.Duration": {**_STRING, "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    "google.protobuf.FieldMask": _STRING,
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.NullValue": {"type": "null"},
    "google.protobuf.Struct": _OBJECT,
    "google.protobuf.Timestamp": {**_STRING, "format": "date-time"},
    "google.protobuf.Value": {},
    **{f"google.protobuf.{name}": _SCALARS[kind] for name, kind in _WRAPPED.items()},
}
_WHOLE_KEYS = (
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
)
_KEYS = {  # of a map, as texts; others are texts anyway
    FieldDescriptor.CPPTYPE_BOOL: {"enum": ["true", "false"]},
    **{kind: {"pattern": _WHOLE} for kind in _WHOLE_KEYS},
}


class _Definition(NamedTuple):
    """uses: the types that it refers to. size: bytes."""

    schema: dict[str, Any]
    uses: tuple[Descriptor | EnumDescriptor, ...]
    size: int


class MessageSchemas:
    """Of a server's messages. comments: by full name; they become descriptions."""

    def __init__(self, comments: Mapping[str, str]) -> None:
        self._comments = comments
        self._definitions: dict[str, _Definition] = {}

    def of(self, message: Descriptor) -> dict[str, Any]:
        """Of an object, with all that it refers to in `$defs`. Raises UnusableDescriptorsError."""
        root = self._definition(message)
        if root.schema.get("type") != "object":
            raise UnusableDescriptorsError(f"its request is a {message.full_name}, which is no object")
        room = MAX_SCHEMA_BYTES - root.size
        found: dict[str, Any] = {}
        rest = list(root.uses)
        while rest:
            each = rest.pop()
            if each.full_name in found:
                continue
            definition = self._definition(each)
            room -= definition.size + len(each.full_name)
            if room < 0:
                break
            found[each.full_name] = definition.schema
            rest += definition.uses
        if room < 0:
            raise UnusableDescriptorsError(f"its request's schema has more than {MAX_SCHEMA_BYTES // 1024} KiB")
        return {**root.schema, "$defs": dict(sorted(found.items()))} if found else root.schema

    def _definition(self, of: Descriptor | EnumDescriptor) -> _Definition:
        if of.full_name not in self._definitions:
            self._definitions[of.full_name] = self._defined(of)
        return self._definitions[of.full_name]

    def _defined(self, of: Descriptor | EnumDescriptor) -> _Definition:
        uses: dict[str, Descriptor | EnumDescriptor] = {}
        if of.full_name in _WELL_KNOWN:
            schema = _WELL_KNOWN[of.full_name]
        elif isinstance(of, Descriptor):
            schema = self._object(of, uses)
        else:
            schema = {"type": "string", "enum": [value.name for value in of.values]}
        return _Definition(schema, tuple(uses.values()), len(json.dumps(schema)))

    def _object(self, message: Descriptor, uses: dict[str, Descriptor | EnumDescriptor]) -> dict[str, Any]:
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {field.json_name: self._field(field, uses) for field in message.fields},
            "additionalProperties": False,
        }
        if required := [field.json_name for field in message.fields if field.is_required]:
            schema["required"] = required
        if text := "\n".join(_one_of(message)):
            schema["description"] = text
        return schema

    def _field(self, field: FieldDescriptor, uses: dict[str, Descriptor | EnumDescriptor]) -> dict[str, Any]:
        entry = field.message_type if field.type == FieldDescriptor.TYPE_MESSAGE else None
        if entry is not None and entry.GetOptions().map_entry:
            key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
            schema: dict[str, Any] = {"type": "object", "additionalProperties": _single(value, uses)}
            if key.cpp_type in _KEYS:
                schema["propertyNames"] = _KEYS[key.cpp_type]
        elif field.is_repeated:
            schema = {"type": "array", "items": _single(field, uses)}
        else:
            schema = _single(field, uses)
        comment = self._comments.get(field.full_name)
        return {**schema, "description": comment} if comment else schema


def _single(field: FieldDescriptor, uses: dict[str, Descriptor | EnumDescriptor]) -> dict[str, Any]:
    """Of one value of the field."""
    of = field.message_type or field.enum_type
    if of is None:
        return _SCALARS[field.type]
    if of.full_name in _WELL_KNOWN:
        return _WELL_KNOWN[of.full_name]
    if len(of.full_name) > MAX_NAME:
        raise UnusableDescriptorsError(f"its request has a type whose name has more than {MAX_NAME} characters")
    uses[of.full_name] = of
    return {"$ref": f"#/$defs/{of.full_name}"}


def _one_of(message: Descriptor) -> Iterator[str]:
    for group in message.oneofs:
        if len(group.fields) > 1:  # of one alone: `optional` of proto3
            yield f"At most one of {', '.join(field.json_name for field in group.fields)}."

"""The form that an answer is asked for in: text, any JSON object, or one that fits a schema."""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from dispatcher.gateway.client_tools import MAX_CLIENT_SCHEMA_BYTES
from dispatcher.gateway.errors import HttpError
from dispatcher.tools.registry import UnusableSchemaError, check_schema

FormatType: TypeAlias = Literal["text", "json_object", "json_schema"]
FormatName: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class SchemaFormat(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """schema: JSON Schema."""

    name: FormatName
    description: str | None = None
    schema: dict[str, Any]
    strict: bool | None = None


class ChatFormat(msgspec.Struct, frozen=True):
    type: FormatType
    json_schema: SchemaFormat | None = None

    def parameters(self, where: str) -> dict[str, Any]:
        """What an agent gets of it; nothing where text is asked for. where: the field's path. Raises HttpError 400."""
        if self.type == "text":
            return {}
        if self.type == "json_object":
            return {"response_format": {"type": "json_object"}}
        if self.json_schema is None:
            raise _invalid(where, "`json_schema` is missing")
        if len(msgspec.json.encode(self.json_schema.schema)) > MAX_CLIENT_SCHEMA_BYTES:
            raise _invalid(where, f"its schema has more than {MAX_CLIENT_SCHEMA_BYTES} bytes")
        try:
            check_schema(self.json_schema.schema)
        except UnusableSchemaError as error:
            raise _invalid(where, f"its schema is none: {str(error)[:200]}") from error
        return {"response_format": {"type": "json_schema", "json_schema": msgspec.to_builtins(self.json_schema)}}


class TextFormat(msgspec.Struct, frozen=True):
    """The same on Responses, a level less deep."""

    type: FormatType
    name: FormatName | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None

    def parameters(self, where: str) -> dict[str, Any]:
        if self.type != "json_schema":
            return ChatFormat(self.type).parameters(where)
        if self.name is None or self.schema is None:
            raise _invalid(where, "`name` and `schema` are needed")
        asked = SchemaFormat(name=self.name, description=self.description, schema=self.schema, strict=self.strict)
        return ChatFormat(self.type, asked).parameters(where)


def _invalid(param: str, message: str) -> HttpError:
    return HttpError(400, f"{param}: {message}", code="invalid_value", param=param)

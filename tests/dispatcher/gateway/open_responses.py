"""What the Open Responses specification asks of a response and its events: `open_responses.json` holds the schemas of
these of its version 2026-04-24, without descriptions.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs

_DOCUMENT = json.loads((Path(__file__).parent / "open_responses.json").read_text())
_SCHEMAS = _DOCUMENT["components"]["schemas"]
# It asks for null where it shows a schema: OpenAI's own answers have the schema there.
_SCHEMAS["JsonSchemaResponseFormat"]["properties"]["schema"] = {"type": ["object", "null"]}
_EVENTS = {
    schema["properties"]["type"]["enum"][0]: name
    for name, schema in _SCHEMAS.items()
    if name.endswith("StreamingEvent")
}


@cache
def _validator(name: str) -> jsonschema_rs.Validator:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **_DOCUMENT}
    return jsonschema_rs.validator_for(schema | {"$ref": f"#/components/schemas/{name}"})


def check_event(event: dict[str, Any]) -> None:
    """Raises jsonschema_rs.ValidationError, or KeyError for a kind of event that is none of the specification's."""
    _validator(_EVENTS[event["type"]]).validate(event)


def check_response(response: dict[str, Any]) -> None:
    """Raises jsonschema_rs.ValidationError."""
    _validator("ResponseResource").validate(response)


def check_socket_error(event: dict[str, Any]) -> None:
    """Raises jsonschema_rs.ValidationError."""
    _validator("WebSocketErrorEvent").validate(event)

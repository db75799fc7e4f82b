"""JSON Schema of a document's schemas: what OpenAPI 3.0 writes in its own way is rewritten, and what is referred to
stands in `$defs`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from dispatcher.tools.openapi.document import Document, UnusableDocumentError

MAX_NODES = 20_000  # of one tool's schema: YAML's aliases and references may make a small file a huge tree
# Of OpenAPI, and nothing that arguments could be checked by; for models they are noise.
_SAYS_NOTHING = frozenset({"discriminator", "xml", "externalDocs", "example", "examples", "deprecated", "nullable"})
_OF_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SCHEMAS = frozenset({
    "items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames", "unevaluatedItems",
    "unevaluatedProperties",
})  # fmt: skip
_DEFS = "#/$defs/"
_OF_THEIR_OWN = frozenset({"$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$schema"})


class Schemas:
    """Of one tool. defs: what its schemas refer to."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._names: dict[str, str] = {}  # by reference
        self._nodes = 0
        self.defs: dict[str, Any] = {}

    def converted(self, schema: Any) -> Any:
        """Raises UnusableDocumentError."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise UnusableDocumentError("its schema is too large")
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise UnusableDocumentError("a schema is no object")
        if strange := _OF_THEIR_OWN & schema.keys():
            raise UnusableDocumentError(f"a schema has {min(strange)}")
        if "$ref" not in schema:
            return self._rewritten(schema)
        name = self._defined(schema["$ref"])
        if self._document.older:  # what stands beside a reference counts for nothing there
            return {"$ref": name}
        return {**self._rewritten({key: value for key, value in schema.items() if key != "$ref"}), "$ref": name}

    def needed(self, schema: dict[str, Any]) -> dict[str, Any]:
        """What `$defs` of that schema has to hold."""
        found: dict[str, Any] = {}
        rest = [*_references(schema)]
        while rest:
            name = rest.pop().removeprefix(_DEFS)
            if name not in found:
                found[name] = self.defs[name]
                rest += _references(found[name])
        return {name: found[name] for name in self.defs if name in found}

    def _defined(self, reference: Any) -> str:
        found = self._document.referred(reference)
        if reference not in self._names:
            last = re.sub(r"[^\w.-]", "_", reference.rpartition("/")[2])
            name = last if last not in self.defs else f"{last}_{len(self.defs)}"
            self._names[reference] = f"{_DEFS}{name}"
            self.defs[name] = {}  # it may refer to itself
            self.defs[name] = self.converted(found)
        return self._names[reference]

    def _rewritten(self, schema: dict[str, Any]) -> dict[str, Any]:
        found = dict(self._parts(schema))
        if self._document.older:
            _rewrite_older(schema, found)
        _drop_read_only(schema, found, self._document)
        return found

    def _parts(self, schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        for key, value in schema.items():
            if key in _SAYS_NOTHING or key.startswith("x-"):
                continue
            if key in _OF_SCHEMAS and isinstance(value, dict):
                yield key, {name: self.converted(each) for name, each in value.items()}
            elif key in _LISTS and isinstance(value, list):
                yield key, [self.converted(each) for each in value]
            elif key in _SCHEMAS:
                yield key, self.converted(value)
            else:
                yield key, value


def _references(schema: Any) -> Iterator[str]:
    """As `converted` has made them."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str) and value.startswith(_DEFS):
                yield value
            yield from _references(value)
    elif isinstance(schema, list):
        for each in schema:
            yield from _references(each)


def _rewrite_older(schema: Mapping[str, Any], found: dict[str, Any]) -> None:
    """OpenAPI 3.0: https://spec.openapis.org/oas/v3.0.3#schema-object"""
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(found.get(exclusive), bool) and found.pop(exclusive) and bound in found:
            found[exclusive] = found.pop(bound)
    if schema.get("nullable") is True and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
        if "enum" in found and None not in found["enum"]:
            found["enum"] = [*found["enum"], None]


def _drop_read_only(schema: Mapping[str, Any], found: dict[str, Any], document: Document) -> None:
    """What a service answers and is never sent."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return
    for name, each in properties.items():
        referred = document.referred(each["$ref"]) if isinstance(each, dict) and "$ref" in each else each
        if isinstance(referred, dict) and referred.get("readOnly") is True:
            del found["properties"][name]
            if isinstance(found.get("required"), list):
                found["required"] = [other for other in found["required"] if other != name]

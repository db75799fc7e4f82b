"""An OpenAPI document: JSON or YAML, and what its references refer to. Nothing outside of it is ever read."""

import json
import math
import re
from typing import Any
from urllib.parse import unquote

import yaml

from dispatcher.tools import strict_json
from dispatcher.tools.entry import MAX_FILE_BYTES
from dispatcher.tools.strict_json import MAX_NUMBER_LENGTH

MAX_REFERENCES = 32  # of which each refers to the next
_VERSION = re.compile(r"3\.[01]\.\d+")


class UnusableDocumentError(ValueError):
    """Why it, or a part of it, cannot be used."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml's, where it is there
    """YAML as JSON: of 1.2's core schema, in which `no` and `12:30` are texts, and no dates."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", rf"[-+]?[0-9]{{1,{MAX_NUMBER_LENGTH}}}", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})\\Z"), list(_first))


def _mapping(loader: Any, node: yaml.MappingNode) -> dict[str, Any]:
    """Keys are texts, as in JSON: a response is named 200. A merge key is none."""
    found: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise UnusableDocumentError(f"a key is no text, at line {key.start_mark.line + 1}")
        if key.value in found:
            raise UnusableDocumentError(
                f"the key {json.dumps(key.value)} comes twice, at line {key.start_mark.line + 1}"
            )
        found[key.value] = loader.construct_object(value, deep=True)
    return found


def _float(loader: Any, node: yaml.ScalarNode) -> float:
    found = float(loader.construct_scalar(node))
    if not math.isfinite(found):
        raise UnusableDocumentError(f"a number is too large, at line {node.start_mark.line + 1}")
    return found


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node)))
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


class Document:
    """An OpenAPI document. Raises UnusableDocumentError."""

    def __init__(self, content: bytes) -> None:
        root = _parsed(content)
        version = root.get("openapi") if isinstance(root, dict) else None
        if not isinstance(version, str) or not _VERSION.fullmatch(version):
            said = f", not {version!r}" if isinstance(version, str) else ""
            raise UnusableDocumentError(f"has to be OpenAPI 3.0 or 3.1{said}")
        self.root: dict[str, Any] = root
        self.older = version.startswith("3.0")  # its schemas are not JSON Schema yet

    def table(self, value: Any, what: str) -> dict[str, Any]:
        """The value, or what it refers to, which has to be a table."""
        for _ in range(MAX_REFERENCES):
            if not isinstance(value, dict):
                raise UnusableDocumentError(f"{what} is no object")
            if "$ref" not in value:
                return value
            value = self.referred(value["$ref"])
        raise UnusableDocumentError(f"{what} refers to itself")

    def referred(self, reference: Any) -> Any:
        """What a reference within the document names."""
        if not isinstance(reference, str) or not reference.startswith("#/"):
            raise UnusableDocumentError(f"{_shown(reference)} refers to another document")
        found: Any = self.root
        for part in reference[2:].split("/"):
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            elif isinstance(found, dict) and key in found:
                found = found[key]
            else:
                raise UnusableDocumentError(f"{_shown(reference)} refers to nothing")
        return found


def _shown(reference: Any) -> str:
    return json.dumps(reference if isinstance(reference, str) else str(reference))[:100]


def _parsed(content: bytes) -> Any:
    try:
        text = content.decode("utf-8-sig")
        if text.lstrip().startswith("{"):
            return strict_json.parse(text, MAX_FILE_BYTES)
        _check_depth(text)
        return yaml.load(text, _Loader)  # noqa: S506 - it makes nothing but what JSON has
    except UnicodeDecodeError:
        raise UnusableDocumentError("not UTF-8") from None
    except strict_json.StrictJSONError as error:
        raise UnusableDocumentError(str(error)) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UnusableDocumentError(f"{error.problem}{where}") from None
    except yaml.YAMLError as error:
        raise UnusableDocumentError(str(error).partition("\n")[0]) from None


def _check_depth(text: str) -> None:
    """libyaml's composer goes as deep as the text does, and ends the program where the stack does."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > strict_json.MAX_DEPTH and (mark := event.start_mark):
                raise UnusableDocumentError(f"nested deeper than {strict_json.MAX_DEPTH}, at line {mark.line + 1}")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1

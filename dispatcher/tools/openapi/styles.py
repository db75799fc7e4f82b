"""Arguments as parameters of a request: RFC 6570, in the styles that OpenAPI names."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from dispatcher.tools.errors import InvalidArgumentsError

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HEADER = re.compile(r"[!-~]([ !-~]*[!-~])?|")
_BETWEEN = {"form": ",", "simple": ",", "spaceDelimited": "%20", "pipeDelimited": "%7C"}

# By place: the styles that can be written, the default first.
STYLES = {
    "path": ("simple",),
    "query": ("form", "spaceDelimited", "pipeDelimited", "deepObject"),
    "header": ("simple",),
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """place: `path`, `query`, `header`, or `form`: a field of the body. as_json: its content is JSON, whatever the
    style.
    """

    name: str
    place: str
    style: str
    explode: bool
    required: bool = False
    as_json: bool = False

    def in_path(self, value: Any) -> str:
        """Before it is encoded. Raises InvalidArgumentsError."""
        return self._joined(value, ",")

    def in_query(self, value: Any) -> Iterator[str]:
        """Pairs, encoded. Raises InvalidArgumentsError."""
        name = _encoded(self.name)
        if self.as_json:
            yield f"{name}={_encoded(json.dumps(value, ensure_ascii=False))}"
        elif isinstance(value, dict):
            for key, each in value.items():
                under = f"{self.name}[{key}]" if self.style == "deepObject" else key
                yield f"{_encoded(under)}={_encoded(self._scalar(each))}"
        elif isinstance(value, list) and self.explode:
            for each in value:
                yield f"{name}={_encoded(self._scalar(each))}"
        elif isinstance(value, list):
            yield f"{name}={_BETWEEN[self.style].join(_encoded(self._scalar(each)) for each in value)}"
        else:
            yield f"{name}={_encoded(self._scalar(value))}"

    def in_header(self, value: Any) -> str:
        """Raises InvalidArgumentsError."""
        text = json.dumps(value) if self.as_json else self._joined(value, ",")
        if not _HEADER.fullmatch(text):
            raise InvalidArgumentsError(f"The argument {json.dumps(self.name)} cannot stand in a header.")
        return text

    def _joined(self, value: Any, between: str) -> str:
        if isinstance(value, dict):
            joint = "=" if self.explode else between
            return between.join(f"{key}{joint}{self._scalar(each)}" for key, each in value.items())
        if isinstance(value, list):
            return between.join(map(self._scalar, value))
        return self._scalar(value)

    def _scalar(self, value: Any) -> str:
        if isinstance(value, dict | list):
            where = "a form" if self.place == "form" else "a URL"
            raise InvalidArgumentsError(f"The argument {json.dumps(self.name)} is nested too deeply for {where}.")
        text = value if isinstance(value, str) else json.dumps(value)
        if self.place != "form" and _CONTROL.search(text):
            raise InvalidArgumentsError(f"The argument {json.dumps(self.name)} has a line end or a control character.")
        return text


@dataclass(frozen=True, slots=True)
class FormBody:
    """A body of fields. fields: those of which the document says how they are written."""

    fields: Mapping[str, Parameter]

    def encoded(self, values: Mapping[str, Any]) -> bytes:
        """What is null is left out: a form cannot say it. Raises InvalidArgumentsError."""
        return "&".join(pair for name, value in values.items() for pair in self._pairs(name, value)).encode()

    def _pairs(self, name: str, value: Any) -> Iterator[str]:
        if value is None:
            return
        if field := self.fields.get(name):
            yield from field.in_query(value)
            return
        for each in value if isinstance(value, list) else [value]:
            yield from Parameter(name, "form", "form", True, as_json=isinstance(each, dict | list)).in_query(each)


def _encoded(text: str) -> str:
    return quote(text, safe="")

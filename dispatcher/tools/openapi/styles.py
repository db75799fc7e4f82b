"""Arguments as parameters of a request: RFC 6570, in the styles that OpenAPI names."""

import json
import re
from collections.abc import Iterator
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
    """place: `path`, `query` or `header`. as_json: its content is JSON, whatever the style."""

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
            raise InvalidArgumentsError(f"The argument {json.dumps(self.name)} is nested too deeply for a URL.")
        text = value if isinstance(value, str) else json.dumps(value)
        if _CONTROL.search(text):
            raise InvalidArgumentsError(f"The argument {json.dumps(self.name)} has a line end or a control character.")
        return text


def _encoded(text: str) -> str:
    return quote(text, safe="")

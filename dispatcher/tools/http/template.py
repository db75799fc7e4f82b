"""`https://host/v1/{city}?days={days}`: a request's target, made of arguments. Scheme, host and port are the file's
alone; an argument stands in a segment of the path or in the query's values, percent-encoded, and cannot leave it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from dispatcher.tools.errors import InvalidArgumentsError

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_HOST = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9._-]*[a-zA-Z0-9])?\.?|[0-9a-fA-F:.]+")
# RFC 3986: what may stand in a path or a query as it is; a % begins two hexadecimal digits.
_LITERAL = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_IN_VALUES = "an argument stands in the query's values, never in a name"
_UNQUOTINGS = 5  # that are looked through: servers behind servers each take one off


class UnusableTemplateError(ValueError):
    """Why it cannot be used."""


class Origin(NamedTuple):
    """host: as it is looked up; an IPv6 address without brackets."""

    scheme: str
    host: str
    port: int


class Template:
    """A URL, and pairs that are added to its query. in_path: the arguments that it needs; names: all that it takes."""

    def __init__(self, url: str, query: Mapping[str, str]) -> None:
        """Raises UnusableTemplateError."""
        self.origin, path, pairs = _parts(url)
        self._segments = [_Text(segment, "the path") for segment in path.split("/")]
        if any("{" in name for name in query):
            raise UnusableTemplateError(_IN_VALUES)
        pairs += [
            (quote(name, safe=""), _Text(value, f"the query's {name}", literal=False)) for name, value in query.items()
        ]
        self._pairs = pairs
        self.in_path = {name for segment in self._segments for name in segment.names}
        self.names = self.in_path | {name for _, value in self._pairs for name in value.names}

    def target(self, arguments: Mapping[str, Any]) -> str:
        """Path and query. Raises InvalidArgumentsError."""
        path = "/".join(self._segment(segment, arguments) for segment in self._segments)
        query = "&".join(f"{name}={value}" if value is not None else name for name, value in self._query(arguments))
        return f"{path}?{query}" if query else path

    def _segment(self, segment: "_Text", arguments: Mapping[str, Any]) -> str:
        for name in segment.names:
            if arguments.get(name) is None:
                raise InvalidArgumentsError(f"The argument {json.dumps(name)} is needed.")
        given = {name: _scalar(name, arguments[name]) for name in segment.names}
        for name, value in given.items():
            if not value or _leaves(value):
                raise InvalidArgumentsError(
                    f"The argument {json.dumps(name)} has to be one part of a path: not empty, no . or .., no slash."
                )
        filled = segment.filled(given)
        if given and _leaves(filled):  # made up of several
            raise InvalidArgumentsError("The arguments make up more than one part of a path.")
        return filled

    def _query(self, arguments: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
        for name, value in self._pairs:
            if any(arguments.get(each) is None for each in value.names):
                continue
            if (whole := value.whole) and isinstance(arguments[whole], list):
                for item in arguments[whole]:
                    yield name, value.filled({whole: _scalar(whole, item)})
            elif value.bare:
                yield name, None
            else:
                yield name, value.filled({each: _scalar(each, arguments[each]) for each in value.names})


class _Text:
    """Text with placeholders. literal: what stands around them is of a URL already."""

    def __init__(self, text: str, where: str, *, literal: bool = True) -> None:
        self._parts = _PLACEHOLDER.split(text)  # literal, name, literal, name, … literal
        self.bare = False
        for part in self._parts[::2]:
            if "{" in part or "}" in part:
                raise UnusableTemplateError(f"a brace in {where} is of no {{argument}}")
            if literal and not _LITERAL.fullmatch(part):
                raise UnusableTemplateError(f"{where} has characters that have to be percent-encoded")
            if literal and len(self._parts) > 1 and _leaves(f"x{part}"):
                raise UnusableTemplateError(f"an argument stands beside an encoded slash in {where}")
        if not literal:
            self._parts[::2] = [quote(part, safe="") for part in self._parts[::2]]
        self.names = list(dict.fromkeys(self._parts[1::2]))
        if "" in self.names:
            raise UnusableTemplateError(f"{{}} in {where} names no argument")

    @property
    def whole(self) -> str | None:
        """The argument that stands there, and nothing else does."""
        return self._parts[1] if len(self._parts) == 3 and not self._parts[0] and not self._parts[2] else None

    def filled(self, values: Mapping[str, str]) -> str:
        """Percent-encoded, but for the signs that need no encoding anywhere."""
        return "".join(quote(values[part], safe="") if number % 2 else part for number, part in enumerate(self._parts))


def _parts(url: str) -> tuple[Origin, str, list[tuple[str, _Text]]]:
    """Origin, path, and the pairs of the query."""
    if "${" in url:
        raise UnusableTemplateError("${…} is for `headers`, and stays secret there")
    try:
        split = urlsplit(url)
    except ValueError:
        raise UnusableTemplateError("is no URL") from None
    if split.scheme not in ("http", "https") or not split.netloc:
        raise UnusableTemplateError("has to be http(s)://host/…")
    if "{" in split.netloc or "}" in split.netloc:
        raise UnusableTemplateError("no argument may stand in the host or the port")
    if "@" in split.netloc:
        raise UnusableTemplateError("a user or a password stands in `headers`, as Authorization")
    if "#" in url:
        raise UnusableTemplateError("a fragment is never sent")
    try:
        host, port = split.hostname or "", split.port
    except ValueError:
        raise UnusableTemplateError("its port is none") from None
    if not _HOST.fullmatch(host) or port == 0:
        raise UnusableTemplateError("its host is none; an international one is written in its xn-- form")
    pairs = []
    for pair in filter(None, split.query.split("&")):
        name, equals, value = pair.partition("=")
        if "{" in name:
            raise UnusableTemplateError(_IN_VALUES)
        if not _LITERAL.fullmatch(name):
            raise UnusableTemplateError("the query has characters that have to be percent-encoded")
        text = _Text(value, "the query")
        text.bare = not equals
        pairs.append((name, text))
    path = split.path or "/"
    if any(unquote(segment) in (".", "..") for segment in path.split("/")):
        raise UnusableTemplateError("its path has a segment . or ..")
    return Origin(split.scheme, host, port or (443 if split.scheme == "https" else 80)), path, pairs


def _scalar(name: str, value: Any) -> str:
    """As it stands in a URL, before it is encoded. Raises InvalidArgumentsError."""
    if isinstance(value, dict | list) or value is None:
        raise InvalidArgumentsError(f"The argument {json.dumps(name)} cannot stand in a URL: it has to be one value.")
    text = value if isinstance(value, str) else json.dumps(value)
    if _CONTROL.search(text):
        raise InvalidArgumentsError(f"The argument {json.dumps(name)} has a line end or a control character.")
    return text


def _leaves(text: str) -> bool:
    """Whether a server could take it for more, or less, than a path's segment, however often it takes encoding off."""
    for _ in range(_UNQUOTINGS):
        if text in (".", "..") or "/" in text or "\\" in text or _CONTROL.search(text):
            return True
        once = unquote(text)
        if once == text:
            return False
        text = once
    return True

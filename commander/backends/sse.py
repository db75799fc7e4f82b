"""Server-sent events from bytes (https://html.spec.whatwg.org/multipage/server-sent-events.html).

The decoder of the package `openai` has no limit, ends at the first byte that is no UTF-8, and drops a last event whose
blank line is missing. Here a line of JSON without a field's name is an event too: so errors come from some servers. And
a line of data that is a whole chunk is one before the next, where no blank line parts them.
"""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from commander.backends.errors import ProviderError

MAX_EVENT_BYTES = 1024 * 1024  # a whole answer in one chunk is smaller, with its calls
_LINE_END = re.compile(rb"\r\n|\n|\r")
BOM = b"\xef\xbb\xbf"


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


class Event(NamedTuple):
    """`name`: empty where the server gave none."""

    name: str
    data: str


class Decoder:
    def __init__(self) -> None:
        self._begun: list[bytes] = []  # of a line, in the parts that it came in: none is looked through twice
        self._begun_size = 0
        self._returned = False  # the last byte was a CR: an LF that follows is of the same line end
        self._first = True
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, part: bytes) -> Iterator[Event]:
        """The events that this completes. Raises ProviderError: one is too large."""
        if not part:
            return  # what came before it still awaits what follows
        if self._returned and part.startswith(b"\n"):
            part = part[1:]
        self._returned = part.endswith(b"\r")
        first, *others = _LINE_END.split(part)
        self._begin(first)
        for other in others:
            yield from self._line(self._ended())
            self._begin(other)

    def end(self) -> Iterator[Event]:
        """What was begun and not ended."""
        for line in (self._ended(), b""):
            yield from self._line(line)

    def _begin(self, part: bytes) -> None:
        self._begun.append(part)
        self._begun_size += len(part)
        if self._size + self._begun_size > MAX_EVENT_BYTES:
            raise ProviderError(f"an event beyond the limit of {MAX_EVENT_BYTES} bytes")

    def _ended(self) -> bytes:
        line = b"".join(self._begun)
        self._begun, self._begun_size = [], 0
        return line

    def _line(self, line: bytes) -> Iterator[Event]:
        if self._first:
            line, self._first = line.removeprefix(BOM), False
        if not line:
            if self._data or self._name:
                yield Event(self._name, "\n".join(self._data))
            self._name, self._data, self._size = "", [], 0
        elif line.startswith(b"{"):
            yield Event("", line.decode(errors="replace"))
        else:
            yield from self._field(line.decode(errors="replace"))

    def _field(self, line: str) -> Iterator[Event]:
        name, _, value = line.partition(":")  # a comment's name is empty
        if name in ("event", "data") and self._whole:
            yield from self._line(b"")
        value = value.removeprefix(" ")
        if name == "error":  # as llama.cpp has written it
            yield Event(name, value)
        elif name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
            self._size += len(line)

    @property
    def _whole(self) -> bool:
        """The line of data that came is a chunk by itself."""
        return len(self._data) == 1 and self._data[0].startswith("{") and is_json(self._data[0])

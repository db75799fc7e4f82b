"""Large texts, read a slice at a time before they are taken in, so that whoever reads them gives way in between. Pure.

What was read ahead counts only where nothing has come in between: a text that is taken in is read then, at once, unless
the stream stands where it stood. So reading ahead changes how long a text keeps others waiting, and nothing else.
"""

from collections.abc import Generator, Sequence
from typing import NamedTuple, TypeVar

from dispatcher.policies.matches import Match, TextStream

T = TypeVar("T")
Slices = Generator[None, None, T]  # gives way after each slice


class Ahead(NamedTuple):
    """before: what `text` was read from, which had read `start` characters; after: a copy that has read it, too."""

    text: str
    before: TextStream | None
    start: int
    after: TextStream
    found: Sequence[Match]

    def fits(self, text: str, stream: TextStream | None) -> bool:
        return self.text == text and self.before is stream and (stream is None or stream.length == self.start)


def fed(stream: TextStream, text: str, size: int) -> Slices[list[Match]]:
    """Feed it the text, so many characters at a time; the matches that are complete, up to one that stops."""
    found: list[Match] = []
    for start in range(0, len(text), size):
        more = stream.feed(text[start : start + size])
        found += more
        if any(match.rule.action == "stop" for match in more):
            break
        yield
    return found


def at_once(work: Slices[T]) -> T:
    """Its outcome, without giving way."""
    while True:
        try:
            next(work)
        except StopIteration as over:
            outcome: T = over.value
            return outcome

"""Large texts, read a slice at a time before they are taken in, so that whoever reads them gives way in between. Pure.

What was read ahead counts only where nothing has come in between: a text that is taken in is read then, at once, unless
the stream stands where it stood. So reading ahead changes how long a text keeps others waiting, and nothing else.
"""

from collections.abc import Generator
from typing import NamedTuple, TypeVar

from dispatcher.policies.matches import TextStream
from dispatcher.policies.reader import Findings, Tally

T = TypeVar("T")
Slices = Generator[None, None, T]  # gives way after each slice

MAX_MATCHES = 256  # of a slice, beyond which the next is smaller: each takes some 10 µs


class Ahead(NamedTuple):
    """before: what `text` was read from, which had read `start` characters; after, tally: copies that have read it,
    too.
    """

    text: str
    before: TextStream | None
    start: int
    after: TextStream
    tally: Tally
    found: Findings

    def fits(self, text: str, stream: TextStream | None) -> bool:
        return self.text == text and self.before is stream and (stream is None or stream.length == self.start)


def fed(stream: TextStream, text: str, size: int, tally: Tally) -> Slices[Findings]:
    """Feed it the text, at most so many characters at a time; what is found, up to what stops."""
    found = Findings()
    start, count = 0, max(1, size // 8)
    while start < len(text):
        more = stream.feed(text[start : start + count])
        found.add(more, tally)
        if found.stop:
            break
        start += count
        count = max(1, min(size, 2 * count, count * MAX_MATCHES // max(1, len(more))))
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

"""A model in a loop: the same block of text, again and again."""

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from dispatcher.policies.matches import Match, Rule

STRIDE = 32  # characters between two looks: what a look costs is shared by so many
MAX_BLOCK = 2_000  # characters
MAX_TRIES = 8  # places at which what a text ends with stood before that are tried as the block's beginning


class Repeats(msgspec.Struct, frozen=True):
    """A block of `length` characters or more may come `most` times in a row (shorter ones are taken together, up to
    that length); looked for at every 32nd character, in blocks of 2,000 at most.
    """

    most: int
    length: int
    rule: Rule
    slice: ClassVar[int] = 1024

    def stream(self) -> "RepeatStream":
        return RepeatStream(self)


class RepeatStream:
    """A `Stream` that finds one block too many. It hides nothing of what was repeated."""

    __slots__ = ("_limits", "_tail", "length")

    def __init__(self, limits: Repeats) -> None:
        self.length = 0
        self._limits = limits
        self._tail = ""

    def copy(self) -> "RepeatStream":
        twin = RepeatStream(self._limits)
        twin.length, twin._tail = self.length, self._tail
        return twin

    @property
    def idle(self) -> bool:
        return not self._tail

    def feed(self, text: str) -> Sequence[Match]:
        at = 0
        while at < len(text):
            end = min(len(text), at + STRIDE - self.length % STRIDE)
            self._tail += text[at:end]
            self.length += end - at
            at = end
            if self.length % STRIDE == 0 and self._exceeded():
                return [Match(self.length, self.length, self._limits.rule)]
        return ()

    def end(self) -> Sequence[Match]:
        return ()

    def hold(self) -> int:
        return self.length

    def _exceeded(self) -> bool:
        most, length = self._limits.most, self._limits.length
        self._tail = tail = self._tail[-(most + 1) * MAX_BLOCK :]
        size = len(tail)
        probe, before = tail[-length:], size - 1
        for _ in range(MAX_TRIES if size > length else 0):
            found = tail.rfind(probe, max(0, size - length - MAX_BLOCK), before)
            if found < 0:
                return False
            period = size - length - found
            block = -(-length // period) * period if period < length else period
            repeated = (most + 1) * block
            if repeated <= size and tail[size - repeated + period :] == tail[size - repeated : size - period]:
                return True
            before = found + length - 1
        return False

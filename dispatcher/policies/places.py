"""Where what rules read stands in the raw text: places are counted in symbols, which raw code points make."""

from bisect import bisect_right
from operator import itemgetter


class Places:
    """The raw indices of places, as far back as they are needed."""

    __slots__ = ("_offsets",)

    def __init__(self) -> None:
        self._offsets = [(0, 0)]  # (from this place on, raw index less place)

    def copy(self) -> "Places":
        twin = Places()
        twin._offsets = self._offsets[:]
        return twin

    def __bool__(self) -> bool:
        """There is something to forget."""
        return len(self._offsets) > 1

    def note(self, place: int, raw: int) -> None:
        """From that place on, which is not read yet, each symbol is one code point, until the next note."""
        if raw - place != self._offsets[-1][1]:
            self._offsets.append((place, raw - place))

    def raw(self, place: int) -> int:
        """The index of the first code point of that symbol."""
        offsets = self._offsets
        at = bisect_right(offsets, place, key=itemgetter(0)) - 1 if len(offsets) > 1 else 0
        return place + offsets[at][1]

    def forget(self, place: int) -> None:
        """What is before that place is not needed any more."""
        if len(self._offsets) > 1:
            at = bisect_right(self._offsets, place, key=itemgetter(0)) - 1
            del self._offsets[: max(at, 0)]

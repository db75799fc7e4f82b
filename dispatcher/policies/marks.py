"""Combining marks on a symbol, as phrases look for them. Marks of different classes may change places, marks of one
class may not (canonical equivalence, Unicode standard, 3.11); so a run of marks is compared class by class.

A phrase wants marks on each of its symbols. More of them do not hide its last symbol. Before that only accents may be
more, and where the phrase is to be taken exactly, none.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from unicodedata import combining

REMEMBERED = 1 << 12  # runs of which the classes are remembered

# Classes (UnicodeData.txt) of marks that belong to a letter, or are one: signs of Han reading, nuktas, voicing marks of
# kana, viramas; vowels and tones of Telugu, Thai, Lao, Tibetan. All others are accents, points and strokes.
LETTER_CLASSES = frozenset({6, 7, 8, 9, 84, 91, 103, 107, 118, 122, 129, 130, 132})


class Marks:
    """Those on the last symbols of a text, by place. most: marks that a phrase wants on one symbol; 0: none wants any.

    barred  the last place with marks over which no phrase goes on that has none; -1: none
    """

    __slots__ = ("_exact", "_most", "_runs", "barred")

    def __init__(self, exact: bool, most: int) -> None:
        self._exact, self._most = exact, most
        self._runs: dict[int, str] = {}
        self.barred = -1

    def __bool__(self) -> bool:
        """Some may matter."""
        return self.barred >= 0 or bool(self._runs)

    def copy(self) -> "Marks":
        twin = Marks(self._exact, self._most)
        twin._runs, twin.barred = self._runs.copy(), self.barred
        return twin

    def on(self, place: int) -> str:
        return self._runs.get(place, "")

    def add(self, place: int, mark: str) -> str:
        """The symbol there has a mark more; answers with all of them. Of one class, more than are wanted, and one, tell
        nothing.
        """
        order = combining(mark)
        if self._exact or order in LETTER_CLASSES:
            self.barred = place
        run = self.on(place)
        if self._most and sum(combining(each) == order for each in run) <= self._most:
            run = self._runs[place] = run + mark
        return run

    def are_inside(self, wanted: Sequence[str], start: int) -> bool:
        """From that place on the symbols have these marks, and none of them is the last."""
        return all(is_inside(self.on(start + at), marks, self._exact) for at, marks in enumerate(wanted))

    def may_go_on(self, kinds: Sequence[Sequence[str]], start: int, last: int) -> bool:
        """From `start` to `last`, which may get more, the symbols have the marks of some kind; one of none is empty."""
        run = self.on(last)
        for wanted in kinds:
            if not wanted:
                if self.barred < start:
                    return True
            elif may_be_inside(run, wanted[-1], self._exact) and self.are_inside(wanted[:-1], start):
                return True
        return False

    def forget(self, place: int) -> None:
        """What is before that place is not needed any more."""
        if self._runs:
            self._runs = {at: run for at, run in self._runs.items() if at >= place}
        if self.barred < place:
            self.barred = -1


def begins_with(run: str, wanted: str) -> bool:
    """The run can be written so that it begins with these marks: what the last symbol needs."""
    return all(came.startswith(marks) for came, marks, _ in _classes(run, wanted))


def may_begin_with(run: str, wanted: str) -> bool:
    """With more marks it can; it can not yet."""
    pairs = [(came, marks) for came, marks, _ in _classes(run, wanted)]
    possible = all(came.startswith(marks) or marks.startswith(came) for came, marks in pairs)
    return possible and not all(came.startswith(marks) for came, marks in pairs)


def is_inside(run: str, wanted: str, exact: bool) -> bool:
    """What a symbol before the last needs."""
    return run == wanted or all(
        came == marks or (accent and not exact and came.startswith(marks))
        for came, marks, accent in _classes(run, wanted)
    )


def may_be_inside(run: str, wanted: str, exact: bool) -> bool:
    """With more marks it can be, or it is."""
    return run == wanted or all(
        marks.startswith(came) or (accent and not exact and came.startswith(marks))
        for came, marks, accent in _classes(run, wanted)
    )


def _classes(run: str, wanted: str) -> Iterator[tuple[str, str, bool]]:
    """For each class of marks: those of the run, those that are wanted, and whether they are accents."""
    came, marks = _by_class(run), _by_class(wanted)
    for order in came.keys() | marks.keys():
        yield came.get(order, ""), marks.get(order, ""), order not in LETTER_CLASSES


@lru_cache(maxsize=REMEMBERED)
def _by_class(run: str) -> dict[int, str]:
    classes: dict[int, str] = {}
    for mark in run:
        order = combining(mark)
        classes[order] = classes.get(order, "") + mark
    return classes

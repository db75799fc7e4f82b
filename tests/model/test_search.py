"""The search itself, and what it relies on."""

from collections.abc import Callable, Hashable, Iterator

import pytest

from tests.model.commanders import scripted
from tests.model.mutants import Mutant
from tests.model.scenarios import LOG, WHOLE
from tests.model.search import Broken, Move, World, search


class Count:
    """A number that may be raised or halved; `broken` breaks the promise, and it is done at `end`."""

    def __init__(self, number: int, broken: int = -1, end: int = 5) -> None:
        self.number, self.broken, self.end = number, broken, end

    @property
    def key(self) -> Hashable:
        return self.number

    @property
    def done(self) -> bool:
        return self.number == self.end

    def moves(self) -> Iterator[Move]:
        if self.number < self.end:
            yield Move(("up",), True, self.become, (self.number + 1,))
        yield Move(("double",), False, self.become, (self.number * 2 % 16,))

    def become(self, number: int) -> "Count":
        if number == self.broken:
            raise Broken(f"it is {number}")
        return Count(number, self.broken, self.end)


def test_every_state_is_visited_once() -> None:
    found = search(Count(1), ends=False)
    assert (found.broken, found.states) == ("", 10)  # 0 to 6, 8, 10 and 12


def test_the_shortest_way_to_a_broken_promise_is_told() -> None:
    found = search(Count(1, broken=8))
    assert (found.broken, list(found.trace)) == ("it is 8", [("up",), ("double",), ("double",)])
    assert str(found).endswith("1  up\n   2  double\n   3  double")


def test_a_state_from_which_no_end_can_be_reached_is_told() -> None:
    found = search(Count(1))
    assert (found.broken, list(found.trace)[-1]) == ("no end can be reached", ("double",))


def test_a_search_that_grows_too_large_says_so() -> None:
    with pytest.raises(OverflowError, match="more than 3 states"):
        search(Count(1), ends=False, limit=3)


@pytest.mark.parametrize("begin", [LOG["a cut"].careless, WHOLE["a cut"].whole], ids=["careless", "whole"])
def test_moves_leave_the_world_as_it_was_and_lead_where_they_led_before(begin: Callable[[], World]) -> None:
    with scripted():
        worlds = [begin()]
        for world in worlds:
            key = world.key
            moves = list(world.moves())
            after = [move.act(*move.arguments) for move in moves]
            assert world.key == key
            assert [move.label for move in world.moves()] == [move.label for move in moves]
            assert [move.act(*move.arguments).key for move in moves] == [each.key for each in after]
            worlds += after[: 200 - len(worlds)]


def test_a_mutant_of_what_no_longer_stands_there_is_an_error() -> None:
    with pytest.raises(AssertionError, match="0 times"):
        Mutant("dispatcher.core.log:apply", "a rule that was rewritten").source()

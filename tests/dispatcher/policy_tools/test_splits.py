import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.policy_tools.splits import ALL_UP_TO, AT_RANDOM, pieces, splits


@pytest.mark.parametrize(("length", "count"), [(0, 1), (1, 1), (2, 2), (5, 16), (ALL_UP_TO, 2 ** (ALL_UP_TO - 1))])
def test_a_short_text_is_split_in_all_ways(length: int, count: int) -> None:
    found = list(splits(length))
    assert len(found) == len(set(found)) == count


def test_a_long_text_is_split_at_each_place_at_all_of_them_and_by_chance() -> None:
    length = ALL_UP_TO + 8
    found = list(splits(length))
    assert found[0] == ()
    assert set(found) >= {(place,) for place in range(1, length)} | {tuple(range(1, length))}
    assert len(found) == 1 + (length - 1) + 1 + AT_RANDOM
    assert found == list(splits(length))


@given(text=st.text(max_size=20))
def test_pieces_are_the_text(text: str) -> None:
    for cuts in splits(len(text)):
        found = pieces(text, cuts)
        assert "".join(found) == text
        assert len(found) == len(cuts) + 1
        assert all(found) or not text

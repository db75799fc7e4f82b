import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.policies import changes as module
from dispatcher.policies.changes import Edit, changes


@pytest.mark.parametrize(
    ("asked", "shown", "found"),
    [
        ("I am Ann.", "I am Ann.", []),
        ("I am Ann.", "I am <X>.", [(5, 8, "<X>")]),
        ("Ann and Bob!", "<X> and <Y>!", [(0, 3, "<X>"), (8, 11, "<Y>")]),
        ("ab", "", [(0, 2, None)]),
        ("ab cd", "ab  cd", [(2, 3, "  ")]),
        ("ab", "Xab", [(0, 1, "Xa")]),
        ("ab", "abX", [(1, 2, "bX")]),
    ],
)
def test_changes(asked: str, shown: str, found: list[Edit]) -> None:
    assert changes(asked, shown) == found


@given(st.text("ab ,", min_size=1, max_size=20), st.text("abX ,", max_size=20))
def test_what_is_not_changed_and_what_is_there_instead_make_the_other_text(asked: str, shown: str) -> None:
    made, at = "", 0
    for start, end, text in changes(asked, shown):
        assert at <= start < end <= len(asked)
        made += asked[at:start] + (text or "")
        assert text != ""
        at = end
    assert made + asked[at:] == shown


def test_too_many_words_count_as_one_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WORDS", 5)
    assert changes("x a b c d y", "x A b c D y") == [(2, 9, "A b c D")]

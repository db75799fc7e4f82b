"""Who is ejected, for how long, and who never is."""

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.live.outliers import (
    BASE_EJECTION_SECONDS,
    CONSECUTIVE_FAILURES,
    MAX_EJECTION_PERCENT,
    MAX_EJECTION_SECONDS,
    Outliers,
)

FOUR = ("a", "b", "c", "d")


def fail(outliers: Outliers, commander_id: str, times: int, of: tuple[str, ...] = FOUR) -> list[float]:
    return [outliers.failed(commander_id, set(of) - {commander_id}) for _ in range(times)]


def test_failures_in_a_row_eject_once() -> None:
    outliers = Outliers()
    assert fail(outliers, "a", CONSECUTIVE_FAILURES + 2) == [0, 0, 0, 0, BASE_EJECTION_SECONDS, 0, 0]
    assert [outliers.ejected(each) for each in FOUR] == [True, False, False, False]


def test_one_that_ends_well_begins_the_row_anew() -> None:
    outliers = Outliers()
    fail(outliers, "a", CONSECUTIVE_FAILURES - 1)
    outliers.served("a")
    assert outliers.failures("a") == 0
    assert not any(fail(outliers, "a", CONSECUTIVE_FAILURES - 1))


def test_each_ejection_is_longer_until_one_ends_well() -> None:
    outliers = Outliers()
    seconds = [max(fail(outliers, "a", CONSECUTIVE_FAILURES))]
    for _ in range(12):
        outliers.back("a")
        seconds += fail(outliers, "a", 1)
    assert seconds[:3] == [BASE_EJECTION_SECONDS, 2 * BASE_EJECTION_SECONDS, 3 * BASE_EJECTION_SECONDS]
    assert seconds[-1] == MAX_EJECTION_SECONDS
    outliers.served("a")
    assert outliers.ejected("a"), "one that was under way ends no ejection"
    outliers.back("a")
    outliers.served("a")
    assert max(fail(outliers, "a", CONSECUTIVE_FAILURES)) == BASE_EJECTION_SECONDS


def test_the_only_one_is_never_ejected_nor_is_anyone_where_all_fail() -> None:
    outliers = Outliers()
    assert not any(fail(outliers, "a", 100, of=("a",)))
    outliers = Outliers()
    for _ in range(100):
        assert not any(fail(outliers, each, 1)[0] for each in FOUR)


def test_who_is_gone_is_forgotten_but_for_an_ejection() -> None:
    outliers = Outliers()
    fail(outliers, "a", CONSECUTIVE_FAILURES)
    fail(outliers, "b", 2)
    for each in ("a", "b", "c"):
        outliers.forget(each)
    assert outliers.ejected("a")
    assert outliers.failures("b") == 0


@given(st.lists(st.tuples(st.sampled_from(FOUR), st.sampled_from(("failed", "served", "back")))))
def test_half_stay_whatever_comes(steps: list[tuple[str, str]]) -> None:
    outliers = Outliers()
    for commander_id, step in steps:
        if step == "failed":
            fail(outliers, commander_id, 1)
        elif step == "served":
            outliers.served(commander_id)
        elif outliers.ejected(commander_id):
            outliers.back(commander_id)
        assert sum(map(outliers.ejected, FOUR)) <= len(FOUR) * MAX_EJECTION_PERCENT // 100

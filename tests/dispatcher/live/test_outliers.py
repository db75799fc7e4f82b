"""Who is ejected, for how long, and who never is."""

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.log import CommanderName
from dispatcher.live.outliers import (
    BASE_EJECTION_SECONDS,
    CONSECUTIVE_FAILURES,
    MAX_EJECTION_PERCENT,
    MAX_EJECTION_SECONDS,
    Outliers,
)

FOUR = A, B, C, _ = tuple(map(CommanderName, "abcd"))


def fail(outliers: Outliers, commander: CommanderName, times: int, of: tuple[CommanderName, ...] = FOUR) -> list[float]:
    return [outliers.failed(commander, set(of) - {commander}) for _ in range(times)]


def test_failures_in_a_row_eject_once() -> None:
    outliers = Outliers()
    assert fail(outliers, A, CONSECUTIVE_FAILURES + 2) == [0, 0, 0, 0, BASE_EJECTION_SECONDS, 0, 0]
    assert [outliers.ejected(each) for each in FOUR] == [True, False, False, False]


def test_who_takes_anothers_id_costs_it_nothing() -> None:
    outliers, thief = Outliers(), CommanderName("a", "another's key")
    five = (*FOUR, thief)
    assert max(fail(outliers, thief, CONSECUTIVE_FAILURES, of=five)) == BASE_EJECTION_SECONDS
    assert [outliers.ejected(each) for each in five] == [False] * 4 + [True]
    assert (outliers.failures(A), outliers.failures(thief)) == (0, CONSECUTIVE_FAILURES)


def test_one_that_ends_well_begins_the_row_anew() -> None:
    outliers = Outliers()
    fail(outliers, A, CONSECUTIVE_FAILURES - 1)
    outliers.served(A)
    assert outliers.failures(A) == 0
    assert not any(fail(outliers, A, CONSECUTIVE_FAILURES - 1))


def test_each_ejection_is_longer_until_one_ends_well() -> None:
    outliers = Outliers()
    seconds = [max(fail(outliers, A, CONSECUTIVE_FAILURES))]
    for _ in range(12):
        outliers.back(A)
        seconds += fail(outliers, A, 1)
    assert seconds[:3] == [BASE_EJECTION_SECONDS, 2 * BASE_EJECTION_SECONDS, 3 * BASE_EJECTION_SECONDS]
    assert seconds[-1] == MAX_EJECTION_SECONDS
    outliers.served(A)
    assert outliers.ejected(A), "one that was under way ends no ejection"
    outliers.back(A)
    outliers.served(A)
    assert max(fail(outliers, A, CONSECUTIVE_FAILURES)) == BASE_EJECTION_SECONDS


def test_the_only_one_is_never_ejected_nor_is_anyone_where_all_fail() -> None:
    outliers = Outliers()
    assert not any(fail(outliers, A, 100, of=(A,)))
    outliers = Outliers()
    for _ in range(100):
        assert not any(fail(outliers, each, 1)[0] for each in FOUR)


def test_who_is_gone_is_forgotten_but_for_an_ejection() -> None:
    outliers = Outliers()
    fail(outliers, A, CONSECUTIVE_FAILURES)
    fail(outliers, B, 2)
    for each in (A, B, C):
        outliers.forget(each)
    assert outliers.ejected(A)
    assert outliers.failures(B) == 0


@given(st.lists(st.tuples(st.sampled_from(FOUR), st.sampled_from(("failed", "served", "back")))))
def test_half_stay_whatever_comes(steps: list[tuple[CommanderName, str]]) -> None:
    outliers = Outliers()
    for commander, step in steps:
        if step == "failed":
            fail(outliers, commander, 1)
        elif step == "served":
            outliers.served(commander)
        elif outliers.ejected(commander):
            outliers.back(commander)
        assert sum(map(outliers.ejected, FOUR)) <= len(FOUR) * MAX_EJECTION_PERCENT // 100

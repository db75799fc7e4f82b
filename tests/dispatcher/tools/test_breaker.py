import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dispatcher.tools.breaker import FAILURES, OPEN_SECONDS, Breaker


@pytest.fixture
def broken() -> Breaker:
    """Since 0.0."""
    breaker = Breaker()
    for _ in range(FAILURES):
        assert breaker.admit(0)
        breaker.failed(0)
    return breaker


def test_it_opens_after_failures_in_a_row_and_one_call_tries() -> None:
    breaker = Breaker()
    for _ in range(FAILURES - 1):
        breaker.failed(0)
    breaker.answered()
    for _ in range(FAILURES):
        assert breaker.admit(0)
        breaker.failed(0)
    assert not breaker.admit(OPEN_SECONDS - 0.1)
    assert breaker.admit(OPEN_SECONDS)
    assert not breaker.admit(OPEN_SECONDS), "one call tries"


def test_a_trial_that_succeeds_closes_it(broken: Breaker) -> None:
    assert broken.admit(OPEN_SECONDS)
    broken.answered()
    assert broken.admit(OPEN_SECONDS)
    assert broken.admit(OPEN_SECONDS)


def test_a_trial_that_fails_opens_it_again(broken: Breaker) -> None:
    assert broken.admit(OPEN_SECONDS)
    broken.failed(OPEN_SECONDS + 1)
    assert not broken.admit(2 * OPEN_SECONDS)
    assert broken.admit(2 * OPEN_SECONDS + 1)


def test_a_trial_that_is_stopped_leaves_its_turn_to_the_next_call(broken: Breaker) -> None:
    assert broken.admit(OPEN_SECONDS)
    broken.dropped()
    assert broken.admit(OPEN_SECONDS)


class Calls(RuleBasedStateMachine):
    """Calls that overlap in any way: it never stays open for ever, and is closed below FAILURES in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker, self.now, self.running, self.in_a_row = Breaker(), 0.0, 0, 0

    @rule(seconds=st.floats(0, 2 * OPEN_SECONDS))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def call(self) -> None:
        open_ = self.breaker.is_open(self.now)
        assert self.breaker.admit(self.now) is not open_
        self.running += not open_

    @precondition(lambda self: self.running)
    @rule()
    def answered(self) -> None:
        self.running, self.in_a_row = self.running - 1, 0
        self.breaker.answered()

    @precondition(lambda self: self.running)
    @rule()
    def failed(self) -> None:
        self.running, self.in_a_row = self.running - 1, self.in_a_row + 1
        self.breaker.failed(self.now)

    @precondition(lambda self: self.running)
    @rule()
    def dropped(self) -> None:
        self.running -= 1
        self.breaker.dropped()

    @invariant()
    def it_is_open_only_after_failures(self) -> None:
        assert not self.breaker.is_open(self.now) or self.in_a_row >= FAILURES

    @invariant()
    def with_nothing_under_way_it_opens_again_in_time(self) -> None:
        assert self.running or not self.breaker.is_open(self.now + OPEN_SECONDS)


TestCalls = Calls.TestCase

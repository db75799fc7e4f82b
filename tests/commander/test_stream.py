"""What the stream's own rules are; sessions on streams stand in test_worker."""

import pytest

from commander.stream import MAX_BACKOFF, backoff


@pytest.mark.parametrize("failures", [0, 1, 5, 10_000])
def test_the_back_off_is_bounded_however_long_nobody_answers(failures: int) -> None:
    assert all(0 <= backoff(failures) <= MAX_BACKOFF for _ in range(100))

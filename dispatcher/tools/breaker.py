"""A circuit breaker: a service that fails again and again is left alone for a while. Pure: `now` comes in, seconds of
a clock that does not jump.
"""

FAILURES = 5  # in a row, which open it
OPEN_SECONDS = 10.0  # after which one call tries


class Breaker:
    """Of one tool."""

    def __init__(self) -> None:
        self._failures = 0
        self._shut_until = 0.0
        self._trying = False

    def is_open(self, now: float) -> bool:
        """Whether a call has to be refused; asking changes nothing."""
        return self._failures >= FAILURES and (self._trying or now < self._shut_until)

    def admit(self, now: float) -> bool:
        """Whether a call may be made. True: `answered`, `failed` or `dropped` follows."""
        if self.is_open(now):
            return False
        self._trying = self._failures >= FAILURES
        return True

    def answered(self) -> None:
        """The service works."""
        self._failures, self._trying = 0, False

    def failed(self, now: float) -> None:
        """It does not."""
        self._failures += 1
        self._trying = False
        if self._failures >= FAILURES:
            self._shut_until = now + OPEN_SECONDS

    def dropped(self) -> None:
        """The call was stopped, and tells nothing."""
        self._trying = False

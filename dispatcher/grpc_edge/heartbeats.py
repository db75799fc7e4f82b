"""The statuses of a Commander of the pool, on one of its streams."""

from collections.abc import Callable

import structlog

from dispatcher.grpc_edge.patience import Patience
from dispatcher.live.pool import Member, Pool
from shared.records import Status

logger = structlog.get_logger()

LOOP_LAG_MICROS = 1_000_000  # from which on operators are told that a Commander's event loop is held up


class Heartbeats:
    """hangs: called where none has come for so many seconds: C threads answer pings, whatever hangs."""

    def __init__(self, member: Member, pool: Pool, seconds: float, hangs: Callable[[], None]) -> None:
        self.member, self._pool = member, pool
        self._patience = Patience(seconds, hangs)
        self._patience.begin()
        pool.join(member)

    def report(self, status: Status) -> None:
        """One has come."""
        self._patience.begin()
        lag = status.loop_lag_micros
        if lag >= LOOP_LAG_MICROS and lag != self.member.status.loop_lag_micros:
            # An agent computes without awaiting: until it lets go, no stop reaches any session there.
            logger.warning("loop_lag", commander_id=status.commander_id, seconds=lag / 1e6)
        self._pool.report(self.member, status)

    def close(self) -> None:
        """The stream is over."""
        self._patience.close()
        self._pool.leave(self.member)

"""The net below all deadlines: a live session that nothing here leads to an end gets one all the same.

Each wait of a session has a deadline of its own, so what is found here is a fault of ours: it is logged as such and
counted, and the session is concluded as if its Commander were lost.
"""

import asyncio

import structlog

from dispatcher.live.runners import Runners
from dispatcher.metrics import Metrics

logger = structlog.get_logger()

LOOK_SECONDS = 5.0


class Sweep:
    """seconds: that a session may stay so, longer than all deadlines together."""

    def __init__(self, runners: Runners, metrics: Metrics, seconds: float) -> None:
        self._runners, self._metrics, self._seconds = runners, metrics, seconds
        self._since: dict[str, float] = {}  # by session: found unattended first, in the loop's time

    async def keep(self) -> None:
        """For as long as the instance lives."""
        while True:
            self.look(asyncio.get_running_loop().time())
            await asyncio.sleep(LOOK_SECONDS)

    def look(self, now: float) -> None:
        """now: in the loop's time."""
        found = {each.session_id: each for each in self._runners.by_session.values() if each.unattended}
        self._since = {session_id: self._since.get(session_id, now) for session_id in found}
        for session_id, runner in found.items():
            if now - self._since[session_id] >= self._seconds:
                del self._since[session_id]
                head = runner.session.head
                logger.error("session_unattended", session_id=session_id, state=head.state, generation=head.generation)
                self._metrics.unattended.inc()
                runner.lost()

"""What users ask with is read before anything is logged and before a Commander sees it."""

from collections.abc import Awaitable, Callable
from functools import cached_property

import structlog

from dispatcher.core.log import Request
from dispatcher.metrics import Metrics
from dispatcher.policies.arguments import strings
from dispatcher.policies.outcomes import Reading, Violation
from dispatcher.policies.questions import AskedPolicy, Question
from dispatcher.policies.rules import RuleSet
from dispatcher.policing.judges import Judges
from dispatcher.policing.timed import PolicyClock

logger = structlog.get_logger()


class PromptRefused(Exception):
    """A policy refuses what the user asks with."""


class PromptUnread(Exception):
    """A policy could not be asked about it."""


class Prompt:
    """The messages of a request, and the strings of its parameters, each for itself."""

    def __init__(self, request: Request, rules: RuleSet, clock: PolicyClock, judges: Judges, metrics: Metrics) -> None:
        self._request = request
        self._clock, self._judges, self._metrics = clock, judges, metrics
        asked = rules.asked("prompt")
        self._gates = [policy for policy in asked if policy.holds("prompt")]
        self._observers = [policy for policy in asked if not policy.holds("prompt")]

    @cached_property
    def _texts(self) -> list[str]:
        """Found when a rule asks: parameters may hold many."""
        return [message.content for message in self._request.messages] + strings(self._request.parameters_json)

    async def read(self) -> None:
        """Raises PromptRefused, PromptUnread."""
        self._refuse(await self._clock.prompt(lambda: self._texts))
        for reading in await self._judges.read(self._gates, self._question):
            self._refuse(reading)

    @property
    def observed(self) -> bool:
        """Some policy is still to be asked about it."""
        return bool(self._observers)

    async def observe(self, session_id: str, stop: Callable[[str, Violation], Awaitable[object]]) -> None:
        """Ask the observers, and stop the session that came of it where one finds a violation."""

        def question(policy: AskedPolicy) -> Question:
            return Question(policy, 0, "prompt", tuple(self._texts), session_id=session_id)

        for reading in await self._judges.read(self._observers, question):
            self._count(reading)
            if reading.violation:
                await stop(session_id, reading.violation)

    def _question(self, policy: AskedPolicy) -> Question:
        return Question(policy, 0, "prompt", tuple(self._texts))

    def _refuse(self, reading: Reading) -> None:
        self._count(reading)
        violation = reading.violation
        if violation and violation.unavailable:
            logger.info("prompt_unread", policy=violation.policy)
            raise PromptUnread
        if violation or reading.denied:
            logger.info("prompt_refused", policy=violation.policy if violation else reading.denied)
            raise PromptRefused

    def _count(self, reading: Reading) -> None:
        for hit in reading.hits:
            self._metrics.policy_hit(hit.policy, hit.action, hit.times)
        if reading.violation:
            self._metrics.policy_hit(reading.violation.policy, "stop")

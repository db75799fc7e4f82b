"""What users ask with is read before anything is logged and before a Commander sees it."""

from collections.abc import Awaitable, Callable
from functools import cached_property, partial

import msgspec
import structlog

from dispatcher.core.log import Request
from dispatcher.metrics import Metrics
from dispatcher.policies.arguments import strings
from dispatcher.policies.matches import Channel
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


READ: tuple[Channel, ...] = ("prompt", "results")


def _named(parts_json: str) -> list[str]:
    """What the parts of a message say that is neither its text nor data."""
    parts = msgspec.json.decode(parts_json or "[]")
    inner = [value for part in parts for value in part.values() if isinstance(value, dict)]
    said = [value for each in inner for name, value in each.items() if name in ("url", "filename", "file_id")]
    return [text for text in said if isinstance(text, str) and not text.startswith("data:")]


class Prompt:
    """The messages of a request, what it says of the client's tools, and the strings of its parameters, each for
    itself. What the client's tools answered is read as results are, too.
    """

    def __init__(self, request: Request, rules: RuleSet, clock: PolicyClock, judges: Judges, metrics: Metrics) -> None:
        self._request = request
        self._clock, self._judges, self._metrics = clock, judges, metrics
        self._gates: dict[Channel, list[AskedPolicy]] = {}
        self._observers: dict[Channel, list[AskedPolicy]] = {}
        for channel in READ:
            asked = rules.asked(channel) if channel == "prompt" or self._results else []
            self._gates[channel] = [policy for policy in asked if policy.holds(channel)]
            self._observers[channel] = [policy for policy in asked if not policy.holds(channel)]

    def _texts_of(self, channel: Channel) -> list[str]:
        return self._texts if channel == "prompt" else self._results

    @cached_property
    def _texts(self) -> list[str]:
        request = self._request
        texts = [text for message in request.messages for text in (message.content, message.name)]
        calls = [call for message in request.messages for call in message.tool_calls]
        texts += [text for call in calls for text in (call.name, *strings(call.arguments_json))]
        for tool in request.tools:
            texts += [tool.name, tool.description, *strings(tool.parameters_json_schema)]
        texts += [text for message in request.messages for text in _named(message.parts_json)]
        return texts + strings(request.parameters_json)

    @cached_property
    def _images(self) -> list[str]:
        parts = [part for message in self._request.messages for part in msgspec.json.decode(message.parts_json or "[]")]
        return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]

    @cached_property
    def _results(self) -> list[str]:
        answers = [message.content for message in self._request.messages if message.role == "tool"]
        return [text for answer in answers for text in strings(answer)]

    async def read(self) -> None:
        """Raises PromptRefused, PromptUnread."""
        for channel in READ:
            self._refuse(await self._clock.whole(channel, partial(self._texts_of, channel)))
            for reading in await self._judges.read(self._gates[channel], self._question(channel)):
                self._refuse(reading)

    @property
    def observed(self) -> bool:
        """Some policy is still to be asked about it."""
        return any(self._observers.values())

    async def observe(self, session_id: str, stop: Callable[[str, Violation], Awaitable[object]]) -> None:
        """Ask the observers, and stop the session that came of it where one finds a violation."""
        for channel in READ:
            for reading in await self._judges.read(self._observers[channel], self._question(channel, session_id)):
                self._count(reading)
                if reading.violation:
                    await stop(session_id, reading.violation)

    def _question(self, channel: Channel, session_id: str = "") -> Callable[[AskedPolicy], Question]:
        def question(policy: AskedPolicy) -> Question:
            images = tuple(self._images) if channel == "prompt" and policy.kind == "http" else ()
            texts = tuple(self._texts_of(channel))
            return Question(policy, 0, channel, texts, session_id=session_id, images=images)

        return question

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

"""How long policies take. They are pure and hold no clock, so it is measured around them."""

from collections.abc import Sequence
from time import perf_counter

from dispatcher.metrics import Metrics
from dispatcher.policies.gate import Gate
from dispatcher.policies.matches import CHANNELS, Channel
from dispatcher.policies.outcomes import Reading, Release
from dispatcher.policies.rules import RuleSet


class PolicyClock:
    """Observes `dispatcher_policy_seconds` for a rule set.

    What reads a channel is read in one pass; its time is divided evenly among the policies.
    """

    def __init__(self, rules: RuleSet, metrics: Metrics) -> None:
        self._rules = rules
        self._readers = {
            channel: [metrics.policy_seconds(name) for name in rules.readers(channel)] for channel in CHANNELS
        }

    def gate(self, gate: Gate) -> "Gate | TimedGate":
        """The gate, measured if any policy reads what it is given."""
        return TimedGate(gate, self) if any(self._readers.values()) else gate

    def prompt(self, texts: Sequence[str]) -> Reading:
        """What the rules say to a user's prompt."""
        if not self._readers["prompt"]:
            return Reading()
        started = perf_counter()
        reading = self._rules.prompt(texts)
        self.took("prompt", perf_counter() - started)
        return reading

    def took(self, channel: Channel, seconds: float) -> None:
        readers = self._readers[channel]
        for series in readers:
            series.observe(seconds / len(readers))


class TimedGate:
    """A Gate whose readings are measured."""

    def __init__(self, gate: Gate, clock: PolicyClock) -> None:
        self._gate, self._clock = gate, clock
        self.end, self.overdue, self.resume = gate.end, gate.overdue, gate.resume
        self.asked, self.questions, self.answered = gate.asked, gate.questions, gate.answered

    @property
    def deadline(self) -> float | None:
        return self._gate.deadline

    @property
    def held(self) -> int:
        return self._gate.held

    @property
    def waiting(self) -> bool:
        return self._gate.waiting

    def content(self, text: str, at: float) -> Release:
        started = perf_counter()
        release = self._gate.content(text, at)
        self._clock.took("content", perf_counter() - started)
        return release

    def thought(self, step_name: str, delta: str, at: float) -> Reading:
        started = perf_counter()
        reading = self._gate.thought(step_name, delta, at)
        self._clock.took("thoughts", perf_counter() - started)
        return reading

    def arguments(self, tool_name: str, arguments_json: str, at: float) -> Reading:
        started = perf_counter()
        reading = self._gate.arguments(tool_name, arguments_json, at)
        self._clock.took("arguments", perf_counter() - started)
        return reading

    def result(self, result_json: str, at: float) -> Reading:
        started = perf_counter()
        reading = self._gate.result(result_json, at)
        self._clock.took("results", perf_counter() - started)
        return reading

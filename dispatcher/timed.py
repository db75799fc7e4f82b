"""How long policies take. They are pure and hold no clock, so it is measured around them."""

from time import perf_counter

from dispatcher.metrics import Metrics
from dispatcher.policies.gate import Gate, Release, Violation
from dispatcher.policies.rules import Channel, RuleSet


class PolicyClock:
    """Observes `dispatcher_policy_seconds` for a rule set.

    All phrases that read a channel are found in one pass; its time is divided evenly among their policies.
    """

    def __init__(self, rules: RuleSet, metrics: Metrics) -> None:
        channels: tuple[Channel, ...] = ("content", "thoughts", "arguments")
        self._readers = {
            channel: [metrics.policy_seconds(name) for name in rules.readers(channel)] for channel in channels
        }

    def gate(self, gate: Gate) -> "Gate | TimedGate":
        """The gate, measured if any policy reads what it is given."""
        return TimedGate(gate, self) if any(self._readers.values()) else gate

    def took(self, channel: Channel, seconds: float) -> None:
        readers = self._readers[channel]
        for series in readers:
            series.observe(seconds / len(readers))


class TimedGate:
    """A Gate whose readings are measured."""

    def __init__(self, gate: Gate, clock: PolicyClock) -> None:
        self._gate, self._clock = gate, clock
        self.end, self.overdue, self.resume = gate.end, gate.overdue, gate.resume

    @property
    def deadline(self) -> float | None:
        return self._gate.deadline

    @property
    def held(self) -> int:
        return self._gate.held

    def content(self, text: str, at: float) -> Release:
        started = perf_counter()
        release = self._gate.content(text, at)
        self._clock.took("content", perf_counter() - started)
        return release

    def thought(self, step_name: str, delta: str, at: float) -> Violation | None:
        started = perf_counter()
        violation = self._gate.thought(step_name, delta, at)
        self._clock.took("thoughts", perf_counter() - started)
        return violation

    def arguments(self, tool_name: str, arguments_json: str, at: float) -> Violation | None:
        started = perf_counter()
        violation = self._gate.arguments(tool_name, arguments_json, at)
        self._clock.took("arguments", perf_counter() - started)
        return violation

"""How long policies take. They are pure and hold no clock, so it is measured around them."""

from collections.abc import Callable, Sequence
from time import perf_counter

from dispatcher.metrics import Metrics
from dispatcher.policies.ahead import Slices
from dispatcher.policies.gate import Gate, Rules
from dispatcher.policies.matches import CHANNELS, Channel
from dispatcher.policies.outcomes import Reading, Release
from dispatcher.policies.rules import RuleSet
from shared.turns import LoopTurn


class PolicyClock:
    """Observes `dispatcher_policy_seconds` for a rule set.

    What reads a channel is read in one pass; its time is divided evenly among the policies.
    """

    def __init__(self, rules: RuleSet, metrics: Metrics) -> None:
        self._rules = rules
        self._readers = {
            channel: [metrics.policy_seconds(name) for name in rules.readers(channel)] for channel in CHANNELS
        }

    def gate(self, started_at: float) -> Gate:
        """A new session's gate, measured if any policy reads what it is given. started_at: see `RuleSet.gate`."""
        if any(self._readers.values()):
            return TimedGate(self._rules.rules, started_at, self)
        return self._rules.gate(started_at)

    async def whole(self, channel: Channel, texts: Callable[[], Sequence[str]]) -> Reading:
        """What the rules say to whole texts; these are asked for where a rule reads them."""
        if not self._readers[channel]:
            return Reading()
        slices, turn, seconds = self._rules.in_slices(channel, texts()), LoopTurn(), 0.0
        while True:
            started = perf_counter()
            try:
                next(slices)
            except StopIteration as over:
                self.took(channel, seconds + perf_counter() - started)
                reading: Reading = over.value
                return reading
            seconds += perf_counter() - started
            await turn.step()

    def took(self, channel: Channel, seconds: float) -> None:
        readers = self._readers[channel]
        for series in readers:
            series.observe(seconds / len(readers))


class TimedGate(Gate):
    """A gate whose readings are measured."""

    def __init__(self, rules: Rules, started_at: float, clock: PolicyClock) -> None:
        super().__init__(rules, started_at)
        self._clock = clock
        self._spent_ahead = 0.0  # seconds that reading ahead took; they count with what is taken in next

    def read_ahead(self, channel: Channel, *texts: str, step_name: str = "") -> Slices[None]:
        slices = super().read_ahead(channel, *texts, step_name=step_name)
        while True:
            started = perf_counter()
            over = next(slices, slices) is slices
            self._spent_ahead += perf_counter() - started
            if over:
                return
            yield

    def content(self, text: str, at: float) -> Release:
        started = perf_counter()
        release = super().content(text, at)
        self._took("content", started)
        return release

    def thought(self, step_name: str, delta: str, at: float) -> Reading:
        started = perf_counter()
        reading = super().thought(step_name, delta, at)
        self._took("thoughts", started)
        return reading

    def arguments(self, tool_name: str, arguments_json: str, at: float) -> Reading:
        started = perf_counter()
        reading = super().arguments(tool_name, arguments_json, at)
        self._took("arguments", started)
        return reading

    def result(self, result_json: str, at: float) -> Reading:
        started = perf_counter()
        reading = super().result(result_json, at)
        self._took("results", started)
        return reading

    def _took(self, channel: Channel, started: float) -> None:
        self._clock.took(channel, perf_counter() - started + self._spent_ahead)
        self._spent_ahead = 0.0

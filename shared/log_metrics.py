"""The log lines that a program did not write, as its metrics."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from shared import logs


class UnwrittenLines(Collector):
    """`{program}_log_lines_lost_total`, and `…_left_out_total`, as `shared.logs` counts them."""

    def __init__(self, program: str, registry: CollectorRegistry) -> None:
        self._program = program
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        lost, left_out = f"{self._program}_log_lines_lost", f"{self._program}_log_lines_left_out"
        yield CounterMetricFamily(lost, "Log lines that could not be written.", logs.lost())
        yield CounterMetricFamily(left_out, "Log lines that were too many of their kind.", logs.left_out())

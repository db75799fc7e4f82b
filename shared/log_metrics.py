"""The log lines that a program could not write, as its metric."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from shared import logs


class LostLines(Collector):
    """`{program}_log_lines_lost_total`, as `shared.logs` counts them."""

    def __init__(self, program: str, registry: CollectorRegistry) -> None:
        self._name = f"{program}_log_lines_lost"
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily(self._name, "Log lines that could not be written.", logs.lost())

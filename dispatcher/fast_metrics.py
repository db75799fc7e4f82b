"""Metrics of the hot path without prometheus-client's lock for each value, which cost a tenth of a token's time.

One event loop writes them and the same loop is asked by /metrics, so there is nothing to lock.
"""

from bisect import bisect_left
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Series:
    """One series of a histogram."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """A negative value (a clock was set back) counts as 0, for a histogram's sum must not fall."""
        if value < 0:
            value = 0.0
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class FastHistogram(Collector):
    """As prometheus_client.Histogram; `labels` gives a series, to be kept by who observes."""

    def __init__(
        self, name: str, text: str, labels: tuple[str, ...], bounds: tuple[float, ...], registry: CollectorRegistry
    ) -> None:
        self._name, self._text, self._labels, self._bounds = name, text, labels, bounds
        self._series: dict[tuple[str, ...], Series] = {}
        if not labels:
            self.labels()
        registry.register(self)

    def labels(self, *values: str) -> Series:
        if values not in self._series:
            self._series[values] = Series(self._bounds)
        return self._series[values]

    def observe(self, value: float) -> None:
        """Where there are no labels."""
        self._series[()].observe(value)

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for values, series in self._series.items():
            below, buckets = 0, []
            for bound, count in zip((*self._bounds, float("inf")), series.counts, strict=True):
                below += count
                buckets.append((floatToGoString(bound), below))  # type: ignore[no-untyped-call]
            family.add_metric(values, buckets, series.total)
        return [family]


class FastCounter(Collector):
    """As prometheus_client.Counter with one label, whose values are known: all begin at 0."""

    def __init__(self, name: str, text: str, label: str, values: Iterable[str], registry: CollectorRegistry) -> None:
        self._name, self._text, self._label = name, text, label
        self._counts = dict.fromkeys(values, 0)
        registry.register(self)

    def inc(self, value: str) -> None:
        self._counts[value] += 1

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self._name, self._text, labels=(self._label,))
        for value, count in self._counts.items():
            family.add_metric((value,), count)
        return [family]


class Level:
    """A gauge that goes up and down often."""

    __slots__ = ("value",)

    def __init__(self, name: str, text: str, registry: CollectorRegistry) -> None:
        self.value = 0
        Gauge(name, text, registry=registry).set_function(lambda: self.value)

    def inc(self, amount: int = 1) -> None:
        self.value += amount

    def dec(self, amount: int = 1) -> None:
        self.value -= amount

"""The fast metrics say to the letter what prometheus-client's own would."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from dispatcher.fast_metrics import FastCounter, FastHistogram, Level

BOUNDS = (0.001, 0.5, 1.0, 10.0)
disable_created_metrics()  # type: ignore[no-untyped-call]


@given(st.lists(st.tuples(st.sampled_from(["a", 'b"\n']), st.floats(0, 20) | st.sampled_from(BOUNDS))))
def test_a_histogram(observed):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    fast = FastHistogram("x_seconds", "Text.", ("name",), BOUNDS, ours)
    slow = Histogram("x_seconds", "Text.", ("name",), buckets=BOUNDS, registry=theirs)
    for name, value in observed:
        fast.labels(name).observe(value)
        slow.labels(name).observe(value)
    assert generate_latest(ours) == generate_latest(theirs)


def test_a_histogram_without_labels_begins_at_0_and_its_sum_never_falls():
    registry = CollectorRegistry()
    fast = FastHistogram("x", "Text.", (), BOUNDS, registry)
    assert "x_count 0.0" in generate_latest(registry).decode()
    fast.observe(-5)
    assert "x_sum 0.0" in generate_latest(registry).decode()
    assert "x_count 1.0" in generate_latest(registry).decode()


@given(st.lists(st.sampled_from(["a", "b"])))
def test_a_counter(counted):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    fast = FastCounter("x_total", "Text.", "kind", ("a", "b"), ours)
    slow = Counter("x_total", "Text.", ("kind",), registry=theirs)
    slow.labels("a"), slow.labels("b")
    for value in counted:
        fast.inc(value)
        slow.labels(value).inc()
    assert generate_latest(ours) == generate_latest(theirs)


def test_a_level():
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    level, gauge = Level("x", "Text.", ours), Gauge("x", "Text.", registry=theirs)
    for one in (level, gauge):
        one.inc(5)
        one.dec(2)
    assert generate_latest(ours) == generate_latest(theirs)

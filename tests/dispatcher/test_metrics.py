import asyncio
import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import parser as openmetrics_parser

from dispatcher.metrics import Metrics, exposition, watch_loop

# As promised, in the order of its table: name, type, labels.
PROMISED = [
    ("dispatcher_packets", "counter", {"kind"}),
    ("dispatcher_backlog_packets", "gauge", set()),
    ("dispatcher_packet_lag_seconds", "histogram", set()),
    ("dispatcher_first_event_seconds", "histogram", set()),
    ("dispatcher_loop_lag_seconds", "histogram", set()),
    ("dispatcher_sessions", "gauge", {"state"}),
    ("dispatcher_commanders", "gauge", set()),
    ("dispatcher_ejected_commanders", "gauge", set()),
    ("dispatcher_commander_ejections", "counter", set()),
    ("dispatcher_free_slots", "gauge", set()),
    ("dispatcher_waiting_sessions", "gauge", set()),
    ("dispatcher_sessions", "counter", {"outcome"}),
    ("dispatcher_takeovers", "counter", set()),
    ("dispatcher_unattended_sessions", "counter", set()),
    ("dispatcher_stops", "counter", {"reason"}),
    ("dispatcher_stop_seconds", "histogram", {"stage"}),
    ("dispatcher_deltas_after_stop", "counter", set()),
    ("dispatcher_held_characters", "gauge", set()),
    ("dispatcher_policy_seconds", "histogram", {"policy"}),
    ("dispatcher_policy_hits", "counter", {"policy", "action"}),
    ("dispatcher_policy_reload_success", "gauge", set()),
    ("dispatcher_access_reload_success", "gauge", set()),
    ("dispatcher_audit_lines_lost", "counter", set()),
    ("dispatcher_issuer_failures", "counter", set()),
    ("dispatcher_tls_certificate_expiry_seconds", "gauge", {"edge"}),
    ("dispatcher_tls_reload_success", "gauge", {"edge"}),
    ("dispatcher_tool_calls", "counter", {"tool", "status"}),
    ("dispatcher_tool_seconds", "histogram", {"tool"}),
    ("dispatcher_tool_calls_running", "gauge", {"tool"}),
    ("dispatcher_toolset_up", "gauge", {"toolset"}),
    ("dispatcher_tool_reload_success", "gauge", set()),
    ("dispatcher_approvals_waiting", "gauge", set()),
    ("dispatcher_abandoned_tool_threads", "gauge", {"tool"}),
    ("dispatcher_abandoned_tool_calls", "gauge", {"tool"}),
    ("dispatcher_append_seconds", "histogram", set()),
    ("dispatcher_append_batch_packets", "histogram", set()),
    ("dispatcher_log_lines_lost", "counter", set()),
    ("dispatcher_log_lines_left_out", "counter", set()),
    ("dispatcher_refusals", "counter", {"edge", "kind"}),
    ("dispatcher_unknown_parameters", "counter", {"route"}),
    ("dispatcher_event_streams", "gauge", set()),
    ("dispatcher_build_info", "gauge", {"version"}),
]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry)


def test_names_types_and_labels_are_the_promised_ones(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.know(tools=["search"], policies=["limits"])
    metrics.toolset_up("docs", True)
    metrics.tls_read("http", 1e9)
    found = {(family.name, family.type): set(family.samples[0].labels) - {"le"} for family in registry.collect()}
    assert found == {(name, kind): labels for name, kind, labels in PROMISED}


def test_known_series_begin_at_zero(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.know(tools=["search"], policies=["limits"])
    text = generate_latest(registry).decode()
    for line in (
        'dispatcher_packets_total{kind="tool_call"} 0.0',
        'dispatcher_sessions{state="running"} 0.0',
        'dispatcher_sessions_total{outcome="failed"} 0.0',
        "dispatcher_takeovers_total 0.0",
        'dispatcher_stops_total{reason="UserCancel"} 0.0',
        'dispatcher_stop_seconds_count{stage="halted"} 0.0',
        'dispatcher_tool_calls_total{status="TIMEOUT",tool="search"} 0.0',
        'dispatcher_tool_calls_total{status="UNKNOWN_TOOL",tool="unknown"} 0.0',
        'dispatcher_tool_seconds_count{tool="search"} 0.0',
        'dispatcher_policy_hits_total{action="stop",policy="limits"} 0.0',
        "dispatcher_policy_reload_success 1.0",
    ):
        assert line in text.splitlines()
    assert "_created" not in text


def test_facts_become_samples(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.packet_logged("content", 0.001)
    metrics.packet_logged("never seen", 0.001)
    metrics.pool(commanders=2, free_slots=7, waiting=3, ejected=1)
    metrics.stopped("RiskControl")
    metrics.stopped("a commander's word")
    metrics.tool_done("search", "OK", 0.2)
    metrics.tool_done("unknown", "UNKNOWN_TOOL", 0.0)
    metrics.policy_hit("limits", "stop")
    metrics.appended(0.002, 5)
    expected = {
        ("dispatcher_packets_total", ("kind", "content")): 1,
        ("dispatcher_packets_total", ("kind", "unknown")): 1,
        ("dispatcher_sessions", ("state", "waiting")): 3,
        ("dispatcher_stops_total", ("reason", "RiskControl")): 1,
        ("dispatcher_stops_total", ("reason", "unknown")): 1,
        ("dispatcher_tool_seconds_count", ("tool", "search")): 1,
    }
    for (name, label), count in expected.items():
        assert registry.get_sample_value(name, dict([label])) == count
    assert registry.get_sample_value("dispatcher_free_slots") == 7
    assert registry.get_sample_value("dispatcher_append_batch_packets_sum") == 5


def test_openmetrics_says_what_the_text_says_and_which_trace_shows_it(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    metrics.know(tools=["search"], policies=["limits"])
    metrics.pool(commanders=2, free_slots=7, waiting=3, ejected=1)
    metrics.session_over("stopped")
    metrics.first_event(0.2, "f" * 32)
    metrics.stop_sent(0.001)
    metrics.stop_halted(0.002, "a" * 32)
    metrics.tool_done("search", "OK", 0.2, "b" * 32)
    text, _ = exposition(registry, "application/openmetrics-text")
    families = list(openmetrics_parser.text_string_to_metric_families(text.decode()))  # strict: it refuses a clash
    told = {(sample.name, tuple(sorted(sample.labels.items()))): sample for each in families for sample in each.samples}
    plain = [sample for family in registry.collect() for sample in family.samples]
    assert {key: sample.value for key, sample in told.items()} == {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in plain
    }
    assert {(sample.name, sample.exemplar.labels["trace_id"]) for sample in told.values() if sample.exemplar} == {
        ("dispatcher_first_event_seconds_bucket", "f" * 32),
        ("dispatcher_stop_seconds_bucket", "a" * 32),
        ("dispatcher_tool_seconds_bucket", "b" * 32),
    }
    text, _ = exposition(registry, "*/*")
    assert b"# {" not in text, "the text format has no exemplars"


def test_a_sum_never_falls(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.first_event(-5)
    metrics.packet_logged("content", -5)
    assert registry.get_sample_value("dispatcher_first_event_seconds_sum") == 0
    assert registry.get_sample_value("dispatcher_packet_lag_seconds_sum") == 0


async def test_a_blocked_loop_is_seen(metrics: Metrics, registry: CollectorRegistry) -> None:
    watcher = asyncio.create_task(watch_loop(metrics))
    await asyncio.sleep(0)
    time.sleep(0.3)  # noqa: ASYNC251 (this is the fault)
    async with asyncio.timeout(30):
        while not registry.get_sample_value("dispatcher_loop_lag_seconds_count"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    watcher.cancel()
    lag = registry.get_sample_value("dispatcher_loop_lag_seconds_sum")
    assert lag is not None
    assert lag > 0.15

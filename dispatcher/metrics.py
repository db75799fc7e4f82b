"""The Dispatcher's own metrics. Names, types and labels are promised (docs/reference/metrics.md); those of gRPC are in
`shared.grpc_metrics`.

No label has a value that users or Commanders choose. Series whose label values are known begin at 0, and their children
are bound once, for they are on the hot path.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Iterable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from dispatcher.core.log import FINAL, State
from dispatcher.fast_metrics import FastCounter, FastHistogram, Level, Series
from dispatcher.policies.matches import ACTIONS
from shared.log_metrics import UnwrittenLines
from shared.records import STOP_REASONS, TOOL_STATUSES
from shared.version import version

UNKNOWN = "unknown"
# By edge: what is refused as it exceeds a bound, or is no message at all (docs/limits.md), or is a foreign page's, or
# as its caller may not.
REFUSALS = {
    "chatstream": (
        "malformed",
        "invalid",
        "credit",
        "log_full",
        "sessions",
        "unread",
        "silent",
        "hung",
        "on_hold",
        "unauthenticated",
        "forbidden",
    ),
    "http": (
        "invalid_http",
        "url_too_long",
        "headers_too_large",
        "request_timeout",
        "too_many_connections",
        "body_too_large",
        "body_too_complex",
        "too_many_bodies",
        "queue_full",
        "too_many_sessions",
        "rate_limit_exceeded",
        "too_many_orders",
        "too_many_holds",
        "on_hold",
        "host_not_allowed",
        "origin_not_allowed",
        "invalid_api_key",
        "forbidden",
    ),
}
OPENAI_ROUTES = ("chat_completions", "responses")
PACKET_KINDS = ("thought", "content", "tool_call", "error", "stopped", UNKNOWN)

_WORK = (0.00001, 0.00005, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1)  # of the CPU
_LATENCY = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_WAITING = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)  # of people
_PACKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

# Asked for in any version but another one. prometheus-client's own `choose_encoder` raises for what is no number.
_OPENMETRICS = re.compile(r"application/openmetrics-text(?![^,]*;\s*version=(?!1\.0\.0\b))")

LOOP_INTERVAL = 0.1  # seconds between two looks at the event loop


class Metrics:
    """Durations are seconds; a negative one (a clock was set back) counts as 0, for a histogram's sum must not fall.

    trace: the id of a sampled trace that shows what was measured, as the exemplar of its bucket; empty: there is none.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second gauge for each counter, which nobody promised

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"dispatcher_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"dispatcher_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"dispatcher_{name}", text, labels, registry=registry, buckets=buckets)

        def level(name: str, text: str) -> Level:
            return Level(f"dispatcher_{name}", text, registry)

        def fast(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> FastHistogram:
            return FastHistogram(f"dispatcher_{name}", text, labels, buckets, registry)

        self._packets = FastCounter(
            "dispatcher_packets_total", "Packets in the log, each counted once.", "kind", PACKET_KINDS, registry
        )
        self.backlog_packets = level("backlog_packets", "Packets received and not yet in the log.")
        lag = fast("packet_lag_seconds", "From a packet's receipt to its being in the log.", _LATENCY)
        self._packet_lag = lag.labels()
        self._first_event = histogram("first_event_seconds", "From the prompt to the first content released.", _WAITING)
        self._loop_lag = histogram("loop_lag_seconds", "How late the event loop is.", _LATENCY)

        sessions = gauge("sessions", "Sessions of this instance.", "state")
        self.waiting = sessions.labels("waiting")
        self.running = sessions.labels("running")
        self.waiting_sessions = gauge("waiting_sessions", "Waiting sessions of the whole store: use max, not sum.")
        self.commanders = gauge("commanders", "Commanders connected to this instance.")
        self.ejected_commanders = gauge(
            "ejected_commanders", "Commanders that get no session for a while, as theirs have failed."
        )
        self.ejections = counter("commander_ejections_total", "Times that a Commander was ejected.")
        self.free_slots = gauge("free_slots", "Free slots of this instance's Commanders.")
        outcomes = Counter("dispatcher_sessions_total", "Sessions that ended.", ("outcome",), registry=None)
        registry.register(_Unlisted(outcomes))
        self._outcomes = {outcome: outcomes.labels(outcome) for outcome in FINAL}
        self.takeovers = counter("takeovers_total", "Sessions assigned again after their Commander was lost.")
        self.unattended = counter("unattended_sessions_total", "Sessions that nothing led to an end: a fault of ours.")

        stops = counter("stops_total", "Sessions stopped.", "reason")
        self._stops = {reason: stops.labels(reason) for reason in (*STOP_REASONS, UNKNOWN)}
        stop_seconds = histogram(
            "stop_seconds",
            "From a stop's detection to Stop written (sent), to Stopped received (halted).",
            _LATENCY,
            "stage",
        )
        self._stop_sent, self._stop_halted = stop_seconds.labels("sent"), stop_seconds.labels("halted")
        self._deltas_after_stop = counter("deltas_after_stop_total", "Deltas that the log got after the stop.")

        self.held_characters = level("held_characters", "Characters of content held back by policies.")
        self._policy_seconds = fast("policy_seconds", "Time that a policy took for a piece of text.", _WORK, "policy")
        self._policy_hits = counter("policy_hits_total", "Times that a policy acted.", "policy", "action")
        self.policy_reload_success = gauge("policy_reload_success", "1 if the policies were last read without error.")
        self.policy_reload_success.set(1)  # a program whose first reading fails does not start

        self.access_reload_success = gauge(
            "access_reload_success", "1 if the access rules were last read without error."
        )
        self.access_reload_success.set(1)
        self.audit_lines_lost = counter("audit_lines_lost_total", "Audit lines that could not be written.")
        self.issuer_failures = counter("issuer_failures_total", "Times that an issuer's keys could not be fetched.")
        self._tls_expiry = gauge(
            "tls_certificate_expiry_seconds", "When an edge's certificate expires, in Unix time.", "edge"
        )
        self._tls_reload_success = gauge(
            "tls_reload_success", "1 if the edge's certificate and key were last read without error.", "edge"
        )

        self._tool_calls = counter("tool_calls_total", "Tool calls answered.", "tool", "status")
        self._tool_seconds = histogram("tool_seconds", "Time to a tool call's answer.", _LATENCY, "tool")
        self._tool_calls.labels(UNKNOWN, "UNKNOWN_TOOL")
        self._tool_calls_running = gauge("tool_calls_running", "Tool calls that run now.", "tool")
        self._toolset_up = gauge(
            "toolset_up", "1 if the toolset's server was reached, and its tools are offered.", "toolset"
        )
        self.tool_reload_success = gauge("tool_reload_success", "1 if the tools were last read without error.")
        self.tool_reload_success.set(1)  # as with the policies
        self.approvals_waiting = gauge("approvals_waiting", "Tool calls of this instance's sessions to be approved.")
        self._runs_on = gauge(
            "abandoned_tool_calls", "Calls of asynchronous tools that were cancelled and run on.", "tool"
        )
        self._abandoned = gauge("abandoned_tool_threads", "Threads that outlived their calls and still run.", "tool")

        self._append = fast("append_seconds", "Time that an append to the store took.", _LATENCY).labels()
        batch = fast("append_batch_packets", "Packets in one append to the store.", _PACKETS)
        self._append_batch = batch.labels()
        UnwrittenLines("dispatcher", registry)
        refusals = counter("refusals_total", "What was refused as it exceeds a bound of an edge.", "edge", "kind")
        self._refusals = {(edge, kind): refusals.labels(edge, kind) for edge in REFUSALS for kind in REFUSALS[edge]}
        unknown_parameters = counter("unknown_parameters_total", "Names in requests that nobody knows.", "route")
        self._unknown_parameters = {route: unknown_parameters.labels(route) for route in OPENAI_ROUTES}
        self.event_streams = gauge("event_streams", "Users connected to event streams.")
        gauge("build_info", "Always 1; the version is the label.", "version").labels(version()).set(1)

    def know(self, tools: Iterable[str] = (), policies: Iterable[str] = ()) -> None:
        """Begin the series of these tools and policies at 0."""
        for tool in tools:
            self._tool_seconds.labels(tool)
            self._tool_calls_running.labels(tool)
            self._abandoned.labels(tool)
            self._runs_on.labels(tool)
            for status in TOOL_STATUSES:
                if status != "UNKNOWN_TOOL":  # of no tool that is known
                    self._tool_calls.labels(tool, status)
        for policy in policies:
            self._policy_seconds.labels(policy)
            for action in ACTIONS:
                self._policy_hits.labels(policy, action)

    def packet_logged(self, kind: str, lag: float) -> None:
        """kind: the oneof field's name. lag: receipt to in the log, both of one clock."""
        self._packets.inc(kind if kind in PACKET_KINDS else UNKNOWN)
        self._packet_lag.observe(lag)

    def first_event(self, seconds: float, trace: str = "") -> None:
        """Prompt to first content released."""
        self._first_event.observe(max(0.0, seconds), _exemplar(trace))

    def loop_late(self, seconds: float) -> None:
        """One look at the event loop."""
        self._loop_lag.observe(max(0.0, seconds))

    def pool(self, commanders: int, free_slots: int, waiting: int, ejected: int) -> None:
        """What this instance has now."""
        self.commanders.set(commanders)
        self.free_slots.set(free_slots)
        self.ejected_commanders.set(ejected)
        self.waiting.set(waiting)

    def session_over(self, outcome: State) -> None:
        """outcome: a final one."""
        self._outcomes[outcome].inc()

    def stopped(self, reason: str) -> None:
        """A stop is in the log."""
        self._stops.get(reason, self._stops[UNKNOWN]).inc()

    def stop_sent(self, seconds: float, trace: str = "") -> None:
        """Detection to Stop written."""
        self._stop_sent.observe(max(0.0, seconds), _exemplar(trace))

    def stop_halted(self, seconds: float, trace: str = "") -> None:
        """Detection to `Stopped` received."""
        self._stop_halted.observe(max(0.0, seconds), _exemplar(trace))

    def delta_after_stop(self) -> None:
        """The log got one."""
        self._deltas_after_stop.inc()

    def policy_seconds(self, policy: str) -> Series:
        """Where to observe what a policy took; its name as in the operator's file."""
        return self._policy_seconds.labels(policy)

    def policy_hit(self, policy: str, action: str, times: int = 1) -> None:
        """policy: its name in the operator's file. action: one of `dispatcher.policies.matches.ACTIONS`."""
        self._policy_hits.labels(policy, action).inc(times)

    def tool_done(self, tool: str, status: str, seconds: float, trace: str = "") -> None:
        """tool: a registered name, else `unknown`. status: as in the contract."""
        self._tool_calls.labels(tool, status).inc()
        self._tool_seconds.labels(tool).observe(max(0.0, seconds), _exemplar(trace))

    def tool_running(self, tool: str, change: int) -> None:
        """A call of a registered tool has begun (1), or ended (-1)."""
        self._tool_calls_running.labels(tool).inc(change)

    def tls_read(self, edge: str, expires_at: float | None) -> None:
        """An edge's certificate was read; None: it cannot be used, and the one before stays."""
        self._tls_reload_success.labels(edge).set(expires_at is not None)
        if expires_at is not None:
            self._tls_expiry.labels(edge).set(expires_at)

    def toolset_up(self, toolset: str, up: bool) -> None:
        """Whether its tools are offered."""
        self._toolset_up.labels(toolset).set(up)

    def toolset_gone(self, toolset: str) -> None:
        """The operators' files do not name it any more."""
        with contextlib.suppress(KeyError):
            self._toolset_up.remove(toolset)

    def abandoned(self, tool: str, threads: int) -> None:
        """That many threads of a synchronous tool outlived their calls and still run."""
        self._abandoned.labels(tool).set(threads)

    def tool_runs_on(self, tool: str, calls: int) -> None:
        """That many calls of an asynchronous tool were cancelled and run on."""
        self._runs_on.labels(tool).set(calls)

    def refused(self, edge: str, kind: str) -> None:
        """kind: one of REFUSALS; another one is the request's own fault, and is not counted."""
        if counted := self._refusals.get((edge, kind)):
            counted.inc()

    def unknown_parameters(self, route: str, names: int) -> None:
        """route: one of OPENAI_ROUTES."""
        self._unknown_parameters[route].inc(names)

    def appended(self, seconds: float, packets: int) -> None:
        """One append to the store, of that many packets."""
        self._append.observe(seconds)
        self._append_batch.observe(packets)


class _Unlisted(Collector):
    """A counter whose name without `_total` another metric has, which prometheus-client takes for a clash.

    It is one in OpenMetrics, not in the text format: see `_Unclashed`.
    """

    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        return self._counter.collect()


class _Unclashed:
    """A registry as OpenMetrics can say it: there a counter `x_total` is the family `x`, and so is a gauge `x`. Of two
    such the counter is told without its type; names, labels and values stay.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        families = list(self._registry.collect())
        others = {family.name for family in families if family.type != "counter"}
        for family in families:
            if family.type == "counter" and family.name in others:
                untyped = Metric(f"{family.name}_total", family.documentation, "unknown")
                untyped.samples = family.samples
                yield untyped
            else:
                yield family


def _exemplar(trace: str) -> dict[str, str] | None:
    return {"trace_id": trace} if trace else None


def exposition(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """What a scraper gets that accepts these media types, and its own: OpenMetrics 1.0 where that is asked for, which
    alone has exemplars; else Prometheus's text format.
    """
    if _OPENMETRICS.search(accept):
        text: bytes = openmetrics.generate_latest(_Unclashed(registry))  # type: ignore[no-untyped-call]
        return text, openmetrics.CONTENT_TYPE_LATEST
    return generate_latest(registry), CONTENT_TYPE_LATEST


async def watch_loop(metrics: Metrics) -> None:
    """Measure how late the event loop is, until cancelled."""
    while True:
        due = time.monotonic() + LOOP_INTERVAL  # uvloop's own time() stands still within a turn
        await asyncio.sleep(LOOP_INTERVAL)
        metrics.loop_late(time.monotonic() - due)

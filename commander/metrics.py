"""The Commander's own metrics. Names, types and labels are promised; those of gRPC are in `shared.grpc_metrics`."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from shared.log_metrics import UnwrittenLines

_FIRST_TOKEN = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Gauges ask when they are scraped, so that they cost nothing on the way of a token."""

    def __init__(self, registry: CollectorRegistry) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second gauge for each counter, which nobody promised
        self._unacked = Gauge(
            "commander_unacked_packets", "Packets sent and not known to be in the log.", registry=registry
        )
        self._running = Gauge("commander_running_sessions", "Sessions whose agent runs.", registry=registry)
        self.resumes = Counter(
            "commander_resumes_total", "Sessions that went on on another stream, or again on one.", registry=registry
        )
        self.first_token = Histogram(
            "commander_first_token_seconds",
            "From a session's receipt to its agent's first thought or word.",
            registry=registry,
            buckets=_FIRST_TOKEN,
        )
        tokens = Counter(
            "commander_tokens_total",
            "Tokens as the model counts them; where it does not, each delta of an answer is one.",
            ["type"],
            registry=registry,
        )
        UnwrittenLines("commander", registry)
        self._input, self._output = tokens.labels("input"), tokens.labels("output")

    def tokens(self, tokens_in: int, tokens_out: int) -> None:
        self._input.inc(tokens_in)
        self._output.inc(tokens_out)

    def watch(self, unacked: Callable[[], float], running: Callable[[], float]) -> None:
        """Ask these when scraped."""
        self._unacked.set_function(unacked)
        self._running.set_function(running)

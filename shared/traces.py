"""Traces by OpenTelemetry's SDK, which the `OTEL_*` variables set up. Nothing of it is imported, and nothing paid,
unless one of them names an endpoint: whatever needs it is imported where it is used.

Spans are told when they are over, with ids of their own (`shared.spans`), through the SDK's front door: sampling,
limits, resource, batching and export are its.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import structlog

from shared.errors import ConfigError
from shared.spans import SAMPLED, SCHEMA_URL, UNSAMPLED, Span, TraceContext
from shared.version import version

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

logger = structlog.get_logger()

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
TEXTS = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
FLUSH_SECONDS = 5.0  # at the end, for what is not told yet; a collector that is away holds nobody up for longer
NANO = 1_000_000_000


def _set(*names: str) -> str:
    """The first of them that is set, as the SDK reads them."""
    return next((value for name in names if (value := os.environ.get(name, "").strip())), "")


class Traces:
    """texts: spans may hold what was asked and answered."""

    def __init__(self, provider: "TracerProvider", ids: Any) -> None:
        self.texts = _set(TEXTS).lower() == "true"
        self._provider, self._ids = provider, ids
        self._tracer = provider.get_tracer("midsentence", version(), schema_url=SCHEMA_URL)

    @staticmethod
    def of(service: str) -> "Traces | None":
        """None: they are off. service: its name, unless `OTEL_SERVICE_NAME` has another. Raises ConfigError."""
        exporter = _set("OTEL_TRACES_EXPORTER") or "otlp"
        if not _set(*ENDPOINTS) or exporter == "none" or _set("OTEL_SDK_DISABLED").lower() == "true":
            return None
        if exporter != "otlp":
            raise ConfigError(f"OTEL_TRACES_EXPORTER: otlp or none, got {exporter}")
        if (protocol := _set(*PROTOCOLS) or "http/protobuf") != "http/protobuf":
            raise ConfigError(f"OTEL_EXPORTER_OTLP_PROTOCOL: only http/protobuf is spoken, got {protocol}")
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import SERVICE_NAME, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            raise ConfigError("OTEL_EXPORTER_OTLP_ENDPOINT: traces need the extra `midsentence[traces]`") from None
        ids = _given_ids()
        named = {} if _set("OTEL_SERVICE_NAME") else {SERVICE_NAME: service}
        try:
            provider = TracerProvider(id_generator=ids, resource=Resource.create(named), shutdown_on_exit=False)
            provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        except ValueError as error:
            raise ConfigError(f"OTEL_*: {error}") from None
        return Traces(provider, ids)

    async def close(self) -> None:
        """Tell what is left, for FLUSH_SECONDS at most."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def flush() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # too late: the loop is closed
                loop.call_soon_threadsafe(done.set)

        # A daemon: the program's end does not wait for it, as it would for one of the loop's pool.
        threading.Thread(target=flush, name="traces-flush", daemon=True).start()
        try:
            await asyncio.wait_for(done.wait(), FLUSH_SECONDS)
        except TimeoutError:
            logger.warning("traces_not_flushed", seconds=FLUSH_SECONDS)

    def sampled(self, context: TraceContext, name: str) -> TraceContext:
        """With the flags that the sampler decides on for the first span here, of that name."""
        from opentelemetry.sdk.trace.sampling import Decision

        parent = self._parent(context, context.span, remote=True)
        decided = self._provider.sampler.should_sample(parent, int(context.trace, 16), name)
        return context._replace(flags=SAMPLED if decided.decision is Decision.RECORD_AND_SAMPLE else UNSAMPLED)

    def tell(self, context: TraceContext, spans: Sequence[Span]) -> None:
        """These are over, the first of them first. Its fate is that of all."""
        from opentelemetry.trace import Link, SpanKind, Status, StatusCode

        first, *_ = spans
        inner = self.sampled(context, first.name)
        if inner.flags == UNSAMPLED:
            return
        kinds = {"client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}
        for span in spans:
            self._ids.trace_id, self._ids.span_id = int(context.trace, 16), int(span.span_id, 16)
            links = [Link(self._span_context(inner, span.linked, remote=False))] if span.linked else []
            remote = span is first
            told = self._tracer.start_span(
                span.name,
                self._parent(context if remote else inner, span.parent_id, remote=remote),
                kinds[span.kind],
                span.attributes,
                links,
                start_time=_nanoseconds(span.began),
            )
            for event in span.events:
                told.add_event(event.name, event.attributes, _nanoseconds(event.at))
            if span.error:
                told.set_attribute("error.type", span.error)
                told.set_status(Status(StatusCode.ERROR, span.error))
            told.end(_nanoseconds(max(span.began, span.ended)))

    def _parent(self, context: TraceContext, span_id: str, *, remote: bool) -> "Context":
        from opentelemetry.context import Context
        from opentelemetry.trace import NonRecordingSpan, set_span_in_context

        if not span_id:
            return Context()
        return set_span_in_context(NonRecordingSpan(self._span_context(context, span_id, remote=remote)), Context())

    def _span_context(self, context: TraceContext, span_id: str, *, remote: bool) -> Any:
        from opentelemetry.trace import SpanContext, TraceFlags, TraceState

        flags, state = TraceFlags(int(context.flags, 16)), TraceState.from_header([context.state])
        return SpanContext(int(context.trace, 16), int(span_id, 16), remote, flags, state)


def _given_ids() -> Any:
    """An IdGenerator that gives out what it was given last."""
    from opentelemetry.sdk.trace.id_generator import IdGenerator

    class GivenIds(IdGenerator):
        trace_id = span_id = 0

        def generate_trace_id(self) -> int:
            return self.trace_id

        def generate_span_id(self) -> int:
            return self.span_id

    return GivenIds()


def _nanoseconds(seconds: float) -> int:
    """In two steps: as a float, today's time in nanoseconds would be exact to 256 of them only."""
    whole = int(seconds)
    return whole * NANO + round((seconds - whole) * NANO)

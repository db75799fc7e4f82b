"""A receiver of OTLP over HTTP, as a collector is one: it takes what the real exporter sends."""

import contextlib
import gzip
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Received:
    """A span. service: of its resource. Times are Unix seconds."""

    name: str
    trace: str
    span: str
    parent: str
    linked: tuple[str, ...]
    began: float
    ended: float
    attributes: dict[str, Any]
    events: dict[str, dict[str, Any]]
    failed: bool
    service: str
    state: str = ""


@dataclass
class Receiver:
    """url: for OTEL_EXPORTER_OTLP_ENDPOINT. scopes: (schema URL, name) of each request's."""

    url: str = ""
    spans: list[Received] = field(default_factory=list)
    scopes: set[tuple[str, str]] = field(default_factory=set)

    def named(self, name: str) -> Received:
        """The one span of that name."""
        (found,) = (each for each in self.spans if each.name == name)
        return found

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _attributes(resource.resource.attributes)["service.name"]
            for scope in resource.scope_spans:
                self.scopes.add((scope.schema_url, scope.scope.name))
                self.spans.extend(_received(each, service) for each in scope.spans)


def _received(span: Any, service: str) -> Received:
    return Received(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        tuple(link.span_id.hex() for link in span.links),
        span.start_time_unix_nano / 1e9,
        span.end_time_unix_nano / 1e9,
        _attributes(span.attributes),
        {event.name: _attributes(event.attributes) for event in span.events},
        span.status.code == span.status.STATUS_CODE_ERROR,
        service,
        span.trace_state,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)


@contextlib.contextmanager
def receiver() -> Iterator[Receiver]:
    """Until the block ends."""
    taken = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            right = self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
            if right:
                taken.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200 if right else 400)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        taken.url = f"http://127.0.0.1:{server.server_port}"
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            yield taken
        finally:
            server.shutdown()
            serving.join()


@contextlib.contextmanager
def collecting(monkeypatch: pytest.MonkeyPatch, delay_ms: int = 100) -> Iterator[Receiver]:
    """A receiver that whatever starts within the block tells of its spans, when they are that old."""
    with receiver() as received:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", received.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", str(delay_ms))
        yield received

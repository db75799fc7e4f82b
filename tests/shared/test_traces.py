"""Traces, over the real SDK and exporter, at a receiver in this process."""

import asyncio
import subprocess
import sys
import threading

import pytest
from structlog.testing import capture_logs

from shared.errors import ConfigError
from shared.spans import SCHEMA_URL, Span, SpanEvent, TraceContext
from shared.traces import Traces
from tests.otlp import Received, Receiver, receiver

TRACE, CALLER, ROOT, INNER = "1" * 32, "2" * 16, "3" * 16, "4" * 16
ASKED = TraceContext(TRACE, CALLER, "01")
UNASKED = TraceContext(TRACE, "", "01")
SPANS = [
    Span(
        "root",
        "client",
        ROOT,
        CALLER,
        1796000000.000001,
        1796000002.0,
        {"n": 1},
        (SpanEvent("e", 1796000001.0, {"of": "it"}),),
    ),
    Span("inner", "internal", INNER, ROOT, 1796000001.0, 1796000000.0, {"list": ["a", "b"]}, linked=ROOT, error="bad"),
]


@pytest.fixture(autouse=True)
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)


async def told(monkeypatch: pytest.MonkeyPatch, context: TraceContext, **settings: str) -> Receiver:
    """What the receiver has once these spans were told and all is flushed."""
    with receiver() as received:
        for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": received.url, **settings}.items():
            monkeypatch.setenv(name, value)
        traces = Traces.of("midsentence-test")
        assert traces
        root = SPANS[0] if context.span else Span("root", "client", ROOT, "", 1.0, 2.0, {})
        traces.tell(context, [root, SPANS[1]])
        await traces.close()
    return received


async def test_spans_arrive_with_their_own_ids_and_times(monkeypatch: pytest.MonkeyPatch) -> None:
    received = await told(monkeypatch, ASKED)
    root = Received(
        "root", TRACE, ROOT, CALLER, (), 1796000000.000001, 1796000002.0,
        {"n": 1}, {"e": {"of": "it"}}, False, "midsentence-test",
    )  # fmt: skip
    inner = Received(
        "inner", TRACE, INNER, ROOT, (ROOT,), 1796000001.0, 1796000001.0,
        {"list": ["a", "b"], "error.type": "bad"}, {}, True, "midsentence-test",
    )  # fmt: skip
    assert received.spans == [root, inner]
    assert received.scopes == {(SCHEMA_URL, "midsentence")}


async def test_the_standard_variables_count(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "OTEL_SERVICE_NAME": "ours",
        "OTEL_RESOURCE_ATTRIBUTES": "a=b",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    }
    assert {span.service for span in (await told(monkeypatch, UNASKED, **settings)).spans} == {"ours"}


@pytest.mark.parametrize(
    ("context", "sampler", "sampled"),
    [
        (UNASKED, "parentbased_always_off", False),
        (ASKED, "parentbased_always_off", True),
        (ASKED._replace(flags="00"), "parentbased_always_on", False),
        (ASKED._replace(flags="00"), "always_on", True),
    ],
)
async def test_a_trace_is_sampled_whole_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, context: TraceContext, sampler: str, sampled: bool
) -> None:
    received = await told(monkeypatch, context, OTEL_TRACES_SAMPLER=sampler)
    assert len(received.spans) == (2 if sampled else 0)


async def test_what_is_done_for_a_session_is_sampled_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    for sampler, flags in (("always_off", "00"), ("always_on", "01")):
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
        traces = Traces.of("midsentence-test")
        assert traces
        assert traces.sampled(UNASKED, "root") == UNASKED._replace(flags=flags)
        await traces.close()


def test_a_collector_that_is_away_holds_the_end_up_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What still waits for it then is of no harm to whoever has closed the loop."""
    monkeypatch.setattr("shared.traces.FLUSH_SECONDS", 0.01)
    answers = threading.Event()

    class Away:
        def get_tracer(self, *_: str, schema_url: str) -> None: ...

        def shutdown(self) -> None:
            answers.wait()

    with capture_logs() as lines:
        asyncio.run(Traces(Away(), None).close())  # type: ignore[arg-type]
    assert [line["event"] for line in lines] == ["traces_not_flushed"]
    (flushing,) = (thread for thread in threading.enumerate() if thread.name == "traces-flush")
    answers.set()
    flushing.join()


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_TRACES_EXPORTER", "none"), ("OTEL_SDK_DISABLED", "true"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
)
def test_they_are_off(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(name, value)
    assert Traces.of("midsentence-test") is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_BSP_MAX_QUEUE_SIZE", "-1")],
)
def test_what_is_not_honoured_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"OTEL_"):
        Traces.of("midsentence-test")


def test_nothing_is_imported_while_they_are_off() -> None:
    code = "import sys, dispatcher.app, commander.cli; sys.exit('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

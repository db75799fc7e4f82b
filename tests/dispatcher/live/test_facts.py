"""What a session's log tells operators, without a session."""

from collections.abc import Iterable

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from dispatcher.core.entries import Body, Call, Entry, Failed, Finished, StopEntry
from dispatcher.core.log import Applied, Head, Record, Request
from dispatcher.live.facts import THOUGHT_LINE_CHARACTERS, THOUGHT_LINES, SessionFacts
from dispatcher.metrics import Metrics
from shared.records import Content, Error, Thought, ToolResult
from shared.spans import SAMPLED, UNSAMPLED, TraceContext

TRACE = "0af7651916cd43dd8448eb211c80319c"


class Told:
    """Facts of one session, and what they say of its Commander."""

    def __init__(self, log_thoughts: bool = True, trace: TraceContext | None = None) -> None:
        self.ends: list[tuple[str, bool]] = []
        self.registry = CollectorRegistry()
        record = Record("s", Request("a", (), 0.0), Head(state="running", commander_id="c"))
        self._facts = SessionFacts(
            Metrics(self.registry),
            record,
            log_thoughts,
            lambda name: False,
            lambda commander, well: self.ends.append((commander.commander_id, well)),
            trace,
        )
        self._offset = 0

    def hear(self, *bodies: Body) -> list[dict[str, object]]:
        """The lines that they lead to."""
        with capture_logs() as lines:
            for body in bodies:
                self._offset += 1
                self._facts.appended(Applied(Head(commander_id="c"), (Entry(body, 0.0, offset=self._offset),)), 0.0)
        return [dict(line) for line in lines]


def thoughts(lines: Iterable[dict[str, object]]) -> list[str]:
    return [str(line["text"]) for line in lines if line["event"] == "thought"]


def test_a_long_step_is_logged_in_pieces_while_it_lasts() -> None:
    told = Told()
    deltas = ["é" * 1000] * 20 + ["x" * 30_000]
    lines = told.hear(*(Thought("plan", delta) for delta in deltas))
    assert max(map(len, thoughts(lines))) == THOUGHT_LINE_CHARACTERS
    assert len("".join(thoughts(lines))) > 50_000 - THOUGHT_LINE_CHARACTERS, "not only at its end"
    lines += told.hear(Content("word"))
    assert "".join(thoughts(lines)) == "".join(deltas)
    assert {line["step"] for line in lines} == {"plan"}


@pytest.mark.parametrize(("flags", "leads"), [(SAMPLED, {TRACE}), (UNSAMPLED, set())])
def test_what_was_measured_leads_to_a_trace_that_was_sampled(flags: str, leads: set[str]) -> None:
    told = Told(trace=TraceContext(TRACE, "", flags))
    call = told.hear(Call("search", "{}", "c1", "i"), ToolResult("search", "{}", "c1", "OK"))
    assert {line["trace_id"] for line in call} == {TRACE}, "lines have it, sampled or not"
    samples = [sample for family in told.registry.collect() for sample in family.samples]
    assert {sample.exemplar.labels["trace_id"] for sample in samples if sample.exemplar} == leads


def test_a_step_of_which_only_the_length_is_logged() -> None:
    told = Told(log_thoughts=False)
    assert told.hear(*[Thought("plan", "x" * 1000)] * 100) == []
    [line] = told.hear(Content("word"))
    assert line["characters"] == 100_000
    assert "text" not in line


@pytest.mark.parametrize("log_thoughts", [True, False])
def test_thoughts_without_end_have_an_end_in_the_log(log_thoughts: bool) -> None:
    told = Told(log_thoughts)
    lines = told.hear(*(Thought(f"step {number}", "x") for number in range(THOUGHT_LINES * 3)))
    assert [line["event"] for line in lines] == ["thought"] * THOUGHT_LINES + ["thoughts_left_out"]


@pytest.mark.parametrize(
    ("bodies", "ends"),
    [
        ((Finished("stop"),), [("c", True)]),
        ((Error("agent_error", "401"),), [("c", False)]),
        ((Error("busy", "", retryable=True),), []),
        ((Failed("commander_lost"),), [("c", False)]),
        ((Failed("protocol_error"),), [("c", False)]),
        ((Failed("no_commander"),), []),
        ((StopEntry("1", "UserCancel", "user"), Error("agent_error", "cut")), []),
    ],
)
def test_whose_fault_an_end_is(bodies: tuple[Body, ...], ends: list[tuple[str, bool]]) -> None:
    told = Told()
    told.hear(*bodies)
    assert told.ends == ends

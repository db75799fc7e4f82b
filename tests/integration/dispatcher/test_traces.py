"""Traces of sessions, as a collector gets them from two instances over one log."""

import time
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from dispatcher.core.log import Request
from shared.records import Content, Message, Stop, Stopped, ToolCall, ToolResult
from shared.spans import invocation_span
from tests.integration.dispatcher import waiting_tools
from tests.integration.dispatcher.peer import World, until
from tests.integration.dispatcher.test_replicas import CONTINUES, shared, view, worlds
from tests.otlp import Receiver, collecting
from tests.shared_store import SharedStore

__all__ = ["shared", "worlds"]

TRACE, CALLER = "a" * 32, "b" * 16
ASKED = Request("default", (Message("user", "hello"),), 0.0, traceparent=f"00-{TRACE}-{CALLER}-01", tracestate="a=1")


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Before the instances, which look for it when they start."""
    with collecting(monkeypatch, delay_ms=20) as received:
        yield received
    assert len({span.span for span in received.spans}) == len(received.spans), "each was told once"


async def asked(world: World) -> str:
    request = Request(
        ASKED.agent, ASKED.messages, time.time(), traceparent=ASKED.traceparent, tracestate=ASKED.tracestate
    )
    return (await world.sessions.create(request)).record.session_id


async def test_a_session_is_one_tree_over_a_dead_instance_and_a_takeover(
    collector: Receiver, worlds: tuple[World, World], shared: SharedStore
) -> None:
    a, b = worlds
    member = await a.join(continues=CONTINUES)
    with capture_logs() as lines:
        session_id = await asked(a)
        first = await member.serve()
    assert [line["trace_id"] for line in lines if line["event"] == "session_assigned"] == [TRACE]
    waiting_tools.answer.set()
    await member.say(session_id, Content("said at a, "), ToolCall("wait", '{"name": "t"}', "c1"))
    assert (await member.next(ToolResult, session_id)).status == "OK"
    other = await b.join(continues=CONTINUES)
    view(a).away = True  # as good as dead
    shared.leases.discard(view(a).instance)
    await b.forsaken(session_id)
    second = await other.serve()
    view(a).away = False
    await other.finish(session_id, "and at b")
    await until(lambda: len(collector.spans) == 3, "told")

    root, later, tool = (collector.spans[n] for n in range(3))
    assert {span.trace for span in collector.spans} == {TRACE}
    assert (root.name, root.parent, root.linked) == ("invoke_agent default", CALLER, ())
    assert (later.name, later.parent, later.linked) == ("invoke_agent default", root.span, (root.span,))
    assert (tool.name, tool.parent) == ("execute_tool wait", root.span)
    assert [each.traceparent for each in (first, second)] == [f"00-{TRACE}-{s.span}-01" for s in (root, later)]
    assert {each.tracestate for each in (first, second)} == {span.state for span in collector.spans} == {"a=1"}
    assert root.began <= tool.began <= tool.ended <= later.began <= later.ended <= root.ended
    assert root.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert "midsentence.first_word" in root.events
    assert {span.service for span in collector.spans} == {"midsentence-dispatcher"}


async def test_a_stop_is_told_with_its_halt_wherever_it_was_made(
    collector: Receiver, worlds: tuple[World, World]
) -> None:
    a, b = worlds
    member, session_id, _ = await a.served()
    await b.sessions.stop(session_id, "RiskControl", "operator", "in words")
    stop = await member.next(Stop, session_id)
    await member.say(session_id, Stopped(stop.stop_id, 0, 2, 1000))
    waits = await b.create("other")
    await a.sessions.stop(waits, "UserCancel", "user")
    await until(lambda: len(collector.spans) == 3, "told")
    of_session = {span.attributes.get("midsentence.session_id"): span for span in collector.spans}
    assert set(of_session) == {session_id, waits, None}
    assert of_session[session_id].events["midsentence.stop"] == {
        "midsentence.stop.reason": "RiskControl",
        "midsentence.stop.author": "operator",
    }
    assert of_session[None].name == "stop"
    assert of_session[None].parent == of_session[session_id].span == invocation_span(session_id, 1)
    assert of_session[None].attributes["midsentence.halt_seconds"] == 0.001
    assert of_session[waits].attributes["midsentence.state"] == "stopped"


async def test_while_nobody_is_told_a_trace_goes_on_as_it_came(worlds: tuple[World, World]) -> None:
    a, _ = worlds
    member = await a.join()
    session_id = await asked(a)
    assignment = await member.serve()
    assert (assignment.traceparent, assignment.tracestate) == (ASKED.traceparent, ASKED.tracestate)
    await member.finish(session_id)

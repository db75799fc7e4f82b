"""The spans that a log says."""

import json
from collections.abc import Sequence

import pytest
from opentelemetry.semconv._incubating.attributes import error_attributes, gen_ai_attributes

from dispatcher.core.entries import Assigned, Body, Call, Entry, Failed, Finished, Started, StopEntry, Text
from dispatcher.core.log import Head, Record, Request
from dispatcher.core.traced import MAX_CALLS, SpanReader
from dispatcher.tools.context import Context
from dispatcher.tools.identity import identity
from shared.records import Content, Error, Message, Stopped, Thought, ToolResult, Usage
from shared.spans import Span, trace_context

CANARY = "canary"
GIVEN = f"00-{'a' * 32}-{'b' * 16}-01"
ASKED = Request(
    "writer", (Message("user", CANARY),), 100.0, conversation_id="thread", traceparent=GIVEN, tenant="theirs"
)


def told(*bodies: Body, generations: Sequence[int] = (), texts: bool = False, request: Request = ASKED) -> list[Span]:
    """Of a log with an entry a second, from the 101st on. generations: of the entries; 1 unless given."""
    entries = [
        Entry(
            body,
            101.0 + n,
            generations[n] if generations else 1,
            released=body.text if isinstance(body, Content) else "",
        )
        for n, body in enumerate(bodies)
    ]
    record = Record("s", request, Head(state="finished"))
    reader = SpanReader(record, trace_context(request.traceparent, "s"), texts=texts)
    for entry in entries:
        reader.take(entry)
    return reader.spans()


def call(call_id: str = "c", **more: bool | str) -> Call:
    return Call("search", f'{{"q": "{CANARY}"}}', call_id, "instance", **more)  # type: ignore[arg-type]


def answer(status: str = "OK", call_id: str = "c") -> ToolResult:
    return ToolResult("search", f'"{CANARY}"', call_id, status)  # type: ignore[arg-type]


def test_a_session_is_one_span_in_the_callers_trace() -> None:
    (span,) = told(Assigned(1, "m"), Thought("t", CANARY), Content(CANARY), Finished("stop", Usage(7, 2**70)))
    assert (span.name, span.kind, span.parent_id, span.began, span.ended) == (
        "invoke_agent writer", "client", "b" * 16, 100.0, 104.0,
    )  # fmt: skip
    assert span.attributes == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": "midsentence",
        "gen_ai.agent.name": "writer",
        "gen_ai.conversation.id": "thread",
        "midsentence.session_id": "s",
        "midsentence.tenant": "theirs",
        "midsentence.state": "finished",
        "midsentence.commander_id": "m",
        "midsentence.generation": 1,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 2**53 - 1,
    }
    assert [(event.name, event.at) for event in span.events] == [("midsentence.first_word", 103.0)]
    assert not span.error


def test_a_takeover_is_a_part_of_it_and_linked_to_the_first() -> None:
    bodies = (Assigned(1, "m"), call(), Assigned(2, "n"), answer("UNKNOWN_OUTCOME"), call("d"), answer(call_id="d"))
    root, second, third, *tools = told(*bodies, Assigned(3, "o"), generations=(1, 1, 2, 2, 2, 2, 3))
    for span, began, ended in ((second, 103.0, 107.0), (third, 107.0, 107.0)):
        assert (span.parent_id, span.linked, span.began, span.ended) == (root.span_id, root.span_id, began, ended)
        for name in ("operation.name", "provider.name", "agent.name", "conversation.id"):
            assert span.attributes[f"gen_ai.{name}"] == root.attributes[f"gen_ai.{name}"]
    assert len({root.span_id, second.span_id, third.span_id}) == 3
    assert [tool.parent_id for tool in tools] == [root.span_id, second.span_id], "under whom it was called"


def test_tools_have_the_ids_that_their_services_were_told() -> None:
    _, tool = told(Assigned(1, "m"), call(approval="operator"), Thought("t", ""), Started("c", "search", "i"), answer())
    assert (tool.name, tool.began, tool.ended, tool.error) == ("execute_tool search", 104.0, 105.0, "")
    assert identity(Context("s", "c", traceparent=GIVEN)).traceparent == f"00-{'a' * 32}-{tool.span_id}-01"
    assert tool.attributes["gen_ai.tool.call.id"] == "c"
    *_, failed = told(Assigned(1, "m"), call(), answer("TIMEOUT"))
    assert (failed.error, failed.attributes["midsentence.tool.status"]) == ("TIMEOUT", "TIMEOUT")
    asked = [each for n in range(MAX_CALLS + 1) for each in (call(str(n)), answer(call_id=str(n)))]
    assert len(told(*asked)) == 1 + MAX_CALLS


def test_a_stop_is_an_event_and_lasts_until_the_halt() -> None:
    stop = StopEntry("stop", "PolicyViolation", "policy", "secrets", CANARY)
    root, halt = told(Assigned(1, "m"), stop, Content(""), Stopped("stop", 3, 4, 5000), Finished("stop"), request=ASKED)
    assert [(event.name, event.at) for event in root.events] == [
        ("midsentence.stop", 102.0), ("midsentence.policy_hit", 102.0),
    ]  # fmt: skip
    assert root.events[0].attributes == {
        "midsentence.stop.reason": "PolicyViolation",
        "midsentence.stop.author": "policy",
        "midsentence.policy": "secrets",
    }
    assert (halt.name, halt.parent_id, halt.began, halt.ended) == ("stop", root.span_id, 102.0, 104.0)
    assert halt.attributes["midsentence.halt_seconds"] == 0.005
    assert halt.attributes["midsentence.deltas_after_stop"] == 4
    assert not root.error
    assert len(told(stop)) == 1, "nobody was to halt"


@pytest.mark.parametrize(
    ("bodies", "error"),
    [
        ([Failed("commander_lost")], "commander_lost"),
        ([Error("agent_error", CANARY, False)], "agent_error"),
        ([Error("hand_over", CANARY, True), Finished("stop")], ""),
        ([Finished("stop"), Failed("late")], ""),
        ([StopEntry("s", "UserCancel", "user"), Failed("commander_lost")], ""),
    ],
)
def test_the_first_end_decides_whether_it_failed(bodies: list[Body], error: str) -> None:
    assert told(*bodies)[0].error == error


def test_a_session_without_a_trace_has_one_of_its_own() -> None:
    (root,) = told(Text(), request=Request("", (), 100.0))
    assert (root.name, root.parent_id) == ("invoke_agent", "")


def test_texts_stand_in_it_where_they_are_asked_for_and_as_users_got_them() -> None:
    bodies = (Assigned(1, "m"), Thought("t", CANARY), call(denied=True), answer(), Content(CANARY), Finished("stop"))
    assert CANARY not in repr(told(*bodies))
    root, *others = told(*bodies, texts=True)
    for name, said in (
        ("gen_ai.input.messages", {"role": "user"}),
        ("gen_ai.output.messages", {"role": "assistant", "finish_reason": "stop"}),
    ):
        text = root.attributes[name]
        assert isinstance(text, str)
        assert json.loads(text) == [{**said, "parts": [{"type": "text", "content": CANARY}]}]
    assert CANARY not in repr(others)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (Finished("length"), "length"),
        (Finished("tool_calls"), "tool_call"),
        (StopEntry("s", "PolicyViolation", "policy", "names"), "content_filter"),
        (StopEntry("s", "UserCancel", "user"), "stopped"),
        (Failed("commander_lost"), "error"),
    ],
)
def test_an_answer_says_why_it_ended(end: Body, reason: str) -> None:
    """The conventions' schema of a message asks for it: a tool that holds messages to it shows none that lacks it."""
    root = told(Assigned(1, "m"), Content("Once"), end, Finished("stop"), texts=True)[0]
    text = root.attributes["gen_ai.output.messages"]
    assert isinstance(text, str)
    assert json.loads(text)[0]["finish_reason"] == reason


def test_names_are_the_conventions() -> None:
    """As the package that is generated from their published YAML has them."""
    known = {
        value
        for module in (gen_ai_attributes, error_attributes)
        for name, value in vars(module).items()
        if name.isupper()
    }
    bodies = (Assigned(1, "m"), call(denied=True), answer(), StopEntry("s", "x", "policy", "p"), Stopped("s"))
    spans = [*told(*bodies, Finished("stop", Usage(1, 1)), texts=True), *told(Assigned(1, "m"), Assigned(2, "n"))]
    names = {name for span in spans for name in span.attributes}
    assert {name for name in names if not name.startswith("midsentence.")} <= known
    operations = {each.value for each in gen_ai_attributes.GenAiOperationNameValues}
    assert {str(span.attributes.get("gen_ai.operation.name", "chat")) for span in spans} <= operations

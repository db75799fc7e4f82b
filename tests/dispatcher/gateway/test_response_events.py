"""OpenAI's response object and events, as pure functions of a log."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from openai.types.responses import Response, ResponseStreamEvent
from starlette.types import Message as AsgiMessage

from dispatcher.core.entries import Assigned, Body, Call, Entry, Failed, Finished, StopEntry, Text
from dispatcher.core.log import Head, Record, Request
from dispatcher.gateway.response_events import STRIDE, Echo, ResponseView
from dispatcher.gateway.responses import BEFORE_ALL, StreamedResponse
from dispatcher.gateway.views import FAILURES
from shared.records import (
    FINISH_REASONS,
    STOP_REASONS,
    ClientCall,
    Content,
    Error,
    Message,
    Thought,
    Tool,
    ToolResult,
    Unknown,
    Usage,
)
from tests.dispatcher.gateway.open_responses import check_event, check_response

REQUEST = Request(
    "default",
    (Message("system", "SECRET"), Message("user", "hi")),
    1700000000.25,
    parameters_json='{"max_tokens":7,"temperature":0.5}',
    background=True,
)
RECORD = Record("s1", REQUEST, Head())
FULL = replace(
    REQUEST,
    parameters_json=json.dumps(
        {
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "parallel_tool_calls": False,
            "reasoning_effort": "low",
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
        }
    ),
    tools=(Tool("f", "", "{}", client=True), Tool("g", "of g", '{"type": "object"}', client=True, strict=True)),
    shown_json=msgspec.json.encode(Echo({"a": "b"}, True, "cache", "someone")).decode(),
)
EVENTS: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(ResponseStreamEvent)


def log(*bodies: Body | tuple[Body, str]) -> list[Entry]:
    """A log of these, each a second after the one before; with a body, what it lets out."""
    pairs = [body if isinstance(body, tuple) else (body, "") for body in bodies]
    return [Entry(body, 1700000010.0 + n, released=text, offset=n) for n, (body, text) in enumerate(pairs, 1)]


def said(text: str) -> tuple[Body, str]:
    return Content(f"raw {text}"), text


def events(entries: list[Entry], record: Record = RECORD) -> list[dict[str, Any]]:
    view = ResponseView(record)
    return [*view.begin(), *(event for entry in entries for event in view.take(entry))]


def names(shown: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(event["type"].removeprefix("response."), event["sequence_number"]) for event in shown]


def test_the_events_of_an_answer() -> None:
    entries = log(
        Assigned(1, "c"),
        Thought("Planning", "SECRET"),
        said("Hello"),
        Call("search", "SECRET", "call", "i1"),
        ToolResult("search", "SECRET", "call", "OK"),
        Content("held"),
        (Text(), ", world"),
        Finished("stop", Usage(3, 4)),
    )
    shown = events(entries)
    assert names(shown) == [
        ("created", 0),
        ("in_progress", 1),
        ("output_item.added", 3 * STRIDE),
        ("content_part.added", 3 * STRIDE + 1),
        ("output_text.delta", 3 * STRIDE + 2),
        ("output_text.delta", 7 * STRIDE),
        ("output_text.done", 8 * STRIDE),
        ("content_part.done", 8 * STRIDE + 1),
        ("output_item.done", 8 * STRIDE + 2),
        ("completed", 8 * STRIDE + 3),
    ]
    created, _, added, part_added, first, second, text_done, part_done, item_done, completed = shown
    assert created["response"] == {
        "id": "resp_s1",
        "object": "response",
        "created_at": 1700000000,
        "completed_at": None,
        "status": "in_progress",
        "background": True,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": 7,
        "max_tool_calls": None,
        "metadata": {},
        "model": "default",
        "output": [],
        "parallel_tool_calls": True,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": None,
        "safety_identifier": None,
        "service_tier": "default",
        "store": True,
        "temperature": 0.5,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
    }
    item = {"id": "msg_s1", "type": "message", "status": "in_progress", "role": "assistant", "content": []}
    assert added["item"] == item
    place = {"item_id": "msg_s1", "output_index": 0, "content_index": 0}
    assert all(event | place == event for event in (part_added, first, second, text_done, part_done))
    assert [event["delta"] for event in (first, second)] == ["Hello", ", world"]
    part = {"type": "output_text", "text": "Hello, world", "annotations": [], "logprobs": []}
    assert part_added["part"] == part | {"text": ""}
    assert text_done["text"] == part["text"]
    assert part_done["part"] == part
    assert item_done["item"] == item | {"status": "completed", "content": [part]}
    assert completed["response"] == created["response"] | {
        "status": "completed",
        "completed_at": 1700000018,
        "output": [item_done["item"]],
        "usage": {
            "input_tokens": 3,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 4,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 7,
        },
    }


ENDS: list[tuple[Body, str, str, str | None, str | None]] = [
    (Finished("stop"), "completed", "completed", None, None),
    (Finished("something"), "completed", "completed", None, None),
    (Finished("length"), "incomplete", "incomplete", "max_output_tokens", None),
    (Finished("content_filter"), "incomplete", "incomplete", "content_filter", None),
    (StopEntry("x", "PolicyViolation", "policy"), "incomplete", "incomplete", "content_filter", None),
    (StopEntry("x", "RiskControl", "operator"), "incomplete", "incomplete", "content_filter", None),
    (StopEntry("x", "UserCancel", "user"), "failed", "cancelled", None, None),
    (StopEntry("x", "Timeout", "policy"), "incomplete", "incomplete", "max_output_tokens", None),
    (StopEntry("x", "Shutdown", "dispatcher"), "failed", "failed", None, "shutdown"),
    (StopEntry("x", "SECRET", "policy"), "incomplete", "incomplete", "content_filter", None),
    *((Failed(code, "SECRET"), "failed", "failed", None, code) for code in FAILURES),
    (Error("SECRET", "SECRET"), "failed", "failed", None, "agent_error"),
]


@pytest.mark.parametrize("spoken", [True, False])
@pytest.mark.parametrize(("end", "event", "status", "incomplete", "code"), ENDS)
def test_an_end(end: Body, event: str, status: str, incomplete: str | None, code: str | None, spoken: bool) -> None:
    before = [said("so far")] if spoken else []
    shown = events(log(*before, end, said("too late"), Finished()))
    last = shown[-1]
    assert last["type"] == f"response.{event}"
    response = last["response"]
    assert response["status"] == status
    assert response["incomplete_details"] == ({"reason": incomplete} if incomplete else None)
    message = FAILURES.get(code or "", "The service was shut down before the agent had finished.")
    error = {"type": "server_error", "code": code, "message": message, "param": None} if code else None
    assert response["error"] == error
    asked = -(-sum(len(message.content) for message in RECORD.request.messages) // 4)
    counted = {name: response["usage"][name] for name in ("input_tokens", "output_tokens", "total_tokens", "estimated")}
    answered = 2 if spoken else 0  # six characters; four a token
    assert counted == {
        "input_tokens": asked,
        "output_tokens": answered,
        "total_tokens": asked + answered,
        "estimated": True,
    }
    assert (response["completed_at"] is None) == (status != "completed")
    assert "SECRET" not in json.dumps(shown)
    if spoken:
        (item,) = response["output"]
        assert item["status"] == ("completed" if status == "completed" else "incomplete")
        assert item["content"][0]["text"] == "so far"
    else:
        assert response["output"] == []
        assert names(shown)[2:] == [(event, STRIDE)]


def test_what_is_not_shown_makes_no_event() -> None:
    hidden = log(
        Assigned(1, "c"),
        Thought("s", "x"),
        Content("held"),
        Unknown(),
        Error("x", "", retryable=True),
        Assigned(2, "d"),
    )
    assert names(events(hidden)) == [("created", 0), ("in_progress", 1)]


def test_a_live_response_shows_its_text_so_far() -> None:
    view = ResponseView(RECORD)
    assert view.response("queued")["status"] == "queued"
    for entry in log(said("so "), said("far")):
        view.take(entry)
    response = view.response()
    assert not view.ended
    assert response["status"] == "in_progress"
    assert response["output"][0]["status"] == "in_progress"
    assert response["output"][0]["content"][0]["text"] == "so far"


# ---- any log

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ENTRIES: st.SearchStrategy[tuple[Body, str]] = st.one_of(
    st.tuples(TEXTS.map(Content), TEXTS),
    st.tuples(st.just(Text()), TEXTS),
    st.tuples(TEXTS.map(lambda text: Thought("step", text)), st.just("")),
    st.tuples(st.just(Call("search", "{}", "call", "i1")), st.just("")),
    st.tuples(st.just(ToolResult("search", "1", "call", "OK")), st.just("")),
    st.tuples(st.just(Error("x", "", retryable=True)), st.just("")),
    st.tuples(st.integers(1, 3).map(lambda n: Assigned(n, "c")), st.just("")),
)
USAGES = st.none() | st.builds(Usage, st.integers(0, 9), st.integers(0, 9))
CLIENT_CALLS = st.lists(st.builds(ClientCall, TEXTS, st.just("f"), TEXTS), min_size=1, max_size=5).map(tuple)
FINALS: st.SearchStrategy[tuple[Body, str]] = st.tuples(
    st.one_of(
        st.builds(Finished, st.sampled_from(sorted(FINISH_REASONS)), USAGES),
        st.builds(Finished, st.just("tool_calls"), USAGES, CLIENT_CALLS),
        st.builds(StopEntry, st.just("x"), st.sampled_from(sorted(STOP_REASONS)), st.just("user")),
        st.sampled_from(sorted(FAILURES)).map(Failed),
    ),
    st.just(""),
)


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """Live or ended, with what may follow an end."""
    bodies = draw(st.lists(ENTRIES, max_size=12))
    if draw(st.booleans()):
        bodies += [draw(FINALS), *draw(st.lists(ENTRIES | FINALS, max_size=2))]
    return log(*bodies)


def batches(entries: list[Entry], data: st.DataObject) -> Iterator[list[Entry]]:
    """As a reader may get them."""
    while entries:
        size = data.draw(st.integers(1, len(entries)))
        yield entries[:size]
        entries = entries[size:]


def stream(entries: list[Entry], after: int, data: st.DataObject) -> bytes:
    """The bytes of one connection."""

    async def read() -> bytes:
        sent: list[bytes] = []

        async def send(message: AsgiMessage) -> None:
            sent.append(message.get("body", b""))

        streamed = StreamedResponse(ResponseView(RECORD, told=True), after, send)
        await streamed.begin()
        for batch in batches(entries, data):
            if last := await streamed.take(batch):
                await last()
                break
        return b"".join(sent)

    return asyncio.run(read())


def parse(data: bytes) -> list[tuple[bytes, dict[str, Any]]]:
    """Each frame, and its event."""
    frames = [frame + b"\n\n" for frame in data.split(b"\n\n")[:-1]]
    parsed = []
    for frame in frames:
        name, rest = frame.removeprefix(b"event: ").split(b"\ndata: ", 1)
        event = json.loads(rest)
        assert event["type"] == name.decode()
        parsed.append((frame, event))
    return parsed


@settings(deadline=None)
@given(logs(), st.data())
def test_resuming_after_any_event_gives_the_rest_to_the_byte(entries: list[Entry], data: st.DataObject) -> None:
    whole = stream(entries, BEFORE_ALL, data)
    frames = parse(whole)
    numbers = [event["sequence_number"] for _, event in frames]
    assert numbers == sorted(set(numbers))
    assert numbers[:2] == [0, 1]
    for n, number in enumerate(numbers):
        rest = b"".join(frame for frame, _ in frames[n + 1 :])
        assert stream(entries, number, data) == rest
    after = data.draw(st.integers(0, (len(entries) + 1) * STRIDE))
    assert stream(entries, after, data) == b"".join(
        frame for frame, event in frames if event["sequence_number"] > after
    )


@settings(deadline=None)
@given(logs(), st.sampled_from([REQUEST, FULL]))
def test_the_events_hold_the_released_text_and_are_what_types_and_specification_ask_for(
    entries: list[Entry], request: Request
) -> None:
    shown = events(entries, replace(RECORD, request=request))
    end = next((n for n, entry in enumerate(entries) if isinstance(entry.body, Finished | StopEntry | Failed)), None)
    text = "".join(entry.released for entry in entries[:end] if isinstance(entry.body, Content | Text))
    assert "".join(event["delta"] for event in shown if event["type"] == "response.output_text.delta") == text
    for event in shown:
        _valid(event)
    lasting = [event for event in shown if event["type"].split(".")[1] in ("completed", "incomplete", "failed")]
    assert len(lasting) == (end is not None)
    if lasting:
        assert lasting == shown[-1:]
        assert Response.model_validate(_official(lasting[0]["response"])).output_text == text


def test_a_response_shows_what_it_was_asked() -> None:
    view = ResponseView(replace(RECORD, request=FULL))
    check_response(view.response("queued"))
    response = view.response()
    check_response(response)
    assert Response.model_validate(response).model_dump(warnings="error")
    assert (response["metadata"], response["instructions"]) == ({"a": "b"}, "SECRET")
    assert (response["prompt_cache_key"], response["safety_identifier"]) == ("cache", "someone")
    assert (response["tool_choice"], response["parallel_tool_calls"]) == ({"type": "function", "name": "f"}, False)
    assert response["reasoning"] == {"effort": "low", "summary": None}
    assert [tool["strict"] for tool in response["tools"]] == [False, True]
    form = {"type": "json_schema", "name": "x", "description": None, "schema": {"type": "object"}, "strict": False}
    assert response["text"] == {"format": form}


def _valid(event: dict[str, Any]) -> None:
    check_event(event)
    if "response" in event:
        event = event | {"response": _official(event["response"])}
    assert EVENTS.validate_python(event).model_dump(warnings="error")


def _official(response: dict[str, Any]) -> dict[str, Any]:
    """Our codes of a failure are not among OpenAI's; its client does not mind."""
    return response | {"error": response["error"] and response["error"] | {"code": "server_error"}}

"""What users may see, entry by entry."""

import msgspec
import pytest

from dispatcher.core.entries import (
    Approval,
    Assigned,
    Body,
    Call,
    Decision,
    Entry,
    Failed,
    Finished,
    Started,
    StopEntry,
    Text,
)
from dispatcher.core.log import Request
from dispatcher.gateway.views import (
    FAILURES,
    MAX_JOINED,
    UserApproval,
    UserContent,
    UserEvent,
    UserFailed,
    UserFinished,
    UserStopped,
    UserToolCall,
    UserToolResult,
    UserUsage,
    asked_bytes,
    shown,
    usage_of,
    user_event,
)
from shared.records import Content, Error, Message, Stopped, Thought, ToolResult, Unknown, Usage

LOST = UserFailed("commander_lost", FAILURES["commander_lost"])
AGENT = UserFailed("agent_error", FAILURES["agent_error"])


def knows(name: str) -> bool:
    return name == "search"


def entry(body: Body, released: str = "", offset: int = 1) -> Entry:
    return Entry(body, 0.0, released=released, offset=offset)


@pytest.mark.parametrize(
    ("body", "released", "event"),
    [
        (Content("raw"), "let out", UserContent("let out")),
        (Content("held"), "", None),
        (Text(), "let out later", UserContent("let out later")),
        (Thought("Planning", "secret"), "", None),
        (Thought("Planning", "secret"), "never", None),
        (Call("search", "{}", "c1", "i"), "", UserToolCall("c1", "search", "RUNNING")),
        (Call("search", "{}", "c1", "i", refused=True), "", UserToolCall("c1", "search", "INVALID_ARGUMENTS")),
        (Call("secret tool", "{}", "c1", "i"), "", UserToolCall("c1", "unknown", "RUNNING")),
        (Call("search", "{}", "c1", "i", approval="user"), "", None),
        (
            Approval("c1", "search", "user", '{"q":1}', "digest", 9.0),
            "",
            UserApproval("c1", "search", "digest", 9.0, msgspec.Raw(b'{"q":1}')),
        ),
        (
            Approval("c1", "search", "operator", '{"q":1}', "digest", 9.0),
            "",
            UserApproval("c1", "search", "digest", 9.0),
        ),
        (Approval("c1", "secret tool", "operator", "{}", "d", 9.0), "", UserApproval("c1", "unknown", "d", 9.0)),
        (Decision("c1", "approve", "operator", "digest", "a note"), "", None),
        (Started("c1", "search", "i"), "", UserToolCall("c1", "search", "RUNNING")),
        (ToolResult("search", "{}", "c1", "TIMEOUT"), "", UserToolResult("c1", "search", "TIMEOUT")),
        (ToolResult("other", "{}", "c1", "free text"), "", UserToolResult("c1", "unknown", "TOOL_ERROR")),
        (StopEntry("s", "RiskControl", "policy", "p", "d"), "", UserStopped("RiskControl")),
        (StopEntry("s", "free text", "policy"), "", UserStopped("PolicyViolation")),
        (Failed("commander_lost", "detail"), "", LOST),
        (Error("commander_lost", "message"), "", LOST),
        (Error("my own code", "message"), "", AGENT),
        (Error("commander_lost", "message", retryable=True), "", None),
        (Finished("length", Usage(3, 4)), "", UserFinished("length", UserUsage(3, 4))),
        (Finished("free text"), "", UserFinished("stop", None)),
        (Stopped("s", 1, 2, 3), "", None),
        (Assigned(1, "commander"), "", None),
        (Unknown(), "", None),
    ],
)
def test_an_entry_shows_as(body: Body, released: str, event: UserEvent | None) -> None:
    assert user_event(entry(body, released), knows) == event


def test_a_call_id_that_is_no_id_shows_as_a_digest_that_call_and_result_share() -> None:
    call = user_event(entry(Call("search", "{}", "what I thought", "i")), knows)
    result = user_event(entry(ToolResult("search", "{}", "what I thought", "OK")), knows)
    assert isinstance(call, UserToolCall)
    assert isinstance(result, UserToolResult)
    assert call.call_id == result.call_id
    assert "thought" not in call.call_id


def test_consecutive_text_is_joined_under_the_last_offset() -> None:
    entries = [
        entry(Content("a"), "a", 1),
        entry(Thought("", "t"), "", 2),
        entry(Content("b"), "b", 3),
        entry(Call("search", "{}", "c1", "i"), "", 4),
        entry(Content("c"), "c", 5),
        entry(Content("held"), "", 6),
    ]
    assert list(shown(entries, knows)) == [
        (3, UserContent("ab")),
        (4, UserToolCall("c1", "search", "RUNNING")),
        (5, UserContent("c")),
    ]


def test_what_follows_the_end_does_not_show() -> None:
    entries = [
        entry(Content("a"), "a", 1),
        entry(StopEntry("s", "UserCancel", "user"), "", 2),
        entry(ToolResult("search", "{}", "c1", "CANCELLED"), "", 3),
        entry(Finished(), "", 4),
    ]
    assert list(shown(entries, knows)) == [(1, UserContent("a")), (2, UserStopped("UserCancel"))]


def test_joined_text_is_bounded() -> None:
    half = "x" * (MAX_JOINED // 2)
    events = list(shown([entry(Content(half), half, n) for n in (1, 2, 3)], knows))
    assert events == [(2, UserContent(half * 2)), (3, UserContent(half))]


@pytest.mark.parametrize(
    ("counted", "shown"),
    [
        (None, UserUsage(2, 3, estimated=True)),
        (Usage(0, 0), UserUsage(2, 3, estimated=True)),
        (Usage(7, 0), UserUsage(7, 3, estimated=True)),
        (Usage(0, 7), UserUsage(2, 7, estimated=True)),
        (Usage(7, 9), UserUsage(7, 9)),
    ],
)
def test_what_the_agent_did_not_count_is_estimated(counted: Usage | None, shown: UserUsage) -> None:
    request = Request("default", (Message("user", "7 bytes"),), 0.0)
    final = user_event(Entry(Finished("stop", counted), 0.0), lambda _: False)
    assert isinstance(final, UserFinished)
    assert usage_of(final, asked_bytes(request), len("twelve bytes")) == shown
    if counted and not counted.prompt_tokens:
        assert b"prompt_tokens" not in msgspec.json.encode(final)

"""The verdicts on services' calls find what they are there to find, and a sound call is none of it."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.faults.decisions import Asked
from tests.faults.served import STOP_SEEN_SECONDS, Happened, MadeCall, World, faults, misled, reused, world
from tests.faults.services import Seen, canonical, digest

ARGUMENTS = {"line": "one 0", "number": 0, "millis": 20, "dies": ""}
SHA256 = digest(canonical(ARGUMENTS))
CALM = World()
LOST = "The connection was lost before the answer came; whether the tool ran is not known."
GONE = "The Dispatcher that ran this call is gone; whether the tool ran is not known."


def seen(*events: str, at: float = 100.0, service: str = "http", start: str = "1 1", key: str = "k") -> list[Seen]:
    return [
        Seen(service, start, event, at + n / 10, key, "one 0", SHA256 if event == "asked" else "")
        for n, event in enumerate(events)
    ]


WHOLE = ("asked", "began", "acted", "answered")


def made(tool: str = "http_act", status: str = "OK", code: str = "", message: str = "", *events: str) -> MadeCall:
    """A call of a running session, made at 100 and answered at 101."""
    call = {"call_id": "c", "tool_name": tool, "arguments_json": json.dumps(ARGUMENTS), "at": 100.0}
    error = {"error": {"code": code, "message": message}}
    told = json.dumps(error if code else "one 0")
    result = {"call_id": "c", "tool_name": tool, "status": status, "result_json": told, "at": 101.0}
    return MadeCall(call, result, seen(*events), "finished", 0.0)


def approved(decision: str = "approve", status: str = "OK", *events: str) -> MadeCall:
    asked = {"arguments_json": canonical(ARGUMENTS), "arguments_sha256": SHA256, "expires_at": 106.0, "at": 100.1}
    at = 106.0 if decision == "expire" else 100.2
    return replace(
        made("ask_user", status, "denied" if status == "DENIED" else "", "", *events),
        approval=[asked],
        decision=[{"decision": decision, "arguments_sha256": SHA256, "at": at}],
        started=[{"instance": "i", "at": 100.3}] if decision == "approve" else [],
    )


@pytest.mark.parametrize(
    ("call", "around"),
    [
        (made("http_act", "OK", "", "", *WHOLE), CALM),
        (made("http_act", "TOOL_ERROR", "unreachable"), CALM),
        (made("grpc_act", "UNKNOWN_TOOL", "unknown_tool"), CALM),
        (made("http_act", "TOOL_ERROR", "broken_answer", "", *WHOLE), CALM),
        (made("http_act", "UNKNOWN_OUTCOME", "unknown_outcome", LOST, "asked", "died"), world([], seen("up", "died"))),
        (made("mcp_act", "UNKNOWN_OUTCOME", "unknown_outcome", LOST), World([Happened("mcp", 99, 101)])),
        (made("http_act", "UNKNOWN_OUTCOME", "unknown_outcome", GONE), World([Happened("dispatcher", 99, 100)])),
        (replace(made("http_act", "CANCELLED", "cancelled", "", "asked", "cancelled"), state="stopped"), CALM),
        (approved("approve", "OK", *WHOLE), CALM),
        (approved("deny", "DENIED"), CALM),
        (approved("expire", "DENIED"), CALM),
    ],
)
def test_a_sound_call_has_no_violation(call: MadeCall, around: World) -> None:
    assert list(faults(call, around)) == []


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (made("http_act", "OK", "", "", *WHOLE, *WHOLE), "was asked 2 times and began 2 times"),
        (replace(made(), seen=[*seen(*WHOLE), *seen("asked", key="other")]), "was asked 2 times"),
        (made("http_act", "OK", "", "", "asked", "began", "cancelled"), "it is OK, and its service saw"),
        (made("http_act", "TOOL_ERROR", "unreachable", "", *WHOLE), "its service was asked, and it is answered"),
        (made("grpc_act", "UNKNOWN_TOOL", "unknown_tool", "", *WHOLE), "its tool is said to be unknown"),
        (made("http_act", "UNKNOWN_TOOL", "unknown_tool"), "it is answered UNKNOWN_TOOL"),
        (made("http_act", "TOOL_ERROR", "grpc_unavailable", "", "asked", "died"), "it is answered TOOL_ERROR"),
        (made("http_act", "UNKNOWN_OUTCOME", "unknown_outcome", LOST, *WHOLE), "nothing broke it"),
        (made("http_act", "UNKNOWN_OUTCOME", "unknown_outcome", GONE, *WHOLE), "its Dispatcher is said to be gone"),
        (made("http_act", "CANCELLED", "cancelled"), "it is answered CANCELLED"),
        (made("http_act", "DENIED", "denied"), "it is answered DENIED"),
        (made("http_act", "TIMEOUT", "timeout", "", "asked", "began"), "still acts for nobody"),
        (replace(made(), result={}), "it is answered None"),
        (approved("deny", "DENIED", *WHOLE), "was asked before it was started"),
        (approved("deny", "OK", *WHOLE), "and the decision is"),
        (replace(approved(), started=[{"at": 1.0}, {"at": 2.0}]), "the log has 1 approvals"),
        (replace(approved("deny", "DENIED"), started=[{"at": 100.3}]), "it was started, and the decision is"),
        (replace(approved(), decision=[]), "it was started, and the decision is"),
        (
            replace(approved(), decision=[{"decision": "approve", "arguments_sha256": "x", "at": 100.2}]),
            "on other arguments",
        ),
        (
            replace(approved(), decision=[{"decision": "approve", "arguments_sha256": SHA256, "at": 107.0}]),
            "it expires at",
        ),
        (replace(approved(), seen=[replace(seen("asked")[0], sha256="x")]), "something else than what was approved"),
        (replace(made(), started=[{"at": 100.0}]), "somebody was asked to approve it"),
    ],
)
def test_a_planted_fault_is_found(call: MadeCall, found: str) -> None:
    assert [text for text in faults(call, CALM) if found in text], list(faults(call, CALM))


@pytest.mark.parametrize(
    ("tool", "service", "seconds", "found"),
    [("http_act", "http", 10, 0), ("http_act", "http", 20, 1), ("mcp_act", "mcp", 10, 0), ("mcp_act", "mcp", 20, 1)],
)
def test_what_broke_long_before_excuses_no_lost_connection(tool: str, service: str, seconds: int, found: int) -> None:
    around = World([Happened(service, 99.0 - seconds, 100.0 - seconds)])
    call = made(tool, "UNKNOWN_OUTCOME", "unknown_outcome", LOST)
    assert len([text for text in faults(call, around) if "nothing broke it" in text]) == found


def test_a_stop_that_a_service_sees_late_is_found() -> None:
    late = [*seen("asked", "began"), *seen("cancelled", at=100.5 + STOP_SEEN_SECONDS + 1)]
    call = replace(made("http_act", "CANCELLED", "cancelled"), seen=late, state="stopped", stopped=100.5)
    assert [text for text in faults(call, CALM) if "saw the stop after" in text]


def test_what_a_service_that_is_gone_did_not_end_is_no_fault() -> None:
    around = world([], [*seen("up", "asked"), *seen("up", at=101.0, start="2 2")])
    call = made("http_act", "UNKNOWN_OUTCOME", "unknown_outcome", LOST, "asked")
    assert list(faults(call, around)) == []


@pytest.mark.parametrize(("runs", "found"), [(False, 0), (True, 1)])
def test_a_child_that_died_of_another_call_acts_no_more(runs: bool, found: int) -> None:
    begun = seen("asked", "began", service="stdio")
    around = world([Happened("stdio", 100, 101)], [*seen("up", service="stdio"), *begun], lambda start: runs)
    call = replace(made("stdio_act", "UNKNOWN_OUTCOME", "unknown_outcome", LOST), seen=begun)
    assert len([text for text in faults(call, around) if "acts for nobody" in text]) == found


@pytest.mark.parametrize(
    ("answer", "log", "fits"),
    [
        ((202, ""), "approve", True),
        ((202, ""), "deny", False),
        ((409, "already_decided"), "deny", True),
        ((409, "already_decided"), "approve", False),
        ((409, "approval_expired"), "expire", True),
        ((409, "approval_expired"), "approve", False),
        ((409, "arguments_mismatch"), "approve", False),
        ((404, "call_not_found"), "approve", False),
    ],
)
def test_who_decided_is_told_what_the_log_says(answer: tuple[int, str], log: str, fits: bool) -> None:
    event: dict[str, Any] = {"call_id": "c", "arguments": ARGUMENTS, "arguments_sha256": SHA256}
    asked = Asked(event, "approve", "user", [("approve", SHA256, answer)])
    assert (not list(misled(asked, approved(log)))) is fits


def hide(event: dict[str, Any]) -> None:
    del event["arguments"]


def swap(event: dict[str, Any]) -> None:
    event["arguments_sha256"] = "x"


@pytest.mark.parametrize("change", [hide, swap])
def test_what_users_are_shown_is_what_they_decide_on(change: Callable[[dict[str, Any]], None]) -> None:
    event: dict[str, Any] = {"call_id": "c", "arguments": ARGUMENTS, "arguments_sha256": SHA256}
    change(event)
    assert list(misled(Asked(event, "nothing", "user"), approved()))


def test_a_key_of_two_calls_is_found() -> None:
    assert reused(seen(*WHOLE)) == []
    assert reused([*seen("asked"), replace(seen("asked")[0], line="two 0")])

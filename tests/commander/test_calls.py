"""Tool calls: what can be sent, and what a result becomes."""

import asyncio
import json
from typing import Any

import pytest

from commander.agent import ToolError
from commander.calls import WaitingCalls, request
from shared.records import MAX_ARGUMENTS_BYTES, ToolResult


def test_a_call_has_a_random_id_and_compact_json() -> None:
    one, two = request("t", {"a": "é\ud800"}), request("t", {})
    assert one.arguments_json == '{"a":"é\ufffd"}'
    assert len({one.call_id, two.call_id}) == 2
    assert len(bytes.fromhex(one.call_id)) >= 8


@pytest.mark.parametrize(
    "arguments",
    [{"a": float("nan")}, {"a": object()}, {"a": "x" * MAX_ARGUMENTS_BYTES}, [1], "x"],
    ids=["NaN", "an object", "too large", "a list", "a str"],
)
def test_arguments_that_cannot_be_sent(arguments: Any) -> None:
    with pytest.raises(ToolError) as raised:
        request("t", arguments)
    assert raised.value.code == "INVALID_ARGUMENTS"


async def outcome(result: ToolResult, *, legacy: bool = False) -> Any:
    calls = WaitingCalls()
    call = request("t", {})
    waiting = asyncio.create_task(calls.result(call))
    await asyncio.sleep(0)
    answered = ToolResult(result.tool_name, result.result_json, result.call_id or call.call_id, result.status)
    calls.resolve(result if legacy else answered, legacy=legacy)
    return await asyncio.wait_for(waiting, 30)


@pytest.mark.parametrize("value", [None, 1, "x", [1], {"a": {"b": 2}}])
async def test_a_result_is_parsed(value: object) -> None:
    assert await outcome(ToolResult("t", json.dumps(value), "", "OK")) == value


async def test_a_result_that_looks_like_an_error_is_none_where_the_status_is_ok() -> None:
    value = {"error": {"code": "x"}}
    assert await outcome(ToolResult("t", json.dumps(value), "", "OK")) == value


@pytest.mark.parametrize("status", ["TOOL_ERROR", "TIMEOUT", "UNKNOWN_OUTCOME", "DENIED", "CANCELLED"])
@pytest.mark.parametrize("text", ["", "null", "[]", '{"error": 1}'])
async def test_without_details_the_status_is_the_code(status: str, text: str) -> None:
    with pytest.raises(ToolError) as raised:
        await outcome(ToolResult("t", text, "", status))
    assert raised.value.code == status
    assert raised.value.message


async def test_the_details_are_the_tool_s() -> None:
    text = '{"error": {"code": "result_too_large", "message": "300 KiB"}}'
    with pytest.raises(ToolError, match="result_too_large: 300 KiB"):
        await outcome(ToolResult("t", text, "", "TOOL_ERROR"))


@pytest.mark.parametrize("status", ["TOOL_ERROR", "UNKNOWN_TOOL", "INVALID_ARGUMENTS", "TIMEOUT", "UNKNOWN_OUTCOME"])
async def test_a_detail_that_only_repeats_the_status_is_the_documented_code(status: str) -> None:
    text = json.dumps({"error": {"code": status.lower(), "message": "why"}})
    with pytest.raises(ToolError) as raised:
        await outcome(ToolResult("t", text, "", status))
    assert (raised.value.code, raised.value.message) == (status, "why")


async def test_an_older_dispatcher_says_no_status() -> None:
    assert await outcome(ToolResult("t", '{"error": "none"}'), legacy=True) == {"error": "none"}
    with pytest.raises(ToolError, match="late"):
        await outcome(ToolResult("t", '{"error": {"code": "late"}}'), legacy=True)
    with pytest.raises(ToolError, match="not JSON"):
        await outcome(ToolResult("t", "{"), legacy=True)


async def test_a_call_that_its_agent_gave_up_is_forgotten() -> None:
    calls = WaitingCalls()
    call = request("t", {})
    waiting = asyncio.create_task(calls.result(call))
    await asyncio.sleep(0)
    assert call.call_id in calls.awaiting
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not calls.awaiting
    calls.resolve(ToolResult("t", "1", call.call_id, "OK"), legacy=False)
    calls.resolve(ToolResult("t", "1"), legacy=True)


async def test_at_the_session_s_end_nobody_waits_for_ever() -> None:
    calls = WaitingCalls()
    waiting = asyncio.create_task(calls.result(request("t", {})))
    await asyncio.sleep(0)
    calls.close()
    with pytest.raises(ToolError, match="CANCELLED"):
        await asyncio.wait_for(waiting, 30)

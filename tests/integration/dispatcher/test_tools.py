"""Tool calls: run at most once, whatever reconnects or dies; each is answered; the session goes on."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dispatcher.core.entries import Call
from dispatcher.core.log import Settle
from shared.records import MAX_OPEN_CALLS, Content, Stop, Stopped, ToolCall, ToolResult, Upstream
from tests.integration.dispatcher import waiting_tools
from tests.integration.dispatcher.peer import World, serving, sqlite, until

TOOLS = """
[[tool]]
name = "wait"
kind = "local"
use = "tests.integration.dispatcher.waiting_tools:wait"

[[tool]]
name = "wait_briefly"
kind = "local"
use = "tests.integration.dispatcher.waiting_tools:wait"
timeout_seconds = 0.05

[[tool]]
name = "long"
kind = "local"
use = "tests.integration.dispatcher.waiting_tools:long"
"""


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    waiting_tools.reset()
    (tmp_path / "tools.toml").write_text(TOOLS)
    return tmp_path / "tools.toml"


@pytest.fixture
async def world(tools: Path) -> AsyncIterator[World]:
    async with serving(tools=tools) as world:
        yield world


def call(name: str, call_id: str = "", tool: str = "wait") -> ToolCall:
    return ToolCall(tool, json.dumps({"name": name}), call_id)


DEEP = '{"name": ' + "[" * 70 + "]" * 70 + "}"
BAD = {
    "not JSON": (ToolCall("wait", "{not json", "c1"), "INVALID_ARGUMENTS"),
    "not an object": (ToolCall("wait", "[1]", "c1"), "INVALID_ARGUMENTS"),
    "too deep": (ToolCall("wait", DEEP, "c1"), "INVALID_ARGUMENTS"),
    "too big": (ToolCall("wait", json.dumps({"name": "x" * 70_000}), "c1"), "INVALID_ARGUMENTS"),
    "not of the schema": (ToolCall("wait", '{"nme": "x"}', "c1"), "INVALID_ARGUMENTS"),
    "NaN": (ToolCall("wait", '{"name": NaN}', "c1"), "INVALID_ARGUMENTS"),
    "a key twice": (ToolCall("wait", '{"name": "a", "name": "b"}', "c1"), "INVALID_ARGUMENTS"),
    "no such tool": (ToolCall("weather", "{}", "c1"), "UNKNOWN_TOOL"),
    "a result too large": (ToolCall("long", "{}", "c1"), "TOOL_ERROR"),
    "too slow": (call("x", "c1", "wait_briefly"), "TIMEOUT"),
}


@pytest.mark.parametrize(("bad", "status"), BAD.values(), ids=BAD)
async def test_a_bad_call_is_answered_and_the_session_goes_on(world: World, bad: ToolCall, status: str) -> None:
    member, session_id, _ = await world.served()
    await member.say(session_id, bad)
    result = await member.next(ToolResult, session_id)
    assert (result.call_id, result.tool_name, result.status) == ("c1", bad.tool_name, status)
    assert set(json.loads(result.result_json)["error"]) == {"code", "message"}
    await member.finish(session_id, "went on")
    assert await world.text(session_id) == "went on"
    assert waiting_tools.begun == (["x"] if status == "TIMEOUT" else [])
    known = bad.tool_name if status != "UNKNOWN_TOOL" else "unknown"
    assert (await world.metrics())[f'dispatcher_tool_calls_total{{status="{status}",tool="{known}"}}'] == 1


async def test_calls_run_side_by_side(world: World) -> None:
    member, session_id, _ = await world.served()
    await member.say(session_id, call("a", "c1"), call("b"), "meanwhile ")
    await until(lambda: waiting_tools.begun == ["a", "b"])
    await member.acked(session_id)
    waiting_tools.answer.set()
    results = {result.call_id: result for result in [await member.next(ToolResult) for _ in range(2)]}
    assert {call_id: json.loads(each.result_json) for call_id, each in results.items()} == {
        "c1": "a is done",
        "seq-2": "b is done",
    }
    await member.finish(session_id)


@pytest.mark.parametrize("older", [False, True])
async def test_many_calls_are_all_answered_few_of_them_open_at_once(world: World, older: bool) -> None:
    """Of a Commander that sends as many as its credit takes; an older peer has none, and its stream is read slower."""
    asked = [call(str(number), f"c{number}") for number in range(3 * MAX_OPEN_CALLS)]
    member, session_id = (world.stream(), "") if older else (await world.served())[:2]
    if older:
        for each in asked:
            await member.send(Upstream("", each))
    else:
        await member.say(session_id, *asked)
    await until(lambda: len(waiting_tools.begun) >= MAX_OPEN_CALLS)
    (runner,) = world.sessions.runners.by_session.values()
    await until(lambda: runner.session.waits)
    assert len(waiting_tools.begun) == MAX_OPEN_CALLS
    waiting_tools.answer.set()
    results = [await member.next(ToolResult) for _ in asked]
    assert {result.call_id for result in results} == {each.call_id for each in asked}
    assert sorted(waiting_tools.begun) == sorted(str(number) for number in range(len(asked)))
    end = Content("", True, "stop")
    await member.send(Upstream("", end) if older else member.packet(session_id, end))
    await world.over(runner.session_id)


async def test_a_call_id_that_was_used_is_refused(world: World) -> None:
    member, session_id, _ = await world.served()
    waiting_tools.answer.set()
    await member.say(session_id, call("a", "c1"))
    assert (await member.next(ToolResult)).status == "OK"
    await member.say(session_id, call("again", "c1"))
    assert (await member.next(ToolResult)).status == "INVALID_ARGUMENTS"
    assert waiting_tools.begun == ["a"]
    await member.finish(session_id)


async def test_at_most_once_over_reconnects_and_exactly_what_is_awaited(world: World) -> None:
    member, session_id, generation = await world.served()
    await member.say(session_id, call("a", "c1"), call("b", "c2"), call("c", "c3"))
    await until(lambda: len(waiting_tools.begun) == 3)
    await member.acked(session_id)
    await member.cut()
    again = await world.join(slots=0, commander_id=member.commander_id)
    await again.open(session_id, generation, "c1", "c2", "lost on its way")
    waiting_tools.answer.set()
    assert {(await again.next(ToolResult)).call_id for _ in range(2)} == {"c1", "c2"}
    third = await world.join(slots=0, commander_id=member.commander_id)
    await third.open(session_id, generation, "c3", "c1")
    assert {(await third.next(ToolResult)).call_id for _ in range(2)} == {"c1", "c3"}
    await third.barrier()
    assert not again.has(ToolResult)
    assert not third.has(ToolResult)
    assert sorted(waiting_tools.begun) == ["a", "b", "c"]
    await third.finish(session_id)


async def test_a_call_that_is_sent_again_runs_once(world: World) -> None:
    member, session_id, generation = await world.served()
    await member.say(session_id, call("a", "c1"))
    await until(lambda: waiting_tools.begun)
    await member.send(member.packet(session_id, call("a", "c1"), 1))
    welcome = await member.open(session_id, generation, "c1")
    assert welcome.sequence == 1
    waiting_tools.answer.set()
    assert (await member.next(ToolResult)).status == "OK"
    assert waiting_tools.begun == ["a"]
    await member.finish(session_id)


async def test_a_stop_cancels_what_runs(world: World) -> None:
    member, session_id, _ = await world.served()
    await member.say(session_id, call("a", "c1"))
    await until(lambda: waiting_tools.begun)
    await world.sessions.stop(session_id, "UserCancel", "user")
    result = await member.next(ToolResult)
    assert (result.call_id, result.status) == ("c1", "CANCELLED")
    assert waiting_tools.cancelled == ["a"]
    stop = await member.next(Stop)
    await member.say(session_id, call("after the stop", "c2"))
    assert (await member.next(ToolResult)).status == "CANCELLED"
    await member.say(session_id, Stopped(stop.stop_id))
    await member.acked(session_id)
    assert waiting_tools.begun == ["a"]
    metrics = await world.metrics()
    assert metrics['dispatcher_tool_calls_total{status="CANCELLED",tool="wait"}'] == 2
    assert metrics['dispatcher_tool_seconds_count{tool="wait"}'] == 2


@pytest.mark.parametrize("turns", range(6))
async def test_a_stop_at_any_moment_of_a_call_leaves_no_call_without_a_result(world: World, turns: int) -> None:
    member, session_id, _ = await world.served()
    trouble = world.trouble()
    waiting_tools.answer.set()
    await member.say(session_id, call("a", "c1"), call("b", "c2"))
    await until(lambda: trouble.asked)
    for _ in range(turns):
        await asyncio.sleep(0)
    await world.sessions.stop(session_id, "UserCancel", "user")
    for call_id in ("c1", "c2"):
        await member.take(lambda packet, wanted=call_id: getattr(packet.signal, "call_id", "") == wanted, call_id)  # type: ignore[misc]
    assert not (await world.record(session_id)).head.calls
    assert len(await world.bodies(session_id, ToolResult)) == 2


async def test_a_stop_while_a_result_is_on_its_way_to_the_log(world: World) -> None:
    member, session_id, generation = await world.served()
    trouble = world.trouble()
    waiting_tools.answer.set()
    trouble.mute = Settle
    await member.say(session_id, call("a", "c1"))
    await until(lambda: trouble.asked >= 3)
    trouble.mute = None
    await world.sessions.stop(session_id, "UserCancel", "user")
    await member.open(session_id, generation, "c1")
    result = await member.next(ToolResult)
    assert (result.call_id, result.status) == ("c1", "OK")
    assert not (await world.record(session_id)).head.calls


async def test_an_end_with_a_tool_under_way(world: World) -> None:
    member, session_id, _ = await world.served()
    await member.say(session_id, call("a", "c1"), Content("done", True))
    await member.acked(session_id)
    await member.half_close()
    assert (await member.status()).name == "OK"
    waiting_tools.answer.set()
    await until(lambda: session_id not in world.sessions.runners.by_session)
    assert [result.status for result in await world.bodies(session_id, ToolResult)] == ["OK"]


async def test_a_restart_makes_the_outcome_unknown(tools: Path, tmp_path: Path) -> None:
    async with serving(sqlite(tmp_path), tools=tools, clean=False) as world:
        member, session_id, generation = await world.served()
        await member.say(session_id, "one ", call("a", "c1"), call("b", "c2"))
        await until(lambda: len(waiting_tools.begun) == 2)
        await member.acked(session_id)
        commander_id = member.commander_id
    waiting_tools.answer.set()
    async with serving(sqlite(tmp_path), tools=tools) as world:
        again = await world.join(slots=0, commander_id=commander_id)
        welcome = await again.open(session_id, generation, "c2")
        assert welcome.sequence == 3
        result = await again.next(ToolResult)
        assert (result.call_id, result.status) == ("c2", "UNKNOWN_OUTCOME")
        assert json.loads(result.result_json)["error"]["code"] == "unknown_outcome"
        await again.barrier()
        assert not again.has(ToolResult)
        await again.finish(session_id, "two")
        assert {result.status for result in await world.bodies(session_id, ToolResult)} == {"UNKNOWN_OUTCOME"}
        assert len(await world.bodies(session_id, Call)) == 2
        assert await world.text(session_id) == "one two"
    assert waiting_tools.begun == ["a", "b"]


async def test_an_older_peer_gets_its_results_after_it_half_closed(world: World) -> None:
    peer = world.stream()
    for payload in (call("a"), Content("Bye.", True)):
        await peer.send(peer.packet("", payload, 0))
    await peer.half_close()
    await until(lambda: waiting_tools.begun)
    waiting_tools.answer.set()
    assert (await peer.status()).name == "OK"
    assert [json.loads(result.result_json) for result in peer.has(ToolResult)] == ["a is done"]

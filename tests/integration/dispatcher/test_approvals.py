"""Calls that have to be approved, with a Commander on a real stream: decided on anywhere, run once."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dispatcher.core.entries import Approval, Decision, Started
from shared.records import Content, Stop, Stopped, ToolCall, ToolResult
from tests.dispatcher.policing import asked_plugins
from tests.integration.dispatcher import waiting_tools
from tests.integration.dispatcher.peer import World, serving, sqlite, until
from tests.integration.dispatcher.test_replicas import view
from tests.shared_store import SharedStore

TOOLS = """
[[tool]]
name = "wait"
kind = "local"
use = "tests.integration.dispatcher.waiting_tools:wait"
approval = "user"

[[tool]]
name = "briefly"
kind = "local"
use = "tests.integration.dispatcher.waiting_tools:wait"
approval = "operator"
approval_seconds = 0.05
"""
RULES = """
[[policy]]
name = "birds"
kind = "plugin"
use = "tests.dispatcher.policing.asked_plugins:no_birds"
action = "redact"
reads = ["arguments"]
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("LEASE_SECONDS", "RENEW_SECONDS", "LOOK_SECONDS"):
        monkeypatch.setattr(f"dispatcher.live.neighbours.{name}", 0.02)
    waiting_tools.reset()
    asked_plugins.reset()
    (tmp_path / "tools.toml").write_text(TOOLS)
    return tmp_path / "tools.toml"


@pytest.fixture
def read_tools(tools: Path) -> Path:
    """Policies read their arguments."""
    tools.write_text(TOOLS + RULES)
    return tools


@pytest.fixture
async def world(tools: Path) -> AsyncIterator[World]:
    async with serving(tools=tools) as world:
        yield world


@pytest.fixture
def shared() -> SharedStore:
    return SharedStore()


@pytest.fixture
async def worlds(shared: SharedStore, tools: Path) -> AsyncIterator[tuple[World, World]]:
    async with contextlib.AsyncExitStack() as stack:
        made = [await stack.enter_async_context(serving(shared=shared, tools=tools)) for _ in range(2)]
        await until(lambda: len(shared.leases) == 2, "leases")
        yield made[0], made[1]


def call(name: str, call_id: str, tool: str = "wait") -> ToolCall:
    return ToolCall(tool, json.dumps({"name": name}), call_id)


async def asked(world: World, session_id: str, call_id: str = "c1") -> str:
    """The digest, once the call waits."""
    with world.sessions.store.follow(session_id) as follower:
        async with asyncio.timeout(30):
            while True:
                for approval in await world.bodies(session_id, Approval):
                    if approval.call_id == call_id:
                        return approval.arguments_sha256
                await follower.wait(1)


async def decide(
    world: World, session_id: str, digest: str, decision: str = "approve", call_id: str = "c1", by: str = "operator"
) -> int:
    route = "/v1" if by == "user" else "/operator"
    body = {"decision": decision, "arguments_sha256": digest}
    return (await world.ask(f"{route}/sessions/{session_id}/calls/{call_id}/decision", body)).status_code


@pytest.mark.parametrize("by", ["user", "operator"])
async def test_it_runs_once_it_is_approved(world: World, by: str) -> None:
    member, session_id, _ = await world.served()
    await member.say(session_id, call("a", "c1"))
    await member.acked(session_id)
    digest = await asked(world, session_id)
    assert not waiting_tools.begun
    assert (await world.metrics())["dispatcher_approvals_waiting"] == 1
    await member.say(session_id, "Meanwhile.")
    await member.acked(session_id)
    assert await decide(world, session_id, digest, by=by) == 202
    await until(lambda: waiting_tools.begun == ["a"])
    assert (await world.metrics())["dispatcher_approvals_waiting"] == 0
    waiting_tools.answer.set()
    result = await member.next(ToolResult, session_id)
    assert (result.call_id, result.status, json.loads(result.result_json)) == ("c1", "OK", "a is done")
    await member.finish(session_id)
    (decision,) = await world.bodies(session_id, Decision)
    assert (decision.decision, decision.author, decision.arguments_sha256) == ("approve", by, digest)


async def test_a_denial_and_a_time_that_is_over(world: World) -> None:
    member, session_id, _ = await world.served()
    await member.say(session_id, call("a", "c1"), call("b", "c2", "briefly"))
    result = await member.next(ToolResult, session_id)
    assert (result.call_id, result.status) == ("c2", "DENIED")
    assert await decide(world, session_id, await asked(world, session_id), "deny", by="user") == 202
    result = await member.next(ToolResult, session_id)
    assert (result.call_id, result.status) == ("c1", "DENIED")
    assert json.loads(result.result_json)["error"] == {"code": "denied", "message": "The call was not approved."}
    await member.finish(session_id, "went on")
    assert not waiting_tools.begun
    assert (await world.metrics())['dispatcher_tool_calls_total{status="DENIED",tool="wait"}'] == 1


async def test_what_would_not_run_is_not_asked_about(world: World) -> None:
    member, session_id, _ = await world.served()
    await member.say(session_id, ToolCall("wait", '{"nme": "a"}', "c1"))
    assert (await member.next(ToolResult, session_id)).status == "INVALID_ARGUMENTS"
    assert not await world.bodies(session_id, Approval)
    await member.finish(session_id)


async def test_policies_that_are_asked_read_it_first_and_once(read_tools: Path) -> None:
    async with serving(tools=read_tools, policies=read_tools) as world:
        member, session_id, _ = await world.served()
        await member.say(session_id, call("A nightingale.", "c1"), call("A robin.", "c2"))
        result = await member.next(ToolResult, session_id)
        assert (result.call_id, result.status) == ("c1", "DENIED")
        waiting_tools.answer.set()
        assert await decide(world, session_id, await asked(world, session_id, "c2"), call_id="c2") == 202
        assert (await member.next(ToolResult, session_id)).status == "OK"
        assert [approval.call_id for approval in await world.bodies(session_id, Approval)] == ["c2"]
        assert len(asked_plugins.asked) == 2
        await member.finish(session_id)


async def test_a_stop_cancels_it(world: World) -> None:
    member, session_id, _ = await world.served()
    await member.say(session_id, call("a", "c1"))
    digest = await asked(world, session_id)
    await world.sessions.stop(session_id, "UserCancel", "user")
    assert (await member.next(ToolResult, session_id)).status == "CANCELLED"
    assert await decide(world, session_id, digest) == 409
    stop = await member.next(Stop, session_id)
    await member.say(session_id, Stopped(stop.stop_id))
    await member.acked(session_id)
    assert not waiting_tools.begun


async def test_an_end_with_a_call_that_waits(world: World) -> None:
    member, session_id, _ = await world.served()
    await member.say(session_id, call("a", "c1"))
    await asked(world, session_id)
    await member.say(session_id, Content("done", True))
    await world.over(session_id)
    assert [result.status for result in await world.bodies(session_id, ToolResult)] == ["CANCELLED"]


async def test_a_lost_commanders_session_waits_for_the_decision(tools: Path) -> None:
    """Its agent can go on: the next one's history has the call's result."""
    async with serving(tools=tools, grace_seconds=0.05) as world:
        member, session_id, _ = await world.served(continues=("default",))
        await member.say(session_id, call("a", "c1"))
        digest = await asked(world, session_id)
        await member.cut()
        runner = world.sessions.runners.by_session[session_id]
        await until(lambda: not (runner.link or "grace" in runner.deadlines), "the grace is over")
        assert not runner.unattended
        waiting_tools.answer.set()
        assert await decide(world, session_id, digest) == 202
        successor = await world.join(continues=("default",))
        assignment = await successor.serve()
        assert assignment.history
        (wanted, result) = assignment.history.entries
        assert (wanted, getattr(result, "status", "")) == (call("a", "c1"), "OK")
        await successor.finish(session_id)
        assert waiting_tools.begun == ["a"]


@pytest.mark.parametrize("how", ["approve", "deny", "stop", "cut"])
async def test_an_older_peer_is_not_read_while_its_calls_wait(
    world: World, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """It knows no credit: what it sends behind a call that waits for another's result would pile up."""
    monkeypatch.setattr("dispatcher.core.calls.MAX_OPEN_CALLS", 1)
    peer = world.stream()
    for payload in (call("a", ""), call("b", ""), Content("behind it")):
        await peer.send(peer.packet("", payload, 0))
    await until(lambda: world.sessions.runners.by_session, "it has begun")
    ((session_id, runner),) = world.sessions.runners.by_session.items()
    digest = await asked(world, session_id, "seq-1")
    await until(lambda: runner.session.waits, "the second waits")
    room = asyncio.create_task(runner.room())
    await asyncio.sleep(0)
    assert not room.done()
    waiting_tools.answer.set()
    match how:
        case "stop":
            await world.sessions.stop(session_id, "UserCancel", "user")
        case "cut":
            await peer.cut()
        case _:
            assert await decide(world, session_id, digest, how, "seq-1") == 202
            digest = await asked(world, session_id, "seq-2")
            assert await decide(world, session_id, digest, "deny", "seq-2") == 202
    async with asyncio.timeout(30):
        await room
    assert waiting_tools.begun == (["a"] if how == "approve" else [])


async def test_a_decision_at_another_instance_reaches_the_one_that_has_it(worlds: tuple[World, World]) -> None:
    a, b = worlds
    member, session_id, _ = await a.served()
    await member.say(session_id, call("a", "c1"))
    digest = await asked(b, session_id)
    ((waiting,), gauges) = (
        (await b.ask("/operator/approvals")).json()["approvals"],
        [(await each.metrics())["dispatcher_approvals_waiting"] for each in worlds],
    )
    assert (waiting["session_id"], waiting["arguments"], waiting["arguments_sha256"]) == (
        session_id,
        {"name": "a"},
        digest,
    )
    assert gauges == [1, 0]
    waiting_tools.answer.set()
    assert await decide(b, session_id, digest) == 202
    assert (await member.next(ToolResult, session_id)).status == "OK"
    (started,) = await b.bodies(session_id, Started)
    assert started.instance == view(a).instance
    await member.finish(session_id)
    assert waiting_tools.begun == ["a"]


async def test_a_call_that_waits_outlives_its_instance(worlds: tuple[World, World], shared: SharedStore) -> None:
    """Decided at the other one before that has taken the session over."""
    a, b = worlds
    member, session_id, generation = await a.served()
    await member.say(session_id, call("a", "c1"))
    digest = await asked(a, session_id)
    view(a).away = True
    view(a).running.clear()
    assert await decide(b, session_id, digest) == 202
    shared.leases.discard(view(a).instance)
    waiting_tools.answer.set()
    moved = await b.join(commander_id=member.commander_id)
    await moved.open(session_id, generation, "c1")
    assert (await moved.next(ToolResult, session_id)).status == "OK"
    (started,) = await b.bodies(session_id, Started)
    assert started.instance == view(b).instance
    view(a).away = False
    view(a).running.set()
    await moved.finish(session_id)
    assert waiting_tools.begun == ["a"]


async def test_a_call_that_waits_outlives_a_restart(tools: Path, tmp_path: Path) -> None:
    async with serving(sqlite(tmp_path), tools=tools, clean=False) as world:
        member, session_id, generation = await world.served()
        await member.say(session_id, call("a", "c1"))
        digest = await asked(world, session_id)
        commander_id = member.commander_id
    waiting_tools.answer.set()
    async with serving(sqlite(tmp_path), tools=tools) as world:
        again = await world.join(slots=0, commander_id=commander_id)
        await again.open(session_id, generation, "c1")
        assert await decide(world, session_id, digest) == 202
        assert (await again.next(ToolResult, session_id)).status == "OK"
        await again.finish(session_id)
    assert waiting_tools.begun == ["a"]

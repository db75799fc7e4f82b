"""Acks: cumulative, within 50 ms, at once where somebody waits; and what `/metrics` says after scripted runs."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.records import Ack, Content, Error, Stop, Stopped, Thought, ToolCall, ToolResult
from tests.integration.dispatcher.peer import SECONDS, World, serving, until

GRPC = 'grpc_method="ChatStream",grpc_service="southwest.ai.agent.v1.AgentInteraction",grpc_type="bidi_stream"'


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with serving(max_unacked_packets=20, max_unacked_bytes=2000) as world:
        yield world


@pytest.fixture
def never_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Ack that is not sent at once, nor with something else, does not come at all."""
    monkeypatch.setattr("dispatcher.grpc_edge.writer.ACK_SECONDS", 3600.0)


async def test_one_ack_for_many_packets(world: World, never_later: None) -> None:
    member, session_id, _ = await world.served()
    session = world.sessions.runners.by_session[session_id].session
    for number in range(1, 5):
        await member.say(session_id, "x")
        await until(lambda: session.head.sequence == number)  # noqa: B023
    await member.finish(session_id)
    assert not member.has(Ack), "but the one of the end"


async def test_an_ack_does_not_wait_long_for_others(world: World) -> None:
    member, session_id, _ = await world.served()
    for _ in range(3):
        await member.say(session_id, "x")
        await member.acked(session_id)
    await member.finish(session_id)


@pytest.mark.parametrize(
    "payloads",
    [
        [ToolCall("nothing", "{}", "c1")],
        [Content("", True)],
        [Error("boom")],
        ["x"] * 10,
        ["x" * 1000],
        [Stopped("invented")],
    ],
    ids=["a tool call", "is_finish", "an error", "half the packets", "half the bytes", "stopped"],
)
async def test_at_once(world: World, never_later: None, payloads: list[Any]) -> None:
    peer, session_id = await world.own()
    await peer.say(session_id, *payloads)
    await peer.acked(session_id)


async def test_a_hand_over_is_acked_at_once(world: World, never_later: None) -> None:
    member, session_id, _ = await world.served()
    await member.say(session_id, Error(retryable=True))
    await member.acked(session_id)


async def test_an_ack_never_runs_ahead_of_the_log(world: World) -> None:
    member, session_id, _ = await world.served()
    trouble = world.trouble()
    trouble.answers.clear()
    await member.say(session_id, ToolCall("nothing", "{}", "c1"))
    await until(lambda: trouble.asked)
    await member.say(session_id, "x", "y")
    await until(lambda: world.sessions.runners.by_session[session_id].appends.backlog == 3)
    assert not member.has(Ack)
    assert not member.has(ToolResult)
    trouble.answers.set()
    await member.acked(session_id)
    await member.finish(session_id)


async def test_duplicates_are_acked_again(world: World) -> None:
    member, session_id, _ = await world.served()
    await member.say(session_id, "a", "b", "c")
    await member.acked(session_id)
    await member.send(member.packet(session_id, Content("a"), 1), member.packet(session_id, Content("b"), 2))
    await member.next(Ack)
    member.sequences[session_id] = 3
    await member.finish(session_id, "d")
    assert await world.text(session_id) == "abcd"


# ---- metrics


async def test_the_series_of_chatstream_begin_at_0(world: World) -> None:
    metrics = await world.metrics()
    for name in ("started_total", "msg_received_total", "msg_sent_total", "handling_seconds_count"):
        assert metrics[f"grpc_server_{name}{{{GRPC}}}"] == 0
    for code in ("OK", "Canceled", "InvalidArgument", "Aborted", "Unavailable", "ResourceExhausted"):
        assert metrics[f'grpc_server_handled_total{{grpc_code="{code}",{GRPC}}}'] == 0


async def test_the_counts_of_a_scripted_run(world: World) -> None:
    member = await world.join(slots=2)
    await world.create()
    first = (await member.serve()).session_id
    await member.say(first, Thought("plan", "a"), Thought("plan", "b"), "Hello ", ToolCall("nothing", "{}", "c1"))
    await member.next(ToolResult)
    await member.say(first, Content("world", True))
    await member.acked(first)
    await world.create()
    second = (await member.serve()).session_id
    await member.say(second, "x")
    await member.acked(second)
    await world.sessions.stop(second, "RiskControl", "operator")
    stop = await member.next(Stop)
    await member.say(second, "y", Thought("", "z"), Stopped(stop.stop_id, 1, 2, 300))
    await member.acked(second)
    peer, third = await world.own()
    await peer.say(third, Error("boom"))
    await peer.acked(third)
    await until(lambda: not world.sessions.runners.by_session)
    metrics = await world.metrics()

    def counted(name: str) -> dict[str, float]:
        prefix = f"dispatcher_{name}{{"
        return {
            key.partition('"')[2].removesuffix('"}'): value
            for key, value in metrics.items()
            if key.startswith(prefix) and value
        }

    assert counted("packets_total") == {"thought": 3, "content": 4, "tool_call": 1, "stopped": 1, "error": 1}
    assert metrics["dispatcher_packet_lag_seconds_count"] == 10
    assert counted("sessions_total") == {"finished": 1, "stopped": 1, "failed": 1}
    assert counted("stops_total") == {"RiskControl": 1}
    assert counted("stop_seconds_count") == {"sent": 1, "halted": 1}
    assert metrics["dispatcher_deltas_after_stop_total"] == 2
    assert metrics["dispatcher_first_event_seconds_count"] == 2
    assert metrics["dispatcher_takeovers_total"] == 0
    assert metrics["dispatcher_append_batch_packets_sum"] >= 10
    assert metrics["dispatcher_commanders"] == 1
    for peer in world.peers:
        await peer.half_close()
        assert (await peer.status()).name == "OK"
    await until(lambda: not world.dispatcher.service._streams)
    async with asyncio.timeout(SECONDS):
        while (metrics := await world.metrics())[f'grpc_server_handled_total{{grpc_code="OK",{GRPC}}}'] < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
    assert metrics[f"grpc_server_started_total{{{GRPC}}}"] == 2
    assert metrics[f"grpc_server_handling_seconds_count{{{GRPC}}}"] == 2
    messages = sum(len(peer.messages) for peer in world.peers)
    assert metrics[f"grpc_server_msg_sent_total{{{GRPC}}}"] == messages
    assert metrics[f"grpc_server_msg_received_total{{{GRPC}}}"] == 9, "a batch is one message"


async def test_running_sessions_are_counted(world: World) -> None:
    await world.create("nobody")
    member, session_id, _ = await world.served(slots=3)
    metrics = await world.metrics()
    assert metrics['dispatcher_sessions{state="running"}'] == 1
    assert metrics['dispatcher_sessions{state="waiting"}'] == 1
    assert metrics["dispatcher_waiting_sessions"] == 1
    await member.finish(session_id)
    await until(lambda: not world.sessions.runners.by_session)
    assert (await world.metrics())['dispatcher_sessions{state="running"}'] == 0


async def test_a_stopped_session_runs_no_more(world: World) -> None:
    member, session_id, _ = await world.served()
    await world.sessions.stop(session_id, "UserCancel", "user")
    assert (await world.metrics())['dispatcher_sessions{state="running"}'] == 0
    stop = await member.next(Stop)
    await member.say(session_id, Stopped(stop.stop_id))
    await member.acked(session_id)

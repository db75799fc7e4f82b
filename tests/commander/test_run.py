"""`commander run PROMPT`: one session of its own, with a Dispatcher of today and with an older one."""

import asyncio
import sys
from collections.abc import AsyncGenerator

import grpc
import pytest

from commander import run
from commander.agent import Thought, ToolError, Turn, Yielded
from commander.run import FAILED, FINISHED, INTERRUPTED, STOPPED
from shared import records
from tests.commander.agents import Puppet, brief, chatter
from tests.commander.fake_dispatcher import FakeDispatcher, Peer, running, soon

LEGACY = 0.05
HEARD = 1.0  # where something has to be heard before that time is over, on a busy machine too


async def opened(dispatcher: FakeDispatcher) -> tuple[Peer, str, records.Open]:
    peer = await dispatcher.peer()
    packet, open_ = await peer.next(records.Open)
    return peer, packet.session_id, open_


async def test_it_opens_one_session_and_prints_what_the_agent_says(
    dispatcher: FakeDispatcher, capsys: pytest.CaptureFixture[str]
) -> None:
    puppet = Puppet()
    puppet.say(Thought("plan", "hm, "), Thought("plan", "well"), Thought("do", "it"), "It is ", "sunny.")
    puppet.finish()
    async with running(dispatcher, puppet) as commander:
        peer, session_id, open_ = await opened(dispatcher)
        assert (open_.generation, len(session_id) >= 22, len(open_.commander_id) >= 16) == (0, True, True)
        await peer.send(session_id, records.Welcome(0, 256, 262144))
        text, packet, _ = await peer.until(records.Content)
        assert text == "It is sunny."
        assert not commander.task.done()
        await peer.send(session_id, records.Ack(packet.sequence))
        await peer.half_closed()
        peer.end()
        assert await soon(commander.task) == FINISHED
    out, err = capsys.readouterr()
    assert out == "It is sunny.\n"
    assert "[plan] hm, well\n[do] it\n" in err


@pytest.mark.parametrize(("terminal", "printed"), [(True, "a[2Jbé\n"), (False, "a\x1b[2Jb\x07é\n")])
async def test_what_the_agent_says_cannot_command_the_terminal(
    dispatcher: FakeDispatcher,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
    printed: str,
) -> None:
    """A file gets it as it is."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    puppet = Puppet()
    puppet.say(Thought("\x1b[1mplan", "\x9bhm"), "a\x1b[2J", "b\x07é")
    puppet.finish()
    async with running(dispatcher, puppet) as commander:
        peer, session_id, _ = await opened(dispatcher)
        await peer.send(session_id, records.Welcome(0, 256, 262144))
        _, packet, _ = await peer.until(records.Content)
        await peer.send(session_id, records.Ack(packet.sequence))
        await peer.half_closed()
        peer.end()
        assert await soon(commander.task) == FINISHED
    out, err = capsys.readouterr()
    assert out == printed
    assert "[[1mplan] hm\n" in err


async def test_with_the_metadata_it_waits_for_its_welcome(dispatcher: FakeDispatcher) -> None:
    async with running(dispatcher, brief, legacy_seconds=HEARD) as commander:
        peer, session_id, _ = await opened(dispatcher)
        await asyncio.wait({commander.task}, timeout=1.5 * HEARD)
        assert peer.packets.empty()
        await peer.send("", records.Welcome(0, 256, 262144))  # an empty session_id is its session
        assert (await peer.next(records.Content))[0].session_id == session_id


async def test_stopped_it_says_so_and_exits_3(dispatcher: FakeDispatcher, capsys: pytest.CaptureFixture[str]) -> None:
    async with running(dispatcher, chatter) as commander:
        peer, session_id, _ = await opened(dispatcher)
        await peer.send(session_id, records.Welcome(0, 256, 262144))
        await peer.next(records.Content)
        await peer.send(session_id, records.Stop("RiskControl", "x"))
        _, packet, stopped = await peer.until(records.Stopped)
        assert stopped.stop_id == "x"
        await peer.send(session_id, records.Ack(packet.sequence))
        await peer.half_closed()
        peer.end()
        assert await soon(commander.task) == STOPPED
    assert "\nstopped: RiskControl\n" in "\n" + capsys.readouterr().err


async def test_after_a_cut_it_resumes_under_the_same_name(dispatcher: FakeDispatcher) -> None:
    puppet = Puppet()
    async with running(dispatcher, puppet):
        peer, session_id, first = await opened(dispatcher)
        await peer.send(session_id, records.Welcome(0, 256, 262144))
        puppet.say("a")
        await peer.next(records.Content)
        peer.end(grpc.StatusCode.UNAVAILABLE)
        peer, again_id, again = await opened(dispatcher)
        assert (again_id, again) == (session_id, first)
        await peer.send(session_id, records.Welcome(0, 256, 262144))
        packet, said = await peer.next(records.Content)
        assert (packet.sequence, said.text) == (1, "a")


@pytest.mark.parametrize("code", ["exists", "fenced", "credit"])
async def test_a_closed_session_has_failed(
    dispatcher: FakeDispatcher, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(dispatcher, chatter) as commander:
        peer, session_id, _ = await opened(dispatcher)
        await peer.send(session_id, records.Closed(code, "as the test says"))
        await peer.half_closed()
        peer.end()
        assert await soon(commander.task) == FAILED
    assert f"failed: {code}: as the test says" in capsys.readouterr().err


async def test_an_agent_that_raises_has_failed(dispatcher: FakeDispatcher, capsys: pytest.CaptureFixture[str]) -> None:
    async def raises(turn: Turn) -> AsyncGenerator[Yielded, None]:
        yield ""
        raise ValueError("boom")

    async with running(dispatcher, raises) as commander:
        peer, session_id, _ = await opened(dispatcher)
        await peer.send(session_id, records.Welcome(0, 256, 262144))
        packet, _ = await peer.next(records.Error)
        await peer.send(session_id, records.Ack(packet.sequence))
        await peer.half_closed()
        peer.end()
        assert await soon(commander.task) == FAILED
    assert "failed: ValueError: boom" in capsys.readouterr().err


async def test_interrupted_it_halts_its_agent_and_tells_the_dispatcher(dispatcher: FakeDispatcher) -> None:
    puppet = Puppet()
    async with running(dispatcher, puppet) as commander:
        peer, session_id, _ = await opened(dispatcher)
        await peer.send(session_id, records.Welcome(0, 256, 262144))
        await soon(puppet.started.wait())
        commander.run.leave()
        packet, error = await peer.next(records.Error)
        assert error.code == "commander_lost"
        assert puppet.ended.is_set()
        await peer.send(session_id, records.Ack(packet.sequence))
        await peer.half_closed()
        peer.end()
        assert await soon(commander.task) == INTERRUPTED


async def test_it_does_not_wait_for_ever_where_nobody_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "JOIN_SECONDS", 0.0)
    async with FakeDispatcher().serving() as dispatcher:
        pass
    async with running(dispatcher, brief) as commander:
        assert await soon(commander.task) == FAILED
    assert "UNAVAILABLE" in capsys.readouterr().err


# ---- an older Dispatcher


async def test_an_older_dispatcher_gets_plain_packets_and_never_has_to_ack(older: FakeDispatcher) -> None:
    puppet = Puppet()
    async with running(older, puppet, legacy_seconds=LEGACY) as commander:
        peer, session_id, _ = await opened(older)
        await soon(puppet.started.wait())
        for number in range(600):  # more than any credit
            puppet.say(Thought(str(number), "x"))
        packets = [await peer.packet() for _ in range(600)]
        assert [packet.sequence for packet in packets] == list(range(1, 601))
        assert {packet.session_id for packet in packets} == {session_id}
        assert peer.messages == 601, "no batch"
        puppet.finish()
        await peer.next(records.Content)
        await peer.half_closed()
        assert not commander.task.done(), "its tools may still run"
        peer.end()
        assert await soon(commander.task) == FINISHED


async def test_results_of_an_older_dispatcher_are_matched_by_name_or_age(older: FakeDispatcher) -> None:
    async def calls(turn: Turn) -> AsyncGenerator[Yielded, None]:
        yield str(await asyncio.gather(turn.call_tool("a"), turn.call_tool("b"), turn.call_tool("c")))
        try:
            await turn.call_tool("d")
        except ToolError as error:
            yield error.code

    async with running(older, calls, legacy_seconds=LEGACY):
        peer, _, _ = await opened(older)
        for _ in range(3):
            await peer.next(records.ToolCall)
        await peer.send("", records.ToolResult("b", "2"))
        await peer.send("", records.ToolResult("", "1"))
        await peer.send("", records.ToolResult("unknown", "3"))
        assert (await peer.next(records.Content))[1].text == "[1, 2, 3]"
        await peer.next(records.ToolCall)
        await peer.send("", records.ToolResult("", '{"error": {"code": "late", "message": "too late"}}'))
        assert (await peer.next(records.Content))[1].text == "late"


async def test_an_older_dispatcher_s_stop_may_come_before_it_is_known_to_be_one(older: FakeDispatcher) -> None:
    puppet = Puppet()
    async with running(older, puppet, legacy_seconds=HEARD) as commander:
        peer, _, _ = await opened(older)
        await peer.send("", records.Stop("Timeout"))
        await peer.next(records.Stopped)
        assert not puppet.started.is_set()
        peer.end()
        assert await soon(commander.task) == STOPPED


async def test_an_older_dispatcher_s_stop(older: FakeDispatcher) -> None:
    puppet = Puppet()
    async with running(older, puppet, legacy_seconds=LEGACY) as commander:
        peer, _, _ = await opened(older)
        await soon(puppet.started.wait())
        await peer.send("", records.Stop("UserCancel"))
        await peer.next(records.Stopped)
        await peer.half_closed()
        peer.end()
        assert await soon(commander.task) == STOPPED


async def test_an_older_dispatcher_that_ends_the_stream_has_ended_the_session(older: FakeDispatcher) -> None:
    puppet = Puppet()
    async with running(older, puppet, legacy_seconds=LEGACY) as commander:
        peer, _, _ = await opened(older)
        await soon(puppet.started.wait())
        peer.end(grpc.StatusCode.INTERNAL)
        assert await soon(commander.task) == FAILED
        assert puppet.ended.is_set()

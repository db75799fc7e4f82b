"""The stop, at each moment at which it may come, and agents that do not want to."""

import asyncio
import time
from collections.abc import AsyncGenerator

import grpc
import pytest
from structlog.testing import capture_logs

from commander import driver, worker
from commander.agent import Thought, ToolError, Turn, Yielded
from shared import records
from tests.commander.agents import Puppet, chatter
from tests.commander.fake_dispatcher import FakeDispatcher, serving, soon
from tests.commander.test_worker import begin

STOP = records.Stop("PolicyViolation", "stop-1", "names")


async def test_the_generator_is_cancelled_and_then_stopped_is_said(dispatcher: FakeDispatcher) -> None:
    puppet = Puppet()
    async with serving(dispatcher, puppet):
        peer = await begin(dispatcher)
        puppet.say("a")
        await peer.next(records.Content)
        await peer.send("s", STOP)
        packet, stopped = await peer.next(records.Stopped)
        assert puppet.ended.is_set()
        assert (stopped.stop_id, stopped.last_sequence, stopped.deltas_after_stop) == ("stop-1", 1, 0)
        assert packet.sequence == 2
        assert stopped.halt_micros < 1_000_000
        await peer.send("s", records.Ack(2))
        await peer.status(running=(), free_slots=4)


async def test_a_stop_right_behind_the_welcome_comes_before_the_generator_s_first_step(
    dispatcher: FakeDispatcher,
) -> None:
    async with serving(dispatcher, chatter):
        peer = await dispatcher.peer()
        await peer.assign("s")
        await peer.next(records.Open)
        await peer.send("s", records.Welcome(0, 256, 262144), STOP)
        packet, stopped = await peer.next(records.Stopped)
        assert (packet.sequence, stopped.last_sequence, stopped.deltas_after_stop) == (1, 0, 0)


async def test_a_stop_while_the_agent_waits_for_credit(dispatcher: FakeDispatcher) -> None:
    async with serving(dispatcher, chatter):
        peer = await begin(dispatcher, packets=1)
        await peer.next(records.Content)
        await peer.send("s", STOP)
        packet, stopped = await peer.next(records.Stopped)  # outside the credit; what was not numbered is not sent
        assert (packet.sequence, stopped.last_sequence) == (2, 1)


async def test_a_stop_while_a_tool_runs(dispatcher: FakeDispatcher) -> None:
    ended = asyncio.Event()

    async def calls(turn: Turn) -> AsyncGenerator[Yielded, None]:
        try:
            yield await turn.call_tool("t")
        finally:
            with pytest.raises(ToolError, match="the session is over"):
                await turn.call_tool("clean up")
            ended.set()

    async with serving(dispatcher, calls):
        peer = await begin(dispatcher)
        await peer.next(records.ToolCall)
        await peer.send("s", STOP)
        await peer.next(records.Stopped)
        assert ended.is_set()


async def test_a_second_stop_and_one_after_a_cut_are_answered_like_the_first(dispatcher: FakeDispatcher) -> None:
    puppet = Puppet()
    async with serving(dispatcher, puppet):
        peer = await begin(dispatcher)
        await soon(puppet.started.wait())
        await peer.send("s", STOP, records.Stop("UserCancel", "stop-2"))
        first = await peer.next(records.Stopped)
        peer.end(grpc.StatusCode.UNAVAILABLE)
        peer = await dispatcher.peer()
        await peer.next(records.Open)
        await peer.send("s", records.Welcome(0, 256, 262144), STOP)
        again = await peer.next(records.Stopped)
        assert again[1] == first[1]
        assert again[1].stop_id == "stop-1"
        await peer.send("s", records.Ack(1))
        await peer.status(running=())


async def test_a_stop_that_crosses_the_end_changes_nothing(dispatcher: FakeDispatcher) -> None:
    puppet = Puppet()
    async with serving(dispatcher, puppet):
        peer = await begin(dispatcher)
        puppet.finish()
        packet, _ = await peer.next(records.Content)
        await peer.send("s", STOP, records.Ack(packet.sequence))
        await peer.status(running=())
        assert peer.packets.empty()


async def test_a_stop_replaces_an_end_that_waits_for_credit(dispatcher: FakeDispatcher) -> None:
    puppet = Puppet()
    async with serving(dispatcher, puppet):
        peer = await begin(dispatcher, packets=1)
        puppet.say("a")
        await peer.next(records.Content)
        puppet.say("b")
        puppet.finish()
        await peer.status(free_slots=4)
        await peer.send("s", STOP)
        packet, stopped = await peer.next(records.Stopped)
        assert (packet.sequence, stopped.deltas_after_stop) == (2, 0)


async def test_a_stop_while_it_is_handed_over(dispatcher: FakeDispatcher) -> None:
    release = asyncio.Event()

    async def slow_to_end(turn: Turn) -> AsyncGenerator[Yielded, None]:
        try:
            yield "a"
            await asyncio.Event().wait()
        finally:
            await release.wait()

    async with serving(dispatcher, slow_to_end, drain_seconds=0.01) as commander:
        peer = await begin(dispatcher)
        await peer.next(records.Content)
        commander.worker.leave()
        await peer.status(free_slots=0)
        await peer.send("s", STOP)
        await peer.assign("another", agent="another")
        await peer.status(assignments_received=2)  # so the stop has been read
        release.set()
        await peer.next(records.Stopped)


async def test_an_agent_that_swallows_its_cancellation_is_closed_at_its_next_word(dispatcher: FakeDispatcher) -> None:
    async def stubborn(turn: Turn) -> AsyncGenerator[Yielded, None]:
        yield "a"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield "still here"
            yield "and here"

    async with serving(dispatcher, stubborn):
        peer = await begin(dispatcher)
        await peer.next(records.Content)
        await peer.send("s", STOP)
        _, stopped = await peer.next(records.Stopped)
        assert stopped.deltas_after_stop == 1


# Python reports the generator once more, when it throws it away.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_an_agent_that_ignores_its_end_too_is_never_run_again(dispatcher: FakeDispatcher) -> None:
    async def deaf(turn: Turn) -> AsyncGenerator[Yielded, None]:
        words = 0
        while words < 100:
            try:
                yield "x"
                words += 1
                await asyncio.Event().wait()
            except BaseException:  # noqa: S110
                pass

    async with serving(dispatcher, deaf):
        peer = await begin(dispatcher)
        await peer.next(records.Content)
        with capture_logs() as logs:
            await peer.send("s", STOP)
            _, stopped = await peer.next(records.Stopped)
        assert stopped.deltas_after_stop == 2
        assert "agent_failed_to_close" in [entry["event"] for entry in logs]


async def test_an_agent_that_does_not_stop_is_given_up_and_keeps_its_slot(
    dispatcher: FakeDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "HALT_SECONDS", 0.05)
    release = asyncio.Event()
    running = asyncio.Event()

    async def stuck(turn: Turn) -> AsyncGenerator[Yielded, None]:
        yield "a"
        running.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with serving(dispatcher, stuck, capacity=2):
        peer = await begin(dispatcher)
        await soon(running.wait())
        await peer.next(records.Content)
        with capture_logs() as logs:
            await peer.send("s", STOP)
            await peer.status(running=(), free_slots=1)
        assert [entry["session_id"] for entry in logs if entry["event"] == "did_not_stop"] == ["s"]
        await peer.send("s", records.Closed("fenced"))
        release.set()
        await peer.status(free_slots=2)
        assert peer.packets.empty()


async def test_a_flood_does_not_keep_the_stop_waiting(dispatcher: FakeDispatcher) -> None:
    async with serving(dispatcher, chatter, capacity=8):
        peer = await dispatcher.peer()
        for number in range(8):
            await peer.assign(f"s{number}")
            await peer.welcome(f"s{number}", packets=10**6, size=10**9) if number == 0 else None
        await peer.send("s0", STOP)
        while not isinstance((packet := await peer.packet()).payload, records.Stopped):
            assert packet.session_id == "s0" or isinstance(packet.payload, records.Open)
        assert packet.session_id == "s0"


async def test_an_agent_cancelled_by_itself_has_failed(dispatcher: FakeDispatcher) -> None:
    async def cancels_itself(turn: Turn) -> AsyncGenerator[Yielded, None]:
        yield "a"
        raise asyncio.CancelledError

    async with serving(dispatcher, cancels_itself):
        peer = await begin(dispatcher)
        await peer.next(records.Content)
        assert (await peer.next(records.Error))[1].code == "agent_error"


async def test_thoughts_after_the_stop_are_counted_too(dispatcher: FakeDispatcher) -> None:
    async def thinks_on(turn: Turn) -> AsyncGenerator[Yielded, None]:
        yield "a"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield Thought("p", "on")

    async with serving(dispatcher, thinks_on):
        peer = await begin(dispatcher)
        await peer.next(records.Content)
        await peer.send("s", STOP)
        assert (await peer.next(records.Stopped))[1].deltas_after_stop == 1


async def test_an_agent_that_blocks_the_loop_is_told_of_in_the_status(
    dispatcher: FakeDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "STATUS_SECONDS", 0.2)

    async def blocking(turn: Turn) -> AsyncGenerator[Yielded, None]:
        yield "a"
        await asyncio.sleep(0)
        time.sleep(0.75)  # noqa: ASYNC251
        yield "b"

    async with serving(dispatcher, blocking):
        peer = await begin(dispatcher)
        await peer.next(records.Content)
        async with asyncio.timeout(30):
            while (await peer.status()).loop_lag_micros < (0.75 - worker.LAG_SECONDS) * 1e6:
                pass

"""One ChatStream without gRPC: what it does with many sessions at once."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from dispatcher.access.rules import Caller
from dispatcher.core.log import Request
from dispatcher.grpc_edge.status import StreamOver
from dispatcher.grpc_edge.stream import Stream
from dispatcher.live import deadlines
from dispatcher.live.sessions import LiveSessions
from dispatcher.metrics import Metrics
from dispatcher.policing.load import load as load_policies
from dispatcher.settings import DispatcherSettings
from dispatcher.store.memory import MemoryStore
from dispatcher.tools.registry import Registry
from shared import wire
from shared.records import Assignment, Message, Open, Running, Status, Upstream

MANY = 3 * deadlines.A_MOMENT


class Commander:
    """The RPC's side, which opens all that it is assigned."""

    def __init__(self) -> None:
        self.upstream: asyncio.Queue[Any] = asyncio.Queue()
        self.opened: list[Running] = []

    def say(self, *packets: Upstream) -> None:
        self.upstream.put_nowait(wire.encode_upstream(packets))

    def status(self, *running: Running, slots: int = 0) -> None:
        self.say(Upstream("", Status("c", ("a",), (), slots, len(self.opened), running)))

    async def read(self) -> Any:
        return await self.upstream.get()

    async def write(self, message: Any) -> None:
        for packet in wire.decode_downstream(message):
            if isinstance(packet.signal, Assignment):
                given = packet.signal
                self.opened.append(Running(given.session_id, given.generation))
                self.say(Upstream(given.session_id, Open("c", given.generation, token=given.token)))

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        pass

    async def abort(self, code: grpc.StatusCode, details: str = "") -> None:
        raise AssertionError("nobody aborts it here")


@pytest.fixture
async def sessions() -> AsyncIterator[LiveSessions]:
    metrics = Metrics(CollectorRegistry())
    sessions = LiveSessions(MemoryStore(), load_policies(None), Registry([]), metrics, DispatcherSettings())
    yield sessions
    await sessions.close()


@asynccontextmanager
async def carrying(sessions: LiveSessions) -> AsyncIterator[Commander]:
    """A stream that carries MANY; at the block's end its peer half-closes."""
    commander = Commander()
    running = asyncio.create_task(Stream(sessions.desk, commander, Caller("commander")).run())
    commander.status(slots=MANY)
    for _ in range(MANY):
        await sessions.create(Request("a", (Message("user", "hi"),), time.time()))
    async with asyncio.timeout(20):
        while attached(sessions) < MANY:  # noqa: ASYNC110
            await asyncio.sleep(0)
    yield commander
    commander.upstream.put_nowait(grpc.aio.EOF)
    with suppress(StreamOver):
        await running


def attached(sessions: LiveSessions) -> int:
    return sum(runner.link is not None for runner in sessions.runners.by_session.values())


@pytest.fixture
def standing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that wait for their turn the first has it at once, the others when a test says so."""
    monkeypatch.setattr(deadlines, "MOMENT_SECONDS", 3600.0)


async def some_go_at_a_time(sessions: LiveSessions) -> None:
    """MANY were to go: one has, and now as many as a moment has room for."""
    assert attached(sessions) == MANY - 1
    sessions.runners.pace._go()
    await asyncio.sleep(0)
    assert attached(sessions) == MANY - 1 - deadlines.A_MOMENT


@pytest.mark.usefixtures("standing")
async def test_a_stream_that_ends_lets_go_of_its_sessions_some_at_a_time(sessions: LiveSessions) -> None:
    async with carrying(sessions):
        pass
    await some_go_at_a_time(sessions)


@pytest.mark.usefixtures("standing")
async def test_what_no_status_names_is_lost_some_at_a_time_and_waits_once(sessions: LiveSessions) -> None:
    async with carrying(sessions) as commander:
        for _ in range(3):
            commander.status()
        async with asyncio.timeout(20):
            while commander.upstream.qsize() or attached(sessions) == MANY:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert len(sessions.runners.pace._waiting) == MANY - 1
        await some_go_at_a_time(sessions)


async def test_what_a_status_names_is_kept_and_what_it_does_not_is_lost(
    sessions: LiveSessions,
) -> None:
    async with carrying(sessions) as commander:
        commander.status(*commander.opened)
        commander.status(*commander.opened[1:])
        async with asyncio.timeout(20):
            while attached(sessions) == MANY:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert attached(sessions) == MANY - 1

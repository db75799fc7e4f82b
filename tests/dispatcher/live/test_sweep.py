"""The net below the deadlines, over a session whose deadline somebody forgot."""

from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from dispatcher.live.sessions import LiveSessions
from dispatcher.metrics import Metrics
from dispatcher.policing.load import load as load_policies
from dispatcher.settings import DispatcherSettings
from dispatcher.store.memory import MemoryStore
from dispatcher.tools.load import load as load_tools
from dispatcher.tools.registry import Registry
from shared.records import Open
from tests.dispatcher.live.test_runner import Link, until

EVERY_WAIT = 20 + 60 + 5


@pytest.fixture
async def sessions() -> AsyncIterator[LiveSessions]:
    metrics = Metrics(CollectorRegistry())
    tools = Registry(load_tools(None).tools.values())
    sessions = LiveSessions(MemoryStore(), load_policies(None), tools, metrics, DispatcherSettings())
    yield sessions
    await sessions.close()


async def test_one_that_nothing_leads_to_an_end_is_concluded_after_every_wait(sessions: LiveSessions) -> None:
    link = Link()
    assert await sessions.desk.open(link, "s", Open("c")) is None
    runner = sessions.runners.by_session["s"]
    sessions.sweep.look(0)
    runner.detach(link)
    sessions.sweep.look(1)  # its grace runs
    runner.deadlines.clear()  # the fault
    sessions.sweep.look(2)
    sessions.sweep.look(2 + EVERY_WAIT - 1)
    assert sessions.metrics.unattended._value.get() == 0
    sessions.sweep.look(2 + EVERY_WAIT)
    assert sessions.metrics.unattended._value.get() == 1
    await until(lambda: not sessions.runners.by_session)
    record = await sessions.store.load("s")
    assert record
    assert (record.head.state, record.head.code) == ("failed", "commander_lost")


async def test_one_that_is_attended_again_is_left_alone(sessions: LiveSessions) -> None:
    link = Link()
    assert await sessions.desk.open(link, "s", Open("c")) is None
    runner = sessions.runners.by_session["s"]
    runner.detach(link)
    runner.deadlines.clear()
    sessions.sweep.look(0)
    assert await sessions.desk.open(Link(), "s", Open("c")) is None
    sessions.sweep.look(EVERY_WAIT)
    runner.detach(runner.link or link)
    runner.deadlines.clear()
    sessions.sweep.look(EVERY_WAIT + 1)
    assert sessions.metrics.unattended._value.get() == 0

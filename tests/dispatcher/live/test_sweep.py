"""The net below the deadlines, over a session whose deadline somebody forgot."""

import time
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from dispatcher.core.log import Assign
from dispatcher.live.sessions import LiveSessions
from dispatcher.metrics import Metrics
from dispatcher.policing.load import load as load_policies
from dispatcher.settings import DispatcherSettings
from dispatcher.store.memory import MemoryStore
from dispatcher.tools.load import load as load_tools
from dispatcher.tools.registry import Registry
from shared.records import Content, Open, Upstream
from tests.contracts.sessions import brought, waiting
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
    await concluded_after_its_grace(sessions)


async def concluded_after_its_grace(sessions: LiveSessions) -> None:
    await until(lambda: "s" in sessions.runners.by_session and "grace" in sessions.runners.by_session["s"].deadlines)
    sessions.runners.by_session["s"].deadlines.come("grace")
    await until(lambda: not sessions.runners.by_session)
    record = await sessions.store.load("s")
    assert record
    assert (record.head.state, record.head.code) == ("failed", "commander_lost")


async def test_one_that_is_waited_for_in_vain_is_rebuilt_from_its_log(sessions: LiveSessions) -> None:
    """What its core waits for will never come: the log knows nothing of it."""
    link = Link()
    assert await sessions.desk.open(link, "s", Open("c")) is None
    runner = sessions.runners.by_session["s"]
    runner.session.receive(Upstream("s", Content("lost on the way"), 1), 0.0)
    runner.detach(link)
    runner.deadlines.come("grace")
    sessions.sweep.look(0)
    sessions.sweep.look(EVERY_WAIT)
    assert sessions.metrics.unattended._value.get() == 1
    await concluded_after_its_grace(sessions)


async def test_one_that_the_log_has_and_nobody_here_is_taken_up(sessions: LiveSessions) -> None:
    await sessions.store.create(brought("s", created_at=time.time()))
    await sessions.store.create(waiting("w", time.time()))
    await sessions.sweep.read()
    assert not sessions.runners.by_session
    await sessions.sweep.read()
    assert sessions.metrics.unattended._value.get() == 2
    assert sessions.pool.waits("w")
    await concluded_after_its_grace(sessions)
    await sessions.sweep.read()
    await sessions.sweep.read()
    assert sessions.metrics.unattended._value.get() == 2


async def test_one_that_somebody_took_meanwhile_is_left_alone(sessions: LiveSessions) -> None:
    await sessions.store.create(waiting("s"))
    await sessions.sweep.read()
    await sessions.store.submit("s", Assign("c", "another", False, 1.0))
    await sessions.sweep.read()
    await sessions.desk.open(Link(), "here", Open("c"))
    await sessions.sweep.read()
    await sessions.sweep.read()
    assert "here" in sessions.runners.by_session
    assert sessions.metrics.unattended._value.get() == 1  # "s" alone, at the third look


async def test_one_that_is_attended_again_is_left_alone(sessions: LiveSessions) -> None:
    link = Link()
    assert await sessions.desk.open(link, "s", Open("c", token=b"its own")) is None
    runner = sessions.runners.by_session["s"]
    runner.detach(link)
    runner.deadlines.clear()
    sessions.sweep.look(0)
    assert await sessions.desk.open(Link(), "s", Open("c", token=b"its own")) is None
    sessions.sweep.look(EVERY_WAIT)
    runner.detach(runner.link or link)
    runner.deadlines.clear()
    sessions.sweep.look(EVERY_WAIT + 1)
    assert sessions.metrics.unattended._value.get() == 0

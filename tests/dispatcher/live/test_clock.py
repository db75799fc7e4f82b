"""A machine's clock that is set while sessions run."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from prometheus_client import CollectorRegistry

from dispatcher.live import clock
from dispatcher.live.sessions import LiveSessions
from dispatcher.metrics import Metrics
from dispatcher.policing.load import load as load_policies
from dispatcher.settings import DispatcherSettings
from dispatcher.store.memory import MemoryStore
from dispatcher.tools.load import load as load_tools
from dispatcher.tools.registry import Registry
from shared.records import Ack, Content, Open, Upstream
from tests.dispatcher.live.test_runner import Link, until


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the machine's clock that many seconds ahead of what it is."""
    machine = time.time

    def ahead(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: machine() + seconds)

    return ahead


@pytest.mark.parametrize("seconds", [600, -600])
async def test_no_session_ends_by_it(tmp_path: Path, jump: Callable[[float], None], seconds: float) -> None:
    file = tmp_path / "rules.toml"
    file.write_text('[[policy]]\nname = "limits"\nkind = "budget"\nmax_seconds = 120\nreason = "Timeout"\n')
    metrics = Metrics(CollectorRegistry())
    tools = Registry(load_tools(None).tools.values())
    sessions = LiveSessions(MemoryStore(), load_policies(file), tools, metrics, DispatcherSettings())
    link = Link()
    assert await sessions.desk.open(link, "s", Open("c")) is None
    runner = sessions.runners.by_session["s"]
    runner.receive(Upstream("s", Content("a"), 1, 0, 10))
    jump(seconds)
    runner.receive(Upstream("s", Content("b"), 2, 0, 10))
    await until(lambda: Ack(2) in link.signals)
    entries = (await sessions.store.read("s", 0, 10)).entries
    assert [entry.body for entry in entries] == [Content("a"), Content("b")]
    assert 0 <= entries[1].at - entries[0].at < 60
    await sessions.close()


def test_it_is_told_once(jump: Callable[[float], None]) -> None:
    known = clock.look(0.0)
    assert known == 0.0
    with structlog.testing.capture_logs() as told:
        jump(600)
        known = clock.look(known)
        known = clock.look(known)
        jump(0)
        clock.look(known)
    assert [(each["event"], round(each["seconds"])) for each in told] == [
        ("clock_jumped", 600),
        ("clock_jumped", -600),
    ]

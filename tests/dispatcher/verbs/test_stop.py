"""`dispatcher stop`, against the route in this process."""

import asyncio
import json
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from dispatcher.core.holds import Fits
from dispatcher.core.log import Request
from dispatcher.verbs import holds, stop
from shared.errors import ConfigError
from tests.dispatcher.gateway.fakes import FakeSessions
from tests.dispatcher.verbs.test_client_verbs import call, sessions, urls

__all__ = ["sessions", "urls"]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What the server says in this process does not come between the lines of a command, nor into one."""
    with capture_logs():
        yield


async def test_it_stops_all_that_fit_and_says_what_came_of_it(
    urls: tuple[str, str], sessions: FakeSessions, capfd: pytest.CaptureFixture[str]
) -> None:
    runs = await sessions.begin()
    waits = (await sessions.create(Request("other", (), 0.0, tenant="theirs"))).record.session_id
    stopping = asyncio.create_task(call(stop, "--url", urls[1], "--agent", "default", "--detail", "runs away"))
    assert await sessions.stops.get() == (runs.session_id, "RiskControl", "operator", "runs away")
    await runs.halted()
    assert await stopping == 0
    out, err = capfd.readouterr()
    assert out.endswith("1 found, 0 running\n")
    assert err == ""
    assert await call(stop, "--url", urls[1], "--tenant", "theirs", "--json") == 0
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [event["session_id"] for event in events if event["event"] == "halted"] == [waits]
    assert events[-1] == {"event": "done", "found": 1, "running": 0, "whole": True}
    await asyncio.gather(*sessions.orders)


async def test_a_hold_is_placed_without_a_stop(
    urls: tuple[str, str], sessions: FakeSessions, capfd: pytest.CaptureFixture[str]
) -> None:
    place = ("--url", urls[1], "place", "--seconds", "60")
    assert await call(holds, *place, "--commander", "c", "--reason", "Shutdown") == 0
    (hold,) = await sessions.store.holds(0.0)
    assert (hold.fits, hold.reason, round(hold.ends_at - hold.placed_at)) == (Fits(commander="c"), "Shutdown", 60)
    assert f"{hold.hold_id} is in force" in capfd.readouterr().out
    assert await call(holds, "--url", urls[1], "list") == 0
    assert capfd.readouterr().out.endswith(" s left, commander c: Shutdown\n")
    with pytest.raises(ConfigError, match="holds place: give --agent"):
        await call(holds, *place)
    assert await call(holds, *place, "--commander", "c", "--agent", "a") == 1
    assert "a hold of a Commander has it alone" in capfd.readouterr().err
    with pytest.raises(ConfigError, match="holds place: --credential says which --commander"):
        await call(holds, *place, "--agent", "a", "--credential", "k")
    assert await call(holds, *place, "--commander", "d", "--credential", "k") == 0
    assert (await sessions.store.holds(0.0))[-1].fits == Fits(commander="d", credential="k")
    capfd.readouterr()
    assert await call(holds, "--url", urls[1], "list") == 0
    assert " s left, commander d, credential k: RiskControl\n" in capfd.readouterr().out
    assert not sessions.orders


async def test_others_are_held_and_the_hold_is_seen_and_lifted(
    urls: tuple[str, str],
    sessions: FakeSessions,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dispatcher.live.fleet.SETTLE_SECONDS", 0.0)
    of = ("--url", urls[1])
    assert await call(stop, *of, "--agent", "a\x1bb", "--tenant", "t", "--hold", "600", "--detail", "runs") == 0
    (hold,) = await sessions.store.holds(0.0)
    out = capfd.readouterr().out
    assert f"{hold.hold_id} is in force" in out
    assert "0 found, 0 running" in out
    assert round(hold.ends_at - hold.placed_at) == 600
    assert await call(holds, *of, "list") == 0
    left, said = capfd.readouterr().out.split(" s left, ")
    assert 0 < int(left.removeprefix(f"{hold.hold_id} ")) <= 600
    assert said == "agent ab, tenant t: RiskControl runs\n"
    assert await call(holds, *of, "list", "--json") == 0
    assert json.loads(capfd.readouterr().out)["agent"] == "a\x1bb"
    assert [await call(holds, *of, "lift", hold.hold_id) for _ in range(2)] == [0, 1]
    out, err = capfd.readouterr()
    assert out == "lifted\n"
    assert err == "dispatcher holds: No such hold.\n"
    assert await sessions.store.holds(0.0) == []
    await asyncio.gather(*sessions.orders)


async def test_what_did_not_halt_is_its_exit_status(
    urls: tuple[str, str],
    sessions: FakeSessions,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dispatcher.live.fleet.ORDER_SECONDS", 0.05)
    await sessions.begin()
    assert await call(stop, "--url", urls[1], "--all") == 1
    out, err = capfd.readouterr()
    assert out.endswith("1 found, 1 running\n")
    assert err == "dispatcher stop: there may be more: ask again\n"
    await asyncio.gather(*sessions.orders)


@pytest.mark.parametrize("arguments", [(), ("--all", "--agent", "a"), ("--detail", "why")])
async def test_nothing_is_stopped_by_leaving_something_out(
    urls: tuple[str, str], sessions: FakeSessions, arguments: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError, match="--all"):
        await call(stop, "--url", urls[1], *arguments)
    assert sessions.stops.empty()


async def test_a_server_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    assert await call(stop, "--url", "http://127.0.0.1:1", "--all") == 1
    assert capfd.readouterr().err.startswith("dispatcher stop: cannot reach http://127.0.0.1:1: ")

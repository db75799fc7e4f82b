"""The profiles `scaled` and `watch`: replicas on one Redis behind HAProxy, and an Alertmanager."""

import httpx2
import pytest

from tests.compose.stack import REACHED, Stack, eventually, run
from tests.e2e.reading import Reader, ask
from tests.replicas import figure

pytestmark = [pytest.mark.compose, pytest.mark.slow, pytest.mark.timeout(600)]

TEXT = " ".join(f"w{number}" for number in range(500))


def with_running_session(stack: Stack) -> str:
    """The container of the Dispatcher to whose Commander a session was given."""
    found = eventually(
        lambda: [
            container
            for container in stack.containers("dispatcher")
            if stack.inspect(container)["State"]["Running"]
            and figure(
                f"{stack.address(container)}:9464", 'dispatcher_sessions{state="running"', stack.shown("operator")
            )
        ],
        bool,
        30,
    )
    return found[0]


def asked(stack: Stack) -> str:
    return ask(stack.users, shown=stack.shown("user"))


def read(stack: Stack, session_id: str) -> Reader:
    return Reader(stack.users, session_id, stack.key("user"))


def test_the_logs_are_the_dispatchers_alone(scaled: Stack) -> None:
    (redis,) = scaled.containers("redis")
    assert scaled.reached_by_agents() == REACHED
    for user in ((), ("--user", "health", "--pass", "none"), ("--user", "dispatcher", "--pass", "none")):
        said = run(scaled.docker, "exec", redis, "redis-cli", "--no-auth-warning", *user, "get", "midsentence:x")
        assert said.startswith(("NOAUTH", "NOPERM", "WRONGPASS", "AUTH failed: WRONGPASS")), said


def test_all_replicas_are_on_redis_and_behind_haproxy(scaled: Stack) -> None:
    replicas = scaled.containers("dispatcher")
    assert len(replicas) == 2
    for container in replicas:
        environment = run(scaled.docker, "exec", container, "cat", "/proc/1/environ").split("\0")
        (store,) = (each for each in environment if each.startswith("DISPATCHER_STORE="))
        assert store.startswith("DISPATCHER_STORE=redis://dispatcher:")
        assert store.endswith("@midsentence-redis:6379/0")
    ready = 'haproxy_backend_active_servers{proxy="requests"}'
    eventually(lambda: scaled.figure(ready), lambda value: value == 2, 60)
    eventually(lambda: scaled.figure('sum(up{job=~"dispatcher|commander|haproxy"})'), lambda value: value == 5, 60)
    eventually(lambda: scaled.figure("sum(dispatcher_commanders)"), lambda value: value == 2, 60)


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_readers_text_is_whole_when_its_replica_goes(scaled: Stack, end: str) -> None:
    readers = [read(scaled, asked(scaled)) for _ in range(4)]
    eventually(lambda: [bool(reader.text) for reader in readers], all, 30)
    container = with_running_session(scaled)
    assert any(not reader.final[0] for reader in readers), "in mid-session"
    run(scaled.docker, end, container, seconds=90)  # a stop returns when what runs there has ended or moved on
    for reader in readers:
        reader.ended(90)
        assert (reader.final[0], reader.text.strip()) == ("finished", TEXT)
    run(scaled.docker, "start", container)
    eventually(lambda: scaled.health("dispatcher"), lambda health: set(health.values()) == {"healthy"}, 90)
    assert scaled.inspect(container)["State"]["ExitCode"] == 0


def test_prometheus_counts_over_the_replicas(scaled: Stack) -> None:
    finished = 'sum(dispatcher_sessions_total{outcome="finished"})'
    before = scaled.figure(finished) or 0
    assert read(scaled, asked(scaled)).ended(60).text.strip() == TEXT
    eventually(lambda: scaled.figure(finished), lambda value: value is not None and value > before, 30)
    firing = httpx2.get(f"{scaled.url('prometheus', 9090)}/api/v1/alerts", timeout=10).json()["data"]["alerts"]
    assert not [alert for alert in firing if alert["labels"]["severity"] == "critical" and alert["state"] == "firing"]


def test_a_dispatcher_that_starts_while_redis_is_away_waits_for_it(scaled: Stack) -> None:
    """It must not take a file instead: it would say of users' sessions that they do not exist."""
    session_id = asked(scaled)
    said = read(scaled, session_id).ended(60).text
    scaled.compose("stop", "redis")
    restarted, _ = scaled.containers("dispatcher")
    run(scaled.docker, "restart", "--time", "5", restarted)
    scaled.compose("start", "redis")
    eventually(lambda: scaled.health("dispatcher"), lambda health: set(health.values()) == {"healthy"}, 120)
    assert read(scaled, session_id).ended(60).text == said
    restarted_one = f"http://{scaled.address(restarted)}:8080"
    assert Reader(restarted_one, session_id, scaled.key("user")).ended(60).text == said


def test_an_alert_that_fires_reaches_the_alertmanager(scaled: Stack) -> None:
    """The last: it takes the Commanders away."""
    scaled.compose("stop", "commander")
    url = f"{scaled.url('alertmanager', 9093)}/api/v2/alerts"

    def told() -> list[str]:
        return [alert["labels"]["alertname"] for alert in httpx2.get(url, timeout=10).raise_for_status().json()]

    eventually(told, lambda names: "NoCommander" in names, 120)

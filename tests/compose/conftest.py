"""The compose file on a real engine: images built from this tree, brought up under a name of its own, taken down.

Variables: DOCKER (the client), BASE and PROMETHEUS_IMAGE (images to use instead of those that engine.sh makes).
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.stack import ENGINE, Stack, build, client, eventually, run

ENGINE_PID = Path("/run/docker.pid")


def engine_pid() -> int | None:
    return int(ENGINE_PID.read_text()) if ENGINE_PID.exists() else None


@pytest.fixture(scope="session")
def engine() -> Iterator[str]:
    """The docker client, with an engine that answers. One that this started is ended."""
    before = engine_pid()
    run("bash", str(ENGINE), "engine", seconds=300)
    yield client()
    started = engine_pid()
    if started and started != before:
        os.kill(started, signal.SIGTERM)


@pytest.fixture(scope="session")
def images(engine: str) -> dict[str, str]:
    """The variables that name the base's and Prometheus's images."""
    base = os.environ.get("BASE") or "midsentence-base:bookworm"
    prometheus = os.environ.get("PROMETHEUS_IMAGE") or "midsentence-prometheus:debian"
    if "BASE" not in os.environ:
        run("bash", str(ENGINE), "base", base, seconds=600)
    if "PROMETHEUS_IMAGE" not in os.environ:
        run("bash", str(ENGINE), "prometheus", prometheus, base, seconds=300)
    return {"BASE": base, "PROMETHEUS_IMAGE": prometheus}


@pytest.fixture(scope="session")
def stack(engine: str, images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Everything up and healthy; ports on 127.0.0.1 chosen by the engine."""
    for target in ("dispatcher", "commander"):
        build(engine, target, images["BASE"], "test")
    ports = dict.fromkeys(("HTTP_PORT", "OPERATOR_PORT", "PROMETHEUS_PORT"), "0")
    env_file = tmp_path_factory.mktemp("compose") / "empty.env"
    env_file.touch()
    made = Stack(engine, images | ports | {"TAG": "test"}, env_file)
    try:
        made.compose("up", "-d", "--no-build")
        health = eventually(
            lambda: made.health("dispatcher", "commander"), lambda health: "starting" not in health.values(), 180
        )
        assert sorted(health.values()) == ["healthy"] * 3, health
        yield made
    except BaseException:
        print(made.compose("logs", "--no-color", "--tail", "40"))
        raise
    finally:
        made.compose("down", "--volumes", "--timeout", "20", "--remove-orphans")

"""The compose file on a real engine: images built from this tree, brought up under a name of its own, taken down.

Variables: DOCKER (the client), COMPOSE (another Compose), BASE, PROMETHEUS_IMAGE, REDIS_IMAGE and ALERTMANAGER_IMAGE
(images to use instead of those that engine.sh makes).
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.stack import ENGINE, Stack, build, client, run

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
    """The variables that name the images which are not built from this tree."""
    named = {"BASE": os.environ.get("BASE") or "midsentence-base:bookworm"}
    if "BASE" not in os.environ:
        run("bash", str(ENGINE), "base", named["BASE"], seconds=600)
    for kind in ("prometheus", "redis", "alertmanager"):
        variable = f"{kind.upper()}_IMAGE"
        named[variable] = os.environ.get(variable) or f"midsentence-{kind}:debian"
        if variable not in os.environ:
            run("bash", str(ENGINE), kind, named[variable], named["BASE"], seconds=300)
    # Debian has neither. They are never started here; Grafana's panels are asked of a Prometheus in tests/watch.
    named |= dict.fromkeys(("GRAFANA_IMAGE", "JAEGER_IMAGE"), named["BASE"])
    return named


@pytest.fixture(scope="session")
def variables(engine: str, images: dict[str, str]) -> dict[str, str]:
    """What the compose file is told: images of this tree, ports on 127.0.0.1 chosen by the engine."""
    for target in ("haproxy", "dispatcher", "commander"):
        build(engine, target, images["BASE"], "test")
    edges = ("HTTP", "OPERATOR", "PROMETHEUS", "ALERTMANAGER", "GRAFANA", "JAEGER")
    ports = {f"{edge}_PORT": "0" for edge in edges}
    return images | ports | {"TAG": "test"}


@pytest.fixture(scope="session")
def env_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In place of the user's .env: empty."""
    made = tmp_path_factory.mktemp("compose") / "empty.env"
    made.touch()
    return made


@pytest.fixture(scope="module")
def stack(engine: str, variables: dict[str, str], env_file: Path) -> Iterator[Stack]:
    """`docker compose up`."""
    made = Stack(engine, variables, env_file)
    with made.up(("haproxy", "dispatcher", "commander"), 4):
        yield made


@pytest.fixture(scope="module")
def scaled(engine: str, variables: dict[str, str], env_file: Path) -> Iterator[Stack]:
    """The profiles `scaled` and `watch`, two of each, with Commanders that follow a script."""
    files = ("--file", "docker-compose.yml", "--file", "tests/compose/scripted.yml")
    made = Stack(engine, variables, env_file, *files, "--profile", "scaled", "--profile", "watch")
    with made.up(
        ("haproxy", "redis", "dispatcher", "commander"),
        6,
        "--scale",
        "dispatcher=2",
        "--scale",
        "commander=2",
        "--scale",
        "grafana=0",
        "--scale",
        "jaeger=0",
    ):
        yield made

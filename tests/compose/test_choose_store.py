"""`deploy/choose-store.sh`: which store a Dispatcher of the compose file gets, and that none changes by accident."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.stack import ROOT
from tests.replicas import NETWORK

SECONDS = 30
HOST = f"{NETWORK}.210"
FILE, REDIS = "sqlite:////var/lib/midsentence/data/sessions.db", f"redis://dispatcher:s3cret@{HOST}:6379/0"


def started(folder: Path, **variables: str) -> "subprocess.Popen[str]":
    """A program under the script. It says which store it was given, and runs until it is told to end."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
    password = folder / "password"
    password.write_text("s3cret")
    program = "trap 'exit 0' TERM; echo $DISPATCHER_STORE; while :; do sleep 0.1; done"
    return subprocess.Popen(
        ["bash", str(ROOT / "deploy" / "choose-store.sh"), "bash", "-c", program],
        env=inherited | {"REDIS_HOST": HOST, "CHOSEN": str(folder), "REDIS_PASSWORD_FILE": str(password)} | variables,
        stdout=subprocess.PIPE,
        text=True,
    )


def store(folder: Path, **variables: str) -> str:
    program = started(folder, **variables)
    try:
        assert program.stdout
        return program.stdout.readline().strip()
    finally:
        program.kill()
        program.communicate(timeout=SECONDS)


@pytest.fixture
def redis() -> Iterator[None]:
    """Somebody answers at Redis's port."""
    with socket.create_server((HOST, 6379)):
        yield


def test_a_file_where_there_is_no_redis(tmp_path):
    assert store(tmp_path) == FILE


@pytest.mark.usefixtures("redis")
def test_redis_where_it_is(tmp_path):
    assert store(tmp_path) == REDIS


def test_redis_for_as_long_as_the_container_lives(tmp_path):
    with socket.create_server((HOST, 6379)):
        assert store(tmp_path) == REDIS
    assert store(tmp_path) == REDIS, "it is only away"


def test_it_ends_when_redis_comes_and_is_on_redis_when_started_again(tmp_path):
    program = started(tmp_path)
    assert program.stdout
    assert program.stdout.readline().strip() == FILE
    with socket.create_server((HOST, 6379)):
        assert program.wait(SECONDS) == 0
    program.stdout.close()
    assert store(tmp_path) == REDIS


@pytest.mark.usefixtures("redis")
def test_what_the_operator_says_stays(tmp_path):
    assert store(tmp_path, DISPATCHER_STORE="memory://") == "memory://"


@pytest.mark.usefixtures("redis")
def test_what_env_says_is_left_to_the_program(tmp_path):
    assert store(tmp_path, DOTENV_DISPATCHER_STORE="memory://", DISPATCHER_STORE="") == ""
    assert store(tmp_path, DOTENV_DISPATCHER_STORE="", DISPATCHER_STORE="memory://") == "memory://"

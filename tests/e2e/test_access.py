"""Keys, as programs use them; and a Dispatcher that would be open by oversight."""

import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.programs import commander, dispatcher, environment

SECONDS = 30
VERB = [sys.executable, "-m", "dispatcher"]


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    env = environment(settings)
    return subprocess.run([*VERB, *arguments], env=env, capture_output=True, text=True, timeout=SECONDS)


def test_everybody_by_a_key(tmp_path: Path) -> None:
    file = tmp_path / "access.toml"
    keys: dict[str, str] = {}
    for name, *more in (("web", "user", "--tenant", "acme"), ("worker", "commander"), ("ops", "operator")):
        made = run("keys", "new", name, "--role", *more, DISPATCHER_ACCESS=str(file))
        assert made.returncode == 0, made.stderr
        keys[name] = made.stdout.strip()
    (tmp_path / "worker.key").write_text(keys["worker"])
    (tmp_path / "ops.key").write_text(keys["ops"])
    with (
        dispatcher(tmp_path / "d.log", access=str(file)) as server,
        commander(server.grpc, tmp_path / "c.log", "scripted", token_file=str(tmp_path / "worker.key")),
    ):
        server.program.wait_for(lambda event: event.get("event") == "commander_joined")
        users, operators = f"http://{server.http}", f"http://{server.operator}"
        assert httpx2.get(f"{users}/v1/models").status_code == 401
        assert run("chat", "--url", users, "hi").returncode == 1
        said = run("chat", "--url", users, "hi", DISPATCHER_KEY=keys["web"])
        assert said.stdout.startswith("w0 w1 "), said.stderr
        listed = run(
            "sessions", "--url", operators, "--key-file", str(tmp_path / "ops.key"), "list", "--state", "finished"
        )
        assert listed.stdout.count("finished") == 1, listed.stderr
        assert run("sessions", "--url", operators, "list", DISPATCHER_KEY=keys["web"]).returncode == 1
        assert run("health", "--url", users).returncode == 0
    told = (tmp_path / "d.log").read_text() + (tmp_path / "c.log").read_text()
    assert not [name for name, key in keys.items() if key in told]


@pytest.mark.parametrize("command", [("chat", "hi"), ("sessions", "list")])
def test_a_key_does_not_go_to_others_in_the_clear(command: tuple[str, ...]) -> None:
    verb, *rest = command
    refused = run(verb, "--url", "http://dispatcher.example", *rest, DISPATCHER_KEY="mst_secret")
    assert refused.returncode == 2
    assert "in the clear" in refused.stderr
    assert "mst_secret" not in refused.stderr


def test_beyond_loopback_without_a_word_on_access_it_does_not_start(tmp_path: Path) -> None:
    edges = {f"DISPATCHER_{edge}_ADDRESS": "127.0.0.1:0" for edge in ("GRPC", "HTTP", "OPERATOR")}
    refused = run("serve", **edges | {"DISPATCHER_HTTP_ADDRESS": "0.0.0.0:0", "DISPATCHER_STORE": "memory://"})
    assert refused.returncode == 2
    assert refused.stderr.startswith("dispatcher: DISPATCHER_HTTP_ADDRESS: 0.0.0.0 can be reached from other machines;")
    assert len(refused.stderr.splitlines()) == 1

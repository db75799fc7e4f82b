"""`dispatcher serve` as a program: it reloads, drains and comes back."""

import signal
import socket
import subprocess
import sys
from typing import Any

import grpc
import httpx2
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.e2e.agents import word
from tests.e2e.reading import Reader, ask
from tests.e2e.test_kill import addresses, wait_until
from tests.programs import commander, dispatcher, environment, free_port, running

ADDRESSES = {f"DISPATCHER_{edge}_ADDRESS": "127.0.0.1:0" for edge in ("GRPC", "HTTP", "OPERATOR")}


@pytest.fixture
def proxied(monkeypatch):
    """An environment whose proxy is nowhere; the programs that are started have it too."""
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")


@pytest.mark.usefixtures("proxied")
def test_dev_needs_no_proxy_for_its_own_machine(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    settings = ADDRESSES | {"DISPATCHER_HTTP_ADDRESS": address, "DISPATCHER_STORE": "memory://"}
    settings["COMMANDER_BACKEND"] = "scripted"
    with running("-m", "dispatcher", "dev", settings=settings, log=tmp_path / "dev.log") as program:
        program.wait_for(lambda event: event.get("event") == "commander_joined")
        chat = [sys.executable, "-m", "dispatcher", "chat", "--url", f"http://{address}", "hi"]
        said = subprocess.run(chat, capture_output=True, text=True, timeout=60)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith("w0 w1 ")


@pytest.mark.usefixtures("proxied")
def test_a_commander_asks_the_environments_proxy_only_where_that_is_set(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as proxy, dispatcher(tmp_path / "d.log") as server:
        monkeypatch.setenv("grpc_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        with commander(server.grpc, tmp_path / "c.log", "scripted"):
            server.program.wait_for(lambda event: event.get("event") == "commander_joined")
        proxy.settimeout(30)
        with commander(server.grpc, tmp_path / "c.log", "scripted", grpc_proxy="true"), proxy.accept()[0] as asked:
            assert asked.recv(1024).startswith(f"CONNECT {server.grpc} HTTP/1.1".encode())


def test_a_second_dispatcher_on_the_same_file_refuses(tmp_path):
    store = f"sqlite:///{tmp_path}/sessions.db"
    environ = environment(ADDRESSES | {"DISPATCHER_STORE": store})
    with dispatcher(tmp_path / "d.log", store=store):
        serve = [sys.executable, "-m", "dispatcher", "serve"]
        done = subprocess.run(serve, env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "DISPATCHER_STORE" in line


def test_health_and_reflection_name_the_service(tmp_path):
    service = "southwest.ai.agent.v1.AgentInteraction"
    with dispatcher(tmp_path / "d.log") as server, grpc.insecure_channel(server.grpc) as channel:
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        reflected: Any = reflection_pb2_grpc.ServerReflectionStub
        answers = reflected(channel).ServerReflectionInfo(iter([asked]))
        listed = [found.name for answer in answers for found in answer.list_services_response.service]
        assert service in listed
        assert "grpc.health.v1.Health" in listed
        health: Any = health_pb2_grpc.HealthStub(channel)
        for name in ("", service):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_rules_are_read_again_on_sighup_and_broken_ones_change_nothing(tmp_path):
    policies = tmp_path / "policies.toml"
    rule = '[[policy]]\nname = "w"\nkind = "phrases"\nphrases = ["{}"]\n'
    policies.write_text(rule.format("w5 "))
    with (
        dispatcher(tmp_path / "d.log", policies=str(policies)) as server,
        commander(server.grpc, tmp_path / "c.log", "tests.e2e.agents:counting"),
    ):
        url = f"http://{server.http}"
        assert Reader(url, ask(url)).ended(60).text == "".join(map(word, range(5)))
        policies.write_text(rule.format("w3 "))
        server.program.send_signal(signal.SIGHUP)
        server.program.wait_for(lambda event: event.get("event") == "policies_reloaded")
        assert Reader(url, ask(url)).ended(60).text == "".join(map(word, range(3)))
        policies.write_text(rule.format("w2 "))  # it is seen to have changed
        server.program.wait_for(lambda event: event.get("event") == "policies_reloaded")
        assert Reader(url, ask(url)).ended(60).text == "".join(map(word, range(2)))
        policies.write_text("[[policy]]\n")
        server.program.send_signal(signal.SIGHUP)
        server.program.wait_for(lambda event: event.get("event") == "policies_broken")
        assert "dispatcher_policy_reload_success 0.0" in httpx2.get(f"http://{server.operator}/metrics").text
        status = httpx2.get(f"http://{server.operator}/operator/policies").json()
        assert [policy["name"] for policy in status["policies"]] == ["w"]
        assert status["errors"][0].startswith(f"{policies}: policy 1: ")
        assert Reader(url, ask(url)).ended(60).text == "".join(map(word, range(2)))


def test_a_session_goes_on_over_a_restart(tmp_path):
    settings = {"store": f"sqlite:///{tmp_path}/sessions.db", **addresses()}
    url = f"http://{settings['http_address']}"
    with dispatcher(tmp_path / "d0.log", **settings) as server:
        joined = commander(server.grpc, tmp_path / "c.log", "tests.e2e.agents:counting")
        joined.__enter__()
        reader = Reader(url, ask(url, tokens=200, seconds=0.02))
        wait_until(lambda: reader.text)
        server.program.send_signal(signal.SIGTERM)
        assert server.program.exit_status(20) == 0
    try:
        with dispatcher(tmp_path / "d1.log", **settings):
            reader.ended(60)
            assert reader.final[0] == "finished"
            assert reader.text == "".join(map(word, range(200)))
    finally:
        joined.__exit__(None, None, None)


def test_what_the_memory_store_held_is_stopped_with_shutdown(tmp_path):
    with (
        dispatcher(tmp_path / "d.log") as server,
        commander(server.grpc, tmp_path / "c.log", "tests.e2e.agents:counting"),
    ):
        url = f"http://{server.http}"
        reader = Reader(url, ask(url, tokens=5000, seconds=0.02))
        wait_until(lambda: reader.text)
        server.program.send_signal(signal.SIGTERM)
        reader.ended(60)
        assert reader.final == ("stopped", {"reason": "Shutdown"})

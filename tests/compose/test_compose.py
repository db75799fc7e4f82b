"""`docker compose up`, as a stranger would have it: health, a prompt, a third Commander, a figure, a restart."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
import yaml

from tests.compose.stack import REACHED, ROOT, Stack, eventually, run

pytestmark = [pytest.mark.compose, pytest.mark.slow, pytest.mark.timeout(900)]

PROMPT = "Say hello in one short sentence."
OWN_AGENT = """import humanize


async def agent(turn):
    yield humanize.intcomma(1234567)
"""
RULES = """[[policy]]
name = "project names"
kind = "phrases"
phrases = ["Project Nightingale"]

[[tool]]
name = "weather"
kind = "local"
use = "config.my_tools:weather"
"""


def block(language: str, *names: str) -> str:
    """The fenced block of the page on operating that names one of these."""
    found = re.findall(
        rf"^```{language}\n(.*?)^```$", (ROOT / "deploy/README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    (wanted,) = [text for text in found if any(name in text for name in names)]
    return str(wanted)


def answers(url: str) -> bool:
    """Whether a server is there, and has what is asked for."""
    try:
        return httpx2.get(url, timeout=10).status_code == 200
    except httpx2.TransportError:
        return False


def streams(stack: Stack, session_id: str) -> bool:
    """Whether the edge has a replica for event streams. Until then it closes them, and a browser asks again."""
    try:
        url = f"{stack.users}/v1/sessions/{session_id}/events"
        with httpx2.stream("GET", url, headers=stack.shown("user"), timeout=60) as response:
            return response.status_code == 200
    except httpx2.RemoteProtocolError:
        return False


def events(stack: Stack, session_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(event, data) of a session's event stream, to its end."""
    url = f"{stack.users}/v1/sessions/{session_id}/events"
    with httpx2.stream("GET", url, headers=stack.shown("user"), timeout=60) as response:
        assert response.status_code == 200
        name = ""
        for line in response.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)


def text_of(seen: Iterable[tuple[str, dict[str, Any]]]) -> str:
    """The words of a session that has finished."""
    *spoken, (last, data) = seen
    assert last == "finished", (last, data)
    return "".join(data["text"] for name, data in spoken if name == "content")


def ask(stack: Stack, agent: str = "default") -> str:
    """Once somebody offers that agent."""
    url, shown = stack.users, stack.shown("user")

    def offered() -> list[str]:
        return [model["id"] for model in httpx2.get(f"{url}/v1/models", headers=shown, timeout=10).json()["data"]]

    eventually(offered, lambda agents: agent in agents, 60)
    created = httpx2.post(f"{url}/v1/sessions", json={"prompt": PROMPT, "agent": agent}, headers=shown, timeout=30)
    assert created.status_code == 201, created.text
    return str(created.json()["session_id"])


def test_nobody_is_root_and_only_the_commander_holds_the_model(stack: Stack) -> None:
    (dispatcher,) = stack.containers("dispatcher")
    commanders = stack.containers("commander")
    assert len(commanders) == 2
    holds = "import importlib.util as u, os; print(os.getuid(), u.find_spec('xllamacpp') is not None)"
    assert run(stack.docker, "exec", dispatcher, "python", "-c", holds).split() == ["10001", "False"]
    for commander in commanders:
        assert run(stack.docker, "exec", commander, "python", "-c", holds).split() == ["10001", "True"]


def test_it_is_closed_from_the_start(stack: Stack) -> None:
    operators = stack.url("haproxy", 9464)
    for url in (f"{stack.users}/v1/models", f"{operators}/operator/sessions", f"{operators}/metrics"):
        assert httpx2.get(url, timeout=10).status_code == 401, url
    assert httpx2.get(f"{stack.users}/v1/models", headers=stack.shown("user"), timeout=10).status_code == 200
    assert httpx2.get(f"{operators}/operator/sessions", headers=stack.shown("operator"), timeout=10).status_code == 200
    assert httpx2.get(f"{operators}/operator/sessions", headers=stack.shown("user"), timeout=10).status_code == 403


def test_nobody_holds_what_is_not_its_own(stack: Stack) -> None:
    held = {"dispatcher": "access.toml grpc.crt grpc.key redis", "commander": "grpc.crt token", "prometheus": "token"}
    for service, files in held.items():
        look = "cd /keys; ls; stat -c '%a %u' * | sort -u; id -u"
        *names, mode, owner, own = run(stack.docker, "exec", stack.containers(service)[0], "bash", "-c", look).split()
        assert (" ".join(names), mode, owner) == (files, "600", own), service


def test_what_was_made_once_stays(stack: Stack) -> None:
    (dispatcher,) = stack.containers("dispatcher")
    digests = ("exec", dispatcher, "bash", "-c", "sha256sum /keys/*")
    before = run(stack.docker, *digests)
    assert not stack.compose("run", "--rm", "-T", "keys")
    assert run(stack.docker, *digests) == before


def test_agents_containers_reach_what_they_have_to_and_no_more(stack: Stack) -> None:
    assert stack.reached_by_agents() == REACHED


def test_commanders_of_elsewhere_come_through_haproxy(stack: Stack) -> None:
    """Whose certificate of the replicas is the one that was made; one that does not fit would not be spoken to."""
    (haproxy,) = stack.containers("haproxy")
    with grpc.insecure_channel(f"{stack.address(haproxy)}:50051") as channel:
        open_stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
            "/southwest.ai.agent.v1.AgentInteraction/ChatStream"
        )

        def refusal() -> grpc.StatusCode:
            with pytest.raises(grpc.RpcError) as refused:
                next(open_stream(iter(()), timeout=20))
            return refused.value.code()

        # Now and then HAProxy resets a stream whose last frame has just come: CANCELLED.
        eventually(refusal, lambda code: code is grpc.StatusCode.UNAUTHENTICATED, 30)


def test_a_prompt_is_answered_over_the_event_stream(stack: Stack) -> None:
    assert text_of(events(stack, ask(stack))).strip()


def test_a_prompt_is_answered_over_chat_completions(stack: Stack) -> None:
    body = {"model": "default", "messages": [{"role": "user", "content": PROMPT}]}
    shown = stack.shown("user")
    answer = httpx2.post(f"{stack.users}/v1/chat/completions", json=body, headers=shown, timeout=300)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"].strip()
    assert answer.headers["x-session-id"]


def test_a_scaled_commander_joins_and_prometheus_sees_it(stack: Stack) -> None:
    stack.compose("up", "-d", "--no-build", "--no-recreate", "--scale", "commander=3")
    eventually(lambda: stack.figure("sum(dispatcher_commanders)"), lambda value: value == 3, 90)
    eventually(lambda: stack.figure('sum(up{job="commander"})'), lambda value: value == 3, 30)
    finished = 'sum(dispatcher_sessions_total{outcome="finished"})'
    before = stack.figure(finished) or 0
    text_of(events(stack, ask(stack)))
    eventually(lambda: stack.figure(finished), lambda value: value is not None and value > before, 30)


def test_the_lines_of_env_switch_to_another_server(stack: Stack, tmp_path: Path) -> None:
    """Two lines switch. The Dispatcher serves as the other server: `relay` asks for the first model that it lists. Its
    container is let into the network of those who ask, where agents' own are not.
    """
    env_file = tmp_path / "switched.env"
    env_file.write_text(
        "COMMANDER_BACKEND=openai\nCOMMANDER_OPENAI__BASE_URL=http://haproxy:8080/v1\nCOMMANDER_AGENT=relay\n"
        f"COMMANDER_OPENAI__API_KEY={stack.key('user')}\n"
        "COMMANDER_OPENAI__TOOLS=false\n"  # as a Dispatcher takes none
    )
    container = stack.compose("run", "-d", "--no-deps", "commander", env_file=env_file).split()[-1]
    try:
        stack.connect(container, "front")
        assert text_of(events(stack, ask(stack, agent="relay"))).strip()
    finally:
        run(stack.docker, "rm", "--force", container)


def test_an_agent_of_ones_own_is_the_one_that_its_image_names(
    engine: str, stack: Stack, variables: dict[str, str], tmp_path: Path
) -> None:
    """Built as the page on operating says, with a dependency from PyPI, and not replaced by the bundled model."""
    folder = tmp_path / "my-agent"
    folder.mkdir()
    dockerfile, override = (
        block(language, "FROM midsentence-commander", "my-agent") for language in ("dockerfile", "yaml")
    )
    (folder / "Dockerfile").write_text(dockerfile.replace("midsentence-commander:latest", "midsentence-commander:test"))
    (folder / "requirements.txt").write_text("humanize==4.*\n")
    (folder / "my_agent.py").write_text(OWN_AGENT)
    own = yaml.safe_load(override)["services"]["commander"]
    own["build"] |= {"context": str(folder), "network": "host"}
    file, env_file = tmp_path / "override.yml", tmp_path / "own.env"
    file.write_text(yaml.safe_dump({"services": {"commander": own}}))
    env_file.write_text("COMMANDER_AGENT=mine\n")
    mine = Stack(engine, variables, env_file, "--file", "docker-compose.yml", "--file", str(file))
    mine.compose("build", "commander", seconds=300)
    container = mine.compose("run", "-d", "--no-deps", "commander").split()[-1]
    try:
        assert text_of(events(stack, ask(stack, agent="mine"))) == "1,234,567"
    finally:
        run(stack.docker, "rm", "--force", container)
        run(stack.docker, "image", "rm", own["image"])


def test_policies_and_tools_come_from_env(stack: Stack, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir(mode=0o755)
    (folder / "rules.toml").write_text(RULES)
    (folder / "my_tools.py").write_text("def weather(city: str) -> str:\n    return 'sunny'\n")
    env_file = tmp_path / "own.env"
    named = {"CONFIG": folder, "DISPATCHER_POLICIES": "config", "DISPATCHER_TOOLS": "config/rules.toml"}
    named |= {"DISPATCHER_STORE": "memory://"}
    env_file.write_text("".join(f"{name}={value}\n" for name, value in named.items()))
    # Past the scripts, its check of health too: one that was run by hand has no name on the operators' network.
    past = ("--entrypoint", "dispatcher", "dispatcher", "serve")
    container = stack.compose("run", "-d", "--no-deps", *past, env_file=env_file).split()[-1]
    try:
        address = stack.address(container)
        eventually(lambda: answers(f"http://{address}:8080/readyz"), bool, 60)
        operators = f"http://{address}:9464"
        shown = stack.shown("operator")
        loaded = httpx2.get(f"{operators}/operator/policies", headers=shown, timeout=10).json()
        assert [policy["name"] for policy in loaded["policies"]] == ["project names"]
        assert (
            'dispatcher_tool_calls_total{status="OK",tool="weather"}'
            in httpx2.get(f"{operators}/metrics", headers=shown).text
        )
    finally:
        run(stack.docker, "rm", "--force", container)


def test_sessions_outlive_a_killed_dispatcher(stack: Stack) -> None:
    session_id = ask(stack)
    said = text_of(events(stack, session_id))
    (dispatcher,) = stack.containers("dispatcher")
    run(stack.docker, "kill", "--signal", "KILL", dispatcher)
    run(stack.docker, "start", dispatcher)
    eventually(lambda: httpx2.get(f"{stack.users}/readyz", timeout=10).status_code, lambda status: status == 200, 60)
    eventually(lambda: streams(stack, session_id), bool, 60)  # the edge looks for it once for each kind of request
    assert text_of(events(stack, session_id)) == said
    text_of(events(stack, ask(stack)))  # the Commanders have joined anew


def test_the_alert_rules_are_loaded_and_say_what_they_should(stack: Stack, images: dict[str, str]) -> None:
    answer = httpx2.get(f"{stack.url('prometheus', 9090)}/api/v1/rules", timeout=10).json()
    rules = [rule for group in answer["data"]["groups"] for rule in group["rules"]]
    assert rules
    assert all(rule["health"] in ("ok", "unknown") for rule in rules), rules
    folder: Path = ROOT / "deploy" / "prometheus"
    promtool = ["run", "--rm", "--entrypoint", "promtool", "--volume", f"{folder}:/rules:ro", "--workdir", "/rules"]
    run(stack.docker, *promtool, images["PROMETHEUS_IMAGE"], "test", "rules", "alerts.test.yml")
    (prometheus,) = stack.containers("prometheus")  # where the key is that its file names
    run(stack.docker, "exec", prometheus, "promtool", "check", "config", "/etc/prometheus/prometheus.yml")

"""The documents' examples load and run, and a real pair has the metrics that they list."""

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
import yaml
from google.protobuf import json_format

from commander import loading
from commander.settings import CommanderSettings
from dispatcher.policies.questions import AskedPolicy, Question
from dispatcher.policing.load import load as load_policies
from dispatcher.tools.load import load as load_tools
from dispatcher.tools.registry import Registry
from dispatcher.verbs import main as dispatcher_cli
from shared.pb import agent_pb2, agent_pb2_grpc
from tests import programs
from tests.dispatcher.tools.http.service import Service, answer
from tests.shared.documents import (
    CLIENTS,
    CONTRACT,
    DOCUMENTS,
    EXAMPLES,
    METRICS,
    OPERATING,
    README,
    ROOT,
    RULES,
    SERVICES,
    TOOLS,
    TRYING,
    WRITING,
    blocks,
    code,
    table,
)

SECONDS = 120.0

# ---- rules and tools


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds the documents' Python files, importable."""
    for name, text in EXAMPLES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in EXAMPLES:
        sys.modules.pop(name.removesuffix(".py"), None)
    importlib.invalidate_caches()
    return tmp_path


async def test_the_rules_and_tools_load_and_work(examples: Path) -> None:
    (toml,) = blocks(README, "toml")
    file = examples / "example.toml"
    file.write_text(toml)
    gate = load_policies(file).gate(0.0)
    release = gate.content("It is project NIGHTINGALE, is it?", 1.0)
    assert (release.text, release.violation is not None) == ("It is ", True)
    tools = Registry(load_tools(file).tools.values())
    answer = await tools.run("weather", json.dumps({"city": "Oslo", "days": 2}))
    assert (answer.status, json.loads(answer.result_json)["forecast"]) == ("OK", "sunny for 2 days")
    (called,) = re.findall(r'call_tool\("(\w+)"', EXAMPLES["my_agent.py"])
    assert tools.knows(called)


@pytest.mark.usefixtures("logs_restored")
def test_the_cases_of_the_documents_are_as_they_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (toml,) = blocks(TRYING, "toml")
    (tmp_path / "rules.toml").write_text(toml)
    assert dispatcher_cli.main(["policy", "test", str(tmp_path / "rules.toml")]) == 0
    assert capsys.readouterr().out.strip() in TRYING.read_text()


@pytest.mark.parametrize("number", range(len(blocks(RULES, "toml"))))
def test_the_rules_of_the_page_on_rules_load(number: int, examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDRAIL_KEY", "s3cret")
    file = examples / "example.toml"
    file.write_text(blocks(RULES, "toml")[number])
    assert load_policies(file).policies


async def test_the_plugin_of_the_page_on_rules_decides(examples: Path) -> None:
    decent = importlib.import_module("my_rules").decent
    policy = AskedPolicy("decency", "plugin", "my_rules:decent")
    for text, passes in (("a fine day", True), ("Damn!", False)):
        assert await decent(Question(policy, 1, "content", (text,))) is passes


async def test_the_tool_of_the_page_on_tools_answers(examples: Path) -> None:
    (toml,) = blocks(TOOLS, "toml")
    file = examples / "example.toml"
    file.write_text(toml)
    tools = Registry(load_tools(file).tools.values())
    for city, said in (("Oslo", "sunny for 1 days"), ("Atlantis", "there is no weather there any more")):
        answer = await tools.run("weather", json.dumps({"city": city}))
        assert said in answer.result_json


def test_the_built_in_tools_can_be_named_in_a_file(tmp_path: Path) -> None:
    (use,) = re.findall(r'`use = "(dispatcher\.[\w.:]+)"`', TOOLS.read_text())
    file = tmp_path / "tools.toml"
    file.write_text(f'[[tool]]\nname = "calculate"\nkind = "local"\nuse = "{use}"\n')
    assert Registry(load_tools(file).tools.values()).knows("calculate")


async def test_the_service_of_the_page_on_services_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEATHER_TOKEN", "s3cret")
    file = tmp_path / "tools.toml"
    async with Service(answer(b'{"data": {"summary": "sunny"}}')).at() as service:
        file.write_text(blocks(SERVICES, "toml")[0].replace("https://weather.internal", service.url))
        tools = Registry(load_tools(file).tools.values())
        assert await tools.run("weather", '{"city": "Oslo", "days": 2}') == ("OK", '"sunny"')
    (seen,) = service.seen
    assert (seen.method, seen.target, seen.headers["authorization"]) == ("GET", "/v1/Oslo?days=2", "Bearer s3cret")


def test_other_blocks_can_be_read() -> None:
    override = yaml.safe_load("".join(blocks(OPERATING, "yaml")))
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert set(override["services"]) <= set(services)
    for document in DOCUMENTS:
        for script in blocks(document, "sh"):
            checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, timeout=SECONDS)
            assert not checked.stderr


# ---- agents


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name.endswith("_agent.py") and "test" not in name])
async def test_an_agent_of_the_documents_speaks(name: str, examples: Path) -> None:
    from commander.agent import Message, Turn

    async def tool(name: str, arguments: Any) -> Any:
        return {"forecast": "sunny"}

    backend = f"{name.removesuffix('.py')}:agent"
    agent = loading.load(CommanderSettings(backend=backend))
    said = [item async for item in agent(Turn((Message("user", "Will it rain?"),), tool_caller=tool))]
    assert any(isinstance(item, str) for item in said)


@pytest.mark.parametrize("name", ["story_agent", "openai_chat"])
def test_an_agent_of_the_documents_stops(name: str, examples: Path) -> None:
    command = [sys.executable, "-m", "commander", "check", f"{name}:agent", "--allow-lag", "30"]
    printed = run([*command, "--allow-tokens", "500"], examples)
    shown = [block.splitlines() for block in blocks(WRITING, "") if block.startswith(f"$ commander check {name}")]
    for _, *lines in shown:
        assert [line[:28] for line in lines] == [line[:28] for line in printed.splitlines()]
    assert printed.startswith(f"{name}:agent stops\n")


@pytest.mark.parametrize("name", [name for name in EXAMPLES if re.fullmatch(r"test_\w+_agent\.py", name)])
def test_the_documents_test_of_an_agent_passes(name: str, examples: Path) -> None:
    module = importlib.import_module(name.removesuffix(".py"))
    tests = [test for name, test in vars(module).items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test()


# ---- a real pair


@dataclass(frozen=True)
class Pair:
    grpc: str
    http: str
    operator: str
    commander_metrics: str
    server: programs.Dispatcher

    def metrics(self) -> str:
        """What both programs show."""
        urls = (f"http://{self.operator}/metrics", f"http://{self.commander_metrics}/metrics")
        return "".join(httpx2.get(url).raise_for_status().text for url in urls)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A Dispatcher with the defaults, and a Commander with the README's agent."""
    folder = tmp_path_factory.mktemp("pair")
    with ExitStack() as stack:
        server = stack.enter_context(programs.dispatcher(folder / "dispatcher.log"))
        port = stack.enter_context(joined(server, "my_agent", folder))
        yield Pair(server.grpc, server.http, server.operator, f"127.0.0.1:{port}", server)


@contextmanager
def joined(server: programs.Dispatcher, name: str, folder: Path, agent: str = "default") -> Iterator[int]:
    """A Commander with that example, which has joined: the port of its metrics."""
    (folder / f"{name}.py").write_text(EXAMPLES[f"{name}.py"])
    environ = {
        "COMMANDER_AGENT": agent,
        "COMMANDER_DISPATCHER": f"dns:///{server.grpc}",
        "COMMANDER_METRICS_ADDRESS": "127.0.0.1:0",
        "COMMANDER_BACKEND": f"{name}:agent",
        "COMMANDER_DRAIN_SECONDS": "1",
        "PYTHONPATH": str(folder),
    }
    log = folder / f"{name}.log"
    with programs.running("-m", "commander", "serve", settings=environ, log=log) as program:
        port = program.wait_for(lambda event: event.get("event") == "joining")["metrics_port"]
        server.program.wait_for(lambda event: event.get("event") == "commander_joined")
        yield port


def run(command: list[str], folder: Path) -> str:
    """What it prints. Its requests to this machine go through no proxy."""
    environ = programs.environment({"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"})
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["ask.py", "resume.py", "chain.py"])
def test_the_openai_examples_get_the_answer(pair: Pair, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(EXAMPLES[name].replace("127.0.0.1:8080", pair.http))
    assert {line.strip() for line in run([sys.executable, name], tmp_path).splitlines()} == {"The answer is 391."}


def test_the_example_with_a_tool_of_the_clients_gets_what_the_agent_makes_of_it(pair: Pair, tmp_path: Path) -> None:
    example = EXAMPLES["own_tool.py"].replace("127.0.0.1:8080", pair.http).replace('"default"', '"asking"')
    (tmp_path / "own_tool.py").write_text(example)
    with joined(pair.server, "asking_agent", tmp_path, "asking"):
        printed = run([sys.executable, "own_tool.py"], tmp_path)
    assert printed == "The client says: It rains in Oslo.\n"


def test_the_curl_example_stops_the_session(pair: Pair, tmp_path: Path) -> None:
    programs.need("curl")
    (script,) = blocks(CLIENTS, "sh")
    # The agent of the README may have finished before the stop comes.
    printed = run(["bash", "-euc", script.replace("127.0.0.1:8080", pair.http)], tmp_path)
    assert re.search(r'"state":"(stopped|finished)"', printed)
    assert re.search(r"^event: (stopped|finished)$", printed, re.MULTILINE)


async def test_the_packets_of_the_published_contract_make_a_session(pair: Pair) -> None:
    (lines,) = blocks(CONTRACT, "json")
    packets = [json_format.Parse(line, agent_pb2.UpstreamPacket()) for line in lines.splitlines()]
    async with grpc.aio.insecure_channel(pair.grpc) as channel:
        stub = agent_pb2_grpc.AgentInteractionStub(channel)  # type: ignore[no-untyped-call]
        call = stub.ChatStream(iter(packets), timeout=SECONDS)
        results = [packet.tool_result.result_json async for packet in call if packet.HasField("tool_result")]
        assert await call.code() is grpc.StatusCode.OK
    assert results == ["391"]


def test_the_metrics_are_those_of_the_programs(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "ask.py").write_text(EXAMPLES["ask.py"].replace("127.0.0.1:8080", pair.http))
    run([sys.executable, "ask.py"], tmp_path)
    exposed = pair.metrics()
    types = dict(re.findall(r"^# TYPE (\S+) (\w+)$", exposed, re.MULTILINE))
    labels: dict[str, set[str]] = {name: set() for name in types}
    for sample, inside in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", exposed, re.MULTILINE):
        name = sample if sample in types else re.sub(r"_(bucket|sum|count)$", "", sample)
        labels[name] |= set(re.findall(r'(\w+)="', inside)) - {"le"}
    found = {(name, types[name], frozenset(labels[name])) for name in types if not name.startswith("grpc_client_")}
    documented = set()
    for row in table(METRICS, "metric"):
        name, _, inside = code(row[0]).rstrip("}").partition("{")
        written = frozenset(filter(None, inside.split(",")))
        # some of the pair's metrics have no series: it has no toolset, and no TLS
        without = name == "dispatcher_toolset_up" or name.startswith("dispatcher_tls_")
        documented.add((name, row[1], frozenset() if without else written))
    assert documented == found
    server = {name.replace("server", "client"): kind for name, kind, _ in found if name.startswith("grpc_server_")}
    assert server == {name: kind for name, kind in types.items() if name.startswith("grpc_client_")}

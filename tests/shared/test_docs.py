"""The documents say what is true: tables equal the code, examples load and run, links and paths exist."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import grpc
import httpx2
import pytest
import yaml
from google.protobuf import json_format
from pydantic import BaseModel

from commander import cli as commander_cli
from commander import loading
from commander.settings import CommanderSettings
from dispatcher.gateway.openai import OpenAIRoutes
from dispatcher.gateway.operator import OperatorRoutes
from dispatcher.gateway.responses import ResponseRoutes
from dispatcher.gateway.sessions import SessionRoutes
from dispatcher.gateway.views import CALL_STATUSES, EVENT_NAMES, FAILURES
from dispatcher.policies.matches import CHANNELS
from dispatcher.policies.presets import PRESETS
from dispatcher.policies.questions import AskedPolicy, Question
from dispatcher.policing.load import ACTIONS, ASKED, KINDS, QUANTITIES
from dispatcher.policing.load import load as load_policies
from dispatcher.settings import DispatcherSettings
from dispatcher.tools.load import load as load_tools
from dispatcher.verbs import main as dispatcher_cli
from shared import wire
from shared.config import Settings
from shared.pb import agent_pb2, agent_pb2_grpc
from shared.records import STOP_REASONS
from tests import programs

ROOT = Path(__file__).resolve().parents[2]


def documents() -> list[Path]:
    """Each one that git knows of or would take."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted({path for name in listed.split("\0") if name and (path := ROOT / name).is_file()})


README, OPERATING, WRITING, CONTRACT, CONTRIBUTING, TRYING = (
    ROOT / name
    for name in (
        *("README.md", "deploy/README.md", "commander/README.md", "protos/README.md", "CONTRIBUTING.md"),
        "dispatcher/policy_tools/README.md",
    )
)
RULES, TOOLS = ROOT / "dispatcher/policies/README.md", ROOT / "dispatcher/tools/README.md"
CLIENTS = ROOT / "docs/clients.md"
HTTP, COMMANDS, SETTINGS, METRICS = (
    ROOT / "docs/reference" / name for name in ("http.md", "commands.md", "settings.md", "metrics.md")
)
DOCUMENTS = documents()
SECONDS = 30.0
README_BYTES = 10 * 1024  # five minutes


@dataclass(frozen=True)
class Block:
    """A fenced block of a document. `name`: of the file that its first line says it is, if any."""

    document: str
    language: str
    text: str

    @property
    def name(self) -> str:
        found = re.match(r"# (\w+\.py)\n", self.text)
        return found[1] if found else ""


def blocks(document: Path, language: str) -> list[str]:
    return [block.text for block in BLOCKS if block.document == str(document) and block.language == language]


def fenced(document: Path) -> Iterator[Block]:
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL):
        yield Block(str(document), language, text)


BLOCKS = [block for document in DOCUMENTS for block in fenced(document)]
EXAMPLES = {block.name: block.text for block in BLOCKS if block.name}


def prose(document: Path) -> str:
    """The document without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


def table(document: Path, heading: str) -> list[list[str]]:
    """The rows of the table whose first heading that is, each a list of cells."""
    lines = prose(document).splitlines()
    return [cells for at, line in enumerate(lines) if line.startswith(f"| {heading} |") for cells in _rows(lines[at:])]


def _rows(lines: Sequence[str]) -> Iterator[list[str]]:
    for line in lines[2:]:  # after the headings and their rule
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]


def code(cell: str) -> str:
    """What stands in backticks at the cell's beginning."""
    found = re.match(r"`([^`]+)`", cell)
    assert found, f"not code: {cell!r}"
    return found[1]


# ---- settings


def settings(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    """Each setting and its default, as documents write them."""
    for name, field in model.model_fields.items():
        parts = (
            get_args(field.annotation) if get_origin(field.annotation) in (Union, UnionType) else (field.annotation,)
        )
        nested = [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]
        if nested:
            yield from settings(nested[0], f"{prefix}{name.upper()}__")
        else:
            yield prefix + name.upper(), shown(field.default)


def shown(default: Any) -> str:
    if default in (None, "", ()):
        return "none"
    text = str(default).lower() if isinstance(default, bool) else str(default)
    return f"`{text}`"


@pytest.mark.parametrize(
    ("settings_class", "prefix"), [(DispatcherSettings, "DISPATCHER_"), (CommanderSettings, "COMMANDER_")]
)
def test_the_settings_are_those_of_the_code(settings_class: type[Settings], prefix: str) -> None:
    rows = table(SETTINGS, "setting") + table(OPERATING, "setting")
    documented = [(code(row[0]), row[1]) for row in rows if code(row[0]).startswith(prefix)]
    assert sorted(documented) == sorted(settings(settings_class, prefix))


def test_env_example_names_settings_and_what_the_compose_file_takes() -> None:
    named = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / "deploy/env.example").read_text(), re.MULTILINE))
    compose = (ROOT / "docker-compose.yml").read_text()
    known = {name for kind in (DispatcherSettings, CommanderSettings) for name, _ in settings(kind, prefix_of(kind))}
    assert named
    for name in named:
        assert name in known or f"${{{name}:-" in compose, f"{name} is no setting and no variable of the compose file"
        assert name in compose, f"the compose file does not pass {name} on"


def prefix_of(kind: type[Settings]) -> str:
    return str(kind.model_config["env_prefix"])


# ---- routes, commands, values


def test_the_routes_are_those_of_the_code() -> None:
    nothing: Any = None
    kinds = (SessionRoutes, OpenAIRoutes, ResponseRoutes, OperatorRoutes)
    served = [
        (method, re.sub(r":\w+}", "}", route.path))
        for kind in kinds
        for route in kind(nothing, nothing, nothing).routes
        for method in sorted((route.methods or set()) - {"HEAD"})
    ]
    health = [("GET", "/healthz"), ("GET", "/readyz")]  # in `gateway/app.py`, on both addresses
    documented = [tuple(code(row[0]).split()) for row in table(HTTP, "request")]
    assert sorted(documented) == sorted([*served, *health, *health])


@pytest.mark.parametrize(("program", "main"), [("dispatcher", dispatcher_cli.main), ("commander", commander_cli.main)])
def test_the_commands_are_those_of_the_program(program: str, main: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    offered = re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE)
    documented = [code(row[0]).split() for row in table(COMMANDS, "command")]
    assert [verb for name, verb in documented if name == program] == [verb for verb in offered if verb != "VERB"]


def test_make_targets_are_those_of_the_makefile() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    documented = [code(row[0]).removeprefix("make ") for row in table(CONTRIBUTING, "target")]
    assert sorted([*documented, "help", "setup"]) == sorted(targets)


def test_events_and_reasons_are_those_of_the_code() -> None:
    text = HTTP.read_text()
    for name in (*EVENT_NAMES.values(), *STOP_REASONS):
        assert f"`{name}`" in text, name
    heard = re.findall(r'addEventListener\("(\w+)"', "".join(blocks(CLIENTS, "js")))
    assert heard
    assert set(heard) <= set(EVENT_NAMES.values())
    said = "".join(document.read_text() for document in (HTTP, SETTINGS, OPERATING))
    for failure in re.findall(r"code `(\w+)`", said):
        assert failure in FAILURES


def test_alerts_are_those_of_the_rules() -> None:
    groups = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    assert [code(row[0]) for row in table(OPERATING, "alert")] == [
        rule["alert"] for group in groups for rule in group["rules"]
    ]


def test_logged_events_are_those_of_the_code() -> None:
    sources = "".join(path.read_text() for room in ("dispatcher", "commander") for path in (ROOT / room).rglob("*.py"))
    for row in table(OPERATING, "event"):
        for name in re.findall(r"`(\w+)`", row[0]):
            said = re.search(rf'_?(log\.\w+|_log|_log\.\w+)\(\s*"{name}"', sources)
            outcome = name.removeprefix("session_")
            assert said or (f'_over("{outcome}"' in sources and "session_{outcome}" in sources), name


# ---- paths and links


def test_the_readme_stays_one_that_is_read_to_its_end() -> None:
    assert len(README.read_bytes()) <= README_BYTES


def test_no_two_examples_have_one_name() -> None:
    names = [block.name for block in BLOCKS if block.name]
    assert sorted(names) == sorted(EXAMPLES)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_paths_exist(document: Path) -> None:
    text = prose(document)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (document.parent / name).resolve() if name else document
        assert file.exists(), target
        if anchor:
            assert anchor in set(anchors(file)), target
    for path in re.findall(r"`((?:dispatcher|commander|shared|tests|protos|deploy|docs)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), path


def anchors(document: Path) -> Iterable[str]:
    """Of its headings, as GitHub makes them."""
    for heading in re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


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
    tools = load_tools(file)
    answer = await tools.run("weather", json.dumps({"city": "Oslo", "days": 2}))
    assert (answer.status, json.loads(answer.result_json)["forecast"]) == ("OK", "sunny for 2 days")


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


def test_the_page_on_rules_names_all_that_there_is() -> None:
    text = RULES.read_text()
    for name in (*KINDS, *ACTIONS, *CHANNELS, *PRESETS, *QUANTITIES):
        assert re.search(rf'["`]{name}["`]|\b{name} =|{name}[,\n]', text), name
    for key in (*ASKED, "words", "replacement", "cap", "beyond_cap", "max_repeats", "repeat_length", "headers"):
        assert re.search(rf"\b{key} =", text), key


async def test_the_plugin_of_the_page_on_rules_decides(examples: Path) -> None:
    decent = importlib.import_module("my_rules").decent
    policy = AskedPolicy("decency", "plugin", "my_rules:decent")
    for text, passes in (("a fine day", True), ("Damn!", False)):
        assert await decent(Question(policy, 1, "content", (text,))) is passes


async def test_the_tool_of_the_page_on_tools_answers(examples: Path) -> None:
    (toml,) = blocks(TOOLS, "toml")
    file = examples / "example.toml"
    file.write_text(toml)
    tools = load_tools(file)
    for city, said in (("Oslo", "sunny for 1 days"), ("Atlantis", "there is no weather there any more")):
        answer = await tools.run("weather", json.dumps({"city": city}))
        assert said in answer.result_json


def test_the_page_on_tools_says_what_becomes_of_a_call() -> None:
    told = {code(row[0]) for row in table(TOOLS, "the agent gets") if row[0].startswith("`")}
    assert told == CALL_STATUSES - {"OK"}


def test_the_built_in_tools_can_be_named_in_a_file(tmp_path: Path) -> None:
    (use,) = re.findall(r'`use = "(dispatcher\.[\w.:]+)"`', TOOLS.read_text())
    file = tmp_path / "tools.toml"
    file.write_text(f'[[tool]]\nname = "calculate"\nkind = "local"\nuse = "{use}"\n')
    assert load_tools(file).knows("calculate")


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


def test_the_documents_test_of_an_agent_passes(examples: Path) -> None:
    test = importlib.import_module("test_weather_agent")
    test.test_it_says_the_forecast()


# ---- a real pair


@dataclass(frozen=True)
class Pair:
    grpc: str
    http: str
    operator: str
    commander_metrics: str

    def metrics(self) -> str:
        """What both programs show."""
        urls = (f"http://{self.operator}/metrics", f"http://{self.commander_metrics}/metrics")
        return "".join(httpx2.get(url).raise_for_status().text for url in urls)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A Dispatcher with the defaults, and a Commander with the README's agent."""
    folder = tmp_path_factory.mktemp("pair")
    (folder / "my_agent.py").write_text(EXAMPLES["my_agent.py"])
    with ExitStack() as stack:
        server = stack.enter_context(programs.dispatcher(folder / "dispatcher.log"))
        environ = {
            "COMMANDER_DISPATCHER": f"dns:///{server.grpc}",
            "COMMANDER_METRICS_ADDRESS": "127.0.0.1:0",
            "COMMANDER_BACKEND": "my_agent:agent",
            "COMMANDER_DRAIN_SECONDS": "1",
            "PYTHONPATH": str(folder),
        }
        log = folder / "commander.log"
        program = stack.enter_context(programs.running("-m", "commander", "serve", settings=environ, log=log))
        port = program.wait_for(lambda event: event.get("event") == "joining")["metrics_port"]
        server.program.wait_for(lambda event: event.get("event") == "commander_joined")
        yield Pair(server.grpc, server.http, server.operator, f"127.0.0.1:{port}")


def run(command: list[str], folder: Path) -> str:
    """What it prints. Its requests to this machine go through no proxy."""
    environ = programs.environment({"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"})
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["ask.py", "resume.py"])
def test_the_openai_examples_get_the_answer(pair: Pair, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(EXAMPLES[name].replace("127.0.0.1:8080", pair.http))
    assert run([sys.executable, name], tmp_path).strip() == "The answer is 391."


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_curl_example_stops_the_session(pair: Pair, tmp_path: Path) -> None:
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
        documented.add((name, row[1], frozenset(filter(None, inside.split(",")))))
    assert documented == found
    server = {name.replace("server", "client"): kind for name, kind, _ in found if name.startswith("grpc_server_")}
    assert server == {name: kind for name, kind in types.items() if name.startswith("grpc_client_")}


def test_the_service_is_the_one_that_the_contracts_page_names() -> None:
    assert wire.SERVICE.endswith(".AgentInteraction")
    assert "`AgentInteraction.ChatStream`" in CONTRACT.read_text()

"""The documents say what is true: tables equal the code, links and paths exist."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

from commander import cli as commander_cli
from commander.settings import CommanderSettings
from dispatcher.core.log import State
from dispatcher.gateway import limits as gateway_limits
from dispatcher.gateway.views import EVENT_NAMES, FAILURES
from dispatcher.grpc_edge import limits as grpc_edge_limits
from dispatcher.policies.matches import ACTIONS, CHANNELS
from dispatcher.policies.presets import PRESETS
from dispatcher.policing.load import ASKED, KINDS, QUANTITIES
from dispatcher.settings import DispatcherSettings
from dispatcher.verbs import main as dispatcher_cli
from shared import records, wire
from shared.config import PASSED_ON, Settings
from shared.records import STOP_REASONS, TOOL_STATUSES
from tests.gateway_routes import routes
from tests.shared.documents import (
    BLOCKS,
    CLIENTS,
    COMMANDS,
    CONTRACT,
    CONTRIBUTING,
    DOCUMENTS,
    EXAMPLES,
    GLOSSARY,
    HTTP,
    INDEX,
    LIMITS,
    OPERATING,
    PACKET,
    README,
    ROOT,
    RULES,
    SETTINGS,
    STOP,
    TOOLS,
    anchors,
    blocks,
    code,
    files,
    links,
    missing,
    prose,
    table,
)

README_BYTES = 10 * 1024  # five minutes

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


# Where the containers listen is what the compose file's ports, and its Prometheus, were written for.
WIRED = {f"DISPATCHER_{edge}_ADDRESS" for edge in ("GRPC", "HTTP", "OPERATOR")} | {"COMMANDER_METRICS_ADDRESS"}
GIVEN = {  # what the compose file says where nobody else does
    "DISPATCHER_ACCESS": "/keys/access.toml",
    "DISPATCHER_GRPC_TLS__CERT": "/keys/grpc.crt",
    "DISPATCHER_GRPC_TLS__KEY": "/keys/grpc.key",
    "COMMANDER_TLS__CA": "/keys/grpc.crt",
    "COMMANDER_TOKEN_FILE": "/keys/token",
}
OF_COMMANDS = {"DISPATCHER_KEY"}  # that a server does not read


def test_the_compose_file_passes_every_setting_on() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for service, kind in (("dispatcher", DispatcherSettings), ("commander", CommanderSettings)):
        passed = services[service]["environment"]
        for name in (
            {name for name, _ in settings(kind, prefix_of(kind))} - WIRED - OF_COMMANDS - {"COMMANDER_DISPATCHER"}
        ):
            assert f"{PASSED_ON}{name}=${{{name}:-{GIVEN.get(name, '')}}}" in passed, (
                f"the compose file does not pass {name} on"
            )
        # A name without a value would remove what the image sets, and a value would replace it.
        assert all(entry.startswith((PASSED_ON, "COMMANDER_DISPATCHER=${COMMANDER_DISPATCHER:-")) for entry in passed)


def test_env_example_names_what_the_compose_file_takes() -> None:
    named = re.findall(r"^#?([A-Z_]+)=", (ROOT / "deploy/env.example").read_text(), re.MULTILINE)
    compose = (ROOT / "docker-compose.yml").read_text()
    assert len(named) == len(set(named))
    taken = set(re.findall(r"\$\{([A-Z_]+):-", compose))
    assert set(named) <= taken, "the compose file does not pass it on"
    own = {name for name in taken if not name.startswith(("DISPATCHER_", "COMMANDER_"))}
    assert own <= set(named), "env.example does not say it"


def prefix_of(kind: type[Settings]) -> str:
    return str(kind.model_config["env_prefix"])


# ---- routes, commands, values


def test_the_routes_are_those_of_the_code() -> None:
    served = [(method, re.sub(r":\w+}", "}", path)) for method, path in routes()]
    documented = [tuple(code(row[0]).split()) for row in table(HTTP, "request")]
    assert sorted(documented) == sorted(served)


@pytest.mark.parametrize(("program", "main"), [("dispatcher", dispatcher_cli.main), ("commander", commander_cli.main)])
def test_the_commands_are_those_of_the_program(program: str, main: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    offered = re.findall(r"^    (\w+)\b", capsys.readouterr().out, re.MULTILINE)
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
    rooms = ("dispatcher", "commander", "shared")
    sources = "".join(path.read_text() for room in rooms for path in (ROOT / room).rglob("*.py"))
    for row in table(OPERATING, "event"):
        for name in re.findall(r"`(\w+)`", row[0]):
            said = re.search(rf'_?(logger\.\w+|_info)\(\s*"{name}"', sources)
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
    for target, file, anchor in links(document):
        assert file.exists(), target
        assert not anchor or anchor in set(anchors(file)), target
    assert not list(missing(prose(document)))


def test_comments_name_what_there_is() -> None:
    sources = {path: path.read_text() for path in files("*.py")}
    assert not [(str(path.relative_to(ROOT)), name) for path, text in sources.items() for name in missing(text)]


def test_what_is_gone_is_missed() -> None:
    text = "`dispatcher/{0}.py`, and `dispatcher.{0}.Dispatcher.drain` in it"
    assert not list(missing(text.format("app")))
    assert list(missing(text.format("gone"))) == ["dispatcher/gone.py", "dispatcher.gone.Dispatcher.drain"]


def test_the_limits_are_those_of_the_code() -> None:
    for *_, limit, constant in table(LIMITS, "edge"):
        module, name = code(constant).split(":")
        assert getattr(importlib.import_module(module), name) == float(limit), constant


def test_each_limit_of_an_edge_is_in_the_table() -> None:
    named = [code(constant) for *_, constant in table(LIMITS, "edge")]
    assert len(named) == len(set(named))
    for module in (grpc_edge_limits, gateway_limits, records):
        numbers = [name for name, value in vars(module).items() if name.isupper() and isinstance(value, int | float)]
        assert not [name for name in numbers if f"{module.__name__}:{name}" not in named], module.__name__


def test_each_document_stands_in_the_index() -> None:
    assert {file for _, file, _ in links(INDEX)} >= set(DOCUMENTS) - {INDEX}


def test_each_room_is_in_the_table_of_rooms() -> None:
    listed = [room for row in table(CONTRIBUTING, "room") for room in re.findall(r"`dispatcher/(\w+)/`", row[0])]
    assert sorted(listed) == sorted(path.parent.name for path in (ROOT / "dispatcher").glob("*/__init__.py"))


# ---- what pages name


def test_the_page_on_rules_names_all_that_there_is() -> None:
    text = RULES.read_text()
    for name in (*KINDS, *ACTIONS, *CHANNELS, *PRESETS, *QUANTITIES):
        assert re.search(rf'["`]{name}["`]|\b{name} =|{name}[,\n]', text), name
    for key in (*ASKED, "words", "replacement", "cap", "beyond_cap", "max_repeats", "repeat_length", "headers"):
        assert re.search(rf"\b{key} =", text), key


def test_the_page_on_tools_says_what_becomes_of_a_call() -> None:
    told = {code(row[0]) for row in table(TOOLS, "the agent gets") if row[0].startswith("`")}
    assert told == set(TOOL_STATUSES) - {"OK"}


def test_the_glossary_has_the_words_of_the_contract_and_the_log() -> None:
    (closed,) = re.findall(r"message Closed \{(.*?)string code", (ROOT / "protos/agent.proto").read_text(), re.DOTALL)
    codes = re.findall(r"^  // (\w+) {2,}\w", closed, re.MULTILINE)
    assert codes
    assert set(re.findall(r"`(\w+)`", GLOSSARY.read_text())) >= {*codes, *get_args(State)}


@pytest.mark.parametrize("document", [PACKET, STOP], ids=lambda path: str(path.name))
def test_a_walk_goes_through_what_there_is(document: Path) -> None:
    steps = table(document, "in")
    assert steps
    for step in steps:
        pkgutil.resolve_name(f"{code(step[0]).removesuffix('.py').replace('/', '.')}:{code(step[1])}")
    (picture,) = blocks(document, "mermaid")
    shown = re.findall(r"participant \w+ as (\w+/\S+)", picture)
    assert shown
    for place in shown:
        assert (ROOT / place).is_dir() or (ROOT / f"{place}.py").is_file(), place


def test_the_service_is_the_one_that_the_contracts_page_names() -> None:
    assert wire.SERVICE.endswith(".AgentInteraction")
    assert "`AgentInteraction.ChatStream`" in CONTRACT.read_text()

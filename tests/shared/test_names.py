"""One meaning a name; and what is only named, by files that nothing reads until it is needed, is there: no rename may
pass in silence.
"""

import ast
import json
import re
import subprocess
from collections import defaultdict
from typing import Any

import yaml

from commander.settings import CommanderSettings
from dispatcher.settings import DispatcherSettings
from tests.gateway_routes import routes
from tests.shared.documents import METRICS, ROOT, code, table
from tests.shared.test_docs import prefix_of, settings
from tests.shared.test_imports import PATHS

# Names of classes and types that several modules define, for the same thing: its two ends, or its two sides.
SAME_THING = {
    "Session": ("commander.session", "dispatcher.core.session"),
    "Stream": ("commander.stream", "dispatcher.grpc_edge.stream"),
    "Metrics": ("commander.metrics", "dispatcher.metrics"),
    "Event": ("commander.backends.sse", "dispatcher.verbs.client"),  # a server-sent one, as it is read
    "_Lane": ("dispatcher.store.redis.lanes", "dispatcher.store.sqlite.store"),  # jobs that wait for those under way
    # What an agent's author sees of what the contract, the log and the tools call so.
    "Call": ("commander.agent", "dispatcher.core.entries"),
    "ClientCall": ("commander.agent", "shared.records"),
    "Feature": ("commander.agent", "shared.records"),
    "FinishReason": ("commander.agent", "shared.records"),
    "History": ("commander.agent", "shared.records"),
    "Message": ("commander.agent", "shared.records"),
    "Thought": ("commander.agent", "shared.records"),
    "Tool": ("commander.agent", "dispatcher.tools.ports", "shared.records"),
    "User": ("commander.agent", "shared.records"),
    "ToolError": ("commander.agent", "dispatcher.tools.errors"),
}


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for path in listed.split("\0") if (ROOT / path).is_file()]


def read(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def test_a_class_or_type_of_the_house_has_one_meaning() -> None:
    defined = defaultdict(list)
    for module, path in PATHS.items():
        if module.startswith("shared.pb"):
            continue  # generated, under the contract's names
        tree = ast.parse(path.read_text())
        classes = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        assigned = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        for name in classes | {name for name in assigned if re.fullmatch(r"_?[A-Z]\w*[a-z]\w*", name)}:
            defined[name].append(module)
    assert {name: tuple(sorted(modules)) for name, modules in defined.items() if len(modules) > 1} == SAME_THING


def test_a_log_is_a_sessions() -> None:
    """And what programs write about themselves goes through a `logger`."""
    made = re.compile(r"^(\w+) = structlog\.get_logger\(\)$", re.MULTILINE)
    names = {module: made.findall(path.read_text()) for module, path in PATHS.items()}
    assert sum(map(len, names.values())) > 30
    assert not {module for module, found in names.items() if set(found) - {"logger"}}


def test_settings_that_are_named_are_settings() -> None:
    """In documents, comments, images, the compose file. Tests name wrong ones too, and generated code is not ours."""
    kinds = (DispatcherSettings, CommanderSettings)
    known = {name for kind in kinds for name, _ in settings(kind, prefix_of(kind))}
    sections = {f"{name.rsplit('__', 1)[0]}__" for name in known if "__" in name}
    named = {
        (path, name)
        for path in tracked()
        if not path.startswith("shared/pb/") and (not path.startswith("tests/") or path.endswith(".yml"))
        for name in re.findall(
            r"(?<![A-Z_])(?:DISPATCHER|COMMANDER)_[A-Z][A-Z_]*", (ROOT / path).read_text(errors="replace")
        )
    }
    assert {"docker-compose.yml", "deploy/Dockerfile", "tests/compose/scripted.yml"} <= {path for path, _ in named}
    assert not {(path, name) for path, name in named if name not in known | sections}


def test_paths_of_haproxy_are_routes() -> None:
    config = (ROOT / "deploy/haproxy/haproxy.cfg").read_text()
    served = {path for _, path in routes()} | {"/grpc.health.v1.Health/Watch"}
    named = re.findall(r"(?:httpchk GET|uri|path|path_end) (/\S+)", config)
    assert "/readyz" in named
    for path in named:
        assert any(each.endswith(path) for each in served), path


def test_alerts_ask_for_jobs_and_proxies_that_there_are() -> None:
    scraped = read("deploy/prometheus/prometheus.yml")["scrape_configs"]
    config = (ROOT / "deploy/haproxy/haproxy.cfg").read_text()
    there = {("job", job["job_name"]) for job in scraped}
    there |= {("proxy", name) for name in re.findall(r"^(?:backend|frontend|listen) (\w+)$", config, re.MULTILINE)}
    rules = [rule for group in read("deploy/prometheus/alerts.yml")["groups"] for rule in group["rules"]]
    asked = {
        (label, value)
        for rule in rules
        for label, values in re.findall(r'\b(job|proxy)=~?"([^"]+)"', rule["expr"])
        for value in values.split("|")
    }
    assert {label for label, _ in asked} == {"job", "proxy"}
    assert not asked - there


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    """What they answer, tests/watch/test_dashboard.py asks a real Prometheus."""
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/midsentence.json").read_text())
    queries = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ()))
    asked = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"(?:dispatcher|commander)_\w+", queries)}
    there = {code(row[0]).partition("{")[0] for row in table(METRICS, "metric")}
    assert len(asked) > 20
    assert not asked - there


def test_what_is_scraped_are_services_of_the_compose_file() -> None:
    scraped = read("deploy/prometheus/prometheus.yml")["scrape_configs"]
    names = {name for job in scraped for found in job["dns_sd_configs"] for name in found["names"]}
    assert names
    services = read("docker-compose.yml")["services"]
    networks = [service["networks"] for service in services.values() if isinstance(service.get("networks"), dict)]
    aliases = {alias for each in networks for network in each.values() if network for alias in network["aliases"]}
    assert not names - services.keys() - aliases


def test_hooks_look_at_files_that_there_are() -> None:
    (repo,) = read(".pre-commit-config.yaml")["repos"]
    patterns = [hook["files"] for hook in repo["hooks"] if "files" in hook]
    assert patterns
    for pattern in patterns:
        for path in re.findall(r"[\w./]*\w", pattern.replace("\\", "")):
            assert (ROOT / path).exists(), path


def test_what_can_be_searched_for_long_is() -> None:
    """By `make test-faults`, which names the folders."""
    (line,) = re.findall(r"^\tHYPOTHESIS_PROFILE=long (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    places = re.findall(r"tests/\S+", line)
    asks = re.compile(r'environ\S*\(\s*"HYPOTHESIS_PROFILE"')
    searched = [path for path in tracked() if path.endswith(".py") and asks.search((ROOT / path).read_text())]
    assert searched
    for path in searched:
        assert any(path == place or path.startswith(f"{place}/") for place in places), path

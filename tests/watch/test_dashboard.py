"""Each query of the dashboard, asked of a real Prometheus that has scraped a real run, has an answer."""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.otlp import Receiver, collecting
from tests.programs import commander, dispatcher, free_port, need
from tests.shared.documents import ROOT

pytestmark = pytest.mark.watch

DASHBOARD = ROOT / "deploy/grafana/dashboards/midsentence.json"
SECONDS = 120.0  # until each query had an answer, on a busy machine
RULES = """
[[policy]]
name = "numbers"
kind = "phrases"
phrases = ["w77"]

[[policy]]
name = "sight"
kind = "patterns"
patterns = ["see"]
action = "redact"
"""
TOOLS = """
[[tool]]
name = "calculate"
kind = "local"
use = "dispatcher.tools.builtin:calculate"

[[toolset]]
name = "away"
kind = "mcp"
url = "http://127.0.0.1:1/mcp"
private = true
"""


def queries() -> Iterator[tuple[str, str]]:
    """(panel, query), with Grafana's variables filled in."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"].replace("$__rate_interval", "15s").replace("$instance", ".*")
            assert "$" not in query, query
            yield panel["title"], query


@asynccontextmanager
async def prometheus(folder: Path, jobs: dict[str, list[str]]) -> AsyncIterator[str]:
    """Where it listens, until the block ends."""
    need("prometheus")
    scraped = [{"job_name": job, "static_configs": [{"targets": targets}]} for job, targets in jobs.items()]
    config = folder / "prometheus.yml"  # JSON is YAML
    config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": scraped}))
    address = f"127.0.0.1:{free_port()}"
    with (folder / "prometheus.log").open("wb") as log:
        program = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address={address}",
            "--enable-feature=exemplar-storage",
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://{address}"
    finally:
        program.kill()
        await program.wait()


async def ask_on(url: str, client: httpx2.AsyncClient) -> None:
    """Users come, until cancelled."""
    while True:
        for agent, parameters in (
            ("telling", {"canary": "42"}),
            ("counting", {"tokens": 200, "seconds": 0.001}),  # which a rule stops
        ):
            body = {"agent": agent, "prompt": "hi", "parameters": parameters}
            asked = await client.post(f"{url}/v1/sessions", json=body)
            assert asked.status_code == 201 or asked.json()["error"]["code"] == "agent_not_found"  # not joined yet
        await asyncio.sleep(0.2)  # their pace


async def answered(client: httpx2.AsyncClient, url: str, query: str) -> bool:
    try:
        answer = await client.get(f"{url}/api/v1/query", params={"query": query})
    except httpx2.TransportError:  # it has not begun yet
        return False
    if answer.status_code == 503:
        return False
    assert answer.status_code == 200, f"{query}: {answer.text}"
    results: list[dict[str, Any]] = answer.json()["data"]["result"]
    return any(not math.isnan(float(each["value"][1])) for each in results)


async def exemplars(client: httpx2.AsyncClient, url: str) -> dict[str, set[str]]:
    """The traces that each histogram leads to, by the names of their buckets."""
    asked: dict[str, str | float] = {
        "query": '{__name__=~"dispatcher_.*_bucket"}',
        "start": time.time() - 600,
        "end": time.time() + 60,
    }
    answer = await client.get(f"{url}/api/v1/query_exemplars", params=asked)
    found: dict[str, set[str]] = {}
    for each in answer.json()["data"]:
        traces = {exemplar["labels"]["trace_id"] for exemplar in each["exemplars"]}
        found.setdefault(each["seriesLabels"]["__name__"], set()).update(traces)
    return found


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Before the Dispatcher, which looks for it when it starts."""
    with collecting(monkeypatch) as received:
        yield received


async def test_each_query_has_an_answer_and_slow_moments_lead_to_a_trace(tmp_path: Path, collector: Receiver) -> None:
    policies, tools = tmp_path / "rules.toml", tmp_path / "tools.toml"
    policies.write_text(RULES)
    tools.write_text(TOOLS)
    metrics = f"127.0.0.1:{free_port()}"
    with (
        dispatcher(tmp_path / "d.log", policies=str(policies), tools=str(tools)) as server,
        commander(
            server.grpc, tmp_path / "c.log", "tests.e2e.agents:telling", agent="telling", metrics_address=metrics
        ),
        commander(server.grpc, tmp_path / "c2.log", "tests.e2e.agents:counting", agent="counting"),
    ):
        jobs = {"dispatcher": [server.operator], "commander": [metrics]}
        async with prometheus(tmp_path, jobs) as url, httpx2.AsyncClient() as client:
            asking = asyncio.create_task(ask_on(f"http://{server.http}", client))
            left = list(queries())
            until = asyncio.get_running_loop().time() + SECONDS
            while left and not asking.done() and asyncio.get_running_loop().time() < until:
                left = [each for each in left if not await answered(client, url, each[1])]
                await asyncio.sleep(0.5)  # a scrape takes a second
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            assert not left
            led = await exemplars(client, url)
            told = {span.trace for span in collector.spans}
            for name in ("first_event", "stop", "tool"):
                assert led[f"dispatcher_{name}_seconds_bucket"] & told, name

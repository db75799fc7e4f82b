"""The clients that are tried, and what came of it."""

import json
import subprocess
from functools import cache
from typing import NamedTuple

from tests.clients.drivers.driver import CASES, Outcome
from tests.mcp_servers.installed import node
from tests.shared.documents import ROOT

HERE = ROOT / "build" / "clients"
SECONDS = 900  # that a client has for all its cases: only what hangs takes that long


class Client(NamedTuple):
    """name: as the table has it. environment: in HERE, or `node`. driver: a module of `drivers`. route: one of its."""

    name: str
    environment: str
    driver: str
    route: str

    @property
    def title(self) -> str:
        return f"{self.name}, {self.route}"

    def command(self) -> list[str]:
        if self.environment == "node":
            return [node(), "--preserve-symlinks", "--preserve-symlinks-main", f"{HERE}/drivers/{self.driver}.mjs"]
        python = HERE / self.environment / "bin" / "python"
        return [str(python), "-W", "ignore", "-m", f"tests.clients.drivers.{self.driver}"]


CLIENTS = [
    Client(name, environment, driver, route)
    for name, environment, driver, routes in [
        ("openai (Python)", "official", "openai_sdk", ("Chat", "Responses")),
        ("openai (JavaScript)", "node", "openai_sdk", ("Chat", "Responses")),
        ("LangChain", "official", "langchain_chat", ("Chat", "Responses")),
        ("Agents SDK", "official", "openai_agents", ("Chat", "Responses")),
        ("Pydantic AI", "official", "pydantic_ai_agents", ("Chat", "Responses")),
        ("LiteLLM", "others", "litellm_client", ("Chat", "Responses")),
        ("LlamaIndex", "others", "llama_index_llms", ("Chat", "Responses")),
        ("instructor", "others", "instructor_client", ("tools", "JSON Schema")),
        ("smolagents", "others", "smolagents_models", ("Chat",)),
        ("Codex", "official", "codex_cli", ("Responses",)),
        ("aider", "aider", "aider_cli", ("Chat",)),
        ("AI SDK 7", "node", "ai_sdk_7", ("Chat", "Responses", "openai-compatible", "open-responses")),
        ("AI SDK 6", "node", "ai_sdk_6", ("Chat", "Responses", "openai-compatible")),
    ]
    for route in routes
]


class Ran(NamedTuple):
    """outcomes: by case; a case that is missing the client has no such thing for."""

    version: str
    outcomes: dict[str, Outcome]


@cache
def ran(client: Client, url: str) -> Ran:
    """All its cases, once. Where the driver breaks off, all have failed."""
    command = [*client.command(), url, client.route, client.title]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=True)
    except subprocess.SubprocessError as error:
        why = f"{error}\n{getattr(error, 'stdout', '')}\n{getattr(error, 'stderr', '')}"[-4000:]
        return Ran("", {case: Outcome(case, "fails", why) for case in CASES})
    first, *rest = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    outcomes = {each["case"]: Outcome(**each) for each in rest}
    assert outcomes.keys() <= CASES.keys()
    return Ran(first["version"], outcomes)

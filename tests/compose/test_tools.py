"""The profile `tools`: services of other programs, one of each kind, and the tools that agents see of them."""

import json
from collections.abc import Iterator

import httpx2
import pytest

from tests.compose.stack import Stack, eventually, run

pytestmark = [pytest.mark.compose, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def stack(engine: str, variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    env_file = tmp_path_factory.mktemp("tools") / "tools.env"
    env_file.write_text("CONFIG=./deploy/tools\nDISPATCHER_TOOLS=config/tools.toml\n")
    made = Stack(engine, variables, env_file, "--profile", "tools")
    with made.up(("haproxy", "dispatcher"), 2):
        yield made


def test_what_each_service_has_is_offered(stack: Stack) -> None:
    (dispatcher,) = stack.containers("dispatcher")
    metrics = f"http://{stack.address(dispatcher)}:9464/metrics"

    def said() -> set[str]:
        return set(httpx2.get(metrics).text.splitlines())

    up = {f'dispatcher_toolset_up{{toolset="{name}"}} 1.0' for name in ("rates", "glossary", "health")}
    eventually(said, lambda lines: up <= lines, 90)


@pytest.mark.parametrize(
    ("tool", "arguments", "result"),
    [
        ("rate", {"currency": "USD"}, 1.08),
        ("getRate", {"currency": "CHF"}, {"currency": "CHF", "rate": 0.93}),
        ("glossary_define", {"word": "stop"}, {"result": "The end of a session in the middle of a sentence."}),
        ("health_Check", {"service": "rates"}, {"status": "SERVING"}),
    ],
)
def test_a_tool_of_each_kind_is_called(stack: Stack, tool: str, arguments: dict[str, str], result: object) -> None:
    (dispatcher,) = stack.containers("dispatcher")
    call = ("dispatcher", "tools", "call", tool, json.dumps(arguments), "--file", "config/tools.toml")
    said = run(stack.docker, "exec", dispatcher, *call)
    assert json.loads(said) == result

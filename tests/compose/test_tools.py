"""The profile `tools`: services of other programs, one of each kind, and an agent that calls a tool of each."""

import json
from collections.abc import Iterator

import httpx2
import pytest

from tests.compose.stack import REACHED, Stack, eventually, run

pytestmark = [pytest.mark.compose, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def stack(engine: str, variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    env_file = tmp_path_factory.mktemp("tools") / "tools.env"
    env_file.write_text("CONFIG=./deploy/tools\nDISPATCHER_TOOLS=config/tools.toml\nCOMMANDER_BACKEND=scripted\n")
    made = Stack(engine, variables, env_file, "--profile", "tools")
    with made.up(("haproxy", "dispatcher", "commander"), 4):
        yield made


def metrics(stack: Stack) -> set[str]:
    (dispatcher,) = stack.containers("dispatcher")
    url = f"http://{stack.address(dispatcher)}:9464/metrics"
    return set(httpx2.get(url, headers=stack.shown("operator")).text.splitlines())


def test_what_each_service_has_is_offered(stack: Stack) -> None:
    up = {f'dispatcher_toolset_up{{toolset="{name}"}} 1.0' for name in ("rates", "glossary", "health")}
    eventually(lambda: metrics(stack), lambda lines: up <= lines, 90)


def test_the_services_are_the_dispatchers_alone(stack: Stack) -> None:
    assert stack.reached_by_agents() == REACHED


# By tool: arguments, and the result.
CALLS: dict[str, tuple[dict[str, str], object]] = {
    "rate": ({"currency": "USD"}, 1.08),
    "getRate": ({"currency": "CHF"}, {"currency": "CHF", "rate": 0.93}),
    "glossary_define": ({"word": "stop"}, {"result": "The end of a session in the middle of a sentence."}),
    "health_Check": ({"service": "rates"}, {"status": "SERVING"}),
}


@pytest.mark.parametrize("tool", CALLS)
def test_an_operator_tries_a_tool_of_each_kind(stack: Stack, tool: str) -> None:
    (dispatcher,) = stack.containers("dispatcher")
    arguments, result = CALLS[tool]
    call = ("dispatcher", "tools", "call", tool, json.dumps(arguments), "--file", "config/tools.toml")
    assert json.loads(run(stack.docker, "exec", dispatcher, *call)) == result


def test_an_agent_calls_a_tool_of_each_kind(stack: Stack) -> None:
    steps: list[dict[str, object]] = []
    for tool, (arguments, _) in CALLS.items():
        steps += [{"call": tool, "arguments": arguments}, {"say": "{result}\n"}]
    body = {"model": "default", "messages": [{"role": "user", "content": json.dumps({"steps": steps})}]}
    url, shown = f"{stack.users}/v1/chat/completions", stack.shown("user")
    answer = httpx2.post(url, json=body, headers=shown, timeout=120)
    assert answer.status_code == 200, answer.text
    said = answer.json()["choices"][0]["message"]["content"]
    assert [json.loads(line) for line in said.splitlines()] == [result for _, result in CALLS.values()]
    assert metrics(stack) >= {f'dispatcher_tool_calls_total{{status="OK",tool="{tool}"}} 1.0' for tool in CALLS}

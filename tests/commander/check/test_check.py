"""`commander check`, as its user runs it, on good agents and bad ones."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from commander import cli
from tests import programs

pytestmark = pytest.mark.slow  # most of them run `commander check` as a program

AGENTS = "tests.commander.check.agents"
ROOT = Path(__file__).parents[3]
# A machine that is busy with other tests may be late; what an agent does wrong is far beyond these.
PATIENT = ("--allow-lag", "30", "--allow-tokens", "500")

Check: TypeAlias = Callable[..., tuple[int, str, str]]
Report: TypeAlias = Callable[..., dict[str, Any]]


@pytest.fixture
def check(no_settings: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Check:
    """`commander check AGENT OPTIONS` in this process, the agent in one of its own: the exit status, and what both
    printed.
    """
    monkeypatch.chdir(ROOT)

    def run(agent: str, *options: str) -> tuple[int, str, str]:
        return cli.main(["check", agent, *options]), *capfd.readouterr()

    return run


@pytest.fixture
def report(check: Check) -> Report:
    """What `--json` says of an agent of this folder; its verdict is the exit status too."""

    def run(agent: str, *options: str) -> dict[str, Any]:
        status, out, err = check(f"tests.commander.check.{agent}", "--json", *PATIENT, *options)
        assert out, err
        found: dict[str, Any] = json.loads(out)
        assert found["exit_status"] == status
        return found

    return run


@pytest.mark.parametrize("agent", ["sdk:by_the_sdk", "sdk:by_responses", "clients:by_httpx", "clients:by_aiohttp"])
def test_an_agent_that_closes_its_stream_stops(report: Report, agent: str) -> None:
    found = report(agent)
    assert (found["verdict"], found["problems"], found["notes"]) == ("stops", [], [])
    assert found["said_before_stop"] >= 10
    assert found["said_after_stop"] == 0
    assert 0 < found["halt"] < 2
    provider = found["provider"]
    assert (provider["requests"], provider["open"]) == (1, 0)
    assert provider["before"] >= 10
    assert provider["closed_after"] > 0


def test_our_own_back_end_stops(check: Check) -> None:
    status, out, _ = check("openai", "--json", *PATIENT)
    found = json.loads(out)
    assert (status, found["provider"]["open"], found["honoured"]) == (0, 0, ["tools", "structured"])


def test_what_an_agent_declares_is_tried(report: Report) -> None:
    found = report("declaring:by_responses")
    assert (found["verdict"], found["problems"], found["honoured"]) == ("stops", [], ["tools", "structured"])


@pytest.mark.parametrize(
    ("agent", "problems"),
    [
        ("says_words", ["a call is required, and it makes none", "its answer does not fit the schema: word word "]),
        (
            "nearly",
            [
                """its arguments do not fit the tool's schema: {"town": "Oslo"}""",
                """its answer does not fit the schema: {"city": "Oslo", "country": "Norway", "river": null}""",
            ],
        ),
        ("forgets", ["with the result of its call it says nothing", "it fails: ValueError: as written"]),
    ],
)
def test_an_agent_that_does_not_honour_what_it_declares(report: Report, agent: str, problems: list[str]) -> None:
    found = report(f"declaring:{agent}")
    assert (found["verdict"], found["exit_status"]) == ("stops, but does not honour what it declares", 3)
    declared = ("tools", "structured")
    assert found["problems"] == [
        f"it declares `{feature}`: {problem}" for feature, problem in zip(declared, problems, strict=True)
    ]
    assert found["honoured"] == []


@pytest.mark.parametrize("agent", ["agents:plain", "agents:short", "agents:asks_a_tool"])
def test_an_agent_without_a_provider_stops(report: Report, agent: str) -> None:
    found = report(agent, "--result", 'weather={"forecast": "sunny"}')
    assert (found["verdict"], found["problems"]) == ("stops", [])
    assert (found["provider"]["requests"], found["said_after_stop"]) == (0, 0)
    assert "it asked the metered provider for nothing" in found["notes"]
    held = any("held at a `yield`" in note for note in found["notes"])
    assert held == (agent == "agents:short")
    assert not held or found["said_before_stop"] == 2


@pytest.mark.parametrize(
    ("agent", "problem"),
    [
        ("sdk:swallows", "it yielded 1 more after the stop"),
        ("agents:never_ends", "it still runs, at agents.py:"),
        ("agents:in_a_thread", "the connection to the provider stayed open, and the model ran on: "),
        ("clients:keeps_its_connection", "the connection to the provider stayed open, and the model ran on: "),
        ("agents:slow_to_close", "it took "),
    ],
)
def test_an_agent_that_does_not_stop(report: Report, agent: str, problem: str) -> None:
    found = report(agent)
    assert (found["verdict"], found["exit_status"]) == ("does not stop", 1)
    assert [text for text in found["problems"] if text.startswith(problem)] == found["problems"]
    if found["provider"]["open"]:
        assert found["provider"]["after"] > 10
    if agent == "agents:in_a_thread":
        assert found["notes"] == ["threads that still work: the-reader"]


def test_a_provider_that_made_too_much_meanwhile(report: Report) -> None:
    found = report("clients:slow_to_leave", "--allow-tokens", "3")
    assert found["exit_status"] == 1
    (problem,) = found["problems"]
    assert problem.endswith("tokens after the stop; 3 are allowed")
    assert found["provider"]["after"] > 3


def test_an_agent_that_blocks_the_loop_between_its_words(report: Report) -> None:
    found = report("agents:blocks", "--after", "2", "--allow-lag", "0.5")
    (problem,) = found["problems"]
    assert problem.startswith("it blocks the event loop for ")
    assert " (at agents.py:" in problem
    assert found["loop_lag"] > 0.5


def test_an_agent_that_blocks_the_loop_for_good(report: Report) -> None:
    found = report("agents:spins", "--seconds", "1", "--allow-lag", "0.5")
    (problem,) = found["problems"]
    assert problem.startswith("it blocks the event loop for good (at agents.py:")
    assert found["halt"] is None


def test_a_task_that_is_left_is_named(report: Report) -> None:
    found = report("agents:leaves_a_task")
    assert found["verdict"] == "stops"
    assert "tasks that still run: background_work" in found["notes"]


@pytest.mark.parametrize(
    ("agent", "problem"),
    [
        ("agents:raises", "it failed before it could be stopped: ValueError: as written"),
        ("agents:says_nothing", "it said nothing within "),
        ("sdk:asks_in_one_piece", "it said nothing within "),
        ("agents:says_all_at_once", "it finished before it could be stopped, having said 1 delta"),
        ("agents:exits", "its process ended by itself, with exit status 7"),
    ],
)
def test_an_agent_that_cannot_be_checked(report: Report, agent: str, problem: str) -> None:
    found = report(agent, "--seconds", "1")
    assert (found["verdict"], found["exit_status"]) == ("cannot be checked", 2)
    assert len(found["problems"]) == 1
    assert found["problems"][0].startswith(problem)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing:agent"], "MODULE:AGENT: no module 'nothing'"),
        (["magic"], "MODULE:AGENT: must be local, openai, scripted or module:attribute, got 'magic'"),
        ([f"{AGENTS}:chat"], "MODULE:AGENT: "),
        ([f"{AGENTS}:plain", "--parameters", "[]"], "--parameters: must be a JSON object, got '[]'"),
        ([f"{AGENTS}:plain", "--result", "weather"], "--result: must be TOOL=JSON, got 'weather'"),
    ],
)
def test_what_cannot_be_run_is_one_line_and_exit_2(check: Check, arguments: list[str], words: str) -> None:
    status, out, err = check(*arguments)
    if arguments == [f"{AGENTS}:chat"]:  # a function like any other: only running it shows what it is
        assert (status, out.startswith(f"{AGENTS}:chat cannot be checked")) == (2, True)
        return
    assert (status, out) == (2, "")
    assert err.startswith(words)
    assert len(err.splitlines()) == 1


def test_a_wrong_setting_is_one_line_and_exit_2(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMANDER_CAPACITY", "none")
    status, out, err = check(f"{AGENTS}:plain")
    assert (status, out) == (2, "")
    assert err.startswith("COMMANDER_CAPACITY: must be a whole number")


def test_for_people_it_is_text_and_an_agent_s_own_output_stands_apart() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "commander", "check", f"{AGENTS}:prints", *PATIENT],
        cwd=ROOT,
        env=programs.environment({}),
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == f"{AGENTS}:prints stops"
    assert any(line.startswith("  the generator's end       ") for line in lines)
    assert "for the terminal" not in done.stdout
    assert "for the terminal" in done.stderr


async def test_ctrl_c_ends_the_agent_too(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    os.mkfifo(pids)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "commander", "check", f"{AGENTS}:tells_its_pid"),
        cwd=ROOT,
        env=programs.environment({"PIDS": str(pids)}),
    )
    pid = int(await asyncio.wait_for(asyncio.to_thread(pids.read_text), 30))
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 30) == 130
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)

"""`commander check`, as its user runs it, on good agents and bad ones."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import programs

AGENTS = "tests.commander.check.agents"
ROOT = Path(__file__).parents[3]
# A machine that is busy with other tests may be late; what an agent does wrong is far beyond these.
PATIENT = ("--allow-lag", "30", "--allow-tokens", "500")


async def check(agent: str, *options: str, settings: dict[str, str] | None = None) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "commander", "check", agent, *options),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=programs.environment(settings or {}),
    )
    out, err = await asyncio.wait_for(process.communicate(), 55)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def report(agent: str, *options: str) -> dict[str, Any]:
    """What `--json` says; its verdict is the exit status too."""
    status, out, err = await check(f"{AGENTS}:{agent}", "--json", *PATIENT, *options)
    assert out, err
    found: dict[str, Any] = json.loads(out)
    assert found["exit_status"] == status
    return found


@pytest.mark.parametrize("agent", ["by_the_sdk", "by_responses", "by_httpx", "by_aiohttp"])
async def test_an_agent_that_closes_its_stream_stops(agent: str) -> None:
    found = await report(agent)
    assert (found["verdict"], found["problems"], found["notes"]) == ("stops", [], [])
    assert found["said_before_stop"] >= 10
    assert found["said_after_stop"] == 0
    assert 0 < found["halt"] < 2
    provider = found["provider"]
    assert (provider["requests"], provider["open"]) == (1, 0)
    assert provider["before"] >= 10
    assert provider["closed_after"] > 0


async def test_our_own_back_end_stops() -> None:
    status, out, _ = await check("openai", "--json", *PATIENT)
    assert (status, json.loads(out)["provider"]["open"]) == (0, 0)


@pytest.mark.parametrize("agent", ["plain", "short", "asks_a_tool"])
async def test_an_agent_without_a_provider_stops(agent: str) -> None:
    found = await report(agent, "--result", 'weather={"forecast": "sunny"}')
    assert (found["verdict"], found["problems"]) == ("stops", [])
    assert (found["provider"]["requests"], found["said_after_stop"]) == (0, 0)
    assert "it asked the metered provider for nothing" in found["notes"]
    held = any("held at a `yield`" in note for note in found["notes"])
    assert held == (agent == "short")
    assert not held or found["said_before_stop"] == 2


@pytest.mark.parametrize(
    ("agent", "problem"),
    [
        ("swallows", "it yielded 1 more after the stop"),
        ("never_ends", "it still runs, at agents.py:"),
        ("in_a_thread", "the connection to the provider stayed open, and the model ran on: "),
        ("keeps_its_connection", "the connection to the provider stayed open, and the model ran on: "),
        ("slow_to_close", "it took 2."),
    ],
)
async def test_an_agent_that_does_not_stop(agent: str, problem: str) -> None:
    found = await report(agent)
    assert (found["verdict"], found["exit_status"]) == ("does not stop", 1)
    assert [text for text in found["problems"] if text.startswith(problem)] == found["problems"]
    if found["provider"]["open"]:
        assert found["provider"]["after"] > 10
    if agent == "in_a_thread":
        assert found["notes"] == ["threads that still work: the-reader"]


async def test_a_provider_that_made_too_much_meanwhile() -> None:
    found = await report("slow_to_leave", "--allow-tokens", "3")
    assert found["exit_status"] == 1
    (problem,) = found["problems"]
    assert problem.endswith("tokens after the stop; 3 are allowed")
    assert found["provider"]["after"] > 3


async def test_an_agent_that_blocks_the_loop_between_its_words() -> None:
    found = await report("blocks", "--after", "2", "--allow-lag", "0.5")
    (problem,) = found["problems"]
    assert problem.startswith("it blocks the event loop for ")
    assert " (at agents.py:" in problem
    assert found["loop_lag"] > 0.5


async def test_an_agent_that_blocks_the_loop_for_good() -> None:
    found = await report("spins", "--seconds", "1", "--allow-lag", "0.5")
    (problem,) = found["problems"]
    assert problem.startswith("it blocks the event loop for good (at agents.py:")
    assert found["halt"] is None


async def test_a_task_that_is_left_is_named() -> None:
    found = await report("leaves_a_task")
    assert found["verdict"] == "stops"
    assert "tasks that still run: background_work" in found["notes"]


@pytest.mark.parametrize(
    ("agent", "problem"),
    [
        ("raises", "it failed before it could be stopped: ValueError: as written"),
        ("says_nothing", "it said nothing within 1."),
        ("asks_in_one_piece", "it said nothing within 1."),
        ("says_all_at_once", "it finished before it could be stopped, having said 1 delta"),
        ("exits", "its process ended by itself, with exit status 7"),
    ],
)
async def test_an_agent_that_cannot_be_checked(agent: str, problem: str) -> None:
    found = await report(agent, "--seconds", "1")
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
async def test_what_cannot_be_run_is_one_line_and_exit_2(arguments: list[str], words: str) -> None:
    status, out, err = await check(*arguments)
    if arguments == [f"{AGENTS}:chat"]:  # a function like any other: only running it shows what it is
        assert (status, out.startswith(f"{AGENTS}:chat cannot be checked")) == (2, True)
        return
    assert (status, out) == (2, "")
    assert err.startswith(words)
    assert len(err.splitlines()) == 1


async def test_a_wrong_setting_is_one_line_and_exit_2() -> None:
    status, out, err = await check(f"{AGENTS}:plain", settings={"COMMANDER_CAPACITY": "none"})
    assert (status, out) == (2, "")
    assert err.startswith("COMMANDER_CAPACITY: must be a whole number")


async def test_for_people_it_is_text_and_an_agent_s_own_output_stands_apart() -> None:
    status, out, err = await check(f"{AGENTS}:prints", *PATIENT)
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == f"{AGENTS}:prints stops"
    assert any(line.startswith("  the generator's end       ") for line in lines)
    assert "for the terminal" not in out
    assert "for the terminal" in err


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

"""What programs log: nothing that anybody wrote, and nothing that holds a session up where it cannot be written."""

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.e2e.reading import Reader, ask
from tests.e2e.test_kill import wait_until
from tests.programs import commander, dispatcher, environment, free_port

CANARY = "zx9canary7"
SECONDS = 60.0
RULES = """
[[policy]]
name = "words"
kind = "phrases"
phrases = ["forbidden"]
reads = ["content"]

[[policy]]
name = "questions"
kind = "phrases"
phrases = ["secret"]
reads = ["prompt"]
"""


def test_sessions_go_on_while_the_logs_device_is_full(tmp_path: Path) -> None:
    """Of either program; and what could not be written is counted."""
    grpc, http, operator, metrics = (f"127.0.0.1:{free_port()}" for _ in range(4))
    settings = {
        "DISPATCHER_GRPC_ADDRESS": grpc,
        "DISPATCHER_HTTP_ADDRESS": http,
        "DISPATCHER_OPERATOR_ADDRESS": operator,
        "DISPATCHER_STORE": "memory://",
        "COMMANDER_DISPATCHER": grpc,
        "COMMANDER_METRICS_ADDRESS": metrics,
        "COMMANDER_BACKEND": "scripted",
        "COMMANDER_SCRIPTED__TOKENS": "3",
    }
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(Path("/dev/full").open("w"))
        for program in ("dispatcher", "commander"):
            command = [sys.executable, "-m", program, "serve"]
            process = stack.enter_context(subprocess.Popen(command, env=environment(settings), stderr=device))
            stack.callback(process.send_signal, signal.SIGTERM)
        wait_until(lambda: lost("dispatcher", operator) and lost("commander", metrics), SECONDS)
        for _ in range(3):
            reader = Reader(f"http://{http}", ask(f"http://{http}")).ended(SECONDS)
            assert (reader.final[0], reader.text.split()) == ("finished", ["w0", "w1", "w2"])
        assert lost("dispatcher", operator) > 3


def lost(program: str, address: str) -> float:
    try:
        text = httpx2.get(f"http://{address}/metrics", timeout=30).text
    except httpx2.TransportError:
        return 0
    return float(text.partition(f"\n{program}_log_lines_lost_total ")[2].split()[0])


@pytest.mark.parametrize("asked", [False, True])
def test_nothing_that_a_user_or_a_model_wrote_is_logged_unless_a_setting_asks(tmp_path: Path, asked: bool) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES)
    logs = tmp_path / "d.log", tmp_path / "c.log"
    with (
        dispatcher(logs[0], policies=str(rules), log_thoughts=str(asked).lower()) as server,
        commander(server.grpc, logs[1], "scripted"),
    ):
        url = f"http://{server.http}"
        for steps in (
            [{"think": "Planning", "text": CANARY}, {"call": CANARY, "arguments": {CANARY: 1}}, {"say": CANARY}],
            [{"call": "calculate", "arguments": {"expression": CANARY}}, {"fail": CANARY}],
            [{"say": f"{CANARY} forbidden"}],
        ):
            Reader(url, ask(url, prompt=CANARY, steps=steps)).ended(SECONDS)
        refused = {"model": CANARY, "messages": [{"role": "user", "content": f"{CANARY} secret"}]}
        assert httpx2.post(f"{url}/v1/chat/completions", json=refused, timeout=SECONDS).status_code >= 400
        assert httpx2.get(f"{url}/v1/sessions/{CANARY}", timeout=SECONDS).status_code == 404
    lines = [line for log in logs for line in log.read_text().splitlines()]
    told = [json.loads(line)["event"] for line in lines if CANARY in line]
    assert told == (["thought"] if asked else [])


@pytest.mark.parametrize("asked", [False, True])
def test_an_authors_fault_is_whole_in_the_log_of_its_process_alone(tmp_path: Path, asked: bool) -> None:
    tools = tmp_path / "tools.toml"
    tools.write_text('[[tool]]\nname = "broken"\nkind = "local"\nuse = "tests.e2e.agents:broken"\n')
    logs, text = (tmp_path / "d.log", tmp_path / "c.log"), str(asked).lower()
    with (
        dispatcher(logs[0], tools=str(tools), log_exception_text=text) as server,
        commander(server.grpc, logs[1], "tests.e2e.agents:failing", log_exception_text=text),
    ):
        session = ask(f"http://{server.http}", canary=CANARY)
        reader = Reader(f"http://{server.http}", session).ended(SECONDS)
        assert (reader.final[0], reader.final[1]["code"]) == ("failed", "agent_error")
    for log, event, function in ((logs[0], "tool_failed", "broken"), (logs[1], "agent_failed", "failing")):
        (told,) = [record for line in log.read_text().splitlines() if (record := json.loads(line))["event"] == event]
        assert told["session_id"] == session
        assert "call_id" in told or event == "agent_failed"
        assert f"in {function}\n" in told["traceback"]
        assert (CANARY in told["traceback"]) == asked
        assert log.read_text().count(f"in {function}\\n") == 1
        assert sum(f"in {function}\\n" in other.read_text() for other in logs) == 1
        assert asked or CANARY not in log.read_text()

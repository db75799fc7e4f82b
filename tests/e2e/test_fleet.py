"""The fleet's stop, and the proof of it: real replicas under load, stopped by the command."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

import httpx2
import pytest

from tests import receipt_reader
from tests.e2e.reading import ask
from tests.programs import Dispatcher
from tests.replicas import eventually, figure, replicas

COMMANDERS = 4
SECONDS = 90.0  # for a command


def command(*arguments: str) -> tuple[int, str]:
    """Its exit status, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "dispatcher", *arguments], capture_output=True, text=True, timeout=SECONDS
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.faults)])
def test_all_halt_and_one_answer_is_the_proof(tmp_path: Path, count: int) -> None:
    waiting = count // 10
    with replicas(tmp_path) as rig:
        # On a busy machine nobody shall be given up, and nothing that waits fail, before it is stopped.
        patient = {"queue_limit": str(count), "queue_seconds": "600", "stop_seconds": "50"}
        both = [rig.dispatcher(**patient) for _ in range(2)]
        for _ in range(COMMANDERS):
            rig.commander("tests.e2e.agents:counting", capacity=str(count // COMMANDERS))
        eventually(lambda: sum(figure(each.operator, "dispatcher_commanders") for each in both) >= COMMANDERS, "joined")
        with ThreadPoolExecutor(8) as asking:
            urls = cycle(f"http://{each.http}" for each in both)
            made = list(
                asking.map(lambda url: ask(url, tokens=10**6, seconds=1), [next(urls) for _ in range(count + waiting)])
            )
        eventually(lambda: running(both) == count, "all run", SECONDS)

        status, out = command("stop", "--url", f"http://{both[0].operator}", "--agent", "default", "--json")
        *events, done = [json.loads(line) for line in out.splitlines()]
        assert (status, done) == (0, {"event": "done", "found": count + waiting, "running": 0, "whole": True})
        assert {event["session_id"] for event in events if event["event"] == "halted"} == set(made)

        for each in both:
            assert httpx2.get(f"http://{each.operator}/operator/sessions", timeout=30).json()["sessions"] == []
        eventually(lambda: running(both) == 0, "none runs")
        proofs = [
            httpx2.get(f"http://{each.operator}/operator/sessions/{made[0]}/receipt", timeout=30).json()
            for each in both
        ]
        assert proofs[0] == proofs[1]
        assert (proofs[0]["stop"]["halt"], receipt_reader.faults(proofs[0])) == ("confirmed", [])


def running(both: list[Dispatcher]) -> float:
    return sum(figure(each.operator, 'dispatcher_sessions{state="running"}') for each in both)

"""`make demo` as CI sees it: no terminal, the real model, exit status 0."""

import re
import subprocess
import sys

import pytest

from tests.programs import environment


@pytest.mark.model
@pytest.mark.timeout(240)
def test_the_demo_shows_a_tool_a_stop_and_a_rule(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "dispatcher", "demo"],
        env=environment({"COMMANDER_LOCAL__THREADS": "1"}),  # those of one model wait for each other on busy cores
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=230,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"tool_result  calculate  OK", done.stdout)
    assert "391" in done.stdout
    assert "thought (operators only)" in done.stdout
    assert "stopped  UserCancel" in done.stdout
    assert '{"reason": "PolicyViolation"}' in done.stdout
    got = re.search(r"the user got +…(.*)", done.stdout)
    assert got
    assert "dragon" not in got[1].lower()
    assert len(re.findall(r"tokens after the stop: \d+", done.stdout)) == 2, "the model must have halted both times"
    assert done.stderr == ""

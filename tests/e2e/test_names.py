"""Folders of a user's own that are named like our packages, beside their agent: they break nothing, or say why."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import environment

COMMAND = str(Path(sys.executable).with_name("commander"))
AGENT = """import asyncio


async def agent(turn):
    while True:
        yield "Hello. "
        await asyncio.sleep(0.01)
"""
SECONDS = 60.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("shared", "dispatcher", "commander"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('{name} of the user')\n")
        (tmp_path / name / "helpers.py").write_text("HELLO = 'Hello.'\n")
    (tmp_path / "my_agent.py").write_text(AGENT)
    return tmp_path


def checked(folder: Path, *command: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """`commander check` of the agent there."""
    arguments = [*command, "check", "my_agent:agent", "--allow-lag", "30"]
    environ = environment(settings)
    return subprocess.run(arguments, cwd=folder, env=environ, capture_output=True, text=True, timeout=SECONDS)


@pytest.mark.parametrize("path", ["", "."])
def test_they_break_nothing(folder: Path, path: str) -> None:
    """Nor where PYTHONPATH leads there, but for the program's own name, which Python itself looks up."""
    if path:
        (folder / "commander" / "__init__.py").unlink()
        (folder / "dispatcher" / "__init__.py").unlink()
    done = checked(folder, COMMAND, **({"PYTHONPATH": path} if path else {}))
    assert (done.returncode, done.stdout.partition("\n")[0]) == (0, "my_agent:agent stops"), done.stdout + done.stderr


def test_as_a_module_of_python_too(folder: Path) -> None:
    (folder / "commander" / "__init__.py").unlink()  # Python looks that up before our code can say anything
    done = checked(folder, sys.executable, "-m", "commander")
    assert (done.returncode, done.stdout.partition("\n")[0]) == (0, "my_agent:agent stops"), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("from shared.helpers import HELLO", "shared"),
        ("from shared import helpers", "shared"),
        ("import shared; shared.helpers", "shared"),
        ("import dispatcher.helpers", "dispatcher"),
    ],
)
def test_an_agent_that_imports_one_is_told_why_it_cannot_and_what_to_do(folder: Path, line: str, name: str) -> None:
    (folder / "my_agent.py").write_text(f"{line}\n{AGENT}")
    done = checked(folder, COMMAND)
    assert (done.returncode, done.stdout) == (2, "")
    (said,) = done.stderr.splitlines()
    assert said.endswith(
        f"`{name}` is a package of Midsentence's own, which comes before {folder / name}: give yours another name"
    )

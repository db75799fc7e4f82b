"""`dispatcher dev` and the demo in a terminal: both end with it, and leave nothing behind."""

import os
import pty
import re
import select
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.reading import Reader, ask
from tests.e2e.test_kill import wait_until
from tests.programs import environment

SECONDS = 60.0
GREETING = """import asyncio
from pathlib import Path


async def agent(turn):
    yield "I am {}."
    while not Path("go_on").exists():
        await asyncio.sleep(0.01)
    yield " And that is all."
"""
DEAF = """import time
from pathlib import Path


async def agent(turn):
    Path("deaf").touch()
    while True:
        time.sleep(1)
    yield
"""
PORTS = {f"DISPATCHER_{edge}_ADDRESS": "127.0.0.1:0" for edge in ("GRPC", "HTTP", "OPERATOR")}


def running(pid: int) -> bool:
    """It has not ended; one that nobody has waited for has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def users(shown: str) -> str:
    """Where they are served, by what `dev` shows."""
    found = re.search(r"(http://127.0.0.1:\d+)/v1/sessions", shown)
    assert found
    return found[1]


class Terminal:
    """A program that is alone in it. close: as its window does."""

    def __init__(self, *arguments: str, folder: Path, **settings: str) -> None:
        environ = environment(PORTS | {"COMMANDER_BACKEND": "scripted"} | settings)
        self.pid, self._screen = pty.fork()
        if not self.pid:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a test run under `nohup` ignores it, and hands that down
            os.chdir(folder)
            os.execve(sys.executable, [sys.executable, "-m", "dispatcher", *arguments], environ)  # noqa: S606 - itself

    def read_until(self, text: bytes) -> bytes:
        seen, deadline = b"", time.monotonic() + SECONDS
        while text not in seen:
            ready, _, _ = select.select([self._screen], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"it shows {seen!r}"
            seen += os.read(self._screen, 65536)
        return seen

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def close(self) -> None:
        os.close(self._screen)


@pytest.mark.parametrize(("verb", "shown"), [("dev", b"commander_joined"), ("demo", b"Ready after")])
def test_it_ends_with_its_terminal(verb: str, shown: bytes, tmp_path: Path) -> None:
    terminal = Terminal(verb, folder=tmp_path)
    terminal.read_until(shown)
    (commander,) = children(terminal.pid)
    terminal.close()
    wait_until(lambda: not running(terminal.pid) and not running(commander), SECONDS)
    os.waitpid(terminal.pid, 0)


@pytest.mark.parametrize(("verb", "shown"), [("dev", b"commander_joined"), ("demo", b"Ready after")])
def test_its_commander_ends_with_it_where_it_is_killed(verb: str, shown: bytes, tmp_path: Path) -> None:
    terminal = Terminal(verb, folder=tmp_path)
    terminal.read_until(shown)
    (commander,) = children(terminal.pid)
    terminal.kill()
    wait_until(lambda: not running(commander), SECONDS)
    terminal.close()


def test_an_agent_that_holds_the_loop_up_keeps_no_commander(tmp_path: Path) -> None:
    (tmp_path / "my_agent.py").write_text(DEAF)
    terminal = Terminal("dev", folder=tmp_path, COMMANDER_BACKEND="my_agent:agent")
    shown = terminal.read_until(b"commander_joined").decode()
    ask(users(shown))
    wait_until((tmp_path / "deaf").exists, SECONDS)
    (commander,) = children(terminal.pid)
    terminal.kill()
    wait_until(lambda: not running(commander), SECONDS)
    terminal.close()


def test_an_authors_faults_are_on_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "my_agent.py").write_text(
        "async def agent(turn):\n    yield 'So far.'\n    raise ValueError('as I said')\n"
    )
    terminal = Terminal("dev", folder=tmp_path, COMMANDER_BACKEND="my_agent:agent")
    shown = terminal.read_until(b"commander_joined").decode()
    ask(users(shown))
    trace = terminal.read_until(b"as I said").decode()
    assert 'my_agent.py", line 3, in agent' in trace
    terminal.close()
    os.waitpid(terminal.pid, 0)


def test_reload_brings_the_changed_agent_and_what_runs_goes_on(tmp_path: Path) -> None:
    agent = tmp_path / "my_agent.py"
    agent.write_text(GREETING.format("old"))
    (tmp_path / "go_on").touch()
    terminal = Terminal("dev", "--reload", folder=tmp_path, COMMANDER_BACKEND="my_agent:agent")
    shown = terminal.read_until(b"commander_joined").decode()
    url = users(shown)
    (tmp_path / "go_on").unlink()
    running_on = Reader(url, ask(url))
    wait_until(lambda: running_on.text, SECONDS)
    agent.write_text("this is no Python")
    terminal.read_until(b"cannot be imported: SyntaxError")
    agent.write_text(GREETING.format("new"))
    terminal.read_until(b"commander_joined")
    (tmp_path / "go_on").touch()
    assert Reader(url, ask(url)).ended(SECONDS).text == "I am new. And that is all."
    assert running_on.ended(SECONDS).text == "I am old. And that is all."
    terminal.close()
    os.waitpid(terminal.pid, 0)

"""The program's edges: help, wrong settings, `/metrics`, the exit status."""

import asyncio
import contextlib
import json
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

from commander import cli
from shared import records
from tests import programs
from tests.commander.fake_dispatcher import FakeDispatcher, soon

AGENTS = """
async def agent(turn):
    yield "hello"

async def coroutine(turn):
    return "hello"

def plain(turn):
    yield "hello"

async def unasked():
    yield "hello"

async def asks_more(turn, model):
    yield "hello"

broken = 5
"""


@contextlib.asynccontextmanager
async def commander(
    folder: Path, *arguments: str, settings: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`commander ARGUMENTS` in that folder, until the block ends."""
    root = str(Path(__file__).parents[2])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "commander", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env=programs.environment(settings or {}) | {"PYTHONPATH": root},
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def output(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(AGENTS)
    (tmp_path / "faulty.py").write_text("raise ValueError('as written')")
    return tmp_path


@pytest.mark.parametrize("verb", [[], ["serve"], ["run"], ["check"]])
def test_help(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*verb, "--help"])
    assert ended.value.code == 0
    assert "usage: commander" in capsys.readouterr().out


@pytest.fixture
def here(folder: Path, no_settings: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process runs in the folder. What it imports from there is forgotten."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for module in ("mine", "faulty"):
        sys.modules.pop(module, None)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("CAPACITY", "none", "COMMANDER_CAPACITY: must be a whole number of at least 1, got 'none'"),
        ("CAPACITTY", "1", "COMMANDER_CAPACITTY: unknown setting; did you mean COMMANDER_CAPACITY?"),
        ("BACKEND", "magic", "COMMANDER_BACKEND: must be local, openai, scripted or module:attribute, got 'magic'"),
        ("BACKEND", "nothing:agent", "COMMANDER_BACKEND: no module 'nothing'"),
        ("BACKEND", "mine:nothing", "COMMANDER_BACKEND: module 'mine' has no 'nothing'"),
        ("BACKEND", "mine:broken", "COMMANDER_BACKEND: mine:broken is no async generator function but int"),
        ("BACKEND", "mine:coroutine", "COMMANDER_BACKEND: mine:coroutine is a coroutine function"),
        ("BACKEND", "mine:plain", "COMMANDER_BACKEND: mine:plain is a plain generator function"),
        ("BACKEND", "mine:unasked", "COMMANDER_BACKEND: mine:unasked cannot be called with a Turn alone: too many"),
        ("BACKEND", "mine:asks_more", "cannot be called with a Turn alone: missing a required argument: 'model'"),
        ("BACKEND", "faulty:agent", "COMMANDER_BACKEND: module 'faulty' cannot be imported: ValueError: as written"),
        ("METRICS_ADDRESS", "nowhere", "COMMANDER_METRICS_ADDRESS: must be an address as host:port"),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_wrong_setting_is_one_line_and_exit_2(
    name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMMANDER_BACKEND", "mine:agent")
    monkeypatch.setenv(f"COMMANDER_{name}", value)
    assert cli.main(["serve"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert len(err.splitlines()) == 1


async def test_a_port_in_use_is_one_line_and_exit_2(folder: Path) -> None:
    async with FakeDispatcher().serving() as taken:
        address = f"127.0.0.1:{taken.port}"
        settings = {"COMMANDER_BACKEND": "mine:agent", "COMMANDER_METRICS_ADDRESS": address}
        async with commander(folder, "serve", settings=settings) as process:
            status, _, err = await output(process)
    assert status == 2
    assert err.startswith(f"COMMANDER_METRICS_ADDRESS: cannot listen on {address}: ")
    assert len(err.splitlines()) == 1


def metrics(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


async def test_serve_answers_metrics_before_it_has_joined_and_leaves_at_sigterm(folder: Path) -> None:
    async with FakeDispatcher().serving() as dispatcher:
        nobody = dispatcher.port
    settings = {
        "COMMANDER_BACKEND": "mine:agent",
        "COMMANDER_METRICS_ADDRESS": "127.0.0.1:0",
        "COMMANDER_DISPATCHER": f"127.0.0.1:{nobody}",
    }
    async with commander(folder, "serve", settings=settings) as process:
        assert process.stderr
        joining = json.loads(await asyncio.wait_for(process.stderr.readline(), 30))
        text = await asyncio.to_thread(metrics, f"127.0.0.1:{joining['metrics_port']}")
        for name in ("unacked_packets", "running_sessions", "resumes_total", "first_token_seconds_count"):
            assert f"commander_{name} 0.0" in text
        assert 'commander_tokens_total{type="input"} 0.0' in text
        assert "grpc_client_started_total{" in text
        process.send_signal(signal.SIGTERM)
        assert (await output(process))[0] == 0


async def test_run_over_a_real_stream(folder: Path, dispatcher: FakeDispatcher) -> None:
    settings = {"COMMANDER_BACKEND": "mine:agent", "COMMANDER_DISPATCHER": f"127.0.0.1:{dispatcher.port}"}
    async with commander(folder, "run", "hi", settings=settings) as process:
        peer = await asyncio.wait_for(dispatcher.peer(), 30)
        session_id = (await peer.next(records.Open))[0].session_id
        await peer.send(session_id, records.Welcome(0, 256, 262144))
        _, packet, _ = await peer.until(records.Content)
        await peer.send(session_id, records.Ack(packet.sequence))
        await soon(peer.half_closed())
        peer.end()
        assert (await output(process))[:2] == (0, "hello\n")

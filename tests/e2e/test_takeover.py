"""The sample agent's Commander is killed, or hangs, in mid-sentence: no word twice, and no second tool call."""

import contextlib
import signal
import time

import httpx2
import pytest

from tests.e2e.reading import Reader, ask
from tests.programs import commander, dispatcher

TOOL = '[[tool]]\nname = "note"\nkind = "local"\nuse = "tests.e2e.agents:note"\n'


@pytest.fixture
def server(tmp_path):
    (tmp_path / "tools.toml").write_text(TOOL)
    with dispatcher(
        tmp_path / "d.log",
        f"sqlite:///{tmp_path}/sessions.db",
        tools=str(tmp_path / "tools.toml"),
        grace_seconds="0.3",
        status_timeout_seconds="3",
    ) as server:
        yield server


def spoken(reader: Reader, text: str) -> None:
    deadline = time.monotonic() + 60
    while reader.text != text:
        assert time.monotonic() < deadline, reader.text
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("agent", "end", "text"),
    [
        ("sample", ("failed", "commander_lost"), "It is "),
        ("sample_continuing", ("finished", None), "It is sunny."),
    ],
)
def test_a_killed_commander(server, tmp_path, agent, end, text):
    url, effects = f"http://{server.http}", tmp_path / "effects"
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(commander(server.grpc, tmp_path / "c1.log", f"tests.e2e.agents:{agent}"))
        reader = Reader(url, ask(url, file=str(effects), seconds=600))
        spoken(reader, "It is ")
        stack.enter_context(commander(server.grpc, tmp_path / "c2.log", f"tests.e2e.agents:{agent}"))
        first.kill()
        reader.ended(60)
    assert (reader.final[0], reader.final[1].get("code"), reader.text) == (*end, text)
    assert effects.read_text() == "called\n"


@pytest.mark.faults
def test_a_commander_that_hangs_wakes_as_a_zombie(server, tmp_path):
    """SIGSTOP: its connection is answered by nobody but the kernel. Its successor has the session when it wakes."""
    url, effects = f"http://{server.http}", tmp_path / "effects"
    backend = "tests.e2e.agents:sample_continuing"
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(commander(server.grpc, tmp_path / "c1.log", backend, capacity="1"))
        reader = Reader(url, ask(url, file=str(effects), seconds=4))
        spoken(reader, "It is ")
        first.send_signal(signal.SIGSTOP)
        try:
            stack.enter_context(commander(server.grpc, tmp_path / "c2.log", backend))
            reader.ended(60)
        finally:
            first.send_signal(signal.SIGCONT)
        assert (reader.final[0], reader.text) == ("finished", "It is sunny.")
        first.wait_for(lambda event: event.get("event") == "session_closed")  # it is told, and stops by itself
        again = Reader(url, ask(url, file=str(effects), seconds=0))
        assert again.ended(60).text == "It is sunny."
        log = httpx2.get(f"http://{server.operator}/operator/sessions/{reader.session}/events", timeout=30).text
    assert log.count("event: content") == 2
    assert effects.read_text() == "called\n" * 2

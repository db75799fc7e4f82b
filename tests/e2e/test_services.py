"""Tools of another service, with real programs: what a stop, a kill and a rule make of a call that is under way."""

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Iterator

import httpx2
import pytest

from tests.dispatcher.tools.http.service import Service, Talk, answer
from tests.e2e.reading import Reader, ask
from tests.e2e.test_kill import addresses, wait_until
from tests.programs import commander, dispatcher

ACT = """
[[tool]]
name = "act"
kind = "http"
url = "{url}/act"
private = true
timeout_seconds = 60
schema = {{ type = "object", properties = {{ what = {{ type = "string" }} }}, required = ["what"] }}
"""


class Acting:
    """A service that acts once it is asked, and answers when it is let; at `url`, in a thread of its own."""

    def __init__(self) -> None:
        self.acted: Counter[str] = Counter()  # by the call's key
        self.let = threading.Event()
        self.answers = answer(b'"acted"')
        self.service = Service(self._act)
        self.url = ""

    @property
    def left(self) -> int:
        """Connections that were closed before they were answered."""
        return self.service.left

    async def _act(self, talk: Talk) -> None:
        self.acted[talk.seen.headers["idempotency-key"]] += 1
        closed = asyncio.create_task(talk.closed())
        while not self.let.is_set():
            await asyncio.wait({closed}, timeout=0.01)
            if closed.done():
                raise ConnectionError
        closed.cancel()
        await self.answers(talk)

    @contextlib.contextmanager
    def running(self) -> Iterator["Acting"]:
        loop, up, down = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

        async def serve() -> None:
            async with self.service.at() as service:
                self.url = service.url
                up.set()
                await down.wait()

        thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
        thread.start()
        assert up.wait(10)
        try:
            yield self
        finally:
            self.let.set()
            loop.call_soon_threadsafe(down.set)
            thread.join(10)
            loop.close()


@pytest.fixture
def service() -> Iterator[Acting]:
    with Acting().running() as acting:
        yield acting


@pytest.fixture
def tools(tmp_path, service):
    file = tmp_path / "tools.toml"
    file.write_text(ACT.format(url=service.url))
    return file


def test_a_stop_reaches_the_service(tmp_path, service, tools):
    with (
        dispatcher(tmp_path / "d.log", tools=str(tools)) as server,
        commander(server.grpc, tmp_path / "c.log", "tests.e2e.agents:acting"),
    ):
        url = f"http://{server.http}"
        reader = Reader(url, ask(url))
        wait_until(lambda: service.acted)
        httpx2.post(f"{url}/v1/sessions/{reader.session}/stop").raise_for_status()
        wait_until(lambda: service.left == 1)
        assert reader.ended(60).final == ("stopped", {"reason": "UserCancel"})
        assert [*service.acted.values()] == [1]


def test_a_call_runs_once_though_its_dispatcher_is_killed(tmp_path, service, tools):
    settings = {"store": f"sqlite:///{tmp_path}/sessions.db", "tools": str(tools), **addresses()}
    with contextlib.ExitStack() as stack:
        current = stack.enter_context(contextlib.ExitStack())
        server = current.enter_context(dispatcher(tmp_path / "d0.log", **settings))
        stack.enter_context(commander(server.grpc, tmp_path / "c.log", "tests.e2e.agents:acting"))
        reader = Reader(f"http://{server.http}", ask(f"http://{server.http}"))
        wait_until(lambda: service.acted)
        server.program.kill()
        current.close()
        current.enter_context(dispatcher(tmp_path / "d1.log", **settings))
        assert reader.ended(60).final[0] == "finished"
        assert reader.text.startswith("UNKNOWN_OUTCOME"), "the agent is told that it cannot be known"
        assert [*service.acted.values()] == [1]
        service.let.set()
        again = Reader(f"http://{server.http}", ask(f"http://{server.http}")).ended(60)
        assert again.text == "acted"
        assert [*service.acted.values()] == [1, 1], "another call has another key"


def test_a_rule_reads_what_a_service_says(tmp_path, service, tools):
    """Its refusals, too."""
    rules = tmp_path / "rules.toml"
    rules.write_text('[[policy]]\nname = "results"\nkind = "phrases"\nphrases = ["Nightingale"]\nreads = ["results"]\n')
    service.let.set()
    with (
        dispatcher(tmp_path / "d.log", tools=str(tools), policies=str(rules)) as server,
        commander(server.grpc, tmp_path / "c.log", "tests.e2e.agents:acting"),
    ):
        url = f"http://{server.http}"
        service.answers = answer(b"Project Nightingale", "text/plain", "404 Not Found")
        denied = Reader(url, ask(url)).ended(60)
        assert denied.final == ("stopped", {"reason": "PolicyViolation"})
        assert "ightingale" not in denied.text
        assert "ightingale" not in (tmp_path / "d.log").read_text()


def test_changed_tools_are_there_for_new_sessions_and_a_call_ends_as_it_began(tmp_path, service, tools):
    with (
        dispatcher(tmp_path / "d.log", tools=str(tools)) as server,
        commander(server.grpc, tmp_path / "c.log", "tests.e2e.agents:acting"),
    ):
        url = f"http://{server.http}"
        running = Reader(url, ask(url))
        wait_until(lambda: service.acted)
        tools.write_text(ACT.format(url="http://127.0.0.1:1") + ACT.format(url=service.url).replace('"act"', '"other"'))
        server.program.wait_for(lambda event: event.get("event") == "tools_reloaded")
        changed = Reader(url, ask(url)).ended(60)
        assert "unreachable" in changed.text
        service.let.set()
        assert running.ended(60).text == "acted"
        tools.write_text("[[tool]]")
        broken = server.program.wait_for(lambda event: event.get("event") == "tools_broken")
        assert "`kind` is missing" in broken["errors"]
        metrics = httpx2.get(f"http://{server.operator}/metrics").text
        assert "dispatcher_tool_reload_success 0.0" in metrics
        assert 'dispatcher_tool_calls_running{tool="act"} 0.0' in metrics
        assert 'dispatcher_tool_calls_total{status="OK",tool="other"} 0.0' in metrics

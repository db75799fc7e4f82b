"""A real Chromium's EventSource reads a session, comes back after breaks, and stops after the end.

The page lies on another origin than the gateway, as an application's would.
"""

import asyncio
import math
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dispatcher.access.rules import AccessKey, AccessRules, Caller, digest_of
from dispatcher.access.watch import Access
from dispatcher.gateway.app import user_app
from dispatcher.metrics import Metrics
from dispatcher.settings import DispatcherSettings
from tests.dispatcher.gateway.fakes import FakeSessions
from tests.e2e.browser import Page, browsing, serving
from tests.shared.documents import CLIENTS, blocks

PAGE = """<!doctype html><title>reader</title><script>
let sent = Promise.resolve();  // one after the other: parallel requests could overtake each other
const report = (what) => sent = sent.then(() => fetch("/report", {method: "POST", body: JSON.stringify(what)}));
const source = new EventSource(new URLSearchParams(location.search).get("events"));
for (const name of ["content", "tool_call", "tool_result", "stopped", "failed", "finished", "reset", "message"])
  source.addEventListener(name, (event) => report({name, id: event.lastEventId, data: JSON.parse(event.data)}));
source.onerror = () => report({name: "onerror", state: source.readyState});
</script>"""


EXAMPLE = """<!doctype html><title>example</title><script>
const report = (what) => fetch("/report", {method: "POST", body: JSON.stringify(what)});
const show = (text) => report({text}), stopButton = {};
</script><script type="module">
%s
source.addEventListener("content", () => stopButton.onclick());
source.addEventListener("stopped", (event) => report(JSON.parse(event.data)));
</script>"""


class Recorder:
    """Requests to the gateway as they pass: (Last-Event-ID, status)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.seen: list[tuple[str | None, int]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        last_event_id = dict(scope["headers"]).get(b"last-event-id")

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.seen.append((last_event_id and last_event_id.decode(), message["status"]))
            await send(message)

        await self._app(scope, receive, sending)


@pytest.fixture
async def sessions() -> FakeSessions:
    return FakeSessions()


@pytest.fixture
async def page() -> AsyncIterator[tuple[Page, str]]:
    page = Page()
    async with serving(page.app) as port:
        yield page, f"http://127.0.0.1:{port}"


@pytest.fixture
def access() -> Access:
    return Access(None)


@pytest.fixture
async def gateway(
    sessions: FakeSessions, page: tuple[Page, str], access: Access
) -> AsyncIterator[tuple[Recorder, str]]:
    settings = DispatcherSettings(cors_origins=(page[1],))
    recorder = Recorder(user_app(sessions, settings, Metrics(CollectorRegistry()), access))
    async with serving(recorder) as port:
        yield recorder, f"http://127.0.0.1:{port}"
        sessions.closing.set()


async def test_an_event_source_reads_comes_back_and_stops(
    sessions: FakeSessions, page: tuple[Page, str], gateway: tuple[Recorder, str], tmp_path: Path
) -> None:
    (reader, page_url), (recorder, url) = page, gateway
    reader.text = PAGE
    commander = await sessions.begin()

    async def report() -> dict[str, Any]:
        reported: dict[str, Any] = await reader.reports.get()
        return reported

    async with (
        browsing(f"{page_url}/?events={url}/v1/sessions/{commander.session_id}/events", tmp_path),
        asyncio.timeout(50),
    ):
        await commander.think("SECRET")
        await commander.say("Hello, ")
        assert await report() == {"name": "content", "id": "3", "data": {"text": "Hello, "}}
        await commander.call()
        call = await report()
        assert call["name"] == "tool_call"

        sessions.closing.set()  # the stream ends in the middle
        assert await report() == {"name": "onerror", "state": 0}  # CONNECTING
        sessions.closing.clear()
        await commander.answer(result='{"secret": 1}')
        await commander.say("world")
        await commander.finish()
        result, content, finished = [await report() for _ in range(3)]
        assert result["data"] == {"call_id": "call-1", "tool_name": "search", "status": "OK"}
        assert content["data"] == {"text": "world"}
        assert finished == {"name": "finished", "id": "7", "data": {"finish_reason": "stop", "usage": None}}

        assert await report() == {"name": "onerror", "state": 0}  # the server has ended the stream
        assert await report() == {"name": "onerror", "state": 2}  # CLOSED, by 204
    assert recorder.seen == [(None, 200), (call["id"], 200), ("7", 204)]
    assert reader.reports.empty()


@pytest.mark.parametrize("key", ["", "mst_web"], ids=["open", "with a key"])
async def test_the_example_of_the_documents_from_a_page_that_cors_names(
    sessions: FakeSessions,
    page: tuple[Page, str],
    gateway: tuple[Recorder, str],
    access: Access,
    tmp_path: Path,
    key: str,
) -> None:
    """With a key its `EventSource` reads by the ticket."""
    (shown, page_url), (_, url) = page, gateway
    example = blocks(CLIENTS, "js")[0].replace("session.events", f'"{url}" + session.events')
    if key:
        user = Caller("user", "web", "acme")
        access.rules = AccessRules((AccessKey(user, digest_of(key.encode()), math.inf),))
        example = example.replace('"application/json" }', f'"application/json", authorization: "Bearer {key}" }}')
        assert key in example
    shown.text = EXAMPLE % re.sub(r'fetch\((["`])', rf"fetch(\1{url}", example)
    async with browsing(page_url, tmp_path), asyncio.timeout(50):
        commander = await sessions.begin(await sessions.created.get())
        await commander.say("Once")
        assert await shown.reports.get() == {"text": "Once"}
        assert await sessions.stops.get() == (commander.session_id, "UserCancel", "user", "")
        assert await shown.reports.get() == {"reason": "UserCancel"}

"""A real Chromium, lured to a foreign page, tries what changes something here."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from prometheus_client import CollectorRegistry

from dispatcher.access.watch import Access
from dispatcher.app import Dispatcher, start
from dispatcher.gateway.app import operator_app, user_app
from dispatcher.metrics import Metrics
from dispatcher.settings import DispatcherSettings
from tests.dispatcher.gateway.fakes import FakeSessions
from tests.e2e.browser import Page, browsing, serving

EVIL = "--host-resolver-rules=MAP evil.example 127.0.0.1"

PAGE = """<!doctype html><title>page</title><body><script>
const report = (what) => fetch(REPORTS, {method: "POST", mode: "no-cors", body: JSON.stringify(what)});
const tried = (answer) => answer.then((got) => got.type === "opaque" ? "opaque" : got.status, () => "none");
"""

# Each in turn. "none": the browser gives the page no answer; what became of it is told by the Dispatcher.
ATTACKS = """
(async () => {
  const plain = {method: "POST", body: '{"prompt": "hi"}', headers: {"content-type": "text/plain"}};
  const said = {};
  said.plain = await tried(fetch(USERS + "/v1/sessions", plain));
  said.opaque = await tried(fetch(USERS + "/v1/sessions", {...plain, mode: "no-cors"}));
  said.typeless = await tried(fetch(USERS + "/v1/sessions", {method: "POST", body: new Blob(['{"prompt": "hi"}'])}));
  said.json = await tried(fetch(USERS + "/v1/sessions", {...plain, headers: {"content-type": "application/json"}}));
  said.beacon = navigator.sendBeacon(USERS + "/v1/sessions", '{"prompt": "hi"}');
  said.hidden = await tried(fetch(STOP, {method: "POST", mode: "no-cors", referrerPolicy: "no-referrer"}));
  said.stop = await tried(fetch(STOP, {method: "POST"}));
  said.operator = await tried(fetch(OPERATOR_STOP, {method: "POST", mode: "no-cors"}));
  for (const [n, action] of [STOP, OPERATOR_STOP].entries())
    for (const enctype of ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data"]) {
      const [frame, form] = [document.createElement("iframe"), document.createElement("form")];
      Object.assign(frame, {name: `f${n}${enctype}`});
      Object.assign(form, {method: "post", action, enctype, target: frame.name});
      document.body.append(frame, form);
      await new Promise((loaded) => { frame.onload = loaded; form.submit(); });
    }
  await report(said);
})();
</script>"""

# It has the address that it came from, and waits for another server to be there.
REBOUND = """
(async () => {
  await report("open");
  let read;
  do {
    await new Promise((later) => setTimeout(later, 50));
    read = await tried(fetch("/operator/sessions"));
  } while (read === "none" || read === 404);
  const stop = await tried(fetch(STOP, {method: "POST", headers: {"content-type": "application/json"}, body: "{}"}));
  await report({read, stop});
})();
</script>"""


def of(script: str, **names: str) -> str:
    """The page with that script, in which these names are known."""
    return PAGE + "".join(f"const {name} = {json.dumps(value)};" for name, value in names.items()) + script


@asynccontextmanager
async def showing() -> AsyncIterator[tuple[Page, int]]:
    """The page, and the port that it is on."""
    page = Page()
    async with serving(page.app) as port:
        yield page, port


@asynccontextmanager
async def running(store: str, operator_address: str = "127.0.0.1:0") -> AsyncIterator[Dispatcher]:
    settings = DispatcherSettings(
        grpc_address="127.0.0.1:0", http_address="127.0.0.1:0", operator_address=operator_address, store=store
    )
    dispatcher = await start(settings)
    yield dispatcher
    await dispatcher.close()


async def created(dispatcher: Dispatcher) -> str:
    async with httpx2.AsyncClient() as client:
        answer = await client.post(
            f"http://127.0.0.1:{dispatcher.http_port}/v1/sessions",
            json={"prompt": "hi"},
            headers={"Idempotency-Key": "a key of the user's own"},  # then it waits, though no agent is offered
        )
    session_id: str = answer.raise_for_status().json()["session_id"]
    return session_id


async def all_sessions(dispatcher: Dispatcher) -> list[tuple[str, str]]:
    async with httpx2.AsyncClient() as client:
        answer = await client.get(
            f"http://127.0.0.1:{dispatcher.operator_port}/operator/sessions",
            params={"state": ["waiting", "running", "finished", "stopped", "failed"]},
        )
    return [(session["session_id"], session["state"]) for session in answer.raise_for_status().json()["sessions"]]


@pytest.mark.parametrize("name", ["evil.example", "127.0.0.1", "localhost"])
async def test_a_foreign_page_starts_and_stops_nothing(tmp_path: Path, name: str) -> None:
    """On another site, and on another port of the machine, which to browsers is one site with it."""
    sessions, registry = FakeSessions(), CollectorRegistry()
    session_id = (await sessions.begin()).session_id
    metrics = Metrics(registry)
    user_side = user_app(sessions, DispatcherSettings(), metrics, Access(None))
    async with (
        showing() as (page, port),
        serving(user_side) as users_port,
        serving(operator_app(sessions, registry, metrics, Access(None))) as operators_port,
    ):
        users, operators = f"http://127.0.0.1:{users_port}", f"http://127.0.0.1:{operators_port}"
        page.text = of(
            ATTACKS,
            REPORTS=f"http://{name}:{port}/report",
            USERS=users,
            STOP=f"{users}/v1/sessions/{session_id}/stop",
            OPERATOR_STOP=f"{operators}/operator/sessions/{session_id}/stop",
        )
        async with browsing(f"http://{name}:{port}/", tmp_path, EVIL), asyncio.timeout(50):
            said = await page.reports.get()
    assert sessions.created.empty()
    assert sessions.stops.empty()
    unread = dict.fromkeys(("plain", "typeless", "json", "stop"), "none")
    assert said == {**unread, **dict.fromkeys(("opaque", "hidden", "operator"), "opaque"), "beacon": True}


async def test_a_name_that_is_pointed_here_reads_and_stops_nothing(tmp_path: Path) -> None:
    """A page's server gives its port to the Dispatcher: to the browser the same as a name that moves, one origin."""
    store = f"sqlite:///{tmp_path}/sessions.db"
    async with running(store) as dispatcher:
        session_id = await created(dispatcher)
    async with showing() as (reporting, reports_port), AsyncExitStack() as stack:
        async with showing() as (page, port):
            page.text = of(
                REBOUND,
                REPORTS=f"http://127.0.0.1:{reports_port}/report",
                STOP=f"/operator/sessions/{session_id}/stop",
            )
            await stack.enter_async_context(browsing(f"http://evil.example:{port}/", tmp_path, EVIL))
            async with asyncio.timeout(50):
                assert await reporting.reports.get() == "open"
        async with running(store, f"127.0.0.1:{port}") as dispatcher, asyncio.timeout(50):
            assert await reporting.reports.get() == {"read": 421, "stop": 421}
            assert await all_sessions(dispatcher) == [(session_id, "waiting")]

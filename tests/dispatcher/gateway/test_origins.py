"""What pages of other origins may not do; tests/e2e/test_foreign_page.py has a real browser try."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from prometheus_client import CollectorRegistry

from dispatcher.access.watch import Access
from dispatcher.gateway.app import user_app
from dispatcher.gateway.server import HttpServer, bind
from dispatcher.metrics import Metrics
from dispatcher.settings import DispatcherSettings
from tests.dispatcher.gateway.fakes import Commander, FakeSessions
from tests.dispatcher.gateway.test_sessions import check_error
from tests.gateway_routes import routes

NAMED = "https://app.example"  # in `settings`, whose origins may read
FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://localhost:1"},  # another port of the machine
    {"Origin": "https://app.example.evil.example"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "anything"},
]


OPERATORS = "/operator/"


def changing(commander: Commander, *, operator: bool = False) -> list[tuple[str, str]]:
    """(method, path) of each route that changes something, for this session, and of one that is not there."""
    session_id = commander.session_id
    ids = {"session_id": session_id, "call_id": "c", "response_id": f"resp_{session_id}", "hold_id": "h"}
    found = [(method, path.format_map(ids)) for method, path in routes() if method != "GET"]
    return [each for each in [*found, ("POST", "/nowhere")] if each[1].startswith(OPERATORS) == operator]


def refusals(registry: CollectorRegistry, kind: str) -> float | None:
    return registry.get_sample_value("dispatcher_refusals_total", {"edge": "http", "kind": kind})


@pytest.mark.parametrize("headers", FOREIGN)
async def test_a_foreign_page_changes_nothing(
    http: httpx2.AsyncClient, sessions: FakeSessions, registry: CollectorRegistry, headers: dict[str, str]
) -> None:
    commander = await sessions.begin()
    asked = changing(commander)
    for method, path in asked:
        answer = await http.request(method, path, json={"prompt": "hi"}, headers=headers)
        assert check_error(answer, 403, "Origin")["code"] == "origin_not_allowed", path
    assert len(asked) > 8
    assert refusals(registry, "origin_not_allowed") == len(asked)
    assert sessions.created.empty()
    assert (await http.get(f"/v1/sessions/{commander.session_id}")).json()["state"] == "running"


@pytest.mark.parametrize("headers", [*FOREIGN, {"Origin": NAMED}])  # which is named for users alone
async def test_a_foreign_page_changes_nothing_at_the_operators(
    operator: httpx2.AsyncClient, sessions: FakeSessions, registry: CollectorRegistry, headers: dict[str, str]
) -> None:
    commander = await sessions.begin()
    asked = changing(commander, operator=True)
    for method, path in asked:
        answer = await operator.request(method, path, headers=headers)
        assert check_error(answer, 403, "Origin")["code"] == "origin_not_allowed", path
    assert refusals(registry, "origin_not_allowed") == len(asked) > 1
    assert (await operator.get(f"{OPERATORS}sessions/{commander.session_id}")).json()["state"] == "running"


async def test_who_is_no_foreign_page_goes_on(http: httpx2.AsyncClient, url: str) -> None:
    for headers in (
        {},
        {"Origin": NAMED},
        {"Origin": NAMED, "Sec-Fetch-Site": "cross-site"},
        {"Origin": url},
        {"Origin": url.replace("http:", "https:")},  # a proxy has taken TLS off
        {"Origin": "https://behind.a.proxy", "Sec-Fetch-Site": "same-origin"},  # which says another Host
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Mode": "cors"},  # Node's fetch
    ):
        assert (await http.post("/v1/sessions", json={"prompt": "hi"}, headers=headers)).status_code == 201, headers
    for origin in ("https://evil.example", "null"):  # what it gets it cannot read
        answer = await http.get("/v1/models", headers={"Origin": origin, "Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers


async def test_any_page_may_where_any_is_named(sessions: FakeSessions) -> None:
    async with serving(sessions, "*") as url, httpx2.AsyncClient() as client:
        for headers in FOREIGN:
            answer = await client.post(f"{url}/v1/sessions", json={"prompt": "hi"}, headers=headers)
            assert answer.status_code == 201, headers


@asynccontextmanager
async def serving(sessions: FakeSessions, *origins: str) -> AsyncIterator[str]:
    app = user_app(sessions, DispatcherSettings(cors_origins=origins), Metrics(CollectorRegistry()), Access(None))
    server = HttpServer(app, bind("TEST", "127.0.0.1:0"))
    await server.start()
    yield f"http://127.0.0.1:{server.port}"
    await server.close()


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "text/plain;charset=UTF-8",
        "text/plain; application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/merge-patch+json",
        "application/jsonp",
        "application/json, text/plain",
        "",
    ],
)
@pytest.mark.parametrize("headers", [{}, {"Origin": NAMED}])
async def test_a_body_that_a_form_could_send_is_refused(
    http: httpx2.AsyncClient, operator: httpx2.AsyncClient, sessions: FakeSessions, kind: str, headers: dict[str, str]
) -> None:
    commander = await sessions.begin()
    asked = [(http, each) for each in changing(commander)]
    asked += [(operator, each) for each in changing(commander, operator=True)]
    for client, (method, path) in asked:
        said = {"Content-Type": kind, **(headers if client is http else {})}  # operators' pages have no other origin
        for content in (b'{"prompt": "hi"}', b""):  # an empty form is one too
            answer = await client.request(method, path, content=content, headers=said)
            assert check_error(answer, 415, "Content-Type")["code"] == "unsupported_media_type", path
    assert sessions.created.empty()
    assert (await http.get(f"/v1/sessions/{commander.session_id}")).json()["state"] == "running"


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON ; charset=utf-8", "application/json;x=y", None])
async def test_json_is_taken_and_so_is_what_says_nothing(http: httpx2.AsyncClient, kind: str | None) -> None:
    headers = {"Content-Type": kind} if kind else {}
    assert (await http.post("/v1/sessions", content=b'{"prompt": "hi"}', headers=headers)).status_code == 201


async def test_every_answer_says_how_a_browser_is_to_take_it(
    http: httpx2.AsyncClient, operator: httpx2.AsyncClient, sessions: FakeSessions
) -> None:
    commander = await sessions.begin()
    await commander.finish()
    for answer in (
        await http.get("/"),
        await http.get("/nowhere"),
        await http.post("/v1/sessions", content=b"{"),
        await http.get(f"/v1/sessions/{commander.session_id}/events"),
        await http.options("/v1/sessions", headers={"Origin": NAMED, "Access-Control-Request-Method": "POST"}),
        await operator.get("/metrics"),
        await http.get("/", headers={"x": "y" * 40_000}),  # refused by the connection
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"


async def test_a_compressed_body_is_refused(
    http: httpx2.AsyncClient, operator: httpx2.AsyncClient, sessions: FakeSessions
) -> None:
    for client, path in ((http, "/v1/sessions"), (http, "/v1/chat/completions"), (operator, "/operator/stop")):
        for coding in ("gzip", "br"):
            answer = await client.post(path, content=b"\x1f\x8b", headers={"Content-Encoding": coding})
            assert check_error(answer, 415, "Content-Encoding")["code"] == "unsupported_media_type", path
    plain = await http.post("/v1/sessions", json={"prompt": "hi"}, headers={"Content-Encoding": "Identity"})
    assert plain.status_code == 201
    assert sessions.created.qsize() == 1

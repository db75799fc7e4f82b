"""Tickets: how long, for what, and how a page that came by one comes back."""

import asyncio
import math
import time
from collections.abc import AsyncIterator

import httpx2
import pytest
from msgspec.structs import replace

from dispatcher.access.rules import AccessKey, AccessRules, Caller, digest_of
from dispatcher.access.watch import Access
from dispatcher.core.log import Head, Record, Request
from dispatcher.core.tokens import reading_token
from dispatcher.gateway import sse
from dispatcher.gateway.app import user_app
from dispatcher.gateway.server import HttpServer, bind
from dispatcher.gateway.tickets import TICKET_SECONDS
from dispatcher.metrics import Metrics
from dispatcher.settings import DispatcherSettings
from dispatcher.store.ports import StoreUnavailable
from shared.records import Message
from tests.dispatcher.gateway.fakes import FakeSessions

KEY = {"Authorization": "Bearer mst_web"}
PAGE = {"Accept": "text/event-stream"}  # as every EventSource asks
RULES = AccessRules((AccessKey(Caller("user", "web", "acme"), digest_of(b"mst_web"), math.inf),))


async def age(sessions: FakeSessions, session_id: str, seconds: float) -> None:
    """As if the session had been made so long ago."""
    record = await sessions.store.load(session_id)
    assert record
    request = replace(record.request, created_at=time.time() - seconds)
    sessions.store._records[session_id] = replace(record, request=request)  # type: ignore[attr-defined]


@pytest.fixture
def access() -> Access:
    return Access(RULES)


@pytest.fixture
async def url(sessions: FakeSessions, access: Access, metrics: Metrics) -> AsyncIterator[str]:
    server = HttpServer(user_app(sessions, DispatcherSettings(), metrics, access), bind("TEST", "127.0.0.1:0"))
    await server.start()
    yield f"http://127.0.0.1:{server.port}"
    sessions.closing.set()
    await server.close()


async def made(http: httpx2.AsyncClient) -> tuple[str, str]:
    """A session's id, and the address of its events."""
    answer = await http.post("/v1/sessions", json={"prompt": "hi"}, headers=KEY)
    return answer.json()["session_id"], answer.json()["events"]


async def test_a_page_reads_and_comes_back(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    """Also long after the ticket's minute, by the ids of what it got; before the first event too."""
    session_id, events = await made(http)
    commander = await sessions.begin(session_id)
    came = asyncio.Event()
    ids: list[str] = []

    async def reading() -> None:
        async with http.stream("GET", events, headers=PAGE) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("id: "):
                    ids.append(line[4:])
                    came.set()

    page = asyncio.create_task(reading())
    async with asyncio.timeout(30):
        await came.wait()
    await commander.say("Once")
    await commander.finish()
    async with asyncio.timeout(30):
        await page
    assert [each.partition(".")[0] for each in ids] == ["0", "2", "3"]
    await age(sessions, session_id, TICKET_SECONDS)
    assert (await http.get(events, headers=PAGE)).status_code == 401
    whole = await http.get(events, headers=PAGE | {"Last-Event-ID": ids[0]})
    assert b"Once" in whole.content
    assert whole.content.endswith(b"\n\n")
    assert b"Once" not in (await http.get(events, headers=PAGE | {"Last-Event-ID": ids[1]})).content
    assert (await http.get(events, headers=PAGE | {"Last-Event-ID": ids[2]})).status_code == 204


async def test_it_opens_for_a_minute(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    session_id, events = await made(http)
    await (await sessions.begin(session_id)).finish()
    for seconds, status in ((TICKET_SECONDS - 30, 204), (TICKET_SECONDS, 401)):
        await age(sessions, session_id, seconds)
        assert (await http.get(f"{events}&after=2", headers=PAGE)).status_code == status


async def test_neither_is_good_for_the_other_nor_for_another_session(
    http: httpx2.AsyncClient, sessions: FakeSessions
) -> None:
    (own, events), (other, others) = await made(http), await made(http)
    for each in (own, other):
        await (await sessions.begin(each)).finish()
    ids = {
        name: next(line[4:] for line in (await http.get(address)).text.splitlines() if line.startswith("id: "))
        for name, address in (("own", events), ("others", others))
    }
    path, _, ticket = events.partition("?ticket=")
    resumption, foreign = ids["own"].partition(".")[2], others.partition("=")[2]
    for shown in ("", resumption, foreign, ticket[:-1], ticket + "A", ticket.swapcase(), "\u00e9"):
        assert (await http.get(path, params={"ticket": shown})).status_code == 401, shown
    assert (await http.get(f"{path}?ticket={ticket}&ticket={ticket}")).status_code == 401
    for each in (own, other):
        await age(sessions, each, TICKET_SECONDS)
    for last_id in ("3", f"3.{ticket}", ids["others"], ids["own"] + "A", "", "3.\u00e9"):
        answer = await http.get(events, headers={b"Last-Event-ID": last_id.encode()})
        assert answer.status_code == 401, last_id
    assert (await http.get(events, headers={"Last-Event-ID": f"x.{resumption}"})).status_code == 400


@pytest.mark.parametrize("key", [None, replace(RULES.keys[0], expires_at=0.0)])
async def test_a_key_that_is_gone_leaves_no_ticket_behind(
    http: httpx2.AsyncClient, sessions: FakeSessions, access: Access, key: AccessKey | None
) -> None:
    session_id, events = await made(http)
    await (await sessions.begin(session_id)).finish()
    assert (await http.get(events)).status_code == 200
    access.rules = AccessRules((key,) if key else ())
    assert (await http.get(events)).status_code == 401


async def test_a_session_that_a_commander_brought_has_none(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    """Its tenant is nobody's, and there is no secret: what is made of an empty one can be known by all."""
    request = Request("default", (Message("user", "hi"),), time.time(), tenant="acme", subject="web")
    await sessions.store.create(Record("brought", request, Head(since=time.time())))
    ticket = reading_token(b"", "brought", "connect")
    assert (await http.get(f"/v1/sessions/brought/events?ticket={ticket}")).status_code == 401


async def test_where_access_is_open_there_is_none(
    http: httpx2.AsyncClient, sessions: FakeSessions, access: Access
) -> None:
    access.rules = None
    session_id, events = await made(http)
    assert events == f"/v1/sessions/{session_id}/events"
    await (await sessions.begin(session_id)).finish()
    assert (await http.get(f"{events}?ticket=any")).status_code == 200


async def test_a_page_that_comes_while_the_store_is_away_comes_again(
    http: httpx2.AsyncClient, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, events = await made(http)

    async def unavailable(*_: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(sessions.store, "brief", unavailable)
    answer = await http.get(events, headers=PAGE)
    assert (answer.status_code, answer.content) == (200, sse.RETRY)

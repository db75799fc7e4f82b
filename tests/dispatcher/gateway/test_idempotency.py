"""`Idempotency-Key` on OpenAI's routes; on the native one `test_sessions.py` tries it."""

import asyncio
from typing import Any

import httpx2
import pytest

from tests.dispatcher.gateway.fakes import FakeSessions
from tests.dispatcher.gateway.test_sessions import KEY, check_error

KEYED = {"Idempotency-Key": KEY}
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "default", "messages": [{"role": "user", "content": "hi"}]},
    "/v1/responses": {"model": "default", "input": "hi"},
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("route", ASKED)
async def test_the_same_again_gets_the_same_answer(
    http: httpx2.AsyncClient, sessions: FakeSessions, route: str, stream: bool
) -> None:
    body = ASKED[route] | {"stream": stream}
    asking = [asyncio.create_task(http.post(route, json=body, headers=KEYED)) for _ in range(2)]
    commander = await sessions.begin(await sessions.created.get())
    await commander.say("one ", "two")
    await commander.finish()
    first, meanwhile = [await each for each in asking]
    after = await http.post(route, json=body, headers=KEYED)
    assert first.status_code == 200
    assert sessions.created.empty()
    if stream:  # what one reads at once another may get in pieces
        assert meanwhile.text.count("one ") == first.text.count("one ")
    else:
        assert first.content == meanwhile.content == after.content


@pytest.mark.parametrize("route", ASKED)
async def test_another_request_under_the_key_is_refused(
    http: httpx2.AsyncClient, sessions: FakeSessions, route: str
) -> None:
    asking = asyncio.create_task(http.post(route, json=ASKED[route], headers=KEYED))
    commander = await sessions.begin(await sessions.created.get())
    await commander.finish()
    await asking
    (other,) = ASKED.keys() - {route}
    changed = [ASKED[route] | {"stream": True}]
    changed.append(ASKED[route] | ({"input": "ho"} if "input" in ASKED[route] else {"tool_choice": None, "seed": 1}))
    for again in changed:
        refused = await http.post(route, json=again, headers=KEYED)
        assert check_error(refused, 422, "Idempotency-Key")["code"] == "idempotency_key_reused"
    assert (await http.post(other, json=ASKED[other], headers=KEYED)).status_code == 422
    assert sessions.created.empty()


@pytest.mark.parametrize("route", ASKED)
async def test_who_may_ask_again_stops_nothing_by_leaving(
    url: str, http: httpx2.AsyncClient, sessions: FakeSessions, route: str
) -> None:
    """Its connection may have been lost, and what was said by then would look like the answer."""
    async with (
        httpx2.AsyncClient(base_url=url) as leaving,
        leaving.stream("POST", route, json=ASKED[route] | {"stream": True}, headers=KEYED) as answer,
    ):
        commander = await sessions.begin(await sessions.created.get())
        await commander.say("one ")
        await anext(answer.aiter_raw())
    await commander.say("two")
    await commander.finish()
    again = await http.post(route, json=ASKED[route] | {"stream": True}, headers=KEYED)
    assert "one " in again.text
    assert "two" in again.text
    assert sessions.stops.empty()


@pytest.mark.parametrize("route", ASKED)
@pytest.mark.parametrize("key", ["short", "k" * 256])
async def test_a_key_that_is_none(http: httpx2.AsyncClient, route: str, key: str) -> None:
    answer = await http.post(route, json=ASKED[route], headers={"Idempotency-Key": key})
    check_error(answer, 400, "Idempotency-Key")


async def test_what_is_not_stored_cannot_be_given_again(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    answer = await http.post("/v1/responses", json=ASKED["/v1/responses"] | {"store": False}, headers=KEYED)
    check_error(answer, 400, "Idempotency-Key")
    assert sessions.created.empty()

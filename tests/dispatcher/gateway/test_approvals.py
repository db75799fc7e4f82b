"""Calls that wait for an approval: as users see them, as both decide on them, as operators find them."""

import asyncio
import json
from contextlib import aclosing

import httpx2
import pytest

from dispatcher.core.entries import Call, Decision, StopEntry
from dispatcher.gateway import approvals
from tests.dispatcher.gateway.fakes import Commander, FakeSessions
from tests.dispatcher.gateway.test_events import path, read, stream
from tests.logs import read_all

ARGUMENTS = '{"city":"Zürich","days":2}'
Answer = tuple[int, str | None]


async def post(
    client: httpx2.AsyncClient,
    commander: Commander,
    digest: str,
    decision: str = "approve",
    call_id: str = "call-1",
    **more: object,
) -> Answer:
    """Status and the error's code, if it is one. The client: a user's or an operator's, which its address tells."""
    body = {"decision": decision, "arguments_sha256": digest, **more}
    of = f"sessions/{commander.session_id}/calls/{call_id}/decision"
    answer = await client.post(f"/v1/{of}", json=body)
    if answer.status_code == 404 and answer.json()["error"]["code"] == "not_found":
        answer = await client.post(f"/operator/{of}", json=body)
    return answer.status_code, None if answer.is_success else answer.json()["error"]["code"]


@pytest.fixture(params=["user", "operator"])
def either(
    request: pytest.FixtureRequest, http: httpx2.AsyncClient, operator: httpx2.AsyncClient
) -> httpx2.AsyncClient:
    return http if request.param == "user" else operator


async def decisions(sessions: FakeSessions, commander: Commander) -> list[Decision]:
    entries = await read_all(sessions.store, commander.session_id)
    return [entry.body for entry in entries if isinstance(entry.body, Decision)]


async def test_a_user_sees_what_is_asked_and_then_the_call(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    commander = await sessions.begin()
    reading = asyncio.create_task(read(http, path(commander)))
    digest = await commander.ask_approval(ARGUMENTS)
    assert await post(http, commander, digest) == (202, None)
    await commander.start_call()
    await commander.answer()
    await commander.finish()
    asked, call, result, end = await reading
    assert (asked.event, call.event, result.event, end.event) == ("approval", "tool_call", "tool_result", "finished")
    assert asked.data.pop("expires_at")
    assert asked.data == {
        "call_id": "call-1",
        "tool_name": "search",
        "arguments": {"city": "Zürich", "days": 2},
        "arguments_sha256": digest,
    }
    assert call.data == {"call_id": "call-1", "tool_name": "search", "status": "RUNNING"}


async def test_of_what_operators_decide_a_user_sees_no_arguments(
    http: httpx2.AsyncClient, operator: httpx2.AsyncClient, sessions: FakeSessions
) -> None:
    commander = await sessions.begin()
    digest = await commander.ask_approval(ARGUMENTS, approval="operator")
    async for event in stream(http, path(commander)):
        assert (event.event, set(event.data)) == (
            "approval",
            {"call_id", "tool_name", "arguments_sha256", "expires_at"},
        )
        break
    assert await post(http, commander, digest) == (409, "operator_decides")
    assert await post(operator, commander, digest) == (202, None)


async def test_resuming_at_every_id_brings_the_same_bytes(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    commander = await sessions.begin()
    digest = await commander.ask_approval(ARGUMENTS)
    await commander.ask_approval("{}", "call-2")
    assert await post(http, commander, digest) == (202, None)
    await commander.start_call()
    await commander.answer()
    await commander.answer(call_id="call-2", status="CANCELLED")
    await commander.finish()
    whole = (await http.get(path(commander))).text.partition("\n\n")[2]
    events = [f"{event}\n\n" for event in whole.split("\n\n")[:-1]]
    for n, event in enumerate(events[:-1]):
        last_id = event.split("\n")[0].removeprefix("id: ")
        resumed = (await http.get(path(commander), headers={"Last-Event-ID": last_id})).text.partition("\n\n")[2]
        assert resumed == "".join(events[n + 1 :])


async def test_the_first_decision_counts(either: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    commander = await sessions.begin()
    digest = await commander.ask_approval(ARGUMENTS)
    assert await post(either, commander, digest, note="looks right") == (202, None)
    assert await post(either, commander, digest) == (202, None)
    assert await post(either, commander, digest, "deny") == (409, "already_decided")
    await commander.start_call()
    assert await post(either, commander, digest) == (202, None)
    await commander.answer()
    assert await post(either, commander, digest) == (202, None)
    assert await post(either, commander, digest, "deny") == (409, "already_decided")
    (decision,) = await decisions(sessions, commander)
    assert (decision.decision, decision.arguments_sha256, decision.note) == ("approve", digest, "looks right")


async def test_two_that_decide_at_once(
    http: httpx2.AsyncClient, operator: httpx2.AsyncClient, sessions: FakeSessions
) -> None:
    commander = await sessions.begin()
    digest = await commander.ask_approval(ARGUMENTS)
    answers = await asyncio.gather(post(http, commander, digest), post(operator, commander, digest, "deny"))
    assert sorted(status for status, _ in answers) == [202, 409]
    (decision,) = await decisions(sessions, commander)
    first = ("approve", "user") if answers[0][0] == 202 else ("deny", "operator")
    assert (decision.decision, decision.author) == first


async def test_a_denial_ends_the_call(either: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    commander = await sessions.begin()
    digest = await commander.ask_approval(ARGUMENTS)
    assert await post(either, commander, digest, "deny") == (202, None)
    assert await post(either, commander, digest, "deny") == (202, None)
    assert await post(either, commander, digest) == (409, "already_decided")
    record = await sessions.store.load(commander.session_id)
    assert record
    assert not record.head.calls


async def test_other_arguments_are_not_approved(either: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    commander = await sessions.begin()
    digest = await commander.ask_approval(ARGUMENTS)
    for wrong in ("0" * 64, "", digest[:-1], digest.upper()):
        assert await post(either, commander, wrong) == (409, "arguments_mismatch")
    assert await post(either, commander, digest, "deny") == (202, None)
    assert await post(either, commander, "0" * 64, "deny") == (409, "arguments_mismatch")


async def test_after_its_time_nobody_approves_it(either: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    """Also where nobody has logged yet that it expired: whoever has the session may be dead."""
    commander = await sessions.begin()
    digest = await commander.ask_approval(ARGUMENTS, seconds=0)
    for decision in ("approve", "deny", "approve"):
        assert await post(either, commander, digest, decision) == (409, "approval_expired")
    (decided,) = await decisions(sessions, commander)
    assert (decided.decision, decided.author) == ("expire", "dispatcher")


async def test_what_cannot_be_decided_on(either: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    commander = await sessions.begin()
    await commander.call(call_id="plain")
    await commander.log(Call("search", "{}", "unread", "instance", approval="user"))
    digest = await commander.ask_approval(ARGUMENTS, "stopped")
    assert await post(either, commander, digest, call_id="plain") == (409, "approval_not_needed")
    assert await post(either, commander, digest, call_id="unread") == (409, "approval_not_asked")
    assert await post(either, commander, digest, call_id="gone") == (404, "call_not_found")
    await commander.answer(call_id="plain")
    assert await post(either, commander, digest, call_id="plain") == (409, "approval_not_needed")
    await commander.settle(StopEntry("s", "UserCancel", "user"))
    await commander.answer(call_id="stopped", status="CANCELLED")
    assert await post(either, commander, digest, call_id="stopped") == (409, "call_ended")
    commander.session_id = "gone"
    assert await post(either, commander, digest) == (404, "session_not_found")


async def test_a_call_of_a_stopped_session_that_has_no_result_yet(
    either: httpx2.AsyncClient, sessions: FakeSessions
) -> None:
    commander = await sessions.begin()
    digest = await commander.ask_approval(ARGUMENTS)
    await commander.settle(StopEntry("s", "UserCancel", "user"))
    assert await post(either, commander, digest) == (409, "call_ended")


async def test_a_call_whose_id_is_none_goes_by_what_users_see(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    commander = await sessions.begin()
    digest = await commander.ask_approval(ARGUMENTS, "not / an id")
    async with aclosing(stream(http, path(commander))) as events:
        call_id = str((await anext(events)).data["call_id"])
    assert len(call_id) == 32
    assert await post(http, commander, digest, call_id=call_id) == (202, None)


WRONG = {
    "decision": {"arguments_sha256": "0"},
    "arguments_sha256": {"decision": "deny"},
    "note": {"decision": "deny", "arguments_sha256": "0", "note": "x" * 1001},
    "why": {"decision": "deny", "arguments_sha256": "0", "why": ""},
}


@pytest.mark.parametrize("param", WRONG)
async def test_a_wrong_body_is_told_by_its_field(
    http: httpx2.AsyncClient, operator: httpx2.AsyncClient, sessions: FakeSessions, param: str
) -> None:
    commander = await sessions.begin()
    for client, route in ((http, "v1"), (operator, "operator")):
        where = f"/{route}/sessions/{commander.session_id}/calls/call-1/decision"
        answer = await client.post(where, json=WRONG[param])
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
        answer = await client.post(where, json={"decision": "maybe", "arguments_sha256": "0"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "decision")
        assert (await client.post(where)).status_code == 400


# ---- what waits


async def listed(operator: httpx2.AsyncClient, **asked: object) -> tuple[list[dict[str, object]], str | None]:
    answer = (await operator.get("/operator/approvals", params={k: str(v) for k, v in asked.items()})).json()
    return answer["approvals"], answer["cursor"]


async def test_operators_find_what_waits(operator: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    first, second = await sessions.begin(), await sessions.begin()
    digest = await first.ask_approval(ARGUMENTS, approval="operator")
    await second.call()
    assert await post(operator, second, await second.ask_approval("{}", "approved"), call_id="approved") == (202, None)
    ((call,), cursor) = await listed(operator)
    assert cursor is None
    assert call.pop("expires_at") - call.pop("asked_at") == pytest.approx(60, abs=5)  # type: ignore[operator]
    assert call == {
        "session_id": first.session_id,
        "call_id": "call-1",
        "tool_name": "search",
        "approval": "operator",
        "agent": "default",
        "conversation_id": "",
        "arguments": json.loads(ARGUMENTS),
        "arguments_sha256": digest,
    }


async def test_pages_of_what_waits(
    operator: httpx2.AsyncClient, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    commanders = [await sessions.begin() for _ in range(7)]
    for commander in commanders[::2]:
        for call_id in ("one", "two"):
            await commander.ask_approval(ARGUMENTS, call_id)
    monkeypatch.setattr(approvals, "PAGE", 2)
    found: list[object] = []
    calls, cursor = await listed(operator, limit=1)
    while True:
        assert len(calls) in (0, 2)  # a session's are listed together
        found += [(call["session_id"], call["call_id"]) for call in calls]
        if cursor is None:
            break
        calls, cursor = await listed(operator, limit=1, cursor=cursor)
    assert found == [(each.session_id, call_id) for each in commanders[::-2] for call_id in ("one", "two")]


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "cursor=x", "state=running", "limit=1&limit=2"])
async def test_wrong_questions(operator: httpx2.AsyncClient, query: str) -> None:
    answer = await operator.get(f"/operator/approvals?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, query.split("=", maxsplit=1)[0])

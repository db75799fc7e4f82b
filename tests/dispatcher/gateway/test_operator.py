"""The operators' routes."""

import asyncio
import json
from contextlib import aclosing

import httpx2
import pytest
from msgspec.structs import asdict
from starlette.types import Send

from dispatcher.core.log import Request
from dispatcher.gateway import operator as operator_routes
from dispatcher.gateway import sse
from dispatcher.gateway.operator import PIECE_BYTES
from dispatcher.live.pool import ConnectedCommander
from dispatcher.live.ports import Unlogged
from dispatcher.metrics import Metrics
from shared.records import Message, Usage
from tests.dispatcher.gateway.fakes import FakeSessions, Seen
from tests.dispatcher.gateway.test_events import stream


async def test_metrics_are_the_registrys(operator: httpx2.AsyncClient, metrics: Metrics) -> None:
    metrics.session_over("finished")
    answer = await operator.get("/metrics", headers={"Accept": "text/html,application/openmetrics-text;version=9,*/*"})
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'dispatcher_sessions_total{outcome="finished"} 1.0' in answer.text
    assert "dispatcher_event_streams 0.0" in answer.text
    answer = await operator.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0;q=0.6,*/*"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")


async def test_live_sessions_are_listed_and_others_on_demand(
    operator: httpx2.AsyncClient, sessions: FakeSessions
) -> None:
    first = await sessions.begin()
    second = await sessions.begin()
    await second.call()
    await second.ask_approval(call_id="call-2")
    ended = await sessions.begin()
    await ended.fail("my_code", "message")

    sessions.seen[second.session_id] = Unlogged("plan", 7)

    listed = (await operator.get("/operator/sessions")).json()["sessions"]
    assert [session["session_id"] for session in listed] == [second.session_id, first.session_id]
    assert listed[0]["state"] == "running"
    assert listed[0]["commander_id"] == "commander"
    assert listed[0]["running_calls"] == ["search"]
    assert listed[0]["waiting_calls"] == ["search"]
    assert [(session["step"], session["held"]) for session in listed] == [("plan", 7), (None, None)]
    (failed,) = (await operator.get("/operator/sessions?state=failed&state=stopped")).json()["sessions"]
    assert failed["code"] == "my_code"
    assert len((await operator.get("/operator/sessions?limit=1")).json()["sessions"]) == 1


async def test_one_session_with_what_it_was_asked(operator: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    commander = await sessions.begin()
    (listed,) = (await operator.get("/operator/sessions")).json()["sessions"]
    found = (await operator.get(f"/operator/sessions/{commander.session_id}")).json()
    assert found == {**listed, "messages": [{"role": "user", "content": "hello"}], "parameters_json": ""}
    assert (await operator.get("/operator/sessions/nope")).status_code == 404


async def made(sessions: FakeSessions, count: int) -> list[str]:
    """Sessions that wait, the newest first; every third of another agent and of a conversation."""
    ids = []
    for n in range(count):
        agent, conversation = ("other", "thread 7") if n % 3 == 0 else ("default", "")
        request = Request(agent, (Message("user", "hi"),), 1000.0 + n, conversation_id=conversation)
        ids.append((await sessions.create(request)).record.session_id)
    return ids[::-1]


@pytest.mark.parametrize("limit", [1, 7, 100])
async def test_pages_miss_none_and_show_none_twice(
    operator: httpx2.AsyncClient, sessions: FakeSessions, limit: int
) -> None:
    ids = await made(sessions, 20)
    found: list[str] = []
    asked = {"limit": str(limit)}
    while True:
        page = (await operator.get("/operator/sessions", params=asked)).json()
        found += [session["session_id"] for session in page["sessions"]]
        if page["cursor"] is None:
            break
        assert len(page["sessions"]) == limit
        asked["cursor"] = page["cursor"]
    assert found == ids


@pytest.mark.parametrize("query", ["agent=other", "conversation=thread%207", "agent=other&conversation=thread%207"])
async def test_only_those_that_are_asked_for(operator: httpx2.AsyncClient, sessions: FakeSessions, query: str) -> None:
    ids = await made(sessions, 200)
    page = (await operator.get(f"/operator/sessions?{query}&limit=1000")).json()
    assert [session["session_id"] for session in page["sessions"]] == ids[::-1][::3][::-1]
    assert page["cursor"] is None


async def test_those_since_a_time(operator: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    ids = await made(sessions, 10)
    page = (await operator.get("/operator/sessions?since=1006.5")).json()
    assert [session["session_id"] for session in page["sessions"]] == ids[:3]


async def test_those_that_ended_for_a_reason(operator: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    stopped, failed = await sessions.begin(), await sessions.begin()
    await stopped.stop("RiskControl")
    await failed.fail("my_code")
    for reason, expected in (("RiskControl", stopped), ("my_code", failed)):
        page = (await operator.get(f"/operator/sessions?state=stopped&state=failed&reason={reason}")).json()
        assert [session["session_id"] for session in page["sessions"]] == [expected.session_id]


async def test_one_answer_looks_at_a_bounded_number_and_says_where_to_go_on(
    operator: httpx2.AsyncClient, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_routes, "LOOKED_AT", 100)
    ids = await made(sessions, 160)
    oldest = {"conversation": "thread 7", "since": "0"}
    first = (await operator.get("/operator/sessions", params=oldest)).json()
    assert first["sessions"]
    then = (await operator.get("/operator/sessions", params={**oldest, "cursor": first["cursor"]})).json()
    assert then["cursor"] is None
    found = [session["session_id"] for page in (first, then) for session in page["sessions"]]
    assert found == ids[::-1][::3][::-1]


@pytest.mark.parametrize(
    "query",
    [
        *("state=asleep", "limit=0", "limit=x", "limit=1001", "limit=", "limit=1&limit=2"),
        *("since=x", "since=-1", "since=nan", "since=inf", "cursor=x", "cursor=AA==", "cursor=%C3%A9", "satte=running"),
    ],
)
async def test_wrong_questions(operator: httpx2.AsyncClient, query: str) -> None:
    answer = await operator.get(f"/operator/sessions?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == query.split("=", maxsplit=1)[0]


async def watch(operator: httpx2.AsyncClient, session_id: str, after: int | None = None) -> list[Seen]:
    return [event async for event in stream(operator, f"/operator/sessions/{session_id}/events", after)]


async def test_an_operator_sees_all_that_the_log_holds(operator: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    commander = await sessions.begin()
    session_id = commander.session_id
    async with aclosing(stream(operator, f"/operator/sessions/{session_id}/events")) as events:
        assigned = await anext(events)
        await commander.think("a thought")
        await commander.hold("held")
        await commander.call("secret tool", '{"q": 1}')
        await commander.stop("RiskControl", policy="project names", detail="phrase 3")
        await commander.halted()
        await commander.answer("secret tool", '{"a": 2}', status="CANCELLED")
        rest = [event async for event in events]
    assert assigned.event == "assigned"
    assert [event.event for event in rest] == ["thought", "content", "call", "stop", "stopped", "tool_result"]
    thought, content, call, stop, stopped, result = (event.data for event in rest)
    assert (thought["step_name"], thought["delta"]) == ("Planning", "a thought")
    assert (content["text"], content["released"]) == ("held", "")
    assert (call["tool_name"], call["arguments_json"]) == ("secret tool", '{"q": 1}')
    assert (stop["policy"], stop["detail"], stop["author"]) == ("project names", "phrase 3", "policy")
    assert stopped["halt_micros"] == 100
    assert (result["result_json"], result["status"]) == ('{"a": 2}', "CANCELLED")
    assert [int(event.id) for event in [assigned, *rest]] == list(range(1, 8))

    assert (await watch(operator, session_id, 5)) == rest[4:]
    assert (await watch(operator, session_id, 7)) == []
    reset, *_ = await watch(operator, session_id, 8)
    assert reset == Seen("reset", {"text": "", "state": "stopped"}, "7")


async def test_large_results_go_out_one_by_one(
    operator: httpx2.AsyncClient, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many in one piece would be one turn of the loop."""
    write, sizes = sse.write, list[int]()

    async def measured(send: Send, data: bytes, *, last: bool = False) -> None:
        sizes.append(len(data))
        await write(send, data, last=last)

    commander, large = await sessions.begin(), "x" * PIECE_BYTES
    for number in range(8):
        await commander.call(call_id=f"call-{number}")
        await commander.answer(result=f'"{large}"', call_id=f"call-{number}")
    await commander.finish()
    monkeypatch.setattr(sse, "write", measured)
    seen = await watch(operator, commander.session_id)
    assert [event.data["result_json"] for event in seen if event.event == "tool_result"] == [f'"{large}"'] * 8
    assert max(sizes) < 2 * PIECE_BYTES


async def test_no_event_is_named_error(operator: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    commander = await sessions.begin()
    await commander.fail("my_code", "message")
    *_, failed = await watch(operator, commander.session_id)
    assert failed.event == "agent_error"
    assert (failed.data["code"], failed.data["message"]) == ("my_code", "message")


async def test_records_stand_by_name(operator: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    commander = await sessions.begin()
    await commander.finish("stop", Usage(3, 4))
    *_, finished = await watch(operator, commander.session_id)
    assert finished.data["usage"] == {"prompt_tokens": 3, "completion_tokens": 4}


async def test_an_operator_stops_a_session(operator: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    commander = await sessions.begin()
    path = f"/operator/sessions/{commander.session_id}/stop"
    answer = await operator.post(path, json={"reason": "Timeout", "detail": "too slow"})
    assert answer.status_code == 202
    assert answer.json()["state"] == "stopped"
    assert await sessions.stops.get() == (commander.session_id, "Timeout", "operator", "too slow")
    assert (await operator.post(path)).status_code == 202
    assert (await operator.post("/operator/sessions/nope/stop")).status_code == 404
    assert (await operator.post(path, json={"reason": "x"})).json()["error"]["param"] == "reason"


async def test_readiness_with_its_reasons(operator: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    assert (await operator.get("/readyz")).status_code == 200
    assert (await operator.get("/healthz")).status_code == 200
    sessions.troubles = ["store unavailable", "draining"]
    answer = await operator.get("/readyz")
    assert answer.status_code == 503
    assert "store unavailable; draining" in answer.json()["error"]["message"]


async def test_users_routes_are_not_here(operator: httpx2.AsyncClient) -> None:
    for path in ("/v1/sessions", "/v1/models"):
        assert (await operator.get(path)).status_code == 404
    assert json.loads((await operator.delete("/metrics")).content)["error"]["code"] == "method_not_allowed"


async def test_a_watch_ends_when_the_server_drains(operator: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    commander = await sessions.begin()
    async with (
        asyncio.timeout(30),
        aclosing(stream(operator, f"/operator/sessions/{commander.session_id}/events")) as s,
    ):
        await anext(s)
        sessions.closing.set()
        assert [event async for event in s] == []


async def test_who_works_here_and_who_may_come(operator: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    idle = ConnectedCommander("idle", "worker", ("a",), 0, 4, held=True, ejected=False, draining=False)
    sessions.connected = [idle]
    sessions.registry.up = {"search": True, "stock": False}
    answer = await operator.get("/operator/instance")
    assert answer.json() == {
        "instance": "instance",
        "commanders": [asdict(idle) | {"agents": ["a"]}],
        "tools": {"search": True, "stock": False},
        "access": None,
    }


async def test_what_rules_are_in_force(operator: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    answer = await operator.get("/operator/policies")
    assert (answer.status_code, answer.json()) == (200, {"errors": ["rules.toml: broken"]})

"""The native routes but for the event streams."""

import asyncio
import gc
import hashlib
import json

import httpx2
import pytest
from prometheus_client import CollectorRegistry

from dispatcher.core.log import Record, Request
from dispatcher.gateway import sessions as session_routes
from dispatcher.gateway.errors import HttpError
from shared.records import Content, Message
from tests.dispatcher.gateway.fakes import FakeSessions

KEY = "0123456789abcdef"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def record_of(sessions: FakeSessions, answer: httpx2.Response) -> Record:
    assert answer.status_code == 201, answer.text
    record = await sessions.store.load(answer.json()["session_id"])
    assert record
    return record


def check_error(answer: httpx2.Response, status: int, param: str | None = None) -> dict[str, str]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["param"] == param
    error: dict[str, str] = body["error"]
    return error


async def test_a_prompt_makes_a_session(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    headers = [("traceparent", TRACE), ("tracestate", "a=1"), ("tracestate", "b=2")]
    answer = await http.post("/v1/sessions", json={"prompt": "hello"}, headers=headers)
    record = await record_of(sessions, answer)
    assert answer.headers["location"] == f"/v1/sessions/{record.session_id}"
    assert record.request.agent == "default"
    assert record.request.messages == (Message("user", "hello"),)
    assert (record.request.traceparent, record.request.tracestate) == (TRACE, "a=1,b=2")
    assert record.request.parameters_json == ""


@pytest.mark.parametrize(
    ("given", "goes_on"),
    [
        ([f"cc{TRACE[2:]}"], TRACE),  # of a later version, what this one knows
        ([f"cc{TRACE[2:]}-more"], TRACE),
        ([f"cc{TRACE[2:]}more"], ""),
        ([f"{TRACE}-more"], ""),
        ([f"ff{TRACE[2:]}"], ""),
        ([TRACE.upper()], ""),
        ([TRACE, TRACE], ""),
    ],
)
async def test_which_trace_goes_on(
    given: list[str], goes_on: str, http: httpx2.AsyncClient, sessions: FakeSessions
) -> None:
    headers = [("traceparent", each) for each in given] + [("tracestate", "a=1")]
    record = await record_of(sessions, await http.post("/v1/sessions", json={"prompt": "hello"}, headers=headers))
    assert (record.request.traceparent, record.request.tracestate) == (goes_on, "a=1" if goes_on else "")


async def test_all_fields_reach_the_request(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    sessions.offered.append("other")
    body = {
        "agent": "other",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]},
            {"role": "assistant"},
        ],
        "parameters": {"b": 1, "a": [1.5, None]},
        "conversation_id": "thread 7",
    }
    record = await record_of(
        sessions,
        await http.post("/v1/sessions", json=body, headers={"traceparent": "00-" + "0" * 52, "tracestate": "a=1"}),
    )
    request = record.request
    assert request.agent == "other"
    assert request.messages == (
        Message("system", "be brief"),
        Message("user", "one \ntwo"),
        Message("assistant", ""),
    )
    assert json.loads(request.parameters_json) == body["parameters"]
    assert request.conversation_id == "thread 7"
    assert (request.traceparent, request.tracestate) == ("", "")


async def test_an_agent_that_nobody_offers(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    body = {"prompt": "hi", "agent": "other"}
    assert check_error(await http.post("/v1/sessions", json=body), 404, "agent")["code"] == "agent_not_found"
    assert sessions.created.empty()
    # What is asked again under a key gets the answer that it got, whoever is gone by then.
    sessions.offered.append("other")
    key = {"Idempotency-Key": "0123456789abcdef"}
    first = await http.post("/v1/sessions", json=body, headers=key)
    sessions.offered.remove("other")
    assert (await http.post("/v1/sessions", json=body, headers=key)).json() == first.json()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, "messages"),
        ({"messages": []}, "messages"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"promt": "a"}, "promt"),
        ({"prompt": "a", "agent": ""}, "agent"),
        ({"prompt": "a", "agent": "a" * 257}, "agent"),
        ({"prompt": "a", "parameters": [1]}, "parameters"),
        ({"prompt": "a", "conversation_id": "c" * 257}, "conversation_id"),
        ({"messages": [{"role": "robot", "content": "b"}]}, "messages[0].role"),
        ({"messages": [{"content": "b"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].image_url"),
        ({"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ([], None),
    ],
)
async def test_an_invalid_body_names_the_field(http: httpx2.AsyncClient, body: object, param: str | None) -> None:
    check_error(await http.post("/v1/sessions", json=body), 400, param)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b'{"prompt": "\xff"}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": NaN}',
        b"{} {}",
    ],
    ids=["empty", "cut", "no text", "no UTF-8", "lone surrogate", "NaN", "two"],
)
async def test_a_body_that_is_no_json(http: httpx2.AsyncClient, body: bytes) -> None:
    assert check_error(await http.post("/v1/sessions", content=body), 400)["code"] == "invalid_json"


async def test_a_large_body_is_refused_while_it_is_read(
    http: httpx2.AsyncClient, url: str, registry: CollectorRegistry
) -> None:
    too_large = b" " * (1024 * 1024 + 1)  # one more than the fixture's setting
    check_error(await http.post("/v1/sessions", content=too_large), 413)
    assert registry.get_sample_value("dispatcher_refusals_total", {"edge": "http", "kind": "body_too_large"}) == 1

    # One that names no length, from a client that would never stop
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(17):
        writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
    async with asyncio.timeout(30):
        status = await reader.readline()
    writer.close()
    assert b" 413 " in status
    exact = b'{"prompt": "' + b"x" * (1024 * 1024 - 14) + b'"}'
    assert len(exact) == 1024 * 1024
    assert (await http.post("/v1/sessions", content=exact)).status_code == 201


async def test_the_same_key_and_body_get_the_same_answer(http: httpx2.AsyncClient) -> None:
    headers = {"Idempotency-Key": KEY}
    first = await http.post("/v1/sessions", json={"prompt": "a", "parameters": {"x": 1, "y": 2}}, headers=headers)
    again = await http.post("/v1/sessions", json={"parameters": {"y": 2, "x": 1}, "prompt": "a"}, headers=headers)
    assert first.status_code == again.status_code == 201
    assert first.content == again.content
    assert first.headers["location"] == again.headers["location"]
    check_error(await http.post("/v1/sessions", json={"prompt": "b"}, headers=headers), 422, "Idempotency-Key")


@pytest.mark.parametrize("key", ["short", KEY[:15], "k" * 256])
async def test_a_key_that_could_be_guessed(http: httpx2.AsyncClient, key: str) -> None:
    answer = await http.post("/v1/sessions", json={"prompt": "a"}, headers={"Idempotency-Key": key})
    check_error(answer, 400, "Idempotency-Key")


async def test_a_prompt_that_a_rule_refuses(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    sessions.refusing = True
    answer = await http.post("/v1/sessions", json={"prompt": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "policy_violation")
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_a_full_queue_says_when_to_come_back(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    sessions.full = True
    answer = await http.post("/v1/sessions", json={"prompt": "a"})
    assert check_error(answer, 429)["type"] == "rate_limit_error"
    assert int(answer.headers["retry-after"]) > 0


async def test_a_session_through_its_states(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    session_id = (await http.post("/v1/sessions", json={"prompt": "a"})).json()["session_id"]
    path = f"/v1/sessions/{session_id}"
    assert (await http.get(path)).json()["state"] == "waiting"
    commander = await sessions.begin(session_id)
    assert (await http.get(path)).json()["state"] == "running"
    assert (await http.delete(path)).status_code == 409
    await commander.fail("my code", "SECRET")
    ended = (await http.get(path)).json()
    assert ended["state"] == "failed"
    assert ended["code"] == "agent_error"
    assert "SECRET" not in str(ended)
    assert ended["ended_at"] >= ended["created_at"]
    assert (await http.delete(path)).status_code == 204
    for answer in (await http.get(path), await http.delete(path), await http.get(path + "/events")):
        check_error(answer, 404)


async def test_a_stop_may_be_repeated(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    commander = await sessions.begin()
    path = f"/v1/sessions/{commander.session_id}/stop"
    first = await http.post(path)
    again = await http.post(path, json={"reason": "Timeout"})
    assert first.status_code == again.status_code == 202
    assert first.json()["state"] == again.json()["state"] == "stopped"
    assert again.json()["reason"] == "UserCancel"
    check_error(await http.post(path, json={"reason": "Boredom"}), 400, "reason")
    check_error(await http.post("/v1/sessions/nope/stop"), 404)


async def test_a_stop_is_waited_for(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    commander = await sessions.begin()
    await commander.say("Grüße")
    await commander.think("SECRET")
    asking = asyncio.create_task(http.post(f"/v1/sessions/{commander.session_id}/stop?wait=true"))
    await sessions.stops.get()
    await commander.log(Content("what was under way"))
    assert not asking.done()
    await commander.halted()
    answer = await asking
    assert answer.status_code == 200
    told = answer.json()
    assert (told["state"], told["reason"], told["halted"], told["tokens_after"]) == ("stopped", "UserCancel", True, 2)
    assert told["delivered"] == {
        "characters": 5,
        "bytes": 7,
        "sha256": hashlib.sha256("Grüße".encode()).hexdigest(),
    }
    assert "SECRET" not in answer.text
    again = await http.post(f"/v1/sessions/{commander.session_id}/stop?wait=true")
    assert again.json() == told


async def test_a_stop_is_not_waited_for_for_ever(
    http: httpx2.AsyncClient, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_routes, "HALT_SECONDS", 0.01)
    commander = await sessions.begin()
    path = f"/v1/sessions/{commander.session_id}/stop"
    told = (await http.post(f"{path}?wait=true")).json()
    assert (told["state"], told["halted"]) == ("stopped", False)
    check_error(await http.post(f"{path}?wait=yes"), 400, "wait")


@pytest.mark.parametrize("finished", [True, False])
async def test_what_nobody_works_on_has_halted(
    http: httpx2.AsyncClient, sessions: FakeSessions, finished: bool
) -> None:
    if finished:
        commander = await sessions.begin()
        await commander.finish()
        session_id = commander.session_id
    else:
        session_id = (await sessions.create(Request("default", (), 0.0))).record.session_id
    told = (await http.post(f"/v1/sessions/{session_id}/stop?wait=true")).json()
    assert (told["state"], told["halted"], told["tokens_after"]) == ("finished" if finished else "stopped", True, 0)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/sessions/nope", 404),
        ("DELETE", "/v1/sessions/nope", 404),
        ("GET", "/v1/sessions/nope/events", 404),
        ("GET", "/v1/sessions/nope/", 404),
        ("GET", "/metrics", 404),
        ("GET", "/operator/sessions", 404),
        ("GET", "/v1/sessions", 405),
        ("PUT", "/v1/sessions/nope", 405),
        ("OPTIONS", "/v1/sessions", 405),
        ("GET", "/v1/chat/completions", 405),
    ],
)
async def test_no_such_route(http: httpx2.AsyncClient, method: str, path: str, status: int) -> None:
    answer = await http.request(method, path)
    check_error(answer, status)
    assert ("allow" in answer.headers) == (status == 405)


async def test_faults_show_nothing(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    await sessions.store.close()
    answer = await http.get("/v1/sessions/any")
    assert check_error(answer, 503)["code"] == "unavailable"
    assert answer.headers["retry-after"] == "1"

    def broken(_: object) -> None:
        raise RuntimeError("SECRET")

    sessions.trouble = broken  # type: ignore[method-assign,assignment]
    answer = await http.get("/readyz")
    assert check_error(answer, 500)["type"] == "server_error"
    assert "SECRET" not in answer.text


async def test_health_tells_users_no_reasons(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    assert (await http.get("/healthz")).status_code == 200
    assert (await http.get("/readyz")).status_code == 200
    sessions.troubles = ["store unavailable"]
    assert (await http.get("/healthz")).status_code == 200
    answer = await http.get("/readyz")
    check_error(answer, 503)
    assert "store" not in answer.text


async def test_pages_of_other_origins_get_no_leave(http: httpx2.AsyncClient) -> None:
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    allowed = await http.options("/v1/sessions", headers=preflight | {"Origin": "https://app.example"})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    assert allowed.headers["access-control-allow-headers"] == "content-type"
    answer = await http.get("/healthz", headers={"Origin": "https://app.example"})
    assert answer.headers["access-control-allow-origin"] == "https://app.example"

    refused = await http.options("/v1/sessions", headers=preflight | {"Origin": "https://evil.example"})
    assert refused.status_code == 400
    answer = await http.get("/healthz", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in {*refused.headers, *answer.headers}


async def test_a_refusal_leaves_nothing_for_the_garbage_collector(http: httpx2.AsyncClient) -> None:
    """A frame of a traceback that kept its error would keep all that the others have: a large body."""
    gc.collect()
    gc.disable()
    try:
        answer = await http.post("/v1/sessions", json={"agent": "nobody's", "prompt": "x"})
        assert answer.status_code == 404
        for _ in range(10):  # until its task has ended
            await asyncio.sleep(0)
        left = [each for each in gc.get_objects() if isinstance(each, HttpError) and each.status == 404]
    finally:
        gc.enable()
    assert not left

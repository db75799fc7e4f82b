"""A client written from the published contract alone, against our Dispatcher."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests import programs
from tests.integration.foreign.conftest import SECONDS, Start

POLICIES = """
[[policy]]
name = "project names"
kind = "phrases"
phrases = ["Project Nightingale"]
action = "stop"
"""


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def dispatcher(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[programs.Dispatcher]:
    folder: Path = tmp_path_factory.mktemp("dispatcher")
    (folder / "policies.toml").write_text(POLICIES)
    store = "memory://" if request.param == "memory" else f"sqlite:///{folder}/sessions.db"
    with programs.dispatcher(folder / "log", store, policies=str(folder / "policies.toml"), stop_seconds="2") as ready:
        yield ready


@pytest.fixture
async def users(dispatcher: programs.Dispatcher) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=f"http://{dispatcher.http}", timeout=SECONDS) as client:
        yield client


@pytest.fixture
def session_id() -> str:
    return secrets.token_urlsafe(24)


async def events(users: httpx2.AsyncClient, session_id: str) -> list[tuple[str, Any]]:
    """A user's whole event stream; it must end by itself."""
    found, name = [], ""
    async with asyncio.timeout(SECONDS), users.stream("GET", f"/v1/sessions/{session_id}/events") as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            field, _, value = line.partition(":")
            if field == "event":
                name = value.strip()
            elif field == "data":
                found.append((name, json.loads(value)))
    return found


def said(found: list[tuple[str, Any]]) -> str:
    return "".join(data["text"] for name, data in found if name == "content")


def results(packets: list[dict[str, Any]]) -> list[Any]:
    return [json.loads(packet["tool_result"]["result_json"]) for packet in packets if "tool_result" in packet]


async def test_thinks_calls_a_tool_says_and_finishes(
    dispatcher: programs.Dispatcher, users: httpx2.AsyncClient, stranger: Start, session_id: str
) -> None:
    async with stranger("client.py", dispatcher.grpc) as client:
        await client.send(
            {"session_id": session_id, "thought": {"step_name": "Planning", "delta": "canary-7d1c"}},
            {"tool_call": {"tool_name": "calculate", "arguments_json": '{"expression": "6*7"}'}},
        )
        result = await client.next("tool_result")
        assert result["tool_name"] == "calculate"
        assert "42" in result["result_json"]
        await client.send({"content": {"text": "It is "}}, {"content": {"text": "42.", "is_finish": True}})
        client.half_close()
        assert (await client.rest())[-1]["status"] == "OK"
    found = await events(users, session_id)
    assert said(found) == "It is 42."
    assert found[-1] == ("finished", found[-1][1])
    assert found[-1][1]["finish_reason"] == "stop"
    assert [name for name, _ in found if name.startswith("tool")] == ["tool_call", "tool_result"]
    assert "canary" not in str(found)


async def test_needs_no_session_id(dispatcher: programs.Dispatcher, stranger: Start) -> None:
    async with stranger("client.py", dispatcher.grpc) as client:
        await client.send({"tool_call": {"tool_name": "current_time", "arguments_json": "{}"}})
        result = json.loads((await client.next("tool_result"))["result_json"])
        assert "error" not in result
        await client.send({"content": {"is_finish": True}})
        client.half_close()
        assert (await client.rest())[-1]["status"] == "OK"


async def test_gets_the_result_of_a_tool_that_runs_when_it_half_closes(
    dispatcher: programs.Dispatcher, stranger: Start
) -> None:
    async with stranger("client.py", dispatcher.grpc) as client:
        await client.send(
            {"tool_call": {"tool_name": "calculate", "arguments_json": '{"expression": "1+1"}'}},
            {"content": {"text": "Bye.", "is_finish": True}},
        )
        client.half_close()
        packets = await client.rest()
    assert len(results(packets)) == 1
    assert packets[-1]["status"] == "OK"


async def test_gets_a_failed_tools_error_as_json(dispatcher: programs.Dispatcher, stranger: Start) -> None:
    async with stranger("client.py", dispatcher.grpc) as client:
        await client.send(
            {"tool_call": {"tool_name": "no_such_tool", "arguments_json": "{}"}},
            {"tool_call": {"tool_name": "calculate", "arguments_json": "{not json"}},
            {"content": {"is_finish": True}},
        )
        client.half_close()
        packets = await client.rest()
    assert [set(result["error"]) for result in results(packets)] == [{"code", "message"}] * 2
    assert packets[-1]["status"] == "OK"


async def test_fails_by_an_error(
    dispatcher: programs.Dispatcher, users: httpx2.AsyncClient, stranger: Start, session_id: str
) -> None:
    async with stranger("client.py", dispatcher.grpc) as client:
        await client.send({"session_id": session_id, "content": {"text": "Well"}}, {"error": {}})
        client.half_close()
        assert (await client.rest())[-1]["status"] == "OK"
    found = await events(users, session_id)
    assert said(found) == "Well"
    assert (found[-1][0], found[-1][1]["code"]) == ("failed", "agent_error")


async def test_a_session_id_is_used_once(dispatcher: programs.Dispatcher, stranger: Start, session_id: str) -> None:
    statuses = []
    for _ in range(2):
        async with stranger("client.py", dispatcher.grpc) as client:
            await client.send({"session_id": session_id, "content": {"text": "Once.", "is_finish": True}})
            client.half_close()
            statuses.append((await client.rest())[-1]["status"])
    assert statuses == ["OK", "ALREADY_EXISTS"]


async def test_another_sessions_id_is_refused(
    dispatcher: programs.Dispatcher, users: httpx2.AsyncClient, stranger: Start, session_id: str
) -> None:
    async with stranger("client.py", dispatcher.grpc) as client:
        await client.send(
            {"session_id": session_id, "content": {"text": "Mine."}},
            {"session_id": session_id + "x", "content": {"text": "Not mine."}},
        )
        assert (await client.rest())[-1]["status"] == "INVALID_ARGUMENT"
    found = await events(users, session_id)
    assert said(found) == "Mine."
    assert (found[-1][0], found[-1][1]["code"]) == ("failed", "protocol_error")


async def test_text_above_its_size_is_refused(
    dispatcher: programs.Dispatcher, users: httpx2.AsyncClient, stranger: Start, session_id: str
) -> None:
    async with stranger("client.py", dispatcher.grpc) as client:
        largest = "x" * (64 * 1024)
        await client.send(
            {"session_id": session_id, "content": {"text": largest}}, {"content": {"text": largest + "x"}}
        )
        assert (await client.rest())[-1]["status"] == "INVALID_ARGUMENT"
    found = await events(users, session_id)
    assert said(found) == largest
    assert (found[-1][0], found[-1][1]["code"]) == ("failed", "protocol_error")


@pytest.mark.parametrize("how", ["half-close", "kill"])
async def test_that_goes_without_an_end_is_lost_at_once(
    dispatcher: programs.Dispatcher, users: httpx2.AsyncClient, stranger: Start, session_id: str, how: str
) -> None:
    async with stranger("client.py", dispatcher.grpc) as client:
        await client.send({"session_id": session_id, "content": {"text": "Unfin"}})
        await client.next("ack")  # so that a kill does not come before the packet
        if how == "kill":
            client.process.kill()
        else:
            client.half_close()
            assert (await client.rest())[-1]["status"] == "ABORTED"
        found = await events(users, session_id)
    assert said(found) == "Unfin"
    assert (found[-1][0], found[-1][1]["code"]) == ("failed", "commander_lost")


async def test_is_stopped_by_a_user(
    dispatcher: programs.Dispatcher, users: httpx2.AsyncClient, stranger: Start, session_id: str
) -> None:
    async with stranger("client.py", dispatcher.grpc) as client:
        await client.send({"session_id": session_id, "content": {"text": "Once upon"}})
        await client.next("ack")
        for _ in range(2):
            response = await users.post(f"/v1/sessions/{session_id}/stop", json={"reason": "UserCancel"})
            assert response.status_code == 202
        assert await client.next("stop") == {"reason": "UserCancel"}
        await client.send({"content": {"text": " a time", "is_finish": True}})
        client.half_close()
        rest = await client.rest()
    assert rest[-1]["status"] == "OK"
    assert not [packet for packet in rest if "stop" in packet]
    found = await events(users, session_id)
    assert said(found) == "Once upon"
    assert found[-1] == ("stopped", {"reason": "UserCancel"})


async def test_may_answer_a_stop_by_half_closing(
    dispatcher: programs.Dispatcher, users: httpx2.AsyncClient, stranger: Start, session_id: str
) -> None:
    async with stranger("client.py", dispatcher.grpc) as client:
        await client.send({"session_id": session_id, "content": {"text": "Once upon"}})
        await client.next("ack")
        await users.post(f"/v1/sessions/{session_id}/stop", json={})
        assert await client.next("stop") == {"reason": "UserCancel"}
        client.half_close()
        assert (await client.rest())[-1]["status"] == "OK"
    assert (await events(users, session_id))[-1] == ("stopped", {"reason": "UserCancel"})


async def test_that_ignores_a_stop_is_sent_away(
    dispatcher: programs.Dispatcher, users: httpx2.AsyncClient, stranger: Start, session_id: str
) -> None:
    async with stranger("client.py", dispatcher.grpc) as client:
        await client.send({"session_id": session_id, "content": {"text": "Once upon"}})
        await client.next("ack")
        await users.post(f"/v1/sessions/{session_id}/stop", json={"reason": "Timeout"})
        assert await client.next("stop") == {"reason": "Timeout"}
        await client.send({"content": {"text": " a time"}})
        assert (await client.rest())[-1]["status"] == "FAILED_PRECONDITION"
    found = await events(users, session_id)
    assert said(found) == "Once upon"
    assert found[-1] == ("stopped", {"reason": "Timeout"})


async def test_is_stopped_by_a_policy(
    dispatcher: programs.Dispatcher, users: httpx2.AsyncClient, stranger: Start, session_id: str
) -> None:
    async with stranger("client.py", dispatcher.grpc) as client:
        await client.send(
            {"session_id": session_id, "content": {"text": "It is called Project Nigh"}},
            {"content": {"text": "tingale, and it "}},
        )
        assert await client.next("stop") == {"reason": "PolicyViolation"}
        await client.send({"content": {"text": "is secret.", "is_finish": True}})
        client.half_close()
        assert (await client.rest())[-1]["status"] == "OK"
    found = await events(users, session_id)
    assert said(found) == "It is called "
    assert found[-1] == ("stopped", {"reason": "PolicyViolation"})

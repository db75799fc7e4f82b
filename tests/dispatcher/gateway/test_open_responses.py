"""The cases of the Open Responses compliance suite, by its names and with what it looks at (its 17 of 2026-04-24).

14 pass. The three that compact are refused: `compact-response`, `compact-missing-model`, `websocket-compact-new-chain`.
What that suite checks of an object with no request, `response-output-phase-schema`, is here of what was asked with.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx2
import pytest

from shared.records import ClientCall, Message
from tests.dispatcher.gateway.fakes import FakeSessions
from tests.dispatcher.gateway.open_responses import check_event, check_response
from tests.dispatcher.gateway.test_response_socket import answered, connected, error_of, event_of, say, until_ended

PNG = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather at a place",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
}
COMMENTARY = {"type": "message", "role": "assistant", "phase": "commentary", "content": "I say the number kept."}
FINAL = {"type": "message", "role": "assistant", "phase": "final_answer", "content": "It is four."}


def said(role: str, content: object) -> dict[str, object]:
    return {"type": "message", "role": role, "content": content}


class Answering:
    """An agent: it calls the first tool that it is offered, or says how many messages it was asked with."""

    def __init__(self, sessions: FakeSessions) -> None:
        self.asked: list[tuple[Message, ...]] = []
        self._sessions = sessions

    async def run(self) -> None:
        while True:
            session_id = await self._sessions.created.get()
            record = await self._sessions.store.load(session_id)
            assert record
            self.asked.append(record.request.messages)
            commander = await self._sessions.begin(session_id)
            if record.request.tools:
                await commander.hand_over(ClientCall("call-1", record.request.tools[0].name, '{"location": "Oslo"}'))
            else:
                await commander.say("Of ", f"{len(record.request.messages)}.")
                await commander.finish()


@pytest.fixture
async def agent(sessions: FakeSessions) -> AsyncIterator[Answering]:
    sessions.honoured = frozenset({"sampling", "tools", "images"})
    agent = Answering(sessions)
    answering = asyncio.create_task(agent.run())
    yield agent
    answering.cancel()
    with suppress(asyncio.CancelledError):
        await answering


async def answer(http: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    """Completed, with output."""
    found = await http.post("/v1/responses", json={"model": "default", **body})
    assert found.status_code == 200, found.text
    response: dict[str, Any] = found.json()
    check_response(response)
    assert response["status"] == "completed"
    assert response["output"]
    return response


@pytest.mark.parametrize(
    "items",
    [
        pytest.param([said("user", "Say hello.")], id="basic-response"),
        pytest.param([said("system", "You are a pirate."), said("user", "Say hello.")], id="system-prompt"),
        pytest.param([COMMENTARY, FINAL, said("user", "The number?")], id="assistant-phase"),
        pytest.param(
            [
                said(
                    "user",
                    [
                        {"type": "input_text", "text": "What is to be seen?"},
                        {"type": "input_image", "image_url": PNG},
                    ],
                )
            ],
            id="image-input",
        ),
        pytest.param(
            [said("user", "I am Alice."), said("assistant", "Hello Alice!"), said("user", "Who am I?")],
            id="multi-turn",
        ),
    ],
)
async def test_messages(http: httpx2.AsyncClient, agent: Answering, items: list[dict[str, Any]]) -> None:
    response = await answer(http, input=items)
    assert [item["type"] for item in response["output"]] == ["message"]
    (asked,) = agent.asked
    assert [(message.role, message.phase) for message in asked] == [
        (item["role"], item.get("phase", "")) for item in items
    ]


async def test_tool_calling(http: httpx2.AsyncClient, agent: Answering) -> None:
    response = await answer(http, input=[said("user", "The weather?")], tools=[WEATHER])
    assert [(item["type"], item["name"]) for item in response["output"]] == [("function_call", "get_weather")]


async def test_streaming_response(http: httpx2.AsyncClient, agent: Answering) -> None:
    body = {"model": "default", "stream": True, "input": [said("user", "Count.")]}
    stream = await http.post("/v1/responses", json=body)
    events = [json.loads(line[6:]) for line in stream.text.splitlines() if line.startswith("data: ")]
    for event in events:
        check_event(event)
    assert events[-1]["type"] == "response.completed"
    check_response(events[-1]["response"])


async def test_response_output_phase_schema(http: httpx2.AsyncClient, agent: Answering) -> None:
    """What was labelled is so, too, where it is listed, and where a later response goes on from it."""
    response = await answer(http, input=[COMMENTARY, FINAL, said("user", "The number?")])
    listed = (await http.get(f"/v1/responses/{response['id']}/input_items?order=asc")).json()["data"]
    assert [item.get("phase") for item in listed] == ["commentary", "final_answer", None]
    await answer(http, input="Once more?", previous_response_id=response["id"])
    phases = [message.phase for message in agent.asked[-1]]
    assert phases == ["commentary", "final_answer", "", "", ""]


@pytest.mark.parametrize("role", ["user", "system"])
async def test_only_an_assistants_message_has_a_phase(http: httpx2.AsyncClient, role: str) -> None:
    for phase, where in (("commentary", "input[0].phase"), ("musing", "input[0].phase")):
        body = {"model": "default", "input": [said(role, "x") | {"phase": phase}]}
        refused = await http.post("/v1/responses", json=body)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, where)


# ---- over a WebSocket


async def test_websocket_response(url: str, agent: Answering) -> None:
    async with connected(url) as frames:
        await say(frames, input=[said("user", "Count.")])
        events = await until_ended(frames)
    assert events[-1]["type"] == "response.completed"
    check_response(events[-1]["response"])


async def test_websocket_sequential_responses(url: str, agent: Answering) -> None:
    async with connected(url) as frames:
        for text in ("first", "second"):
            await say(frames, store=False, input=text)
            assert (await until_ended(frames))[-1]["type"] == "response.completed"
    assert [[message.content for message in asked] for asked in agent.asked] == [["first"], ["second"]]


async def test_websocket_continuation(url: str, agent: Answering) -> None:
    async with connected(url) as frames:
        await say(frames, store=False, input="Remember: cobalt.")
        first = (await until_ended(frames))[-1]["response"]
        await say(frames, store=False, previous_response_id=first["id"], input="The word?")
        assert (await until_ended(frames))[-1]["type"] == "response.completed"
    assert [message.content for message in agent.asked[-1]] == ["Remember: cobalt.", "Of 1.", "The word?"]


async def test_websocket_reconnect_store_false_recovery(url: str, agent: Answering) -> None:
    async with connected(url) as frames:
        await say(frames, store=False)
        first = (await until_ended(frames))[-1]["response"]
    async with connected(url) as frames:
        await say(frames, store=False, previous_response_id=first["id"])
        assert (await error_of(frames))["error"]["code"] == "previous_response_not_found"
        await say(frames, store=False, input=[said("user", "Anew.")])
        assert (await until_ended(frames))[-1]["type"] == "response.completed"


async def test_websocket_previous_response_not_found(url: str, agent: Answering) -> None:
    async with connected(url) as frames:
        await say(frames, store=False, previous_response_id="resp_that_is_missing")
        assert (await error_of(frames))["error"]["code"] == "previous_response_not_found"


@pytest.mark.parametrize("store", [True, False])
async def test_websocket_failed_continuation_evicts_cache(url: str, agent: Answering, store: bool) -> None:
    """What is stored outlasts that."""
    orphan = {"type": "function_call_output", "call_id": "call-missing", "output": "3"}
    async with connected(url) as frames:
        await say(frames, store=store)
        first = (await until_ended(frames))[-1]["response"]
        await say(frames, store=False, previous_response_id=first["id"], input=[orphan])
        assert (await error_of(frames))["error"]["param"] == "input[0]"
        await say(frames, store=False, previous_response_id=first["id"])
        last = (await until_ended(frames))[-1]
    if store:
        assert last["type"] == "response.completed"
    else:
        assert last["error"]["code"] == "previous_response_not_found"


@pytest.mark.parametrize("failed", [True, False])
async def test_an_answer_that_fails_is_a_failed_continuation(url: str, sessions: FakeSessions, failed: bool) -> None:
    """One that is cancelled is not."""
    async with connected(url) as frames:
        await say(frames, store=False)
        await answered(sessions, "one")
        first = (await until_ended(frames))[-1]["response"]
        await say(frames, store=False, previous_response_id=first["id"])
        commander = await sessions.begin(await sessions.created.get())
        await (commander.fail() if failed else commander.stop("UserCancel", "user"))
        assert (await until_ended(frames))[-1]["type"] == "response.failed"
        await say(frames, store=False, previous_response_id=first["id"])
        assert ((await event_of(frames))["type"] == "error") is failed


# ---- what is refused


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"model": "default", "input": [said("user", "Tuesday.")]}, id="compact-response"),
        pytest.param({"input": [said("user", "Tuesday.")]}, id="compact-missing-model"),
        pytest.param({"model": "default", "input": []}, id="websocket-compact-new-chain"),
    ],
)
async def test_nothing_is_compacted(http: httpx2.AsyncClient, body: dict[str, Any]) -> None:
    refused = await http.post("/v1/responses/compact", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
    assert "compacted" in refused.json()["error"]["message"]

"""OpenAI's Responses, as the official client and as bytes."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pydantic
import pytest
from openai.types.responses import Response
from prometheus_client import CollectorRegistry

from dispatcher.access.watch import Access
from dispatcher.gateway import limits
from dispatcher.gateway.app import user_app
from dispatcher.gateway.response_events import STRIDE
from dispatcher.gateway.server import HttpServer, bind
from dispatcher.metrics import Metrics
from dispatcher.settings import DispatcherSettings
from dispatcher.store.memory import MemoryStore
from shared.records import Message, Usage
from tests.dispatcher.gateway.fakes import Commander, FakeSessions, eventually

ASK: dict[str, Any] = {"model": "default", "input": "hi"}


def client_of(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30)


@pytest.fixture
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with client_of(url) as client:
        yield client


@pytest.fixture
async def other(sessions: FakeSessions, settings: DispatcherSettings) -> AsyncIterator[str]:
    """Where users reach another replica over the same store."""
    replica = FakeSessions()
    replica.store, replica.stops = sessions.store, sessions.stops
    server = HttpServer(
        user_app(replica, settings, Metrics(CollectorRegistry()), Access(None)), bind("TEST", "127.0.0.1:0")
    )
    await server.start()
    yield f"http://127.0.0.1:{server.port}"
    replica.closing.set()
    await server.close()


def response_id(commander: Commander) -> str:
    return f"resp_{commander.session_id}"


async def in_background(client: openai.AsyncOpenAI, sessions: FakeSessions) -> Commander:
    response = await client.responses.create(**ASK, background=True)
    assert (response.status, response.background, response.output) == ("queued", True, [])
    commander = await sessions.begin(await sessions.created.get())
    assert response.id == response_id(commander)
    return commander


# ---- asking


async def test_whole(client: openai.AsyncOpenAI, sessions: FakeSessions) -> None:
    asking = asyncio.create_task(client.responses.create(**ASK))
    commander = await sessions.begin(await sessions.created.get())
    await commander.think("hm")
    await commander.say("Hello, ")
    await commander.call()
    await commander.answer()
    await commander.say("world")
    await commander.finish("stop", Usage(3, 4))
    response = await asking
    assert response.id == response_id(commander)
    assert response.output_text == "Hello, world"
    assert [item.type for item in response.output] == ["message"]
    assert (response.status, response.model, response.background) == ("completed", "default", False)
    assert response.usage
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (3, 4, 7)
    assert sessions.stops.empty()
    assert await client.responses.retrieve(response.id) == response


async def test_streamed(client: openai.AsyncOpenAI, sessions: FakeSessions) -> None:
    stream = await client.responses.create(**ASK, stream=True)
    first, second = await anext(stream), await anext(stream)  # at once
    assert (first.type, second.type) == ("response.created", "response.in_progress")
    commander = await sessions.begin(await sessions.created.get())
    await commander.think("hm")
    await commander.say("one ")
    await commander.call()
    await commander.say("two")
    await commander.finish()
    rest = [event async for event in stream]
    assert "".join(event.delta for event in rest if event.type == "response.output_text.delta") == "one two"
    last = rest[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == "one two"
    numbers = [event.sequence_number for event in (first, second, *rest)]
    assert numbers == sorted(set(numbers))
    assert sessions.stops.empty()


class Weather(pydantic.BaseModel):
    sunny: bool


async def test_the_typed_helper(
    client: openai.AsyncOpenAI, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions.honoured = frozenset({"structured"})
    async with client.responses.stream(**ASK, text_format=Weather) as stream:
        commander = await sessions.begin(await sessions.created.get())
        await commander.say('{"sunny"', ": true}")
        await commander.finish("stop", Usage(3, 4))
        events = [event async for event in stream]
        final = await stream.get_final_response()
    snapshots = [event.snapshot for event in events if event.type == "response.output_text.delta"]
    assert snapshots == ['{"sunny"', '{"sunny": true}']
    assert final.output_parsed == Weather(sunny=True)
    assert final.usage
    assert events[-1].type == "response.completed"
    record = await sessions.store.load(commander.session_id)
    assert record
    given = json.loads(record.request.parameters_json)["response_format"]
    assert (given["type"], given["json_schema"]["name"], given["json_schema"]["strict"]) == (
        "json_schema",
        "Weather",
        True,
    )

    after = events[3].sequence_number
    async with client.responses.stream(response_id=response_id(commander), starting_after=after) as again:
        assert [event.sequence_number async for event in again] == [event.sequence_number for event in events[4:]]
        assert (await again.get_final_response()).output_text == '{"sunny": true}'


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("length", "incomplete"),
        ("PolicyViolation", "incomplete"),
        ("Timeout", "incomplete"),
        ("Shutdown", "failed"),
        ("failed", "failed"),
    ],
)
async def test_an_end_that_is_not_complete(
    client: openai.AsyncOpenAI, sessions: FakeSessions, how: str, status: str, stream: bool
) -> None:
    asking = asyncio.create_task(client.responses.create(**ASK, stream=stream))
    commander = await sessions.begin(await sessions.created.get())
    await commander.say("so far")
    match how:
        case "length":
            await commander.finish("length")
        case "failed":
            await commander.fail("my_code", "SECRET")
        case reason:
            await commander.stop(reason, detail="SECRET")
    answer = await asking
    if isinstance(answer, Response):
        response = answer
    else:
        last = [event async for event in answer][-1]
        assert last.type == ("response.incomplete" if status == "incomplete" else "response.failed")
        response = last.response
    assert (response.status, response.output_text) == (status, "so far")
    assert "SECRET" not in response.to_json()
    assert await client.responses.retrieve(response.id) == response
    if how == "failed":
        assert response.error
        assert response.error.to_dict() == {
            "type": "server_error",
            "code": "agent_error",
            "message": "The agent failed.",
            "param": None,
        }


async def test_messages_and_parameters_reach_the_session(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    sessions.honoured = frozenset({"sampling", "reasoning"})
    body = {
        "model": "default",
        "instructions": "be brief",
        "input": [
            {"role": "developer", "content": "and kind"},
            {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
            {
                "type": "message",
                "id": "msg_1",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "c", "annotations": []}],
            },
            {"type": "message", "role": "user", "content": "d"},
        ],
        "max_output_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"format": {"type": "text"}, "verbosity": None},
        "background": True,
        "store": True,
        "metadata": {"a": "b"},
        "tools": [],
        "something_new": {},
    }
    answer = await http.post("/v1/responses", json=body, headers={"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"})
    assert answer.status_code == 200, answer.text
    response = answer.json()
    assert (response["max_output_tokens"], response["temperature"], response["top_p"]) == (7, 0.5, 0.9)
    record = await sessions.store.load(await sessions.created.get())
    assert record
    assert record.request.background
    assert record.request.traceparent.startswith("00-111")
    assert record.request.messages == (
        Message("system", "be brief"),
        Message("developer", "and kind"),
        Message("user", "a\nb"),
        Message("assistant", "c"),
        Message("user", "d"),
    )
    assert json.loads(record.request.parameters_json) == {
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "reasoning_effort": "low",
    }


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"input": None}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"stream": "yes"}, "stream"),
        ({"background": 1}, "background"),
    ],
)
async def test_an_invalid_body_names_the_field(
    client: openai.AsyncOpenAI, sessions: FakeSessions, fields: dict[str, object], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        await client.responses.create(**ASK, extra_body=fields)
    assert raised.value.param == param
    assert raised.value.type == "invalid_request_error"
    assert sessions.created.empty()


async def test_without_input(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/v1/responses", json={"model": "default"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input")


async def test_an_agent_that_nobody_offers(client: openai.AsyncOpenAI, sessions: FakeSessions) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        await client.responses.create(model="other", input="hi", background=True)
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")
    assert sessions.created.empty()


async def test_a_full_queue(client: openai.AsyncOpenAI, sessions: FakeSessions) -> None:
    sessions.full = True
    with pytest.raises(openai.RateLimitError) as raised:
        await client.responses.create(**ASK, stream=True)
    assert int(raised.value.response.headers["retry-after"]) > 0


# ---- leaving


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("spoken", [True, False])
async def test_leaving_a_foreground_response_stops_it(
    url: str, sessions: FakeSessions, stream: bool, spoken: bool
) -> None:
    body = json.dumps(ASK | {"stream": stream}).encode()
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    async with asyncio.timeout(30):
        commander = await sessions.begin(await sessions.created.get())
        if spoken:
            await commander.say("so far")
            if stream:
                await reader.readuntil(b"so far")
        writer.close()
        assert await sessions.stops.get() == (commander.session_id, "UserCancel", "user", "")


async def test_leaving_the_official_clients_stream_stops_it(client: openai.AsyncOpenAI, sessions: FakeSessions) -> None:
    async with await client.responses.create(**ASK, stream=True) as stream:
        commander = await sessions.begin(await sessions.created.get())
        await commander.say("so far")
        await anext(stream)
    async with asyncio.timeout(30):
        assert (await sessions.stops.get())[:2] == (commander.session_id, "UserCancel")
    response = await client.responses.retrieve(response_id(commander))
    assert (response.status, response.output_text) == ("cancelled", "so far")


async def test_leaving_a_background_response_does_not_stop_it(
    client: openai.AsyncOpenAI, sessions: FakeSessions, metrics: Metrics
) -> None:
    async with await client.responses.create(**ASK, stream=True, background=True) as stream:
        commander = await sessions.begin(await sessions.created.get())
        await commander.say("so far")
        seen = await anext(stream)
        assert metrics.event_streams._value.get() == 1
    await eventually(lambda: metrics.event_streams._value.get() == 0)
    assert sessions.stops.empty()
    await commander.say(", and on")
    await commander.finish()
    rest = await client.responses.retrieve(response_id(commander), stream=True, starting_after=seen.sequence_number)
    events = [event async for event in rest]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "so far, and on"
    assert (await client.responses.retrieve(response_id(commander))).status == "completed"


async def test_a_reader_of_a_foreground_response_may_come_and_go(
    client: openai.AsyncOpenAI, sessions: FakeSessions, metrics: Metrics, other: str
) -> None:
    asked = await client.responses.create(**ASK, stream=True)
    commander = await sessions.begin(await sessions.created.get())
    await commander.say("so far")
    async with (
        client_of(other) as elsewhere,
        await elsewhere.responses.retrieve(response_id(commander), stream=True, starting_after=1) as read,
    ):
        assert (await anext(read)).type == "response.output_item.added"
    async with await client.responses.retrieve(response_id(commander), stream=True) as read:
        await anext(read)
        assert metrics.event_streams._value.get() == 2
    await eventually(lambda: metrics.event_streams._value.get() == 1)
    assert sessions.stops.empty()
    await commander.finish()
    assert [event async for event in asked][-1].type == "response.completed"


# ---- reading again


async def read(http: httpx2.AsyncClient, commander: Commander, after: int | None = None) -> bytes:
    params = {"stream": "true"} | ({} if after is None else {"starting_after": str(after)})
    answer = await http.get(f"/v1/responses/{response_id(commander)}", params=params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return answer.content


async def test_a_replay_is_the_same_to_the_byte_at_any_replica(
    http: httpx2.AsyncClient, sessions: FakeSessions, other: str
) -> None:
    asking = asyncio.create_task(http.post("/v1/responses", json=ASK | {"stream": True}))
    commander = await sessions.begin(await sessions.created.get())
    await commander.think("hm")
    await commander.say("a", "b\n\n", "c")
    await commander.call()
    await commander.hold("held")
    await commander.let_out("d")
    await commander.finish("length", Usage(1, 2))
    streamed = (await asking).content
    frames = [frame + b"\n\n" for frame in streamed.split(b"\n\n")[:-1]]
    numbers = [json.loads(frame.split(b"\ndata: ", 1)[1])["sequence_number"] for frame in frames]
    assert await read(http, commander) == streamed
    async with httpx2.AsyncClient(base_url=other, timeout=30) as elsewhere:
        for n, number in enumerate(numbers):
            assert await read(elsewhere, commander, number) == b"".join(frames[n + 1 :])
        final = (await elsewhere.get(f"/v1/responses/{response_id(commander)}")).json()
    assert json.loads(frames[-1].split(b"\ndata: ", 1)[1])["response"] == final


async def test_a_live_response_is_resumed_at_another_replica(
    client: openai.AsyncOpenAI, sessions: FakeSessions, other: str
) -> None:
    commander = await in_background(client, sessions)
    await commander.say("one ", "two ")
    texts, after = [], 0
    stream = await client.responses.retrieve(response_id(commander), stream=True)
    async for event in stream:
        after = event.sequence_number
        if event.type == "response.output_text.delta":
            texts.append(event.delta)
            break
    await stream.close()
    async with client_of(other) as elsewhere:
        now = await elsewhere.responses.retrieve(response_id(commander))
        assert (now.status, now.output_text) == ("in_progress", "one two ")
        stream = await elsewhere.responses.retrieve(response_id(commander), stream=True, starting_after=after)
        event = await anext(stream)
        assert event.type == "response.output_text.delta"
        texts.append(event.delta)
        await commander.say("three")
        await commander.finish()
        rest = [event async for event in stream]
    texts += [event.delta for event in rest if event.type == "response.output_text.delta"]
    assert texts == ["one ", "two ", "three"]
    assert rest[-1].type == "response.completed"
    assert rest[-1].response.output_text == "one two three"


async def test_an_event_beyond_the_log_is_an_error(client: openai.AsyncOpenAI, sessions: FakeSessions) -> None:
    commander = await in_background(client, sessions)
    await commander.say("so far")
    for beyond in ((commander.head.offset + 1) * STRIDE, 10**30):
        with pytest.raises(openai.BadRequestError) as raised:
            await client.responses.retrieve(response_id(commander), stream=True, starting_after=beyond)
        assert raised.value.param == "starting_after"
        assert "rolled back" in raised.value.message
    last = commander.head.offset * STRIDE
    async with asyncio.timeout(30):
        stream = await client.responses.retrieve(response_id(commander), stream=True, starting_after=last + 2)
        await commander.finish()
        assert (await anext(stream)).type == "response.output_text.done"


@pytest.mark.parametrize("name", ["starting_after", "stream"])
@pytest.mark.parametrize("value", ["", "x", "-1", "1.5", "٣"])
async def test_a_query_that_is_wrong(http: httpx2.AsyncClient, sessions: FakeSessions, name: str, value: str) -> None:
    commander = await sessions.begin()
    params = {"stream": "true"} | {name: value}
    answer = await http.get(f"/v1/responses/{response_id(commander)}", params=params)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


async def test_a_log_that_is_rolled_back_under_a_stream_is_an_error(
    client: openai.AsyncOpenAI, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "KEEP_ALIVE_SECONDS", 0.02)
    commander = await in_background(client, sessions)
    await commander.say("so ", "far")
    stream = await client.responses.retrieve(response_id(commander), stream=True)
    async with asyncio.timeout(30):
        async for event in stream:
            if event.type == "response.output_text.delta" and event.delta == "far":
                break
        await sessions.roll_back(commander.session_id, commander.head.offset - 1)
        with pytest.raises(openai.APIError) as raised:
            await anext(stream)
    assert raised.value.code == "data_loss"


async def test_keep_alives_are_comments(url: str, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KEEP_ALIVE_SECONDS", 0.02)
    async with client_of(url) as client:
        stream = await client.responses.create(**ASK, stream=True)
        received = b""
        async with asyncio.timeout(30):
            async for data in stream.response.aiter_bytes():
                received += data
                if received.count(b": keep-alive\n\n") >= 2 and sessions.created.qsize():
                    commander = await sessions.begin(sessions.created.get_nowait())
                    await commander.finish()
    blocks = received.split(b"\n\n")[:-1]
    assert all(block == b": keep-alive" or block.startswith(b"event: response.") for block in blocks)
    assert blocks[-1].startswith(b"event: response.completed\ndata: {")


async def test_a_draining_server_ends_the_answers_and_not_the_sessions(
    client: openai.AsyncOpenAI, sessions: FakeSessions, other: str
) -> None:
    whole = asyncio.create_task(client.responses.create(**ASK))
    await sessions.begin(await sessions.created.get())
    stream = await client.responses.create(**ASK, stream=True)
    commander = await sessions.begin(await sessions.created.get())
    await commander.say("so far")
    async with asyncio.timeout(30):
        async for event in stream:
            if event.type == "response.output_text.delta":
                break
        sessions.closing.set()
        with pytest.raises(openai.APIError) as raised:
            await anext(stream)
        assert raised.value.code == "shutting_down"
        with pytest.raises(openai.InternalServerError) as refused:
            await whole
        assert refused.value.status_code == 503
        assert sessions.stops.empty()
        await commander.say(", and on")
        await commander.finish()
        async with client_of(other) as elsewhere:
            rest = await elsewhere.responses.retrieve(
                response_id(commander), stream=True, starting_after=event.sequence_number
            )
            shown = [event async for event in rest]
    assert shown[0].type == "response.output_text.delta"
    assert shown[0].delta == ", and on"
    assert shown[-1].type == "response.completed"


# ---- cancelling and deleting


async def test_cancelling_twice_gives_the_same_object(
    client: openai.AsyncOpenAI, sessions: FakeSessions, other: str
) -> None:
    commander = await in_background(client, sessions)
    await commander.say("so far")
    async with client_of(other) as elsewhere, asyncio.timeout(30):
        reading = await client.responses.retrieve(response_id(commander), stream=True)
        first = await elsewhere.responses.cancel(response_id(commander))
        assert (first.status, first.output_text) == ("cancelled", "so far")
        assert await sessions.stops.get() == (commander.session_id, "UserCancel", "user", "")
        await commander.hold("too late")
        await commander.halted()
        assert await client.responses.cancel(response_id(commander)) == first
        assert await elsewhere.responses.retrieve(response_id(commander)) == first
        last = [event async for event in reading][-1]
    assert last.type == "response.failed"
    assert last.response == first
    assert sessions.stops.empty()


async def test_a_waiting_response_can_be_cancelled(client: openai.AsyncOpenAI, sessions: FakeSessions) -> None:
    waiting = await client.responses.create(**ASK, background=True)
    assert (await client.responses.retrieve(waiting.id)).status == "queued"
    cancelled = await client.responses.cancel(waiting.id)
    assert (cancelled.status, cancelled.output) == ("cancelled", [])


@pytest.mark.parametrize("how", ["finished", "failed", "PolicyViolation"])
async def test_an_ended_response_cannot_be_cancelled(
    client: openai.AsyncOpenAI, sessions: FakeSessions, how: str
) -> None:
    commander = await in_background(client, sessions)
    match how:
        case "finished":
            await commander.finish()
        case "failed":
            await commander.fail()
        case reason:
            await commander.stop(reason)
    with pytest.raises(openai.BadRequestError) as raised:
        await client.responses.cancel(response_id(commander))
    assert raised.value.code == "not_cancellable"
    assert sessions.stops.empty()


async def test_a_stop_that_comes_second_does_not_cancel(
    client: openai.AsyncOpenAI, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    commander = await in_background(client, sessions)
    stop = sessions.stop

    async def late(*arguments: Any) -> Any:
        await commander.finish()
        return await stop(*arguments)

    monkeypatch.setattr(sessions, "stop", late)
    with pytest.raises(openai.BadRequestError) as raised:
        await client.responses.cancel(response_id(commander))
    assert "completed" in raised.value.message


async def test_a_foreground_response_cannot_be_cancelled(client: openai.AsyncOpenAI, sessions: FakeSessions) -> None:
    stream = await client.responses.create(**ASK, stream=True)
    commander = await sessions.begin(await sessions.created.get())
    with pytest.raises(openai.BadRequestError) as raised:
        await client.responses.cancel(response_id(commander))
    assert raised.value.code == "not_cancellable"
    await commander.finish()
    assert [event async for event in stream][-1].type == "response.completed"


async def test_deleting(client: openai.AsyncOpenAI, sessions: FakeSessions) -> None:
    commander = await in_background(client, sessions)
    with pytest.raises(openai.ConflictError) as raised:
        await client.responses.delete(response_id(commander))
    assert raised.value.code == "response_not_ended"
    await commander.finish()
    deleted = await client.delete(f"/responses/{response_id(commander)}", cast_to=httpx2.Response)
    assert deleted.json() == {"id": response_id(commander), "object": "response", "deleted": True}
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(response_id(commander))
    assert await sessions.store.load(commander.session_id) is None


@pytest.mark.parametrize("prefix", ["resp_x", ""])
async def test_an_unknown_id(http: httpx2.AsyncClient, sessions: FakeSessions, prefix: str) -> None:
    commander = await sessions.begin()
    path = f"/v1/responses/{prefix}{commander.session_id}"
    for method, where in (("GET", path), ("GET", f"{path}?stream=true"), ("POST", f"{path}/cancel"), ("DELETE", path)):
        answer = await http.request(method, where)
        assert answer.status_code == 404
        assert answer.json() == {
            "error": {
                "message": "No such response.",
                "type": "invalid_request_error",
                "param": None,
                "code": "response_not_found",
            }
        }


async def test_a_session_that_vanishes_under_an_answer(
    client: openai.AsyncOpenAI, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "KEEP_ALIVE_SECONDS", 0.02)
    asking = asyncio.create_task(client.responses.create(**ASK))
    commander = await sessions.begin(await sessions.created.get())
    await commander.say("so far")
    assert isinstance(sessions.store, MemoryStore)
    sessions.store._drop(commander.session_id)
    async with asyncio.timeout(30):
        with pytest.raises(openai.InternalServerError) as raised:
            await asking
    assert (raised.value.status_code, raised.value.code) == (502, "data_loss")

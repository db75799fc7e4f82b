"""The OpenAI subset, as the official client and as bytes."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest

from dispatcher.core.entries import Call, Decision
from dispatcher.gateway import limits, sse
from shared.records import Message, Usage
from tests.dispatcher.gateway.fakes import Commander, FakeSessions

ASK: dict[str, Any] = {"model": "default", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield client


async def test_models(client: openai.AsyncOpenAI, sessions: FakeSessions) -> None:
    sessions.offered = ["default", "team/model"]
    assert [model.id async for model in client.models.list()] == ["default", "team/model"]
    assert (await client.models.retrieve("team/model")).id == "team/model"
    with pytest.raises(openai.NotFoundError) as raised:
        await client.models.retrieve("other")
    assert raised.value.code == "model_not_found"


async def test_whole(client: openai.AsyncOpenAI, sessions: FakeSessions) -> None:
    asking = asyncio.ensure_future(client.chat.completions.with_raw_response.create(**ASK))
    commander = await sessions.begin(await sessions.created.get())
    await commander.think("hm")
    await commander.say("Hello, ")
    await commander.call()
    await commander.answer()
    await commander.say("world")
    await commander.finish("length", Usage(3, 4))
    response = await asking
    assert response.headers["x-session-id"] == commander.session_id
    completion = response.parse()
    (choice,) = completion.choices
    assert choice.message.content == "Hello, world"
    assert choice.message.role == "assistant"
    assert choice.message.tool_calls is None
    assert choice.finish_reason == "length"
    assert completion.usage
    assert completion.usage.total_tokens == 7
    assert completion.model == "default"
    assert commander.session_id not in completion.to_json()
    assert sessions.stops.empty()


async def test_streamed(client: openai.AsyncOpenAI, sessions: FakeSessions) -> None:
    asking = asyncio.create_task(
        client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
    )
    commander = await sessions.begin(await sessions.created.get())
    await commander.say("one ")
    stream = await asking
    first = await anext(stream)
    assert first.choices[0].delta.role == "assistant"
    said = (await anext(stream)).choices[0].delta.content
    await commander.say("two")
    await commander.finish("stop", Usage(3, 4))
    rest = [chunk async for chunk in stream]
    *texts, last, usage = rest
    assert f"{said}{''.join(chunk.choices[0].delta.content or '' for chunk in texts)}" == "one two"
    assert last.choices[0].finish_reason == "stop"
    assert usage.choices == []
    assert usage.usage
    assert usage.usage.total_tokens == 7
    assert {chunk.id for chunk in [first, *rest]} == {first.id}
    assert all(chunk.usage is None for chunk in [first, *texts, last])
    assert all(chunk.choices[0].delta.role is None for chunk in [*texts, last])


def ask(http: httpx2.AsyncClient, **fields: object) -> "asyncio.Task[httpx2.Response]":
    return asyncio.create_task(http.post("/v1/chat/completions", json=ASK | fields))


def frames(answer: httpx2.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("\n\n")
    blocks = [block for block in answer.text.split("\n\n") if block and not block.startswith(":")]
    assert all(block.startswith("data: ") for block in blocks)
    return [block.removeprefix("data: ") for block in blocks]


async def test_whose_a_message_is_reaches_the_agent(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    asked = [
        {"role": "system", "name": "rules", "content": "Be kind."},
        {"role": "user", "name": "Ann", "content": "hi"},
    ]
    asking = ask(http, messages=asked)
    commander = await sessions.begin(await sessions.created.get())
    record = await sessions.store.load(commander.session_id)
    assert record
    assert [message.name for message in record.request.messages] == ["rules", "Ann"]
    await commander.finish("stop")
    assert (await asking).status_code == 200
    refused = await ask(http, messages=[asked[0] | {"name": "x" * 257}])
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages[0].name")


async def test_the_stream_ends_with_done(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    asking = ask(http, stream=True)
    commander = await sessions.begin(await sessions.created.get())
    await commander.finish()
    answer = await asking
    assert answer.headers["x-session-id"] == commander.session_id
    *chunks, done = frames(answer)
    assert done == "[DONE]"
    first, last = map(json.loads, chunks)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert last["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert all("usage" not in json.loads(chunk) for chunk in chunks)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("PolicyViolation", "content_filter"),
        ("RiskControl", "content_filter"),
        ("UserCancel", "stop"),
        ("Timeout", "length"),
    ],
)
async def test_a_stop_is_a_finish(
    http: httpx2.AsyncClient, sessions: FakeSessions, stream: bool, reason: str, shown: str
) -> None:
    asking = ask(http, stream=stream)
    commander = await sessions.begin(await sessions.created.get())
    await commander.say("so far")
    await commander.stop(reason, detail="SECRET")
    answer = await asking
    assert "SECRET" not in answer.text
    choice = json.loads(frames(answer)[-2])["choices"][0] if stream else answer.json()["choices"][0]
    assert choice["finish_reason"] == shown
    assert "so far" in answer.text


@pytest.mark.parametrize("stream", [True, False])
async def test_a_shutdown_is_no_finish(http: httpx2.AsyncClient, sessions: FakeSessions, stream: bool) -> None:
    asking = ask(http, stream=stream)
    commander = await sessions.begin(await sessions.created.get())
    await commander.say("so far")
    await commander.stop("Shutdown", "dispatcher", detail="SECRET")
    answer = await asking
    assert answer.status_code == (200 if stream else 503)
    error = json.loads(frames(answer)[-2]) if stream else answer.json()
    assert error["error"]["code"] == "shutdown"
    assert "SECRET" not in answer.text


@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_before_the_first_byte_is_a_status(
    client: openai.AsyncOpenAI, sessions: FakeSessions, stream: bool
) -> None:
    asking = asyncio.create_task(client.chat.completions.create(**ASK, stream=stream))
    commander = await sessions.begin(await sessions.created.get())
    await commander.think("hm")
    await commander.hold("held")
    await commander.fail("my_code", "SECRET")
    with pytest.raises(openai.InternalServerError) as raised:
        await asking
    assert raised.value.status_code == 502
    assert raised.value.code == "agent_error"
    assert "SECRET" not in raised.value.response.text
    assert raised.value.response.headers["x-session-id"] == commander.session_id
    assert sessions.stops.empty()


async def test_an_error_after_text_unstreamed(client: openai.AsyncOpenAI, sessions: FakeSessions) -> None:
    asking = asyncio.create_task(client.chat.completions.create(**ASK))
    commander = await sessions.begin(await sessions.created.get())
    await commander.say("so far")
    await commander.lose()
    with pytest.raises(openai.InternalServerError) as raised:
        await asking
    assert (raised.value.status_code, raised.value.code) == (502, "commander_lost")


async def test_an_error_in_mid_stream_is_a_frame(client: openai.AsyncOpenAI, sessions: FakeSessions) -> None:
    asking = asyncio.create_task(client.chat.completions.create(**ASK, stream=True))
    commander = await sessions.begin(await sessions.created.get())
    await commander.say("so far")
    stream = await asking
    await anext(stream)
    await commander.fail("agent_error", "SECRET")
    with pytest.raises(openai.APIError) as raised:
        async for _ in stream:
            pass
    assert raised.value.code == "agent_error"
    assert raised.value.message == "The agent failed."


async def test_a_question_that_ran_a_tool_is_not_asked_again(url: str, sessions: FakeSessions) -> None:
    """The official client asks again by itself after a 502, twice, unless it is told not to."""

    async def failing(commander: Commander, tool: bool) -> None:
        if tool:
            await commander.call()
            await commander.answer()
        await commander.fail()

    for stream in (True, False):
        for tool, asked in ((False, 3), (True, 1)):
            async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=2, timeout=30) as client:
                asking = asyncio.create_task(client.chat.completions.create(**ASK, stream=stream))
                for _ in range(asked):
                    await failing(await sessions.begin(await sessions.created.get()), tool)
                with pytest.raises(openai.InternalServerError) as raised:
                    await asking
            assert sessions.created.empty()
            assert raised.value.response.headers.get("x-should-retry") == ("false" if tool else None)


@pytest.mark.parametrize(
    ("refused", "denied", "approval"), [(True, False, ""), (False, True, ""), (False, False, "user")]
)
async def test_a_call_that_was_not_run_is_no_reason_not_to_ask_again(
    http: httpx2.AsyncClient, sessions: FakeSessions, refused: bool, denied: bool, approval: str
) -> None:
    asking = ask(http)
    commander = await sessions.begin(await sessions.created.get())
    await commander.log(Call("search", "{}", "call-1", "instance", refused, denied, approval))
    await commander.fail()
    assert "x-should-retry" not in (await asking).headers


async def test_one_that_was_approved_and_run_is(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    asking = ask(http)
    commander = await sessions.begin(await sessions.created.get())
    digest = await commander.ask_approval()
    await sessions.decide(commander.session_id, Decision("call-1", "approve", "operator", digest))
    await commander.start_call()
    await commander.fail()
    assert (await asking).headers["x-should-retry"] == "false"


@pytest.mark.parametrize("stream", [True, False])
async def test_usage_of_a_stopped_answer_is_an_estimate_that_says_so(
    http: httpx2.AsyncClient, sessions: FakeSessions, stream: bool
) -> None:
    asking = ask(http, stream=stream, stream_options={"include_usage": True} if stream else None)
    commander = await sessions.begin(await sessions.created.get())
    await commander.say("seven €")  # nine bytes
    await commander.stop("UserCancel", "user")
    answer = await asking
    last = json.loads(frames(answer)[-2]) if stream else answer.json()
    assert last["usage"] == {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4, "estimated": True}


async def test_nobody_was_free(client: openai.AsyncOpenAI, sessions: FakeSessions) -> None:
    asking = asyncio.create_task(client.chat.completions.create(**ASK))
    commander = await sessions.begin(await sessions.created.get())
    await commander.lose("no_commander")
    with pytest.raises(openai.InternalServerError) as raised:
        await asking
    assert (raised.value.status_code, raised.value.code) == (503, "no_commander")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("spoken", [True, False])
async def test_closing_the_connection_stops_the_generation(
    url: str, sessions: FakeSessions, stream: bool, spoken: bool
) -> None:
    body = json.dumps(ASK | {"stream": stream}).encode()
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    async with asyncio.timeout(30):
        commander = await sessions.begin(await sessions.created.get())
        if spoken:
            await commander.say("so far")
            if stream:
                await reader.readuntil(b"so far")
        writer.close()
        assert await sessions.stops.get() == (commander.session_id, "UserCancel", "user", "")
    record = await sessions.store.load(commander.session_id)
    assert record
    assert record.head.state == "stopped"


async def test_leaving_the_official_clients_stream_stops_it(client: openai.AsyncOpenAI, sessions: FakeSessions) -> None:
    asking = asyncio.create_task(client.chat.completions.create(**ASK, stream=True))
    commander = await sessions.begin(await sessions.created.get())
    await commander.say("so far")
    async with await asking as stream:
        await anext(stream)
    async with asyncio.timeout(30):
        assert (await sessions.stops.get())[:2] == (commander.session_id, "UserCancel")


async def test_a_draining_server_ends_the_answer_and_not_the_session(
    client: openai.AsyncOpenAI, sessions: FakeSessions
) -> None:
    silent = asyncio.create_task(client.chat.completions.create(**ASK, stream=True))
    await sessions.begin(await sessions.created.get())
    asking = asyncio.create_task(client.chat.completions.create(**ASK, stream=True))
    commander = await sessions.begin(await sessions.created.get())
    await commander.say("so far")
    async with asyncio.timeout(30):
        stream = await asking
        await anext(stream)
        sessions.closing.set()
        with pytest.raises(openai.APIError) as raised:
            _ = [chunk async for chunk in stream]
        assert raised.value.code == "shutting_down"
        with pytest.raises(openai.InternalServerError) as refused:
            await silent
        assert refused.value.status_code == 503
    assert sessions.stops.empty()


async def test_a_log_that_is_rolled_back_under_a_stream_is_an_error(
    client: openai.AsyncOpenAI, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "KEEP_ALIVE_SECONDS", 0.02)
    asking = asyncio.create_task(client.chat.completions.create(**ASK, stream=True))
    commander = await sessions.begin(await sessions.created.get())
    await commander.say("so far")
    async with asyncio.timeout(30):
        stream = await asking
        await anext(stream)
        await sessions.roll_back(commander.session_id, commander.head.offset - 1)
        with pytest.raises(openai.APIError) as raised:
            _ = [chunk async for chunk in stream]
    assert raised.value.code == "data_loss"


async def test_a_silent_stream_is_kept_alive(
    http: httpx2.AsyncClient, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "KEEP_ALIVE_SECONDS", 0.02)
    asking = asyncio.create_task(
        http.send(http.build_request("POST", "/v1/chat/completions", json=ASK | {"stream": True}), stream=True)
    )
    commander = await sessions.begin(await sessions.created.get())
    await commander.say("so far")
    answer = await asking
    received = ""
    async with asyncio.timeout(30):
        async for text in answer.aiter_text():
            received += text
            if received.count(": keep-alive\n\n") >= 2 and not commander.head.final:
                await commander.finish()
    assert received.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("route", "asked", "end"),
    [
        ("chat/completions", ASK, b"data: [DONE]\n\n\r\n0\r\n\r\n"),
        ("responses", {"model": "default", "input": "hi"}, b"}}\n\n\r\n0\r\n\r\n"),
    ],
)
async def test_a_slow_reader_gets_the_end_too(
    url: str, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch, route: str, asked: dict[str, Any], end: bytes
) -> None:
    monkeypatch.setattr(sse, "END_SECONDS", 0)
    body = json.dumps(asked | {"stream": True}).encode()
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=4096)
    received = b""
    try:
        head = f"POST /v1/{route} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        commander = await sessions.begin(await sessions.created.get())
        for _ in range(60):  # 11 MB: more than the sockets hold, and each more than the server may have unsent
            await commander.say("€" * 60_000)
        await commander.finish()
        async with asyncio.timeout(20):
            while not received.endswith(end) and (chunk := await reader.read(1 << 20)):
                received = received[-100:] + chunk
    finally:
        writer.close()
    assert received.endswith(end)


async def test_parameters_and_messages_reach_the_session(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    body = {
        "model": "default",
        "messages": [
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": None, "tool_calls": []},
        ],
        "max_tokens": 5,
        "max_completion_tokens": 7,
        "temperature": 0.5,
        "stop": ["x"],
        "tools": [],
        "user": "ignored",
        "something_new": {},
    }
    asking = asyncio.create_task(http.post("/v1/chat/completions", json=body))
    commander = await sessions.begin(await sessions.created.get())
    record = await sessions.store.load(commander.session_id)
    assert record
    assert record.request.messages == (
        Message("developer", "be brief"),
        Message("user", "a\nb"),
        Message("assistant", ""),
    )
    assert json.loads(record.request.parameters_json) == {
        "max_completion_tokens": 7,
        "temperature": 0.5,
        "stop": ["x"],
    }
    await commander.finish()
    assert (await asking).status_code == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ],
)
async def test_an_invalid_body_names_the_field(
    client: openai.AsyncOpenAI, fields: dict[str, object], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        await client.chat.completions.create(**ASK, extra_body=fields)
    assert raised.value.param == param


async def test_an_agent_that_nobody_offers(client: openai.AsyncOpenAI, sessions: FakeSessions) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        await client.chat.completions.create(**ASK | {"model": "other"})
    assert raised.value.code == "model_not_found"
    assert sessions.created.empty()


async def test_a_prompt_that_a_rule_refuses(client: openai.AsyncOpenAI, sessions: FakeSessions) -> None:
    sessions.refusing = True
    for stream in (True, False):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(
                model="default", messages=[{"role": "user", "content": "hi"}], stream=stream
            )
        assert caught.value.code == "policy_violation"


async def test_a_full_queue(client: openai.AsyncOpenAI, sessions: FakeSessions) -> None:
    sessions.full = True
    with pytest.raises(openai.RateLimitError) as raised:
        await client.chat.completions.create(**ASK)
    assert int(raised.value.response.headers["retry-after"]) > 0

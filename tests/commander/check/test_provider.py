"""The metered provider, with the clients that agents use."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from commander.check import answers, provider
from commander.check.declared import FORM, TOOL
from commander.check.provider import Provider

SECONDS = 30.0
TOKENS = 12
TEXT = "".join(map(answers.word, range(TOKENS)))
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def metered(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Provider]:
    """Complete answers of a few tokens."""
    monkeypatch.setattr(provider, "TOKENS", TOKENS)
    async with Provider(rate=1000).serving() as serving:
        yield serving


@pytest.fixture
async def client(metered: Provider) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=metered.base_url, api_key="unused", max_retries=0) as sdk:
        yield sdk


async def test_chat_completions(metered: Provider, client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="any", messages=MESSAGES)
    assert whole.choices[0].message.content == TEXT
    assert whole.usage
    assert whole.usage.completion_tokens == TOKENS
    said, usage = "", None
    async for chunk in await client.chat.completions.create(
        model="any", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    ):
        said += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    assert said == TEXT
    assert usage
    assert usage.completion_tokens == TOKENS
    assert [(exchange.streamed, len(exchange.made)) for exchange in metered.exchanges] == [(False, 12), (True, 12)]
    assert all(exchange.complete and exchange.closed is None for exchange in metered.exchanges)


async def test_responses(client: openai.AsyncOpenAI) -> None:
    assert (await client.responses.create(model="any", input="hi")).output_text == TEXT
    async with client.responses.stream(model="any", input="hi") as stream:
        async for _ in stream:
            pass
        assert (await stream.get_final_response()).output_text == TEXT


async def test_the_checks_own_tool_and_schema_are_answered_and_others_get_the_tale(client: openai.AsyncOpenAI) -> None:
    tools: Any = [{"type": "function", "function": {"name": TOOL.name, "parameters": TOOL.parameters}}]
    asked: dict[str, Any] = {"model": "any", "messages": MESSAGES, "tools": tools}
    called = (await client.chat.completions.create(**asked, tool_choice="required")).choices[0]
    assert called.finish_reason == "tool_calls"
    assert called.message.tool_calls
    (call,) = called.message.tool_calls
    assert call.to_dict()["function"] == {"name": TOOL.name, "arguments": '{"city": "Oslo"}'}
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    messages = [*MESSAGES, called.message, result]
    then = await client.chat.completions.create(**{**asked, "messages": messages})
    assert then.choices[0].message.content == "sunny"
    form = await client.chat.completions.create(model="any", messages=MESSAGES, response_format=cast("Any", FORM))
    assert json.loads(form.choices[0].message.content or "") == {"city": "Oslo", "country": "Oslo"}
    tools[0]["function"]["name"] = "other"
    for others in ({"tool_choice": "required"}, {"response_format": {"type": "json_object"}}):
        tale = await client.chat.completions.create(**asked, **others)
        assert tale.choices[0].message.content == TEXT


async def test_models(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == [answers.MODEL]


async def test_a_pooled_connection_is_no_answer_that_goes_on(metered: Provider) -> None:
    async with httpx2.AsyncClient(trust_env=False) as client:
        for _ in range(2):
            body = {"stream": True, "messages": []}
            answer = await client.post(f"{metered.base_url}/chat/completions", json=body)
            assert answer.text.endswith("data: [DONE]\n\n")
        assert not any(exchange.running for exchange in metered.exchanges)
    assert [exchange.closed for exchange in metered.exchanges] == [None, None]


async def test_tokens_are_made_whether_they_are_read_or_not_until_the_connection_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(provider, "TOKENS", 10**6)
    async with Provider(rate=2000).serving() as metered, httpx2.AsyncClient(trust_env=False) as client:
        url, body = f"{metered.base_url}/chat/completions", {"stream": True}
        async with client.stream("POST", url, json=body) as response:
            assert response.status_code == 200
            (exchange,) = metered.exchanges
            async with asyncio.timeout(SECONDS):
                while len(exchange.made) < 50:  # nothing is read meanwhile
                    assert not await metered.quiet(0.01)
        assert await metered.quiet(SECONDS)
        assert exchange.closed
        made = len(exchange.made)
        assert exchange.made_after(exchange.closed) == 0
        assert made == len(exchange.made) == exchange.made_after(0)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/embeddings", b"{}", 404),
        ("GET", "/chat/completions", b"", 404),
        ("POST", "/chat/completions", b"[]", 400),
        ("POST", "/chat/completions", b"{", 400),
    ],
)
async def test_what_it_does_not_know_is_refused(
    metered: Provider, method: str, path: str, body: bytes, status: int
) -> None:
    async with httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.request(method, metered.base_url + path, content=body)
    assert (answer.status_code, "message" in answer.json()["error"]) == (status, True)
    assert metered.unknown_paths == ([f"/v1{path}"] if status == 404 else [])
    assert metered.exchanges == []


async def test_what_is_no_http_is_cut(metered: Provider) -> None:
    port = int(metered.base_url.rpartition(":")[2].partition("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\x00\x01 nonsense\r\n\r\n")
    try:
        assert await asyncio.wait_for(reader.read(), SECONDS) == b""
    except ConnectionResetError:
        pass
    finally:
        writer.close()

"""How the back-end `openai` asks: what it repeats, where it follows, how long it waits, and what it tells of it."""

import asyncio
import base64
import json
import sys
import time
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import HttpUrl, SecretStr

from commander import loading
from commander.agent import Finish, Message, Turn, Yielded
from commander.backends.errors import ProviderError
from commander.backends.openai import OpenAIAgent
from commander.settings import CommanderSettings
from shared.errors import ConfigError
from tests.commander.backends.provider import KEY, Connection, Provider, Script, serving
from tests.commander.backends.test_streams import WHOLE, answer, as_json, event, said, sending

PROMPT = (Message("user", "hello"),)
ANSWER = ["Hello ", "world.", Finish("stop")]
SLOW_DOWN = {"error": {"message": "slow down"}}


async def answered(provider: Provider, **settings: Any) -> list[Yielded]:
    agent = OpenAIAgent(provider.settings(**settings))
    try:
        return [piece async for piece in agent(Turn(PROMPT))]
    finally:
        await agent.close()


async def failed(provider: Provider, **settings: Any) -> str:
    with pytest.raises(ProviderError) as failure:
        await answered(provider, **settings)
    return str(failure.value)


def refusing(status: str, **headers: str) -> Script:
    return sending(answer(json.dumps(SLOW_DOWN), status, **headers))


async def reset(connection: Connection) -> None:
    connection.writer.transport.abort()


# ---- asking again


@pytest.mark.parametrize(
    "first",
    [
        refusing("429 Too Many Requests", Retry_After="0.01"),
        refusing("503 Service Unavailable", retry_after_ms="10"),
        refusing("500 Internal Server Error", retry_after_ms="10"),
        reset,
    ],
)
async def test_what_was_refused_for_the_moment_is_asked_again(first: Script) -> None:
    async with serving(first, sending(answer(WHOLE))) as provider:
        assert await answered(provider, retries=2) == ANSWER
        assert [connection.body for connection in provider.connections] == [provider.connections[0].body] * 2


async def test_it_is_asked_again_so_many_times_and_no_more() -> None:
    async with serving(refusing("429 Too Many Requests", retry_after_ms="1")) as provider:
        assert "status 429 Too Many Requests: slow down" in await failed(provider, retries=3)
        assert len(provider.connections) == 4


@pytest.mark.parametrize(
    "first",
    [
        refusing("400 Bad Request"),
        refusing("429 Too Many Requests", Retry_After="3600"),
        refusing("429 Too Many Requests", x_should_retry="false"),
        sending(answer(said("Hello "))),
    ],
)
async def test_what_was_refused_for_good_or_begun_is_not_asked_again(first: Script) -> None:
    async with serving(first, sending(answer(WHOLE))) as provider:
        await failed(provider, retries=2)
        assert len(provider.connections) == 1


async def test_a_stop_ends_the_wait() -> None:
    refused = asyncio.Event()

    async def refuse(connection: Connection) -> None:
        await refusing("429 Too Many Requests", Retry_After="100")(connection)
        refused.set()

    async with serving(refuse) as provider:
        agent = OpenAIAgent(provider.settings(retries=2))
        task = asyncio.create_task(anext(agent(Turn(PROMPT))))
        await asyncio.wait_for(refused.wait(), 30)
        task.cancel()
        await asyncio.wait({task}, timeout=30)
        assert task.cancelled()
        assert len(provider.connections) == 1
        await agent.close()


# ---- redirects


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary", "308 Permanent Redirect"])
async def test_a_redirect_on_the_same_host_is_followed(status: str) -> None:
    async with serving(refusing(status, Location="/v2/chat?a=b"), sending(answer(WHOLE))) as provider:
        assert await answered(provider) == ANSWER
        first, second = provider.connections
        assert second.headers["path"] == "/v2/chat?a=b"
        assert (second.body, second.headers["authorization"]) == (first.body, f"bearer {KEY}")


@pytest.mark.parametrize(
    "location", ["http://localhost:1/v1", "//other.example/v1", "https://[::1", "http://[", "ftp://127.0.0.1/"]
)
async def test_no_redirect_leads_elsewhere(location: str) -> None:
    async with serving(refusing("307 Temporary Redirect", Location=location)) as provider:
        told = await failed(provider)
    assert f"status 307 Temporary Redirect, to {location}: slow down" in told or "UnsupportedProtocol" in told
    assert len(provider.connections) == 1


async def test_a_circle_of_redirects_ends() -> None:
    async with serving(refusing("307 Temporary Redirect", Location="/v1/chat/completions")) as provider:
        assert "status 307" in await failed(provider)
        assert len(provider.connections) == 6


# ---- silence


def dripping(drip: str) -> Script:
    async def script(connection: Connection) -> None:
        await connection.begin()
        await connection.token("a")
        while True:
            await connection.raw(drip.encode())
            await asyncio.sleep(0.01)

    return script


@pytest.mark.parametrize(
    "drip",
    [
        ": still here\n\n",
        event({"choices": []}),
        event({"choices": [{"delta": {"content": "", "role": "assistant"}}]}),
        event({"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]}),
        event({"usage": {"prompt_tokens": 1}}),
        "x",
    ],
)
async def test_signs_of_life_are_silence(drip: str) -> None:
    async with serving(dripping(drip)) as provider:
        assert await failed(provider, silence_seconds=0.2) == "ReadTimeout: nothing was said for 0.2 s"
        await asyncio.wait_for(provider.connections[0].closed.wait(), 30)


async def test_a_whole_answer_has_that_time_too() -> None:
    async with serving(dripping("")) as provider, serving(sending(answer('{"choices":'))) as cut:
        assert "ReadTimeout" in await failed(provider, silence_seconds=0.2)
        assert await failed(cut) == ('neither text/event-stream nor JSON but text/event-stream: {"choices":')


async def test_a_server_that_never_answers_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, loop = asyncio.Event(), asyncio.get_running_loop()

    async def silent(connection: Connection) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with serving(silent) as provider:
        telling = asyncio.create_task(failed(provider, retries=2, silence_seconds=0.1))
        await asyncio.wait_for(asked.wait(), 30)
        monkeypatch.setattr(loop, "time", lambda: time.monotonic() + 3600)  # it has connected, however long that took
        assert await telling == "ReadTimeout: no answer within 0.1 s"
        assert len(provider.connections) == 1


@pytest.mark.parametrize("cut", [True, False])
async def test_an_answer_that_has_ended_needs_no_end_of_its_stream(cut: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("commander.backends.client.USAGE_SECONDS", 30.0 if cut else 0.2)

    async def script(connection: Connection) -> None:
        await connection.begin(length="100000")
        await connection.raw(WHOLE.removesuffix("data: [DONE]\n\n").encode())
        if not cut:
            await asyncio.Event().wait()

    async with serving(script) as provider:
        assert await answered(provider, silence_seconds=3000) == ANSWER


@pytest.mark.parametrize("noise", [":\n", event({"choices": []}), "data: {}\n\n"])
async def test_the_loop_has_its_turns_whatever_comes(noise: str) -> None:
    """256 KiB of nothing: others run some sixty times meanwhile, so that a stop would get through."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    flood = noise * (2**18 // len(noise))
    async with serving(sending(answer(flood + WHOLE))) as provider:
        counting = asyncio.create_task(count())
        assert await answered(provider, silence_seconds=100) == ANSWER
        counting.cancel()
    assert turns > 60


async def test_an_answer_is_bounded() -> None:
    async with serving(sending(answer("[" + " " * 5_000_000))) as provider:
        assert "an answer of more than 4194304 bytes" in await failed(provider)


# ---- what it tells

SECRET = "sk/secret+key=0123456789&<x>"


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        SECRET.upper(),
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower(),
        json.dumps(SECRET).replace("/", "\\/")[1:-1],
        SECRET.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"),
        base64.b64encode(SECRET.encode()).decode(),
        base64.b64encode(f"Bearer {SECRET}".encode()).decode(),
        base64.urlsafe_b64encode(f"u:{SECRET}".encode()).decode(),
        SECRET.encode().hex(),
    ],
)
async def test_the_key_is_told_in_no_encoding(written: str) -> None:
    scripts = (
        sending(as_json({"error": {"message": f"bad key: {written}."}}, "401 Unauthorized")),
        sending(answer("", f"401 not {written}")),
        sending(answer(f"event: error\ndata: {written}\n\n")),
        sending(answer(event({"choices": [{"finish_reason": written}]}))),
    )
    async with serving(*scripts) as provider:
        for _ in scripts:
            told = await failed(provider, api_key=SecretStr(SECRET))
            assert "[key]" in told
            assert written[6:-6] not in told


async def test_passwords_of_the_address_are_keys_too() -> None:
    async with serving(sending(answer("u:p@ssword1 and tok3n-abcdef", "403 Forbidden"))) as provider:
        url = HttpUrl(f"http://u:p%40ssword1@127.0.0.1:{provider.port}/v1?api_token=tok3n-abcdef&api-version=7")
        assert await failed(provider, base_url=url, api_key=None) == "status 403 Forbidden: u:[key] and [key]"
        request = provider.connections[0].headers
        assert request["path"] == "/v1/chat/completions?api_token=tok3n-abcdef&api-version=7"
        assert request["authorization"].startswith("basic ")


async def test_quotes_are_short() -> None:
    async with serving(sending(answer("x" * 5000, "403 Forbidden"))) as provider:
        assert len(await failed(provider)) == 300


async def test_nothing_of_the_environment_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "ORG_ID", "PROJECT_ID", "ADMIN_KEY"):
        monkeypatch.setenv(f"OPENAI_{name}", "of-another-provider")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-secret: of-another-provider")
    async with serving(sending(answer(WHOLE))) as provider:
        assert await answered(provider, api_key=None) == ANSWER
    headers = provider.connections[0].headers
    assert "authorization" not in headers
    assert "of-another-provider" not in str(headers)
    assert not [name for name in headers if name.startswith("x-")]
    assert headers["accept-encoding"] == "identity"


# ---- models


@pytest.mark.parametrize(
    "listed",
    [
        {"object": "list", "data": [{"id": "first"}, {"id": "second"}]},
        [{"id": "first"}],
        ["first"],
        {"data": [None, {"id": None}, {"id": "first"}]},
        {"data": None, "models": [{"name": "first"}]},
        {"data": [{"model": "first"}]},
    ],
)
async def test_the_first_model_of_any_list(listed: object) -> None:
    async with serving(sending(as_json(listed)), sending(answer(WHOLE))) as provider:
        assert await answered(provider, model="") == ANSWER
        assert provider.connections[1].body["model"] == "first"


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (as_json({"data": None}), "lists no model"),
        (as_json(None), "a list of models that cannot be read"),
        (as_json({"error": {"message": "no such route"}}), "no such route"),
        (as_json({"error": {"message": "no such route"}}, "404 Not Found"), "status 404 Not Found: no such route"),
    ],
)
async def test_a_list_without_models_is_told(sent: bytes, told: str) -> None:
    async with serving(sending(sent)) as provider:
        assert told in await failed(provider, model="")


# ---- the start


@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    "value", ["ftp://h", "http://h:port", "http://h:99999", "http://", "::", "http://u:secret@[::1", "http://a b:1"]
)
def test_a_wrong_proxy_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"^{name}: must be a proxy's URL, as http://host:3128$"):
        loading.load(CommanderSettings(backend="openai"))


@pytest.mark.parametrize("value", ["", "http://h:3128", "h:3128", "http://u:p@h", "https://h"])
def test_a_right_proxy_is_none(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("http_proxy", value)
    assert callable(loading.load(CommanderSettings(backend="openai")))


def test_certificates_that_are_not_there_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    with pytest.raises(ConfigError, match=r"^SSL_CERT_FILE: No such file or directory: /nowhere.pem$"):
        loading.load(CommanderSettings(backend="openai"))


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    for name in ("commander.backends.client", "commander.backends.openai"):
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match=r"^COMMANDER_BACKEND: needs the extra: pip install 'midsentence\[openai\]'$"):
        loading.load(CommanderSettings(backend="openai"))

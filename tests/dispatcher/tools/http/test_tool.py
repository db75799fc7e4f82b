"""Tools of kind `http` against a service that is hostile byte by byte."""

import asyncio
import gzip
import json
import os
import ssl
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from dispatcher.tools.context import Context
from dispatcher.tools.http import addresses
from dispatcher.tools.identity import identity
from dispatcher.tools.load import load
from dispatcher.tools.registry import Registry, ToolOutput
from tests.dispatcher.tools.http.service import Says, Service, Talk, answer, raw
from tests.sockets import listening

CALL = Context("session-secret", "call-1")
SCHEMA = (
    '{ type = "object", properties = { city = { type = "string" }, days = { type = "integer" } }, required = ["city"] }'
)
KIB = 1024


class Asked:
    """A tool at a service, as an operator's file has it."""

    def __init__(self, registry: Registry, service: Service) -> None:
        self.registry, self.service = registry, service

    async def call(self, **arguments: Any) -> ToolOutput:
        return await self.registry.run("weather", json.dumps({"city": "Oslo"} | arguments), CALL)

    async def code(self, **arguments: Any) -> str:
        """OK, or the status and the error's code."""
        output = await self.call(**arguments)
        if output.status == "OK":
            return "OK"
        return f"{output.status} {json.loads(output.result_json)['error']['code']}"

    async def message(self) -> str:
        return str(json.loads((await self.call()).result_json)["error"]["message"])


def registry_at(folder: Path, url: str, more: str = "private = true") -> Registry:
    file = folder / "tools.toml"
    entry = f'[[tool]]\nname = "weather"\nkind = "http"\nurl = "{url}/v1/{{city}}"\nschema = {SCHEMA}\n{more}\n'
    file.write_text(entry)
    return Registry(load(file).tools.values())


@pytest.fixture
def asking(tmp_path: Path) -> Callable[..., Any]:
    @asynccontextmanager
    async def asked(
        says: Says, more: str = "private = true", tls: ssl.SSLContext | None = None
    ) -> AsyncIterator[Asked]:
        async with Service(says, tls).at() as service:
            yield Asked(registry_at(tmp_path, service.url, more), service)

    return asked


# ---- what is sent


async def test_a_call_is_one_request(asking: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEATHER_TOKEN", "s3cret")
    more = 'private = true\nheaders = { Authorization = "Bearer ${env:WEATHER_TOKEN}", X-Team = "a" }'
    async with asking(answer(b'{"sunny": true}'), more) as asked:
        assert await asked.call(city="São Paulo", days=3) == ("OK", '{"sunny": true}')
        (seen,) = asked.service.seen
    assert (seen.method, seen.target) == ("POST", "/v1/S%C3%A3o%20Paulo")
    assert json.loads(seen.body) == {"days": 3}
    call = identity(CALL)
    expected = {
        "authorization": "Bearer s3cret", "x-team": "a", "content-type": "application/json", "connection": "close",
        "host": asked.service.url.removeprefix("http://"), "idempotency-key": call.key, **call.trace,
    }  # fmt: skip
    assert expected.items() <= seen.headers.items()
    assert "session-secret" not in repr(seen)


async def test_a_service_is_told_who_asked(asking: Callable[..., Any]) -> None:
    headers = '{ X-User = "${user.subject}", x-tenant = "${user.tenant}", X-Mail = "${claim:email}" }'
    known = Context("s", "c", subject="u 1%é\u2028", tenant="acme:${env:HOME}", claims={"email": "a@b.example"})
    async with asking(answer(b"7"), f"private = true\nheaders = {headers}") as asked:
        arguments = json.dumps({"city": "Oslo"})
        assert await asked.registry.run("weather", arguments, known) == ("OK", "7")
        (seen,) = asked.service.seen
        told = {"x-user": "u%201%25%C3%A9%E2%80%A8", "x-tenant": "acme:${env:HOME}", "x-mail": "a@b.example"}
        assert told.items() <= seen.headers.items()
        for unknown in (replace(known, subject=""), replace(known, tenant=""), replace(known, claims={}), CALL):
            status, result = await asked.registry.run("weather", arguments, unknown)
            assert (status, json.loads(result)["error"]["code"]) == ("TOOL_ERROR", "user_unknown")
        assert asked.service.connections == 1


async def test_a_get_has_no_body(asking: Callable[..., Any]) -> None:
    more = 'private = true\nmethod = "GET"\nquery = { days = "{days}" }'
    async with asking(answer(b"7"), more) as asked:
        assert await asked.call(days=3) == ("OK", "7")
        assert await asked.call() == ("OK", "7")
        assert await asked.code(other=1) == "INVALID_ARGUMENTS invalid_arguments"
    assert [(seen.method, seen.target, seen.body) for seen in asked.service.seen] == [
        ("GET", "/v1/Oslo?days=3", b""),
        ("GET", "/v1/Oslo", b""),
    ]
    assert "content-type" not in asked.service.seen[0].headers


@pytest.mark.parametrize("city", ["../admin", "..%2fadmin", "a\r\nX-Evil: 1", "", "..", "//evil.example"])
async def test_arguments_that_would_change_the_request_are_never_sent(asking: Callable[..., Any], city: str) -> None:
    async with asking(answer()) as asked:
        assert await asked.code(city=city) == "INVALID_ARGUMENTS invalid_arguments"
        assert asked.service.connections == 0


async def test_no_proxy_of_the_environment_is_asked(
    asking: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asking(answer()) as asked, Service(answer(b'"proxy"')).at() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert await asked.call() == ("OK", "{}")
        assert proxy.connections == 0


# ---- where it goes


async def test_addresses_of_the_dispatchers_own_network_are_refused(asking: Callable[..., Any]) -> None:
    async with asking(answer(), "") as asked:
        assert await asked.code() == "TOOL_ERROR blocked_address"
        assert asked.service.connections == 0


async def test_the_address_that_was_looked_at_is_the_one_connected_to(
    asking: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is public when it is looked up, and would be 127.0.0.1 if it were looked up again."""
    lookups: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        lookups.append(host)
        return ["127.0.0.1"] if len(lookups) > 1 else ["192.0.2.1", "127.0.0.1", "203.0.113.1"]

    public = {"192.0.2.1", "203.0.113.1"}  # which nobody has, whatever the network
    monkeypatch.setattr(addresses, "resolve", resolve)
    monkeypatch.setattr(addresses, "is_public", public.__contains__)
    async with asking(answer()) as asked:
        port = asked.service.url.rpartition(":")[2]
        registry = registry_at(tmp_path, f"http://rebinding.example:{port}", "timeout_seconds = 0.2")
        output = await registry.run("weather", '{"city": "Oslo"}')
        assert output.status in ("TIMEOUT", "TOOL_ERROR")
        assert asked.service.connections == 0
    assert lookups == ["rebinding.example"]


async def test_another_address_of_the_host_is_tried(
    asking: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    async with asking(answer(), "private = true") as asked:
        monkeypatch.setattr(addresses, "resolve", resolve)
        assert await asked.code() == "OK"


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
async def test_redirects_are_not_followed(asking: Callable[..., Any], status: int) -> None:
    async with asking(answer(b"", "text/plain", f"{status} Moved", "Location: /v1/elsewhere")) as asked:
        assert await asked.code() == "TOOL_ERROR redirect"
        assert asked.service.connections == 1


# ---- what comes back


@pytest.mark.parametrize(
    ("says", "result"),
    [
        (answer(b' {"a": [1.10, 12345678901234567890]}\n'), '{"a": [1.10, 12345678901234567890]}'),
        (answer(b"[]", "application/problem+json; charset=utf-8"), "[]"),
        (answer("é".encode("latin-1"), "text/plain; charset=ISO-8859-1"), '"é"'),
        (answer(b"\xff", "text/plain; charset=nonsense"), '"\ufffd"'),
        (answer(b"", "application/json"), "null"),
        (raw(b"HTTP/1.1 200 OK\r\n\r\n[1]"), "[1]"),
        (raw(b"HTTP/1.1 204 No Content\r\n\r\n"), "null"),
        (raw(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"), "null"),
        (raw(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n[1]"), "[1]"),
        (raw(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: </x>\r\n\r\n"
             b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n\r\nx"), '"x"'),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
             b"2\r\n[1\r\n1;ext=1\r\n]\r\n0\r\nX-Trailer: 1\r\n\r\n"), "[1]"),
        (answer(gzip.compress(b"[1]"), "application/json", "200 OK", "Content-Encoding: gzip"), "[1]"),
        (answer(gzip.compress(b"[1") + gzip.compress(b"]"), "application/json", "200 OK", "Content-Encoding: x-gzip"),
         "[1]"),
        (answer(zlib.compress(b"[1]"), "application/json", "200 OK", "Content-Encoding: deflate"), "[1]"),
        (answer(b'"' + b"x" * (256 * KIB - 2) + b'"'), '"' + "x" * (256 * KIB - 2) + '"'),
    ],
)  # fmt: skip
async def test_results(asking: Callable[..., Any], says: Says, result: str) -> None:
    async with asking(says) as asked:
        assert await asked.call() == ("OK", result)


JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BOMB = gzip.compress(bytes(50 * KIB * KIB))
EMPTY_BLOCKS = b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + b"\0\0\0\xff\xff" * (KIB * KIB)  # a deflate stream that says nothing


@pytest.mark.parametrize(
    ("says", "code"),
    [
        (answer(b"<html>", "text/html"), "content_type"),
        (answer(b"x", "application/octet-stream"), "content_type"),
        (answer(b"{"), "invalid_json"),
        (answer(b"[NaN]"), "invalid_json"),
        (answer(b"[1e999]"), "invalid_json"),
        (answer(b'{"a": 1, "a": 2}'), "invalid_json"),
        (answer(b"[" * 10000 + b"]" * 10000), "invalid_json"),
        (answer(b'"\xff"'), "invalid_json"),
        (answer(b'"\\ud800"'), "invalid_json"),
        (answer(b"x" * (256 * KIB + 1)), "result_too_large"),
        (answer(b"{}", "application/json", "200 OK", "Content-Encoding: br"), "content_encoding"),
        (answer(b"{}", "application/json", "200 OK", "Content-Encoding: gzip"), "broken_answer"),
        (answer(gzip.compress(b"[1]")[:-3], "application/json", "200 OK", "Content-Encoding: gzip"), "broken_answer"),
        (answer(BOMB, "application/json", "200 OK", "Content-Encoding: gzip"), "result_too_large"),
        (answer(EMPTY_BLOCKS, "application/json", "200 OK", "Content-Encoding: gzip"), "result_too_large"),
        (raw(JSON + b"Content-Length: 100\r\n\r\n{}"), "broken_answer"),
        (raw(JSON + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"), "broken_answer"),
        (raw(JSON + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"), "broken_answer"),
        (raw(JSON + b"Content-Length: -1\r\n\r\n{}"), "broken_answer"),
        (raw(JSON + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}"), "broken_answer"),
        (raw(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * (KIB * KIB) + b"\r\n\r\n"), "broken_answer"),
        (raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "broken_answer"),
        (raw(b"\0" * 100 + b"\r\n\r\n"), "broken_answer"),
        (raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), "broken_answer"),
        (answer(b"no", "text/plain", "404 Not Found"), "http_404"),
        (answer(b"no", "text/plain", "500 Oops"), "http_500"),
        (answer(b"no", "text/plain", "999 What"), "http_999"),
    ],
)  # fmt: skip
async def test_what_is_no_result(asking: Callable[..., Any], says: Says, code: str) -> None:
    async with asking(says) as asked:
        assert await asked.code() == f"TOOL_ERROR {code}"


async def forever(talk: Talk) -> None:
    await talk.send(JSON + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        await talk.send(b"10000\r\n" + b" " * 65536 + b"\r\n")


async def hints(talk: Talk) -> None:
    while True:
        await talk.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)


async def crumbs(talk: Talk) -> None:
    await talk.send(JSON + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        await talk.send(b"1;" + b"x" * 10_000 + b"\r\n \r\n")


@pytest.mark.parametrize(("says", "code"), [(hints, "broken_answer"), (crumbs, "result_too_large")])
async def test_what_says_nothing_at_length_is_closed(asking: Callable[..., Any], says: Says, code: str) -> None:
    async with asking(says) as asked:
        assert await asked.code() == f"TOOL_ERROR {code}"
        await until(lambda: asked.service.left == 1)


async def test_a_body_without_end_costs_no_memory_and_is_closed(asking: Callable[..., Any]) -> None:
    async with asking(forever) as asked:
        assert await asked.code() == "TOOL_ERROR result_too_large"
        before = resident()
        for _ in range(20):
            await asked.code()
        assert resident() - before < 8 * KIB * KIB
        await until(lambda: asked.service.left == asked.service.connections)


async def test_a_bomb_costs_no_memory(asking: Callable[..., Any]) -> None:
    says = answer(BOMB, "application/json", "200 OK", "Content-Encoding: gzip")
    async with asking(says) as asked:
        await asked.code()
        before = resident()
        for _ in range(5):
            await asked.code()
        assert resident() - before < 8 * KIB * KIB


@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 200", JSON + b"Content-Length: 9\r\n\r\n", b"HTTP/1.1 102 Wait\r\n\r\n"]
)
async def test_what_drips_ends_with_the_time_limit(asking: Callable[..., Any], head: bytes) -> None:
    gone = asyncio.Event()

    async def drips(talk: Talk) -> None:
        await talk.send(head)
        await talk.closed()
        gone.set()

    async with asking(drips, "private = true\ntimeout_seconds = 0.1") as asked:
        assert await asked.code() == "TIMEOUT timeout"
        async with asyncio.timeout(30):
            await gone.wait()


async def test_html_where_a_page_is_asked_for(asking: Callable[..., Any]) -> None:
    async with asking(answer(b"<p>", "text/html"), 'private = true\nheaders = { Accept = "text/html" }') as asked:
        assert await asked.call() == ("OK", '"<p>"')


@pytest.mark.parametrize(
    ("pointer", "output"),
    [
        ("/data/summary", ("OK", '"sunny"')),
        ("/data/days/1", ("OK", "8.5")),
        ("/data/a~1b/~0", ("OK", "true")),
        ("/data/days/01", ("TOOL_ERROR", "no_result")),
        ("/data/days/-", ("TOOL_ERROR", "no_result")),
        ("/data/missing", ("TOOL_ERROR", "no_result")),
        ("/data/summary/x", ("TOOL_ERROR", "no_result")),
    ],
)
async def test_the_result_is_what_the_pointer_names(
    asking: Callable[..., Any], pointer: str, output: tuple[str, str]
) -> None:
    body = b'{"data": {"summary": "sunny", "days": [7, 8.50], "a/b": {"~": true}}}'
    async with asking(answer(body), f'private = true\nresult = "{pointer}"') as asked:
        status, result = await asked.call()
        assert (status, result if status == "OK" else json.loads(result)["error"]["code"]) == output


async def test_a_refusals_text_is_for_the_agent_alone(
    asking: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEATHER_TOKEN", "s3cret")
    more = 'private = true\nheaders = { Authorization = "Bearer ${env:WEATHER_TOKEN}" }'
    with capture_logs() as logs:
        async with asking(answer(b"no such city: " + b"x" * 10_000, "text/plain", "404 Not Found"), more) as asked:
            message = await asked.message()
    assert message == ("no such city: " + "x" * 1000)[:500]
    assert not logs
    async with asking(answer(b"<html>secret</html>", "image/png", "502 Bad Gateway"), more) as asked:
        assert await asked.message() == "HTTP 502"


async def test_a_refusal_that_drips_is_told_all_the_same(
    asking: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatcher.tools.http.answers.REFUSAL_SECONDS", 0.05)

    async def drips(talk: Talk) -> None:
        await talk.send(b"HTTP/1.1 404 No\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nno such city")
        await talk.closed()

    async with asking(drips) as asked:
        assert await asked.message() == "no such city"


# ---- what cannot be known


async def test_nobody_there(tmp_path: Path) -> None:
    async with Service(answer()).at() as service:
        url = service.url
    asked = Asked(registry_at(tmp_path, url), service)
    assert await asked.code() == "TOOL_ERROR unreachable"
    asked = Asked(registry_at(tmp_path, "http://no-such-host.invalid"), service)
    assert await asked.code() == "TOOL_ERROR unreachable"


async def resets(talk: Talk) -> None:
    talk.reset()


@pytest.mark.parametrize("says", [raw(b""), raw(b"HTTP/1.1 20"), resets, raw(b"HTTP/1.1 100 Continue\r\n\r\n")])
async def test_an_answer_that_is_lost(asking: Callable[..., Any], says: Says) -> None:
    async with asking(says) as asked:
        assert await asked.code() == "UNKNOWN_OUTCOME unknown_outcome"
        assert len(asked.service.seen) == 1, "never once more"


async def test_idempotent_calls_are_made_once_more_with_the_same_key(asking: Callable[..., Any]) -> None:
    async def first_lost(talk: Talk) -> None:
        if len(asked.service.seen) > 1:
            await answer(b"[1]")(talk)

    async with asking(first_lost, "private = true\nidempotent = true") as asked:
        assert await asked.call() == ("OK", "[1]")
        first, second = asked.service.seen
        assert first == second


async def test_a_stop_closes_the_connection(asking: Callable[..., Any]) -> None:
    begun, gone = asyncio.Event(), asyncio.Event()

    async def works(talk: Talk) -> None:
        begun.set()
        await talk.closed()
        gone.set()

    async with asking(works) as asked:
        call = asyncio.create_task(asked.call())
        async with asyncio.timeout(30):
            await begun.wait()
            call.cancel()
            await gone.wait()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_a_stop_in_the_midst_of_a_handshake_closes_it_too(tmp_path: Path) -> None:
    begun, gone = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        begun.set()
        while await reader.read(4096):
            pass
        gone.set()

    async with listening(silent) as port:
        registry = registry_at(tmp_path, f"https://127.0.0.1:{port}")
        call = asyncio.create_task(registry.run("weather", '{"city": "Oslo"}'))
        async with asyncio.timeout(30):
            await begun.wait()
            call.cancel()
            await gone.wait()
        await asyncio.gather(call, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is asked has no event
            await asyncio.sleep(0.005)


def resident() -> int:
    """Bytes that this process has in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")

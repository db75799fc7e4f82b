"""Toolsets of kind `mcp` over HTTP: the SDK's own server, and a service that is hostile byte by byte."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp_types.version import LATEST_MODERN_VERSION

from dispatcher.tools.context import Context
from dispatcher.tools.errors import ServiceError
from dispatcher.tools.http import addresses
from dispatcher.tools.identity import identity
from dispatcher.tools.mcp import connection, web
from dispatcher.tools.mcp.web import MAX_MESSAGE_BYTES
from tests.dispatcher.tools.http.service import Says, Service, Talk, answer
from tests.dispatcher.tools.mcp.running import CALL, SECONDS, Running, running
from tests.replicas import eventually

SDK = """
import asyncio, sys
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("test")

@server.tool()
def add(a: int, b: int) -> int:
    return a + b

@server.tool()
async def meta(ctx: Context) -> dict:
    return dict(ctx.request_context.meta)

@server.tool()
async def silent(file: str) -> str:
    open(file, "w").write("began")
    try:
        await asyncio.sleep(3600)
    finally:
        open(file, "w").write("cancelled")

server.run("streamable-http", port=int(sys.argv[1]))
"""


@pytest.fixture
async def sdk(tmp_path: Path) -> AsyncIterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/mcp"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SDK, str(port), stderr=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        await asyncio.to_thread(eventually, lambda: httpx2.get(url).status_code > 0, "it listens")
        yield url
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def at(folder: Path, url: str, more: str = "private = true") -> AsyncIterator[Running]:
    async with running(folder, f'url = "{url}"\n{more}') as toolset:
        yield toolset


async def test_the_sdk_s_own_server(tmp_path: Path, sdk: str) -> None:
    async with at(tmp_path, sdk) as toolset:
        await toolset.offered("add")
        assert (await toolset.call("add", a=1, b=2)).result_json == '{"result":3}'
        call = identity(CALL)
        meta = json.loads(json.loads((await toolset.call("meta")).result_json))
        assert (meta["idempotency-key"], meta["traceparent"]) == (call.key, call.traceparent)


async def test_a_stop_reaches_it(tmp_path: Path, sdk: str) -> None:
    file = tmp_path / "told"
    async with at(tmp_path, sdk) as toolset:
        await toolset.offered("silent")
        call = asyncio.create_task(toolset.call("silent", file=str(file)))
        await said(file, "began")
        call.cancel()
        await said(file, "cancelled")
        assert (await toolset.call("add", a=1, b=2)).status == "OK"


async def said(file: Path, words: str) -> None:
    await asyncio.to_thread(eventually, lambda: file.exists() and file.read_text() == words, words)


SERVER_INFO = {"name": "scripted", "version": "1"}
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
Script = Callable[[Talk, dict[str, Any]], Awaitable[None]]


def speaking(script: Script) -> Says:
    """An older server, which has the tool `ask`; the script answers its calls."""

    async def says(talk: Talk) -> None:
        if talk.seen.method != "POST":
            await answer(b"", status="405 Method Not Allowed")(talk)
            return
        message = json.loads(talk.seen.body)
        match message.get("method"):
            case "initialize":
                result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": SERVER_INFO}
                body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
                await answer(body, "application/json", "200 OK", "mcp-session-id: session-1")(talk)
            case "tools/list":
                await rpc(message["id"], {"tools": [{"name": "ask", "inputSchema": {"type": "object"}}]})(talk)
            case "tools/call":
                await script(talk, message)
            case "server/discover":
                await answer(b"", status="400 Bad Request")(talk)
            case _:
                await answer(b"", status="202 Accepted")(talk)

    return says


def modern(tools: list[str], listened: Script) -> Says:
    """A server of the newest version, which has these tools; the script answers who listens."""

    async def says(talk: Talk) -> None:
        message = json.loads(talk.seen.body)
        complete = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
        match message["method"]:
            case "server/discover":
                meta = {"io.modelcontextprotocol/serverInfo": SERVER_INFO}
                capabilities = {"tools": {"listChanged": True}}
                found = {"supportedVersions": [LATEST_MODERN_VERSION], "capabilities": capabilities, "_meta": meta}
                await rpc(message["id"], complete | found)(talk)
            case "tools/list":
                listed = [{"name": name, "inputSchema": {"type": "object"}} for name in tools]
                await rpc(message["id"], complete | {"tools": listed})(talk)
            case "subscriptions/listen":
                await listened(talk, message)

    return says


async def notify(talk: Talk, subscription: str, method: str, **params: Any) -> None:
    params["_meta"] = {"io.modelcontextprotocol/subscriptionId": subscription}
    await talk.send(f"data: {json.dumps({'jsonrpc': '2.0', 'method': method, 'params': params})}\n\n".encode())


def rpc(identity: int, result: dict[str, Any]) -> Says:
    return answer(json.dumps({"jsonrpc": "2.0", "id": identity, "result": result}).encode())


def raw_answer(head: str, body: bytes = b"") -> Script:
    async def script(talk: Talk, _: dict[str, Any]) -> None:
        await talk.send(f"HTTP/1.1 {head}\r\n\r\n".encode() + body)

    return script


async def reset(talk: Talk, _: dict[str, Any]) -> None:
    talk.reset()


async def too_large(talk: Talk, message: dict[str, Any]) -> None:
    size = 40 * MAX_MESSAGE_BYTES
    await talk.send(f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {size}\r\n\r\n".encode())
    for _ in range(40):
        await talk.send(b" " * MAX_MESSAGE_BYTES)


async def too_large_event(talk: Talk, message: dict[str, Any]) -> None:
    await talk.send(EVENTS + b"id: 1\ndata: ")
    for _ in range(40):
        await talk.send(b"x" * MAX_MESSAGE_BYTES)


async def breaks_off(talk: Talk, _: dict[str, Any]) -> None:
    """From where the answer may be taken up again."""
    await talk.send(EVENTS + b"id: 1\nretry: 1\ndata:\n\n")


async def well(talk: Talk, message: dict[str, Any]) -> None:
    await rpc(message["id"], {"content": [{"type": "text", "text": "well"}]})(talk)


async def another_s(talk: Talk, message: dict[str, Any]) -> None:
    await rpc(message["id"] + 1000, {"content": [{"type": "text", "text": "another's"}]})(talk)


async def stopped_after(begun: asyncio.Event, toolset: Running) -> None:
    """A call of `ask`, which is stopped when that has happened."""
    call = asyncio.create_task(toolset.call("ask"))
    async with asyncio.timeout(SECONDS):
        await begun.wait()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


async def until_cancelled(service: Service) -> None:
    cancelled = "notifications/cancelled"
    await asyncio.to_thread(eventually, lambda: any(cancelled.encode() in s.body for s in service.seen), cancelled)


JSON = "200 OK\r\ncontent-type: application/json"
FORGOTTEN = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"Session not found"}}'
NO_SESSION = b'{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID provided"}}'
BUSY = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"busy"}}'
REFUSED = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32602,"message":"unknown city"}}'


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (raw_answer("307 Temporary Redirect\r\nlocation: /elsewhere"), "TOOL_ERROR redirect"),
        (raw_answer("500 Internal Server Error\r\ncontent-type: text/plain", b"sorry"), "TOOL_ERROR http_500"),
        (raw_answer("404 Not Found"), "TOOL_ERROR session_ended"),
        (raw_answer("404 Not Found\r\ncontent-type: application/json", FORGOTTEN), "TOOL_ERROR session_ended"),
        (raw_answer("400 Bad Request\r\ncontent-type: application/json", NO_SESSION), "TOOL_ERROR session_ended"),
        (raw_answer("400 Bad Request\r\ncontent-type: application/json", BUSY), "TOOL_ERROR mcp_-32000"),
        (raw_answer("400 Bad Request\r\ncontent-type: application/json", REFUSED), "TOOL_ERROR mcp_-32602"),
        (raw_answer("200 OK\r\ncontent-type: text/html", b"<p>"), "TOOL_ERROR mcp_-32600"),
        (raw_answer(JSON, b"{"), "TOOL_ERROR broken_answer"),
        (raw_answer(JSON, b"[" * 100_000), "TOOL_ERROR broken_answer"),
        (raw_answer(f"{JSON}\r\ncontent-length: 100", b"{"), "UNKNOWN_OUTCOME unknown_outcome"),
        (raw_answer("200 OK\r\ncontent-type: text/event-stream", b": nothing\n\n"), "UNKNOWN_OUTCOME unknown_outcome"),
        (raw_answer(f"{JSON}\r\ncontent-encoding: gzip", b"\x1f\x8b"), "TOOL_ERROR content_encoding"),
        (raw_answer("202 Accepted"), "TOOL_ERROR mcp_-32600"),
        (reset, "UNKNOWN_OUTCOME unknown_outcome"),
        (too_large, "TOOL_ERROR result_too_large"),
        (too_large_event, "TOOL_ERROR result_too_large"),
        (another_s, "TIMEOUT timeout"),
    ],
)  # fmt: skip
async def test_what_comes_back_ends_its_call_only(tmp_path: Path, script: Script, code: str) -> None:
    calls = 0

    async def first(talk: Talk, message: dict[str, Any]) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            await script(talk, message)
        else:
            await well(talk, message)

    async with (
        Service(speaking(first)).at() as service,
        at(tmp_path, f"{service.url}/mcp", "private = true\ntimeout_seconds = 2") as toolset,
    ):
        await toolset.offered("ask")
        assert await toolset.code("ask") == code
        assert (await toolset.call("ask")).result_json == '"well"'
    assert calls == 2


async def test_a_server_is_told_who_asked(tmp_path: Path) -> None:
    """With each user's own calls, also where those of several are under way and broken off, and with nothing else."""
    broken = {"a": asyncio.Event(), "b": asyncio.Event()}

    async def says(talk: Talk) -> None:
        if talk.seen.method == "GET" and "last-event-id" in talk.seen.headers:
            who = talk.seen.headers["last-event-id"]
            result = {"content": [{"type": "text", "text": f"{who} as {talk.seen.headers.get('x-user')}"}]}
            found = next(message for message in calls if message["params"]["arguments"]["who"] == who)
            data = json.dumps({"jsonrpc": "2.0", "id": found["id"], "result": result})
            await talk.send(EVENTS + f"data: {data}\n\n".encode())
        else:
            await speaking(breaks)(talk)

    calls: list[dict[str, Any]] = []

    async def breaks(talk: Talk, message: dict[str, Any]) -> None:
        calls.append(message)
        who = message["params"]["arguments"]["who"]
        assert talk.seen.headers.get("x-user") == who
        broken[who].set()
        async with asyncio.timeout(SECONDS):
            for each in broken.values():
                await each.wait()
        await talk.send(EVENTS + f"id: {who}\nretry: 1\ndata:\n\n".encode())

    more = 'private = true\nheaders = { X-User = "${user.subject}" }'
    async with Service(says).at() as service, at(tmp_path, f"{service.url}/mcp", more) as toolset:
        await toolset.offered("ask")
        nobody = await toolset.call("ask", CALL, who="a")
        assert json.loads(nobody.result_json)["error"]["code"] == "user_unknown"
        told = await asyncio.gather(*(toolset.call("ask", Context("s", who, subject=who), who=who) for who in "ab"))
        assert [each.result_json for each in told] == ['"a as a"', '"b as b"']
    named = [seen for seen in service.seen if "x-user" in seen.headers]
    assert len(named) == 4
    assert {seen.method for seen in service.seen if seen not in named} >= {"POST"}


@pytest.mark.parametrize("ends", ["answered", "stopped"])
async def test_a_forgotten_session_ends_no_other_call(tmp_path: Path, ends: str) -> None:
    began, go_on, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def waits(talk: Talk, message: dict[str, Any]) -> None:
        await talk.send(EVENTS)
        began.set()
        if ends == "stopped":
            await talk.closed()
            closed.set()
            return
        await go_on.wait()
        result = {"content": [{"type": "text", "text": "well"}]}
        await talk.send(f"data: {json.dumps({'jsonrpc': '2.0', 'id': message['id'], 'result': result})}\n\n".encode())

    async def says(talk: Talk) -> None:
        if began.is_set() and "mcp-session-id" in talk.seen.headers:
            await answer(b"", status="404 Not Found")(talk)
        else:
            await speaking(waits)(talk)

    async with Service(says).at() as service, at(tmp_path, f"{service.url}/mcp") as toolset:
        await toolset.offered("ask")
        call = asyncio.create_task(toolset.call("ask"))
        await began.wait()
        assert await toolset.code("ask") == "TOOL_ERROR session_ended"
        async with asyncio.timeout(SECONDS):
            why = await toolset.down
        assert isinstance(why, ServiceError)
        assert why.code == "session_ended"
        assert await toolset.code("ask") == "TOOL_ERROR unreachable"
        if ends == "answered":
            go_on.set()
            assert await call == ("OK", '"well"')
        else:
            call.cancel()
            async with asyncio.timeout(SECONDS):
                await closed.wait()
        async with asyncio.timeout(SECONDS):
            await toolset.task


async def test_a_call_that_is_stopped_leaves_no_connection(tmp_path: Path) -> None:
    began, closed = asyncio.Event(), asyncio.Event()

    async def silent(talk: Talk, _: dict[str, Any]) -> None:
        await talk.send(EVENTS + b"id: 1\ndata:\n\n")
        began.set()
        await talk.closed()
        closed.set()

    async with Service(speaking(silent)).at() as service, at(tmp_path, f"{service.url}/mcp") as toolset:
        await toolset.offered("ask")
        await stopped_after(began, toolset)
        async with asyncio.timeout(SECONDS):
            await closed.wait()
        await until_cancelled(service)
        assert "last-event-id" not in {name for seen in service.seen for name in seen.headers}


async def test_nor_does_one_whose_answer_was_taken_up_again(tmp_path: Path) -> None:
    began, closed = asyncio.Event(), asyncio.Event()

    async def says(talk: Talk) -> None:
        if "last-event-id" not in talk.seen.headers:
            await speaking(breaks_off)(talk)
            return
        await talk.send(EVENTS)
        began.set()
        await talk.closed()
        closed.set()

    async with Service(says).at() as service, at(tmp_path, f"{service.url}/mcp") as toolset:
        await toolset.offered("ask")
        await stopped_after(began, toolset)
        async with asyncio.timeout(SECONDS):
            await closed.wait()


async def test_an_answer_that_cannot_be_taken_up_again_leaves_its_call_open(tmp_path: Path) -> None:
    async def says(talk: Talk) -> None:
        if "last-event-id" in talk.seen.headers:
            await answer(b"", status="307 Temporary Redirect")(talk)
        else:
            await speaking(breaks_off)(talk)

    async with Service(says).at() as service, at(tmp_path, f"{service.url}/mcp") as toolset:
        await toolset.offered("ask")
        assert await toolset.code("ask") == "UNKNOWN_OUTCOME unknown_outcome"


async def test_a_call_that_is_stopped_while_it_connects_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = addresses.resolve
    hold, held, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(host: str, port: int) -> list[str]:
        if hold.is_set():
            hold.clear()
            held.set()
            await go_on.wait()
        return await resolve(host, port)

    monkeypatch.setattr(addresses, "resolve", slow)
    async with Service(speaking(well)).at() as service, at(tmp_path, f"{service.url}/mcp") as toolset:
        await toolset.offered("ask")
        hold.set()
        await stopped_after(held, toolset)
        await until_cancelled(service)
        go_on.set()
        for _ in range(3):
            assert (await toolset.call("ask")).result_json == '"well"'
        assert len([seen for seen in service.seen if b"tools/call" in seen.body]) == 3


async def test_only_addresses_that_may_be_asked(tmp_path: Path) -> None:
    async with Service(answer()).at() as service, at(tmp_path, service.url, "") as toolset:
        (error,) = await asyncio.gather(toolset.task, return_exceptions=True)
        assert getattr(error, "code", "") == "blocked_address"
        assert service.connections == 0


async def test_nothing_listens(tmp_path: Path) -> None:
    async with at(tmp_path, "http://127.0.0.1:9") as toolset:
        (error,) = await asyncio.gather(toolset.task, return_exceptions=True)
        assert getattr(error, "code", "") == "unreachable"


async def test_words_of_a_refusal_are_not_passed_on(tmp_path: Path) -> None:
    async def says(talk: Talk) -> None:
        await answer(b"token s3cret", "text/plain", "401 Unauthorized")(talk)

    async with Service(says).at() as service, at(tmp_path, service.url) as toolset:
        (error,) = await asyncio.gather(toolset.task, return_exceptions=True)
        assert str(error) == "the server answered http_401"


@pytest.mark.parametrize("silent", ["notifications/initialized", "notifications/cancelled"])
async def test_a_notification_that_is_never_answered_holds_up_no_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    # Long enough that the server has read what it does not answer.
    monkeypatch.setattr(web, "NOTIFY_SECONDS", 3.0)
    asked = asyncio.Event()

    async def first_silent(talk: Talk, message: dict[str, Any]) -> None:
        if asked.is_set():
            await well(talk, message)
        else:
            asked.set()
            await talk.closed()

    async def says(talk: Talk) -> None:
        if silent.encode() in talk.seen.body:
            await talk.closed()
        else:
            await speaking(first_silent)(talk)

    async with Service(says).at() as service, at(tmp_path, f"{service.url}/mcp") as toolset:
        await toolset.offered("ask")
        await stopped_after(asked, toolset)
        await until_cancelled(service)
        assert (await toolset.call("ask")).result_json == '"well"'


async def test_a_subscription_that_is_lost_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has changed meanwhile is seen then, and what changes later."""
    monkeypatch.setattr(connection, "LOOK_SECONDS", 3600.0)
    monkeypatch.setattr(connection, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(connection, "LISTEN_SECONDS", 0.01)
    tools, listeners = ["first"], 0
    first_offered, late_offered = asyncio.Event(), asyncio.Event()

    async def listened(talk: Talk, message: dict[str, Any]) -> None:
        nonlocal listeners
        listeners += 1
        await talk.send(EVENTS)
        if listeners == 2:
            await first_offered.wait()
            tools.append("late")
        filled = {"notifications": {"toolsListChanged": True}}
        await notify(talk, message["id"], "notifications/subscriptions/acknowledged", **filled)
        if listeners == 2:
            await late_offered.wait()
            tools.append("later")
            await notify(talk, message["id"], "notifications/tools/list_changed")
            await talk.closed()

    async with Service(modern(tools, listened)).at() as service, at(tmp_path, f"{service.url}/mcp") as toolset:
        await toolset.offered("first")
        first_offered.set()
        await toolset.offered("late")
        late_offered.set()
        await toolset.offered("later")
    assert listeners == 2

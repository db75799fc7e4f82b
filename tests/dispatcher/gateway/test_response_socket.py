"""Responses over a WebSocket, as the official client and as frames."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import openai
import pytest
import websockets
from openai.resources.responses.responses import AsyncResponsesConnection
from prometheus_client import CollectorRegistry
from starlette.requests import Request as HttpRequest
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Frame, Opcode

from dispatcher.access.rules import AccessRules
from dispatcher.access.watch import Access
from dispatcher.gateway import limits, response_socket, responses
from dispatcher.gateway.app import user_app
from dispatcher.gateway.server import HttpServer, bind
from dispatcher.metrics import Metrics
from dispatcher.settings import DispatcherSettings
from shared.records import ClientCall, Message
from tests.dispatcher.gateway.fakes import Commander, FakeSessions, eventually
from tests.dispatcher.gateway.open_responses import check_event, check_socket_error
from tests.dispatcher.gateway.test_responses import client_of

ASK: dict[str, Any] = {"type": "response.create", "model": "default", "input": "hi"}


@pytest.fixture
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with client_of(url) as client:
        yield client


@asynccontextmanager
async def connected(url: str, **headers: str) -> AsyncIterator[ClientConnection]:
    address = url.replace("http", "ws", 1) + "/v1/responses"
    async with connect(address, proxy=None, additional_headers=headers, ping_interval=None) as frames:
        yield frames


async def say(frames: ClientConnection, **fields: Any) -> None:
    await frames.send(json.dumps(ASK | fields))


async def event_of(frames: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(30):
        event: dict[str, Any] = json.loads(await frames.recv(decode=True))
    if event["type"] == "error":
        check_socket_error(event)
    else:
        check_event({name: value for name, value in event.items() if name != "stream_id"})
    return event


async def until_ended(frames: ClientConnection) -> list[dict[str, Any]]:
    """A response's events, up to its last."""
    events = [await event_of(frames)]
    while events[-1]["type"] not in ("response.completed", "response.failed", "response.incomplete", "error"):
        events.append(await event_of(frames))
    return events


async def error_of(frames: ClientConnection) -> dict[str, Any]:
    event = await event_of(frames)
    assert event["type"] == "error", event
    return event


async def answered(sessions: FakeSessions, *texts: str) -> Commander:
    commander = await sessions.begin(await sessions.created.get())
    await commander.say(*texts)
    await commander.finish()
    return commander


async def asked_of(sessions: FakeSessions, commander: Commander) -> tuple[Message, ...]:
    record = await sessions.store.load(commander.session_id)
    assert record
    return record.request.messages


# ---- answers


async def test_one_after_another_as_the_official_client_has_it(
    client: openai.AsyncOpenAI, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with client.responses.connect() as connection:
        first = await _ask(connection, sessions, "one", input="first")
        second = await _ask(connection, sessions, "two", input="second", previous_response_id=first.id)
    assert (first.output_text, second.output_text) == ("one", "two")
    assert second.previous_response_id == first.id
    assert sessions.stops.empty()
    assert await client.responses.retrieve(second.id) == second  # it is in the log, as any other


async def _ask(connection: AsyncResponsesConnection, sessions: FakeSessions, says: str, **fields: Any) -> Any:
    await connection.response.create(model="default", **fields)
    await answered(sessions, says)
    async with asyncio.timeout(30):
        while (event := await connection.recv()).type != "response.completed":
            pass
    return event.response


async def test_the_events_are_those_of_the_stream(url: str, http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    sessions.honoured = frozenset({"tools"})
    async with connected(url) as frames:
        await say(frames)
        commander = await sessions.begin(await sessions.created.get())
        await commander.say("one ", "two")
        await commander.hand_over(ClientCall("call-9", "weather", '{"city": "Oslo"}'))
        events = await until_ended(frames)
    stream = await http.get(f"/v1/responses/resp_{commander.session_id}?stream=true")
    lines = [json.loads(line[6:]) for line in stream.text.splitlines() if line.startswith("data: ")]

    def joined(events: list[dict[str, Any]]) -> list[tuple[str, Any]]:
        """The stored text may be cut otherwise."""
        return [(event["type"], event.get("response")) for event in events if not event["type"].endswith("delta")]

    assert joined(events) == joined(lines)


@pytest.mark.parametrize("store", [True, False])
async def test_going_on_also_from_what_is_not_stored(
    url: str, http: httpx2.AsyncClient, sessions: FakeSessions, store: bool
) -> None:
    async with connected(url) as frames:
        await say(frames, input="first", store=store, instructions="Be short.")
        commander = await answered(sessions, "one")
        first = (await until_ended(frames))[-1]["response"]
        assert first["store"] is store
        stored = await http.get(f"/v1/responses/{first['id']}")
        assert stored.status_code == (200 if store else 404)
        await say(frames, input="second", previous_response_id=first["id"])
        commander = await answered(sessions, "two")
        assert await asked_of(sessions, commander) == (
            Message("user", "first"),
            Message("assistant", "one"),
            Message("user", "second"),
        )
        await until_ended(frames)
        item = first["output"][0]["id"]
        await say(frames, input=[{"type": "item_reference", "id": item}, {"role": "user", "content": "third"}])
        commander = await answered(sessions, "three")
        assert await asked_of(sessions, commander) == (Message("assistant", "one"), Message("user", "third"))
        await until_ended(frames)
    async with connected(url) as frames:  # another connection knows nothing of this one
        await say(frames, previous_response_id=first["id"])
        event = await event_of(frames)
        assert (event["type"] == "error") is not store
        if not store:
            assert (event["status"], event["error"]["code"]) == (404, "previous_response_not_found")


async def test_what_is_kept_to_go_on_from_is_bounded(
    url: str, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(response_socket, "MAX_KEPT", 1)
    async with connected(url) as frames:
        ids = []
        for _ in range(2):
            await say(frames, store=False)
            await answered(sessions, "word")
            ids.append((await until_ended(frames))[-1]["response"]["id"])
        await say(frames, previous_response_id=ids[0])
        assert (await error_of(frames))["error"]["code"] == "previous_response_not_found"
        await say(frames, previous_response_id=ids[1])
        assert (await event_of(frames))["type"] == "response.created"


async def test_warming_up(url: str, sessions: FakeSessions) -> None:
    """Codex does so by default: what is asked is all known before, and then nothing is new."""
    async with connected(url) as frames:
        await say(frames, generate=False, input="first", stream=True)
        last = (await until_ended(frames))[-1]["response"]
        assert (last["status"], last["output"], last["usage"]["total_tokens"]) == ("completed", [], 0)
        assert sessions.created.empty()
        await say(frames, input=[], previous_response_id=last["id"])
        commander = await answered(sessions, "one")
        assert await asked_of(sessions, commander) == (Message("user", "first"),)
        assert (await until_ended(frames))[-1]["type"] == "response.completed"
        await say(frames, input=[])
        assert (await error_of(frames))["error"]["param"] == "input"


async def test_lanes(url: str, sessions: FakeSessions) -> None:
    """A lane's responses come one after another, those of others meanwhile."""
    async with connected(url) as frames:
        for lane, text in (("a", "a1"), ("a", "a2"), ("b", "b1")):
            await say(frames, stream_id=lane, input=text)
        begun = [await sessions.begin(await sessions.created.get()) for _ in range(2)]
        asked = {(await asked_of(sessions, commander))[0].content: commander for commander in begun}
        assert set(asked) == {"a1", "b1"}
        await asked["b1"].finish()
        events: list[dict[str, Any]] = []
        while not events or events[-1]["type"] != "response.completed":
            events.append(await event_of(frames))
        assert events[-1]["stream_id"] == "b"
        assert sessions.created.empty()
        await asked["a1"].finish()
        commander = await answered(sessions, "x")
        assert (await asked_of(sessions, commander))[0].content == "a2"
        while events[-1]["type"] != "response.completed" or len(events[-1]["response"]["output"]) == 0:
            events.append(await event_of(frames))
        assert {event["stream_id"] for event in events} == {"a", "b"}


# ---- stops


@pytest.mark.parametrize("named", [True, False])
async def test_a_cancel_ends_the_response_and_the_connection_goes_on(
    url: str, sessions: FakeSessions, named: bool
) -> None:
    async with connected(url) as frames:
        await say(frames, store=False)
        created = await event_of(frames)
        commander = await sessions.begin(await sessions.created.get())
        await commander.say("one")
        response_id = {"response_id": created["response"]["id"]} if named else {}
        await frames.send(json.dumps({"type": "response.cancel", **response_id}))
        last = (await until_ended(frames))[-1]
        assert (last["type"], last["response"]["status"]) == ("response.failed", "cancelled")
        assert await sessions.stops.get() == (commander.session_id, "UserCancel", "user", "")
        await say(frames)
        await answered(sessions, "two")
        assert (await until_ended(frames))[-1]["type"] == "response.completed"


async def test_a_cancel_of_what_is_not_answered_here(url: str, sessions: FakeSessions) -> None:
    others = await sessions.begin()
    async with connected(url) as frames:
        for response_id in (f"resp_{others.session_id}", "resp_x", None):
            await frames.send(json.dumps({"type": "response.cancel", "response_id": response_id}))
            event = await error_of(frames)
            assert (event["status"], event["error"]["code"]) == (404, "response_not_found")
    assert sessions.stops.empty()


@pytest.mark.parametrize("politely", [True, False])
async def test_leaving_stops_all_that_is_under_way(url: str, sessions: FakeSessions, politely: bool) -> None:
    async with connected(url) as frames:
        for lane in "ab":
            await say(frames, stream_id=lane)
            await event_of(frames)
        await say(frames, stream_id="b")  # which waits
        ids = {await sessions.created.get() for _ in range(2)}
        if not politely:
            frames.transport.abort()
    async with asyncio.timeout(30):
        assert {(await sessions.stops.get())[0] for _ in range(2)} == ids
    assert sessions.created.empty()


async def test_a_drain_is_told_of_and_the_session_goes_on(
    url: str, http: httpx2.AsyncClient, sessions: FakeSessions
) -> None:
    async with connected(url) as frames:
        await say(frames)
        await say(frames)  # which waits
        await event_of(frames)
        commander = await sessions.begin(await sessions.created.get())
        await commander.say("one")
        sessions.closing.set()
        events = await until_ended(frames)
        assert (events[-1]["status"], events[-1]["error"]["code"]) == (503, "shutting_down")
        assert (await error_of(frames))["error"]["code"] == "shutting_down"
        with pytest.raises(websockets.ConnectionClosedOK):
            await frames.recv()
        assert frames.close_code == 1001
    await commander.finish()
    response = (await http.get(f"/v1/responses/resp_{commander.session_id}")).json()
    assert response["status"] == "completed"
    assert sessions.stops.empty()


# ---- what is refused


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"type": "response.steer"}, 400, "invalid_value", "type"),
        ({"type": None}, 400, "invalid_value", "type"),
        ({"model": "nobody"}, 404, "model_not_found", "model"),
        ({"background": True}, 400, "unsupported_parameter", "background"),
        ({"stream": False}, 400, "unsupported_parameter", "stream"),
        ({"conversation": "c"}, 400, "unsupported_parameter", "conversation"),
        ({"temperature": "hot"}, 400, "invalid_value", "temperature"),
        ({"previous_response_id": "resp_x"}, 404, "previous_response_not_found", "previous_response_id"),
    ],
)
async def test_a_message_that_is_refused_costs_nothing_else(
    url: str, sessions: FakeSessions, fields: dict[str, Any], status: int, code: str, param: str
) -> None:
    async with connected(url) as frames:
        await say(frames, **fields)
        event = await error_of(frames)
        error = event["error"]
        assert (event["status"], error["code"], error["param"]) == (status, code, param)
        assert error["type"] == "invalid_request_error"
        await say(frames)
        assert (await event_of(frames))["type"] == "response.created"


async def test_what_is_no_json(url: str) -> None:
    async with connected(url) as frames:
        for text in ("{", "[]", ""):
            await frames.send(text)
            assert (await error_of(frames))["error"]["code"] in ("invalid_json", "invalid_value")


async def test_when_to_come_again_is_told(url: str, sessions: FakeSessions) -> None:
    sessions.full = True
    async with connected(url) as frames:
        await say(frames, stream_id="main")
        event = await error_of(frames)
    assert (event["status"], event["stream_id"]) == (429, "main")
    assert event["error"]["headers"]["retry-after"]


async def test_a_message_in_pieces_and_one_that_is_too_large(url: str, sessions: FakeSessions) -> None:
    async with connected(url) as frames:
        text = json.dumps({**ASK, "input": "wörd" * 20_000})
        await frames.send([text[n : n + 1000] for n in range(0, len(text), 1000)])
        commander = await answered(sessions, "one")
        assert (await asked_of(sessions, commander))[0].content == "wörd" * 20_000
        await until_ended(frames)
        await say(frames, input="x" * 2 * 1024 * 1024)
        event = await error_of(frames)
        assert (event["status"], event["error"]["code"]) == (413, "body_too_large")
        with pytest.raises(websockets.ConnectionClosed):
            await frames.recv()
        assert frames.close_code == 1009


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x82\x81\0\0\0\0x", 1003),  # bytes
        (b"\x81\x01x", 1002),  # not masked
        (b"\x81\x81\0\0\0\0\xff", 1007),  # no UTF-8
        (b"\x89\xfe\xff\xff", 1002),  # a ping of 65,535 bytes
        (b"\xc1\x80\0\0\0\0", 1002),  # deflated, as was not agreed on
    ],
)
async def test_frames_that_break_the_protocol(url: str, data: bytes, code: int) -> None:
    async with connected(url) as frames:
        frames.transport.write(data)
        with pytest.raises(websockets.ConnectionClosed):
            await frames.recv()
        assert frames.close_code == code


async def test_messages_that_wait_are_bounded(
    url: str, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "AHEAD_BYTES", 1000)
    async with connected(url) as frames:
        await say(frames)
        await event_of(frames)
        await event_of(frames)
        await say(frames, input="x" * 800)
        await say(frames, input="x" * 800)
        event = await error_of(frames)
        assert (event["status"], event["error"]["code"]) == (429, "too_many_messages")
        for _ in range(response_socket.MAX_MESSAGES - 2):
            await say(frames, stream_id="other", input="")
            assert (await error_of(frames))["status"] == 400
        await frames.send(json.dumps({"type": "response.cancel"}))
        await until_ended(frames)
        await sessions.created.get()  # the one that was stopped
        await answered(sessions, "two")
        assert (await until_ended(frames))[-1]["type"] == "response.completed"


# ---- time


async def test_a_message_that_does_not_go_on_coming(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_GRACE_SECONDS", 0.05)
    async with connected(url) as frames:
        frames.transport.write(b"\x01\x81\0\0\0\0{")
        assert (await error_of(frames))["error"]["code"] == "request_timeout"
        with pytest.raises(websockets.ConnectionClosed):
            await frames.recv()
        assert frames.close_code == 1008


async def test_silence_is_filled_with_pings(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KEEP_ALIVE_SECONDS", 0.02)
    pinged = asyncio.Event()

    class Client(ClientConnection):
        def process_event(self, event: Any) -> None:
            if isinstance(event, Frame) and event.opcode == Opcode.PING:
                pinged.set()
            super().process_event(event)

    address = url.replace("http", "ws", 1) + "/v1/responses"
    async with connect(address, proxy=None, ping_interval=None, create_connection=Client), asyncio.timeout(30):
        await pinged.wait()


async def test_frames_without_content_do_not_keep_a_message_coming(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each comes in time, and many at once: its time is looked at all the same."""
    monkeypatch.setattr(limits, "BODY_GRACE_SECONDS", 0.0)
    monkeypatch.setattr(limits, "BODY_BYTES_A_SECOND", float("inf"))
    async with connected(url) as frames:
        frames.transport.write(b"\x01\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 100)
        assert (await error_of(frames))["error"]["code"] == "request_timeout"


async def test_a_message_in_too_many_frames(url: str, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_socket, "MAX_FRAMES", 21)  # the client's last one is empty
    text = json.dumps(ASK)
    async with connected(url) as frames:
        for _ in range(2):  # what came before does not count
            await frames.send([text[:10], *[""] * 18, text[10:]])
            await answered(sessions, "one")
            await until_ended(frames)
        await frames.send([text[:10], *[""] * 20, text[10:]])
        assert (await error_of(frames))["error"]["code"] == "too_many_frames"
        with pytest.raises(websockets.ConnectionClosed):
            await frames.recv()
        assert frames.close_code == 1008
    async with connected(url) as frames:
        frames.transport.write(b"\x89\x80\0\0\0\0" * 22)
        assert (await error_of(frames))["error"]["code"] == "too_many_frames"


async def test_a_message_that_nests_too_deep_is_refused_as_any_other(url: str) -> None:
    async with connected(url) as frames:
        await frames.send('{"a": ' + "[" * 5_000 + "]" * 5_000 + "}")
        assert (await error_of(frames))["error"]["code"] == "body_too_complex"
        await frames.send("{")
        assert (await error_of(frames))["error"]["code"] == "invalid_json"


async def test_a_frame_may_come_in_many_pieces(
    url: str, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As over a slow line, a segment at a time: 8 MiB are some 6,000."""
    monkeypatch.setattr(response_socket, "MAX_FRAMES", 1)
    sockets = made(monkeypatch)
    text = json.dumps(ASK).encode()
    async with connected(url) as frames:
        frames.transport.write(b"\x81%c\0\0\0\0" % (0x80 | len(text)))
        for n, piece in enumerate((text[:10], text[10:20], text[20:]), 1):
            frames.transport.write(piece)
            await eventually(lambda: sockets[0]._events == n)  # noqa: B023
        await answered(sessions, "one")
        assert (await until_ended(frames))[-1]["type"] == "response.completed"


async def test_others_have_the_loop_between_frames(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_socket, "REST_SECONDS", 0.0)
    count, passed = 4_000, 0

    async def other() -> None:
        nonlocal passed
        while True:
            await asyncio.sleep(0)
            passed += 1

    async with connected(url) as frames, asyncio.timeout(30):
        counting = asyncio.create_task(other())
        frames.transport.write(b"\x8a\x80\0\0\0\0" * count)
        await (await frames.ping(b"the last"))
        counting.cancel()
    assert passed >= count // response_socket.FRAMES_A_TURN


async def test_a_ping_is_answered(url: str) -> None:
    async with connected(url) as frames, asyncio.timeout(30):
        await (await frames.ping(b"there?"))


def made(monkeypatch: pytest.MonkeyPatch) -> list[response_socket.ResponseSocket]:
    """The connections that come, as the server has them."""
    sockets: list[response_socket.ResponseSocket] = []

    class Kept(response_socket.ResponseSocket):
        def __init__(self, http: HttpRequest) -> None:
            super().__init__(http)
            sockets.append(self)

    monkeypatch.setattr(responses, "ResponseSocket", Kept)
    return sockets


async def test_who_leaves_after_the_connections_time_stops_its_answer(
    url: str, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    sockets = made(monkeypatch)
    async with connected(url) as frames:
        await say(frames)
        await event_of(frames)
        sockets[0].limit.reschedule(0)
        await until_ended(frames)  # by the error
        frames.transport.abort()
    async with asyncio.timeout(30):
        assert (await sessions.stops.get())[0] == await sessions.created.get()


async def test_a_connection_ends_after_its_time_and_its_answer_does_not(
    url: str, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    sockets = made(monkeypatch)
    async with connected(url) as frames:
        await say(frames)
        events = [await event_of(frames)]
        sockets[0].limit.reschedule(0)
        while events[-1]["type"] != "error":
            events.append(await event_of(frames))
        assert events[-1]["error"]["code"] == "websocket_connection_limit_reached"
        await answered(sessions, "one")
        assert (await until_ended(frames))[-1]["type"] == "response.completed"
        with pytest.raises(websockets.ConnectionClosedOK):
            await frames.recv()


# ---- the handshake


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 426, "upgrade_required"),
        ({"Connection": "Upgrade", "Upgrade": "h2c"}, 426, "upgrade_required"),
        ({"Connection": "Upgrade", "Upgrade": "websocket"}, 426, "upgrade_required"),
        ({"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}, 400, "invalid_value"),
        (
            {
                "Connection": "Upgrade",
                "X-Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            },
            426,
            "upgrade_required",
        ),
    ],
)
async def test_what_is_no_handshake(http: httpx2.AsyncClient, headers: dict[str, str], status: int, code: str) -> None:
    answer = await http.get("/v1/responses", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    if status == 426:
        assert answer.headers["upgrade"] == "websocket"


async def test_pages_of_other_origins(url: str) -> None:
    """CORS does not keep them from WebSockets."""
    async with connected(url, Origin="https://app.example"):
        pass
    for origin in ("https://evil.example", "null"):
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with connected(url, Origin=origin):
                pass
        answer = refused.value.response
        assert (answer.status_code, json.loads(answer.body or b"")["error"]["code"]) == (403, "origin_not_allowed")


async def test_each_message_shows_its_key(sessions: FakeSessions, settings: DispatcherSettings) -> None:
    """One that is taken back is not served on a connection that it opened."""
    access = Access(None)
    server = HttpServer(user_app(sessions, settings, Metrics(CollectorRegistry()), access), bind("TEST", "127.0.0.1:0"))
    await server.start()
    url = f"http://127.0.0.1:{server.port}"
    try:
        async with connected(url) as frames:
            await say(frames)
            await answered(sessions, "one")
            await until_ended(frames)
            access.rules = AccessRules()
            await say(frames)
            event = await error_of(frames)
            assert (event["status"], event["error"]["code"]) == (401, "invalid_api_key")
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with connected(url):
                pass
        assert refused.value.response.status_code == 401
    finally:
        sessions.closing.set()
        await server.close()


async def test_a_connection_with_nothing_to_do_makes_room(
    sessions: FakeSessions, settings: DispatcherSettings, metrics: Metrics
) -> None:
    app = user_app(sessions, settings, metrics, Access(None))
    server = HttpServer(app, bind("TEST", "127.0.0.1:0"), connections=2)
    await server.start()
    url = f"http://127.0.0.1:{server.port}"
    try:
        async with connected(url) as busy, connected(url) as idle:
            await say(busy)
            await event_of(busy)
            async with httpx2.AsyncClient(base_url=url) as newcomer:
                assert (await newcomer.get("/healthz")).status_code == 200
            with pytest.raises(websockets.ConnectionClosedError):
                await idle.recv()
            await answered(sessions, "one")
            assert (await until_ended(busy))[-1]["type"] == "response.completed"
        await eventually(lambda: not server._open)
    finally:
        sessions.closing.set()
        await server.close()

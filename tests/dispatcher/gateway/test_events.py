"""The native event stream, through real sockets."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import httpx2
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dispatcher.access.watch import Access
from dispatcher.core.entries import Body, Entry, Finished
from dispatcher.core.log import Record
from dispatcher.gateway import limits, sse
from dispatcher.gateway.app import user_app
from dispatcher.gateway.server import HttpServer, bind
from dispatcher.gateway.sessions import render
from dispatcher.metrics import Metrics
from dispatcher.settings import DispatcherSettings
from dispatcher.store import followers
from dispatcher.store.blobs import without_prompt
from dispatcher.store.ports import StoreUnavailable
from shared.records import Content, Thought, Usage
from tests.dispatcher.gateway.fakes import Commander, FakeSessions, Seen, eventually


def path(commander: Commander) -> str:
    return f"/v1/sessions/{commander.session_id}/events"


async def stream(http: httpx2.AsyncClient, path: str, after: int | None = None) -> AsyncGenerator[Seen, None]:
    """What an EventSource sees on one connection. Ends at once where the status is 204."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    async with http.stream("GET", path, headers=headers) as response:
        if response.status_code != 204:
            assert response.status_code == 200
            async for event in httpx2.EventSource(response):
                if event.data:
                    yield Seen(event.event, json.loads(event.data), event.id)


async def read(http: httpx2.AsyncClient, path: str, after: int | None = None) -> list[Seen]:
    """All that one connection brings. Nothing: 204."""
    return [event async for event in stream(http, path, after)]


def text_of(seen: list[Seen]) -> str:
    return "".join(str(event.data["text"]) for event in seen if event.event == "content")


async def test_a_session_from_its_first_word_to_its_end(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    commander = await sessions.begin()
    reading = asyncio.create_task(read(http, path(commander)))
    await commander.think("hm")
    await commander.say("Hello, ", "world\n\nid: 7\r\ndata: \u2028")
    await commander.call()
    await commander.answer(result='{"secret": 1}')
    await commander.hold("held")
    await commander.let_out("!")
    await commander.finish("length", Usage(3, 4))
    seen = await reading
    assert text_of(seen) == "Hello, world\n\nid: 7\r\ndata: \u2028!"
    assert [event.event for event in seen if event.event != "content"] == ["tool_call", "tool_result", "finished"]
    assert seen[-1].data == {"finish_reason": "length", "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    call, result = (event for event in seen if event.event.startswith("tool"))
    assert call.data == {"call_id": "call-1", "tool_name": "search", "status": "RUNNING"}
    assert result.data == {"call_id": "call-1", "tool_name": "search", "status": "OK"}
    ids = [int(event.id) for event in seen]
    assert ids == sorted(set(ids))


async def test_no_reader_takes_a_prompt_into_memory(
    http: httpx2.AsyncClient, operator: httpx2.AsyncClient, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt may have megabytes, and there may be a thousand readers."""
    commander, load = await sessions.begin(), sessions.store.load

    async def whole(session_id: str) -> None:
        raise AssertionError("it is read with its prompt")

    async def brief(session_id: str) -> Record | None:
        record = await load(session_id)
        return record and without_prompt(record)

    monkeypatch.setattr(sessions.store, "load", whole)
    monkeypatch.setattr(sessions.store, "brief", brief)
    session, operators = path(commander).removesuffix("/events"), f"/operator/sessions/{commander.session_id}/events"
    reading = [asyncio.create_task(read(*each)) for each in ((http, path(commander)), (operator, operators))]
    await commander.say("Hello")
    await commander.finish()
    assert [len(seen) for seen in await asyncio.gather(*reading)] == [2, 3]
    assert (await http.get(session)).json()["state"] == "finished"
    assert (await http.delete(session)).status_code == 204


async def test_headers_and_first_bytes_come_at_once(url: str, sessions: FakeSessions) -> None:
    commander = await sessions.begin()
    async with raw(url, path(commander)) as (reader, _):
        async with asyncio.timeout(30):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            first = await reader.readuntil(b"\n\n")
    assert "http/1.1 200" in head
    assert "content-type: text/event-stream" in head
    assert "cache-control: no-cache, no-transform\r\n" in head
    assert "x-accel-buffering: no\r\n" in head
    assert "content-encoding" not in head
    assert b"retry: 1000\n\n" in first


@asynccontextmanager
async def raw(url: str, path: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=4096)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    try:
        yield reader, writer
    finally:
        writer.close()


async def test_resuming_at_every_offset_gives_the_same_text(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    commander = await sessions.begin()
    for n in range(6):
        await commander.say(f"<{n}>")
        await commander.think("hm")
    await commander.stop("UserCancel", "user")
    await commander.halted()
    whole = await read(http, path(commander))
    assert text_of(whole) == "<0><1><2><3><4><5>"
    assert whole[-1].event == "stopped"
    final = int(whole[-1].id)
    entries = (await sessions.store.read(commander.session_id, 0, 100)).entries
    for after in range(final):
        seen = await read(http, path(commander), after)
        said_before = "".join(entry.released for entry in entries[:after])
        assert said_before + text_of(seen) == text_of(whole)
        assert seen[-1] == whole[-1]
    for after in range(final, len(entries) + 1):
        assert await read(http, path(commander), after) == []


async def test_the_larger_of_both_offsets_counts(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    commander = await sessions.begin()
    await commander.say("a", "b", "c")
    await commander.finish()
    offsets = [entry.offset for entry in (await sessions.store.read(commander.session_id, 0, 100)).entries]
    first, second = offsets[1], offsets[2]
    assert text_of(await read(http, f"{path(commander)}?after={first}", second)) == "c"
    assert text_of(await read(http, f"{path(commander)}?after={second}", first)) == "c"
    assert text_of(await read(http, f"{path(commander)}?after=000{second}")) == "c"


@pytest.mark.parametrize("value", ["", "x", "-1", "1.5", "٣", "1 2", "0x1"])
async def test_an_id_that_is_no_number(http: httpx2.AsyncClient, sessions: FakeSessions, value: str) -> None:
    commander = await sessions.begin()
    by_query = await http.get(path(commander), params={"after": value})
    assert (by_query.status_code, by_query.json()["error"]["param"]) == (400, "after")
    by_header = await http.get(path(commander), headers={b"Last-Event-ID": value.encode()})
    assert (by_header.status_code, by_header.json()["error"]["param"]) == (400, "Last-Event-ID")


async def test_an_id_beyond_the_log_begins_anew(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    commander = await sessions.begin()
    await commander.say("so ")
    await commander.think("hm")
    await commander.say("far")
    now = str(commander.head.offset)
    for beyond in (commander.head.offset + 1, 10**30):
        async with aclosing(stream(http, path(commander), beyond)) as events:
            assert await anext(events) == Seen("reset", {"text": "so far", "state": "running"}, now)
    async with aclosing(stream(http, path(commander), 1000)) as events:
        await anext(events)
        await commander.say(", and on")
        await commander.finish()
        rest = [event async for event in events]
    assert text_of(rest) == ", and on"
    assert rest[-1].event == "finished"

    reset = Seen("reset", {"text": "so far, and on", "state": "finished"}, str(commander.head.offset))
    end = Seen("finished", rest[-1].data, reset.id)  # the end has no id of its own
    assert await read(http, path(commander), 1000) == [reset, end]
    assert await read(http, path(commander), commander.head.offset) == []


@pytest.mark.parametrize("heard", [True, False])
async def test_a_log_that_is_rolled_back_under_a_reader_begins_anew(
    http: httpx2.AsyncClient, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch, heard: bool
) -> None:
    """At once where the store hears of it, else when nothing has come for a while."""
    monkeypatch.setattr(limits, "KEEP_ALIVE_SECONDS", 60 if heard else 0.02)
    commander = await sessions.begin()
    await commander.say("so ")
    async with asyncio.timeout(30), aclosing(stream(http, path(commander))) as events:
        await anext(events)
        await commander.say("far")
        last = int((await anext(events)).id)
        await sessions.roll_back(commander.session_id, last - 1, heard)
        assert await anext(events) == Seen("reset", {"text": "so ", "state": "running"}, str(last - 1))
        await commander.say("good")
        await commander.finish()
        rest = [event async for event in events]
        assert text_of(rest) == "good"
        assert rest[-1].event == "finished"


@pytest.mark.parametrize(
    ("code", "shown"),
    [("commander_lost", "commander_lost"), ("no_commander", "no_commander"), ("SECRET", "agent_error")],
)
async def test_a_failure_in_fixed_words(
    http: httpx2.AsyncClient, sessions: FakeSessions, code: str, shown: str
) -> None:
    commander = await sessions.begin()
    await commander.fail(code, "SECRET")
    (failed,) = await read(http, path(commander))
    assert failed.event == "failed"
    assert failed.data["code"] == shown
    assert "SECRET" not in str(failed)


async def test_a_silent_session_is_kept_alive(
    url: str, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert limits.KEEP_ALIVE_SECONDS == 15
    monkeypatch.setattr(limits, "KEEP_ALIVE_SECONDS", 0.05)
    commander = await sessions.begin()
    async with raw(url, path(commander)) as (reader, _), asyncio.timeout(30):
        await reader.readuntil(b": keep-alive\n\n")
        await reader.readuntil(b": keep-alive\n\n")
        await commander.say("on")
        assert b"on" in await reader.readuntil(b"}\n\n")


async def test_the_gauge_counts_readers_until_they_go(url: str, sessions: FakeSessions, metrics: Metrics) -> None:
    commander = await sessions.begin()
    async with raw(url, path(commander)) as (reader, _):
        await reader.readuntil(b"retry: 1000\n\n")
        assert metrics.event_streams._value.get() == 1
    await eventually(lambda: metrics.event_streams._value.get() == 0)
    assert (await sessions.store.load(commander.session_id)).head.state == "running"  # type: ignore[union-attr]


async def test_a_slow_reader_gets_everything_and_holds_up_nobody(
    url: str, http: httpx2.AsyncClient, sessions: FakeSessions
) -> None:
    commander = await sessions.begin()
    async with raw(url, path(commander)) as (reader, _):
        await reader.readuntil(b"retry: 1000\n\n")
        text = "z" * 60_000
        for _ in range(300):  # 18 MB: more than the sockets hold
            await commander.say(text)
        await commander.finish()
        async with asyncio.timeout(20):
            seen = await read(http, path(commander))
            assert len(text_of(seen)) == 300 * 60_000
            received = 0
            while chunk := await reader.read(1 << 20):
                received += chunk.count(b"z")
                if b"event: finished" in chunk:
                    break
    assert received == 300 * 60_000


async def test_streams_end_when_the_server_drains(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    commander = await sessions.begin()
    await commander.say("so far")
    async with asyncio.timeout(30), aclosing(stream(http, path(commander))) as events:
        await anext(events)
        sessions.closing.set()
        assert [event async for event in events] == []
        answer = await http.get(path(commander))  # an EventSource has to come back, so this is no error
    assert answer.status_code == 200
    assert answer.text.startswith("retry: 1000\n\n")


async def test_a_reader_that_does_not_read_is_cut_at_the_end(
    sessions: FakeSessions, metrics: Metrics, settings: DispatcherSettings
) -> None:
    server = HttpServer(user_app(sessions, settings, metrics, Access(None)), bind("TEST", "127.0.0.1:0"))
    await server.start()
    commander = await sessions.begin()
    for _ in range(300):
        await commander.say("z" * 60_000)
    async with raw(f"http://127.0.0.1:{server.port}", path(commander)) as (reader, _):
        await reader.readuntil(b"retry: 1000\n\n")
        sessions.closing.set()
        async with asyncio.timeout(30):
            await server.close()
    await server.close()


async def test_a_head_request_ends(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    commander = await sessions.begin()
    answer = await http.head(path(commander))
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")


async def test_a_store_that_is_away_for_a_while(
    http: httpx2.AsyncClient, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "RETRY_STORE_SECONDS", 0.001)
    monkeypatch.setattr(followers, "TAIL_ENTRIES", 0)  # nothing is at hand
    commander = await sessions.begin()
    await commander.say("away")
    store = sessions.store
    failures = asyncio.Queue[None]()

    async def unavailable(*_: object) -> list[Entry]:
        failures.put_nowait(None)
        raise StoreUnavailable

    async with asyncio.timeout(30), aclosing(stream(http, path(commander))) as events:
        await anext(events)
        with monkeypatch.context() as patch:
            patch.setattr(store, "read", unavailable)
            await commander.say(" and")
            await failures.get()
            await failures.get()
        await commander.say(" back")
        await commander.finish()
        assert text_of([event async for event in events]) == " and back"


async def test_an_event_source_that_comes_while_the_store_is_away_comes_again(
    http: httpx2.AsyncClient, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    commander = await sessions.begin()
    await commander.say("still here")
    await commander.finish()

    async def unavailable(*_: object) -> None:
        raise StoreUnavailable

    headers = {"Accept": "text/event-stream"}  # as every EventSource asks
    with monkeypatch.context() as patch:
        patch.setattr(sessions.store, "load", unavailable)
        answer = await http.get(path(commander), headers=headers)
        assert (answer.status_code, answer.content) == (200, sse.RETRY)  # it ends: come again
        assert (await http.get(path(commander))).status_code == 503
    assert b"still here" in (await http.get(path(commander), headers=headers)).content


# ---- a random log, read in random pieces

RELEASES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
BODIES: st.SearchStrategy[tuple[Body, str]] = st.one_of(
    st.tuples(RELEASES.map(Content), RELEASES),
    st.tuples(RELEASES.map(lambda text: Thought("step", text)), st.just("")),
)


def parse(data: bytes) -> list[Seen]:
    seen = []
    for block in data.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        seen.append(Seen(fields["event"], json.loads(fields["data"]), fields["id"]))
    return seen


@hypothesis_settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(BODIES, max_size=30), st.data())
def test_any_log_read_in_any_pieces_is_the_same_text(bodies: list[tuple[Body, str]], data: st.DataObject) -> None:
    log = [Entry(body, 0.0, released=released, offset=n) for n, (body, released) in enumerate(bodies, 1)]
    log.append(Entry(Finished(), 0.0, offset=len(log) + 1))
    text = "".join(entry.released for entry in log)
    seen: list[Seen] = []
    after = 0
    while True:
        # A connection that reads in batches of some size, and breaks after some events
        size = data.draw(st.integers(1, 40))
        keep = data.draw(st.sampled_from([None, 0, 1, 2]))
        rendered, ended = render([entry for entry in log if entry.offset > after][:size], lambda _: True)
        events = parse(rendered)
        assert bool(events and events[-1].event == "finished") == ended
        kept = events[:keep]
        seen += kept
        if kept and kept[-1].event == "finished":
            break
        if kept:
            after = int(kept[-1].id)
        elif keep != 0:  # nothing of this batch shows: the connection reads on
            after += size
    assert text_of(seen) == text
    assert [event.event for event in seen].count("finished") == 1

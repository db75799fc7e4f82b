"""No streaming route falls silent, counted in bytes on a real socket: while an agent thinks, before the first word, and
while the store does not answer.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import openai
import pytest

from dispatcher.gateway import limits, sse
from dispatcher.settings import DispatcherSettings
from dispatcher.store import followers
from dispatcher.store.memory import MemoryStore
from dispatcher.store.ports import LogPart
from tests.dispatcher.gateway.fakes import Commander, FakeSessions, eventually

CHAT = {"model": "default", "messages": [{"role": "user", "content": "hi"}]}
RESPONSE = {"model": "default", "input": "hi"}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits.KEEP_ALIVE_SECONDS == 15
    monkeypatch.setattr(limits, "KEEP_ALIVE_SECONDS", 0.05)


@asynccontextmanager
async def asking(
    url: str, method: str, path: str, body: object = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    data = json.dumps(body).encode() if body is not None else b""
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
    try:
        async with asyncio.timeout(30):
            yield reader, writer
    finally:
        writer.close()


@asynccontextmanager
async def thinking(commander: Commander) -> AsyncIterator[None]:
    """Thoughts come far more often than the silence that is allowed."""

    async def think() -> None:
        while True:
            await commander.think("hm")
            await asyncio.sleep(limits.KEEP_ALIVE_SECONDS / 10)

    task = asyncio.create_task(think())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def native(sessions: FakeSessions) -> tuple[str, str, object]:
    commander = await sessions.begin()
    sessions.created.put_nowait(commander.session_id)
    return "GET", f"/v1/sessions/{commander.session_id}/events", None


async def chat(_: FakeSessions) -> tuple[str, str, object]:
    return "POST", "/v1/chat/completions", {**CHAT, "stream": True}


async def responses(_: FakeSessions) -> tuple[str, str, object]:
    return "POST", "/v1/responses", {**RESPONSE, "stream": True}


async def background(_: FakeSessions) -> tuple[str, str, object]:
    return "POST", "/v1/responses", {**RESPONSE, "stream": True, "background": True}


async def retrieved(sessions: FakeSessions) -> tuple[str, str, object]:
    _, path, _ = await native(sessions)
    return "GET", f"/v1/responses/resp_{path.split('/')[3]}?stream=true", None


Route = Callable[[FakeSessions], Awaitable[tuple[str, str, object]]]
ROUTES = [native, chat, responses, background, retrieved]


async def commander_of(sessions: FakeSessions) -> Commander:
    session_id = await sessions.created.get()
    record = await sessions.store.load(session_id)
    assert record
    if record.head.state == "waiting":
        return await sessions.begin(session_id)
    return Commander(sessions.store, session_id, record.head)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("spoken", [True, False])
async def test_while_the_agent_thinks(url: str, sessions: FakeSessions, route: Route, spoken: bool) -> None:
    async with asking(url, *await route(sessions)) as (reader, _):
        commander = await commander_of(sessions)
        if spoken:
            await commander.say("a word")
            await reader.readuntil(b"a word")
        async with thinking(commander):
            for _ in range(3):
                await reader.readuntil(sse.FILLER)
        await commander.say("another word")
        await reader.readuntil(b"another word")


async def test_operators_read_the_thoughts_themselves_and_comments_where_nothing_comes(
    operator_url: str, sessions: FakeSessions
) -> None:
    commander = await sessions.begin()
    async with asking(operator_url, "GET", f"/operator/sessions/{commander.session_id}/events") as (reader, _):
        await commander.think("hm")
        await reader.readuntil(b"event: thought\n")
        for _ in range(3):
            await reader.readuntil(sse.FILLER)


@pytest.mark.parametrize("route", ROUTES)
async def test_while_the_session_waits_for_a_commander(url: str, sessions: FakeSessions, route: Route) -> None:
    async with asking(url, *await route(sessions)) as (reader, _):
        for _ in range(3):
            await reader.readuntil(sse.FILLER)


class Stuck(MemoryStore):
    """A store that does not answer readers while it is `stuck`."""

    def __init__(self) -> None:
        super().__init__()
        self.stuck = False
        self.asked = 0

    async def read(self, session_id: str, after: int, limit: int) -> LogPart:
        self.asked += 1
        if self.stuck:
            await asyncio.Event().wait()
        return await super().read(session_id, after, limit)


@pytest.mark.parametrize("route", ROUTES)
async def test_while_the_store_does_not_answer(
    url: str, sessions: FakeSessions, route: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers, "TAIL_ENTRIES", 0)  # nothing is at hand
    store = sessions.store = Stuck()
    async with asking(url, *await route(sessions)) as (reader, _):
        commander = await commander_of(sessions)
        await eventually(lambda: store.asked > 0)
        store.stuck = True
        await commander.think("hm")
        for _ in range(3):
            await reader.readuntil(sse.FILLER)
        store.stuck = False
        await commander.say("a word")
        await reader.readuntil(b"a word")


async def test_a_failure_after_the_headers_have_gone_is_in_the_stream(url: str, sessions: FakeSessions) -> None:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30) as client:
        create = asyncio.create_task(client.chat.completions.create(**CHAT, stream=True))  # type: ignore[call-overload]
        commander = await sessions.begin(await sessions.created.get())
        stream = await create  # nothing was said
        await commander.fail("agent_error", "SECRET")
        with pytest.raises(openai.APIError) as raised:
            _ = [chunk async for chunk in stream]
    assert (raised.value.code, raised.value.message) == ("agent_error", "The agent failed.")


# ---- unstreamed


UNSTREAMED = [("/v1/chat/completions", CHAT), ("/v1/responses", RESPONSE)]


@pytest.mark.parametrize(("path", "body"), UNSTREAMED)
async def test_an_unstreamed_answer_comes_when_it_is_whole(
    url: str, sessions: FakeSessions, path: str, body: object
) -> None:
    async with asking(url, "POST", path, body) as (reader, _):
        commander = await sessions.begin(await sessions.created.get())
        async with thinking(commander):
            waited = asyncio.get_running_loop().time() + 3 * limits.KEEP_ALIVE_SECONDS
            await eventually(lambda: asyncio.get_running_loop().time() > waited)
        assert not reader._buffer  # type: ignore[attr-defined]
        await commander.fail()
        assert (await reader.readline()).split()[1] == (b"502" if "chat" in path else b"200")


@pytest.mark.parametrize(("path", "body"), UNSTREAMED)
@pytest.mark.parametrize("end", ["finish", "fail", "drain"])
class TestEarlyHeaders:
    @pytest.fixture
    def settings(self) -> DispatcherSettings:
        return DispatcherSettings(early_headers=True)

    async def test_blanks_come_until_the_answer_does(
        self, url: str, sessions: FakeSessions, path: str, body: object, end: str
    ) -> None:
        async with asking(url, "POST", path, body) as (reader, _):
            commander = await sessions.begin(await sessions.created.get())
            async with thinking(commander):
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 OK\r\n")
                assert b"content-type: application/json" in head.lower()
                for _ in range(3):
                    assert await reader.readexactly(6) == b"1\r\n \r\n"
            if end == "finish":
                await commander.say("a word")
                await commander.finish()
            elif end == "fail":
                await commander.fail("agent_error", "SECRET")
            else:
                sessions.closing.set()
            text = b""
            while size := int(await reader.readline(), 16):
                text += (await reader.readexactly(size + 2))[:-2]
        told = json.loads(text)
        if end == "finish":
            assert "a word" in text.decode()
        elif end == "drain":
            assert told["error"]["code"] == "shutting_down"
        else:
            assert told["error"]["code"] == "agent_error"
            assert "SECRET" not in text.decode()

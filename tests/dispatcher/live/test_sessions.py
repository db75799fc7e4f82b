"""New sessions: what limits them; and stops that the store is away for. Without sockets."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from dispatcher.core.log import LIVE, Change, CommanderName, Head, Outcome, Record, Request
from dispatcher.live import sessions as live_sessions
from dispatcher.live.pool import QueueFull
from dispatcher.live.sessions import LiveSessions
from dispatcher.metrics import Metrics
from dispatcher.policing.load import load as load_policies
from dispatcher.policing.prompts import PromptRefused
from dispatcher.settings import DispatcherSettings
from dispatcher.store import asking
from dispatcher.store.memory import MemoryStore
from dispatcher.store.ports import Created, IdempotencyKey, StopKept, StoreUnavailable
from dispatcher.tools.load import load as load_tools
from dispatcher.tools.registry import Registry
from shared.records import ClientCall, Message, Tool


@pytest.fixture
async def sessions() -> AsyncIterator[LiveSessions]:
    settings = DispatcherSettings(queue_limit=2, queue_seconds=60)
    metrics = Metrics(CollectorRegistry())
    tools = Registry(load_tools(None).tools.values())
    sessions = LiveSessions(MemoryStore(), load_policies(None), tools, metrics, settings)
    yield sessions
    for record in await sessions.store.select(["waiting"], 10):
        sessions.pool.withdraw(record.session_id)
    await sessions.close()


class Away(MemoryStore):
    """A store that can be away."""

    away = False

    def submit(self, session_id: str, change: Change) -> "asyncio.Future[Outcome]":
        if self.away:
            lost: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            lost.set_exception(StoreUnavailable("away"))
            return lost
        return super().submit(session_id, change)

    async def load(self, session_id: str) -> Record | None:
        if self.away:
            raise StoreUnavailable("away")
        return await super().load(session_id)


async def test_a_stop_while_the_store_is_away_is_kept_once_and_tried(
    sessions: LiveSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "RETRY_SECONDS", (0.001, 0.01))
    store = sessions.runners.store = Away()
    created = await sessions.create(Request("default", (Message("user", "hi"),), time.time()))
    session_id = created.record.session_id
    store.away = True
    for _ in range(3):
        with pytest.raises(StopKept):
            await sessions.stop(session_id, "UserCancel", "user")
    assert len(sessions._kept_stops) == 1
    monkeypatch.setattr(live_sessions, "MAX_KEPT_STOPS", 1)
    with pytest.raises(StoreUnavailable) as refused:
        await sessions.stop("another", "UserCancel", "user")
    assert not isinstance(refused.value, StopKept)
    store.away = False
    async with asyncio.timeout(30):
        while sessions._kept_stops:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.005)
    record = await store.load(session_id)
    assert record
    assert (record.head.state, record.head.reason) == ("stopped", "UserCancel")


@pytest.mark.parametrize("owner_too", [False, True])
async def test_a_kept_stop_is_of_a_tenant(
    sessions: LiveSessions, monkeypatch: pytest.MonkeyPatch, owner_too: bool
) -> None:
    """Whose the session is, is known once the store is back; until then nobody's stop stands for another's."""
    monkeypatch.setattr(asking, "RETRY_SECONDS", (0.001, 0.01))
    store = sessions.runners.store = Away()
    created = await sessions.create(replace(request(), tenant="owner"))
    session_id = created.record.session_id
    store.away = True
    for tenant in ("another", "owner") if owner_too else ("another",):
        with pytest.raises(StopKept):
            await sessions.stop(session_id, "UserCancel", "user", tenant=tenant)
    store.away = False
    async with asyncio.timeout(30):
        while sessions._kept_stops:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.005)
    record = await store.load(session_id)
    assert record
    assert record.head.state == ("stopped" if owner_too else "waiting")


def request(agent: str = "a") -> Request:
    return Request(agent, (), time.time())


async def test_a_key_makes_one_session(sessions: LiveSessions) -> None:
    key = IdempotencyKey("k" * 16, b"body", time.time() + 60)
    first, second = [await sessions.create(request(), key) for _ in range(2)]
    assert first.fresh
    assert not second.fresh
    assert second.record == first.record
    assert sessions.pool.waiting == 1


@pytest.mark.parametrize(("action", "refused"), [("stop", True), ("redact", True), ("observe", False)])
async def test_a_prompt_is_read_before_anything_is_logged(
    sessions: LiveSessions, tmp_path: Path, action: str, refused: bool
) -> None:
    rules = f'[[policy]]\nname = "p"\nkind = "phrases"\nphrases = ["night"]\nreads = ["prompt"]\naction = "{action}"\n'
    (tmp_path / "rules.toml").write_text(rules)
    sessions.runners.use(load_policies(tmp_path / "rules.toml"))
    await sessions.create(Request("a", (Message("user", "a nig"), Message("user", "ht")), time.time()))
    for asked in (
        Request("a", (Message("system", "hi"), Message("user", "a \uff2eIGHT")), time.time()),
        Request("a", (), time.time(), parameters_json='{"instructions": ["a n\\u0069ght"]}'),
    ):
        if refused:
            with pytest.raises(PromptRefused):
                await sessions.create(asked)
        else:
            sessions.pool.withdraw((await sessions.create(asked)).record.session_id)
    assert sessions.pool.waiting == 1
    assert len(await sessions.store.select(LIVE, 10)) == (1 if refused else 3)
    hits = sessions.metrics._policy_hits.labels("p", action)._value.get()
    assert hits == 2


async def test_a_tenant_leaves_others_places_in_the_queue() -> None:
    """Alone it gets half of them."""
    settings = DispatcherSettings(queue_limit=8)
    crowded = LiveSessions(MemoryStore(), load_policies(None), Registry([]), Metrics(CollectorRegistry()), settings)

    async def ask(tenant: str, times: int) -> int:
        """How many are taken, of those that ask at once."""
        asked = [crowded.create(Request("a", (), time.time(), tenant=tenant)) for _ in range(times)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(answer, Created | QueueFull) for answer in answers), answers
        return sum(isinstance(answer, Created) for answer in answers)

    assert [await ask(tenant, 20) for tenant in ("flood", "flood", "x", "y", "z", "late")] == [4, 0, 2, 1, 1, 0]
    for record in await crowded.store.select(["waiting"], 20):
        crowded.pool.withdraw(record.session_id)
    assert await ask("", 20) == 8  # where access is open
    for record in await crowded.store.select(["waiting"], 40):
        crowded.pool.withdraw(record.session_id)
    await crowded.close()


async def test_a_tenants_prompts_leave_others_room() -> None:
    settings = DispatcherSettings(queue_bytes=1000)
    crowded = LiveSessions(MemoryStore(), load_policies(None), Registry([]), Metrics(CollectorRegistry()), settings)
    large = (Message("user", "x" * 300),)
    for tenant, taken in (("flood", True), ("flood", True), ("flood", False), ("x", True)):
        try:
            await crowded.create(Request("a", large, time.time(), tenant=tenant))
            assert taken
        except QueueFull:
            assert not taken
    for record in await crowded.store.select(["waiting"], 20):
        crowded.pool.withdraw(record.session_id)
    await crowded.close()


CALL = ClientCall("1", "f", '{"who": ["a n\\u0069ght"]}')


@pytest.mark.parametrize(
    "asked",
    [
        Request("a", (Message("assistant", "", (CALL,)),), 1.0),
        Request(
            "a", (Message("user", "", parts_json='[{"file": {"file_data": "", "filename": "the night.txt"}}]'),), 1.0
        ),
        Request("a", (Message("user", "hi", name="night"),), 1.0),
        Request("a", (Message("user", "", parts_json='[{"image_url": {"url": "https://x/night"}}]'),), 1.0),
        Request("a", (Message("assistant", "", (ClientCall("1", "night", "{}"),)),), 1.0),
        Request("a", (), 1.0, tools=(Tool("night", "", "{}", client=True),)),
        Request("a", (), 1.0, tools=(Tool("f", "of the night", "{}", client=True),)),
        Request("a", (), 1.0, tools=(Tool("f", "", '{"properties": {"night": {}}}', client=True),)),
    ],
)
async def test_what_a_client_says_of_its_tools_is_read_as_a_prompt(
    sessions: LiveSessions, tmp_path: Path, asked: Request
) -> None:
    rules = '[[policy]]\nname = "p"\nkind = "phrases"\nphrases = ["night"]\nreads = ["prompt"]\naction = "stop"\n'
    (tmp_path / "rules.toml").write_text(rules)
    sessions.runners.use(load_policies(tmp_path / "rules.toml"))
    with pytest.raises(PromptRefused):
        await sessions.create(asked)
    assert not await sessions.store.select(LIVE, 10)


async def test_what_a_clients_tool_answered_is_read_as_a_result(sessions: LiveSessions, tmp_path: Path) -> None:
    rules = '[[policy]]\nname = "p"\nkind = "phrases"\nphrases = ["night"]\nreads = ["results"]\naction = "redact"\n'
    (tmp_path / "rules.toml").write_text(rules)
    sessions.runners.use(load_policies(tmp_path / "rules.toml"))
    await sessions.create(Request("a", (Message("user", "night"), Message("assistant", "", (CALL,))), time.time()))
    for answer in ("a night", '{"x": [{"n\\u0069ght": 1}]}'):
        with pytest.raises(PromptRefused):
            await sessions.create(Request("a", (Message("tool", answer, (), "1"),), time.time()))


async def test_what_an_agent_honours_is_what_some_instance_offers(sessions: LiveSessions) -> None:
    now = time.time()
    assert await sessions.features("a") is None
    await sessions.store.offer("older", ["a", "b", "c"], now)
    assert await sessions.features("a") == frozenset({"sampling"})
    await sessions.store.offer("another", ["a\0sampling,tools", "b\0", "d\0tools"], now)
    await sessions.store.offer("a third", ["a\0images"], now)
    assert await sessions.features("a") == frozenset({"sampling", "tools", "images"})
    assert await sessions.features("b") == frozenset()
    assert await sessions.features("d") is None
    assert await sessions.agents() == ["a", "b", "c"]


async def test_the_limit(sessions: LiveSessions) -> None:
    for _ in range(2):
        await sessions.create(request())
    with pytest.raises(QueueFull) as caught:
        await sessions.create(request("another"))
    assert caught.value.retry_after >= 1


async def test_the_limit_of_the_bytes_that_wait(sessions: LiveSessions) -> None:
    """Once so many wait, the next is refused; those on their way into the log count, and what is withdrawn does not."""
    sessions._queue_limit, sessions._queue_bytes = 100, 6
    asked = Request("a", (Message("user", "é"), Message("user", "a")), time.time(), parameters_json="{}")
    answers = await asyncio.gather(*(sessions.create(asked) for _ in range(3)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, QueueFull)]
    assert len(refused) == 1
    [created, _] = [answer.record for answer in answers if isinstance(answer, Created)]
    assert created.request.prompt_bytes == 5
    await sessions.stop(created.session_id, "UserCancel", "user")
    await sessions.create(asked)
    for record in await sessions.store.select(["waiting"], 10):
        sessions.pool.withdraw(record.session_id)
    assert sessions.pool.prompt_bytes == sessions._creating_bytes == 0


async def test_what_waited_before_a_restart_counts(sessions: LiveSessions) -> None:
    sessions._queue_bytes = 5
    await sessions.store.create(Record("s", Request("a", (), time.time(), prompt_bytes=5), Head(since=time.time())))
    await sessions.recover()
    with pytest.raises(QueueFull):
        await sessions.create(request())


async def test_a_stop_of_a_waiting_session_makes_room(sessions: LiveSessions) -> None:
    ids = [(await sessions.create(request())).record.session_id for _ in range(2)]
    record = await sessions.stop(ids[0], "UserCancel", "user")
    assert record
    assert record.head.over
    assert (record.head.state, record.head.reason) == ("stopped", "UserCancel")
    await sessions.create(request())


async def test_an_unknown_session_is_not_stopped(sessions: LiveSessions) -> None:
    assert await sessions.stop("nobody", "UserCancel", "user") is None


async def test_trouble(sessions: LiveSessions) -> None:
    assert sessions.trouble() == []
    sessions.drain()
    assert sessions.trouble() == ["draining"]


async def test_a_session_that_runs_keeps_no_prompt_in_memory(sessions: LiveSessions) -> None:
    tools = (Tool("search", "for words", '{"type": "object"}', client=True),)
    asked = replace(request(), messages=(Message("user", "long"),), parameters_json="{}", tools=tools, shown_json="{}")
    created = await sessions.create(asked)
    sessions.pool.withdraw(created.record.session_id)
    assignment = await sessions.desk.assign(created.record.session_id, CommanderName("c"), lambda agent: False)
    assert assignment
    assert (assignment.messages, assignment.parameters_json, assignment.tools[-1]) == (asked.messages, "{}", tools[0])
    kept = sessions.runners.by_session[created.record.session_id].session.record.request
    assert (kept.messages, kept.parameters_json, kept.shown_json) == ((), "", "")
    assert [(tool.name, tool.parameters_json_schema) for tool in kept.tools] == [("search", "")]

"""What an older Dispatcher stored is read, and gone on with: `older/` holds it as commit 9668a11 wrote it.

Its pair served six sessions, named for what became of them, and was killed: in SQLite and in Redis.
"""

import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
from msgspec.structs import fields, replace
from prometheus_client import CollectorRegistry

from dispatcher.core import entries as bodies
from dispatcher.core.entries import Entry
from dispatcher.core.log import Assign, Head, OpenCall, Request
from dispatcher.gateway.views import (
    UserContent,
    UserFailed,
    UserFinished,
    UserStopped,
    UserToolCall,
    UserToolResult,
    user_event,
)
from dispatcher.live.sessions import LiveSessions
from dispatcher.metrics import Metrics
from dispatcher.policies.rules import RuleSet
from dispatcher.settings import DispatcherSettings
from dispatcher.store.factory import open_store
from dispatcher.store.ports import IdempotencyKey, Store
from dispatcher.tools.registry import Registry
from shared.records import Ack, Content, Message, Open, ToolResult, Upstream, Usage, Welcome
from tests.contracts.sessions import head_of, waiting
from tests.dispatcher.live.test_runner import Link, until
from tests.redis_servers import redis_server

OLDER = Path(__file__).parent / "older"
CREATED_AT = 1796003780.0  # some seconds from when the older pair ran
STATES = {
    "finished": ("finished", "", ""),
    "stopped": ("stopped", "UserCancel", ""),
    "refused": ("stopped", "PolicyViolation", ""),
    "failed": ("failed", "", "agent_error"),
    "running": ("running", "", ""),
    "waiting": ("waiting", "", ""),
}
TOLD = {
    UserContent: "text",
    UserToolCall: "status",
    UserToolResult: "status",
    UserFinished: "finish_reason",
    UserStopped: "reason",
    UserFailed: "code",
}
SHOWN = {
    "finished": [
        (UserToolCall, "RUNNING"),
        (UserToolResult, "OK"),
        (UserContent, "It is 42."),
        (UserFinished, "stop"),
    ],
    "stopped": [(UserContent, "A beginning, "), (UserStopped, "UserCancel")],
    # Readers end at the first stop or end; what the agent said of its own end is for operators.
    "refused": [(UserContent, "The tale of a "), (UserStopped, "PolicyViolation"), (UserFinished, "stop")],
    "failed": [(UserContent, "So far."), (UserFailed, "agent_error")],
    "running": [(UserContent, "Wait for it."), (UserToolCall, "RUNNING")],
    "waiting": [],
}


@dataclass
class Kept:
    store: Store
    sessions: LiveSessions


@pytest.fixture(params=["sqlite", "redis"])
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    with contextlib.ExitStack() as stack:
        if request.param == "sqlite":
            with contextlib.closing(sqlite3.connect(tmp_path / "sessions.db")) as file:
                file.executescript((OLDER / "sqlite.sql").read_text())
            store = await open_store(f"sqlite:///{tmp_path}/sessions.db")
        else:
            server = stack.enter_context(redis_server(tmp_path / "redis"))
            for line in (OLDER / "redis.jsonl").read_text().splitlines():
                answer = server.ask(*(part.encode("latin-1") for part in json.loads(line)))
                assert not answer.startswith(b"-"), answer
            store = await open_store(f"redis://{server.address}/0")
        metrics = Metrics(CollectorRegistry())
        sessions = LiveSessions(store, RuleSet(()), Registry([]), metrics, DispatcherSettings())
        yield Kept(store, sessions)
        await sessions.close()
        await store.close()


@pytest.mark.parametrize("session_id", STATES)
async def test_a_session_is_what_it_was(kept: Kept, session_id: str) -> None:
    record = await kept.store.load(session_id)
    assert record
    assert (record.head.state, record.head.reason, record.head.code) == STATES[session_id]
    assert record.request.messages == (Message("user", session_id),)
    entries = (await kept.store.read(session_id, 0, 100)).entries
    assert [entry.offset for entry in entries] == list(range(1, record.head.offset + 1))
    shown = [event for entry in entries if (event := user_event(entry, lambda _: True))]
    assert [(type(event), getattr(event, TOLD[type(event)])) for event in shown] == SHOWN[session_id]


async def test_all_are_listed(kept: Kept) -> None:
    states = {state for state, _, _ in STATES.values()}
    for listed in (await kept.store.select(list(states), 100), await kept.store.page(list(states), 100)):  # type: ignore[arg-type]
        assert {record.session_id for record in listed} == STATES.keys()


async def test_a_key_still_binds(kept: Kept) -> None:
    again = replace(waiting("another"), request=Request("default", (), CREATED_AT))
    created = await kept.store.create(again, IdempotencyKey("the key of finished", b"another body", CREATED_AT + 60))
    assert (created.record.session_id, created.fresh, created.same_request) == ("finished", False, False)


async def test_what_waits_is_assigned(kept: Kept) -> None:
    assert head_of(await kept.store.submit("waiting", Assign("c", "i", False, CREATED_AT))).state == "running"


async def test_what_runs_goes_on_with_its_commander(kept: Kept) -> None:
    """The instance that ran its tool is gone; whether the tool has run, nobody knows."""
    record = await kept.store.load("running")
    assert record
    if replicas := kept.store.replicas:
        assert [each.session_id for each in await replicas.orphans(())] == ["running"]
        await kept.sessions.runners.take_over(record)
    else:
        await kept.sessions.recover()
    link, (call_id,) = Link(), record.head.calls
    assert await kept.sessions.desk.open(link, "running", Open(record.head.commander_id, 1, (call_id,))) is None
    await until(lambda: link.sends)
    assert not await link.sends["running"](link)  # there is room for the result, which is read from the log again
    welcome, result = link.signals
    assert isinstance(welcome, Welcome)
    assert welcome.sequence == 2
    assert isinstance(result, ToolResult)
    assert (result.call_id, result.status) == (call_id, "UNKNOWN_OUTCOME")
    kept.sessions.runners.by_session["running"].receive(Upstream("running", Content("Done.", True), 3, 0))
    await until(lambda: link.kinds()[-1] is Ack)
    ended = await kept.store.load("running")
    assert ended
    assert ended.head.state == "finished"


def test_records_only_gain_fields() -> None:
    """At their end and with defaults, for they are stored as arrays; each kind of entry keeps its tag."""
    older = json.loads((OLDER / "fields.json").read_text())
    today = {kind.__name__: kind for kind in (Request, Head, OpenCall, Entry, Message, Usage, *get_args(bodies.Body))}
    for name, kept in older.items():
        kind = today[name]
        tag = kind.__struct_config__.tag
        known = [*([tag] if tag else []), *kind.__struct_fields__]
        assert known[: len(kept)] == kept, name
        gained = known[len(kept) :]
        assert not [field.name for field in fields(kind) if field.name in gained and field.required], name

"""Sessions and entries in short, for the tests of logs and stores."""

from dispatcher.core.entries import Assigned, Body, Call, Entry, Failed, Finished, StopEntry
from dispatcher.core.log import Acquire, Append, Applied, Assign, Head, Outcome, Record, Refused, Request
from dispatcher.core.tokens import digest
from dispatcher.store.ports import Store
from shared.records import Content, Message, ToolResult

TOKEN = b"of a session that its Commander brought"


def waiting(session_id: str = "s", created_at: float = 100.0) -> Record:
    request = Request("default", (Message("user", "Hello"),), created_at)
    return Record(session_id, request, Head(since=created_at))


def brought(session_id: str = "s", commander_id: str = "c1", created_at: float = 100.0) -> Record:
    """A session without Assignment."""
    request = Request("default", (), created_at, origin="commander", owner_sha256=digest(TOKEN))
    return Record(session_id, request, Head(state="running", commander_id=commander_id, since=created_at))


def said(sequence: int, text: str = "word ", decided: int = 0, at: float = 110.0) -> Entry:
    return Entry(Content(text), at, 1, sequence, text, decided)


def numbered(body: Body, sequence: int, at: float = 120.0) -> Entry:
    return Entry(body, at, 1, sequence)


def finished(sequence: int, at: float = 120.0) -> Entry:
    return numbered(Finished(), sequence, at)


def call(sequence: int, call_id: str = "call", at: float = 110.0) -> Entry:
    return numbered(Call("search", "{}", call_id, "i1"), sequence, at)


def result(call_id: str = "call", text: str = '"found"', at: float = 115.0) -> Entry:
    return Entry(ToolResult("search", text, call_id, "OK"), at)


def stop(stop_id: str = "stop-1", reason: str = "UserCancel", at: float = 120.0) -> Entry:
    return Entry(StopEntry(stop_id, reason, "user"), at)


def failed(code: str = "commander_lost", at: float = 120.0) -> Entry:
    return Entry(Failed(code), at)


def append(epoch: int, *entries: Entry) -> Append:
    return Append(epoch, entries)


def assign(commander_id: str = "c1", now: float = 105.0, continues: bool = False) -> Assign:
    return Assign(commander_id, "i1", continues, now)


def acquire(commander_id: str = "c1", generation: int = 1, now: float = 106.0, token: bytes = TOKEN) -> Acquire:
    return Acquire(commander_id, generation, "i1", now, token)


def head_of(outcome: Outcome) -> Head:
    assert isinstance(outcome, Applied), outcome
    return outcome.head


def refusal(outcome: Outcome) -> str:
    assert isinstance(outcome, Refused), outcome
    return outcome.code


async def running(store: Store, session_id: str = "s") -> int:
    """Make a session, assign and open it; the epoch."""
    await store.create(waiting(session_id))
    head_of(await store.submit(session_id, assign()))
    return head_of(await store.submit(session_id, acquire())).epoch


async def bodies(store: Store, session_id: str = "s") -> list[Body]:
    """What the log says, without the assignments."""
    entries = (await store.read(session_id, 0, 10_000)).entries
    return [entry.body for entry in entries if not isinstance(entry.body, Assigned)]

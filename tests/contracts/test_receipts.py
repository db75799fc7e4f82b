"""A receipt is a function of the log, whatever keeps that, and however often it is opened."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from dispatcher.core.entries import Call, Entry, Failed, Finished, StopEntry, StopSent, as_event
from dispatcher.core.log import Settle
from dispatcher.gateway.receipts import receipt
from dispatcher.store.factory import open_store
from shared.records import Content, Error, Stopped, Thought, ToolResult, Usage
from tests import receipt_reader
from tests.contracts.sessions import append, call, numbered, result, running, said
from tests.contracts.test_store import url
from tests.logs import read_all

__all__ = ["url"]

Step = Entry | tuple[Entry, ...]
STOP = StopEntry("stop-1", "RiskControl", "operator", detail="runs away, 夜莺 \x1b[31m")
LOGS: dict[str, tuple[Step, ...]] = {
    "finished": (said(1, "Grüße 夜莺", 9), numbered(Finished("length", Usage(7, 2**60)), 2)),
    "failed": (said(1, "a", 1), numbered(Error("my_code", "quotes a user"), 2)),
    "lost": (said(1, "a", 1), Entry(Failed("commander_lost", "it was"), 130.0)),
    "handed over": (
        said(1, "a", 1),
        numbered(Error("busy", "give it to another", retryable=True), 2),
        numbered(Finished(), 3),
    ),
    "a stop that a hand-over crossed": (
        said(1, "a", 1),
        Entry(STOP, 120.0),
        numbered(Error("busy", "give it to another", retryable=True), 2),
        numbered(Stopped("stop-1", 0, 0, 900), 3),
    ),
    "stopped by a rule": (
        (
            Entry(Content("The story of a dragon"), 120.000001, 1, 1, "The story of a ", 15),
            Entry(StopEntry("policy-2-1", "PolicyViolation", "policy", "names", "phrase 1"), 120.0, 1, 1, "", 15),
        ),
        Entry(StopSent("policy-2-1", 120.25), 120.5),
        Entry(StopSent("policy-2-1"), 121.5),
        numbered(Content("more"), 2),
        numbered(Thought("plan", "and more"), 3),
        numbered(Stopped("policy-2-1", 3, 5, 2**64 - 1), 4, 122.125),
    ),
    "stopped with tools in flight": (
        call(1, "answered"),
        result("answered"),
        call(2, "running"),
        numbered(Call("pay", '{"to": 1}', "waiting", "i1", approval="user"), 3),
        numbered(Call("pay", "{}", "running", "i1", refused=True), 4),
        Entry(STOP, 120.0),
        Entry(ToolResult("search", "{}", "running", "CANCELLED"), 121.0),
        Entry(ToolResult("pay", "{}", "waiting", "CANCELLED"), 121.5),
        numbered(Stopped("stop-1", 4, 0, 900), 5),
    ),
    "a stop that the agent's end crossed": (
        said(1, "a", 1),
        Entry(STOP, 120.0),
        Entry(StopSent("stop-1", 120.25), 120.5),
        numbered(Finished("stop", Usage(3, 4)), 2, 121.0),
    ),
}


@pytest.mark.parametrize("name", LOGS)
async def test_a_second_reader_finds_it_right_and_notices_each_change_of_its_log(name: str, url: str) -> None:
    store = await open_store(url)
    epoch = await running(store, name)
    for step in LOGS[name]:
        entries = step if isinstance(step, tuple) else (step,)
        conclusion = entries[0].sequence or isinstance(entries[0].body, Failed)
        await store.submit(name, append(epoch, *entries) if conclusion else Settle(*entries))
    if not url.startswith("memory"):
        await store.close()
        store = await open_store(url)
    record = await store.load(name)
    assert record
    made = json.loads(msgspec.json.encode(await receipt(store, record, None)))
    log = [line(entry) for entry in await read_all(store, name)]
    await store.close()
    assert receipt_reader.faults(made, log) == []
    assert made["end"]["state"] == record.head.state
    for changed in changes(log):
        assert receipt_reader.chained(made["session_id"], changed) != made["log"]["sha256"], changed
    for fewer in range(len(log)):
        without = log[:fewer] + log[fewer + 1 :]
        assert receipt_reader.chained(made["session_id"], without) != made["log"]["sha256"]


def line(entry: Entry) -> dict[str, Any]:
    """As `dispatcher sessions watch --json` prints it."""
    kind, fields = as_event(entry)
    told: dict[str, Any] = json.loads(msgspec.json.encode(fields))
    return {"offset": entry.offset, "event": kind, **told}


def changes(log: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The log with one of its values changed, each in turn."""
    for number, entry in enumerate(log):
        for name, value in entry.items():
            if name != "event" and isinstance(value, str | int | float):
                changed = (
                    f"{value[:-1]}~" if isinstance(value, str) else not value if value in (True, False) else value + 1
                )
                yield [*log[:number], {**entry, name: changed}, *log[number + 1 :]]

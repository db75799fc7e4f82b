"""What the writer makes of a batch, without its thread."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from dispatcher.core.log import Applied, Record, Request
from dispatcher.store.blobs import encode
from dispatcher.store.ports import StoreUnavailable
from dispatcher.store.sqlite.reader import Reader
from dispatcher.store.sqlite.writer import STATEMENT_BYTES, Create, Job, Writer
from shared.records import Message
from tests.contracts.sessions import acquire, append, assign, said, waiting


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
def writer(path: Path) -> Iterator[Writer]:
    """With two sessions that run, `a` and `b`."""
    writer = Writer(path, full=False)
    for session_id in ("a", "b"):
        done(writer, Create(waiting(session_id), None, None), (session_id, assign()), (session_id, acquire()))
    yield writer
    writer.close()


def done(writer: Writer, *jobs: Job) -> list[object]:
    return [answer.value for answer in writer.carry_out(jobs)]


def statements(writer: Writer) -> list[str]:
    """Grows as the writer executes them. A statement is told of again for each step of its triggers."""
    executed: list[str] = []

    def trace(statement: str) -> None:
        if executed[-1:] != [statement]:
            executed.append(statement)

    writer._connection.set_trace_callback(trace)
    return executed


def record_of(path: Path, session_id: str) -> Record:
    reader = Reader(path)
    record = reader.load(session_id)
    reader.close()
    assert record
    return record


def test_packets_of_many_sessions_are_one_statement(writer: Writer, path: Path) -> None:
    executed = statements(writer)
    outcomes = done(writer, ("a", append(2, said(1), said(2))), ("b", append(2, said(1))))
    assert len(executed) == 1
    for session_id, outcome in zip("ab", outcomes, strict=True):
        assert isinstance(outcome, Applied)
        assert record_of(path, session_id).head == outcome.head


def test_more_packets_than_one_statement_takes_are_one_transaction(writer: Writer) -> None:
    executed = statements(writer)
    done(writer, ("a", append(2, *map(said, range(1, 151)))))
    assert [statement.split()[0] for statement in executed] == ["BEGIN", "INSERT", "INSERT", "COMMIT"]


def test_the_last_head_of_a_batch_is_kept(writer: Writer, path: Path) -> None:
    """Whether it comes with entries or without."""
    opened, appended = ("a", acquire()), ("a", append(3, said(1)))
    done(writer, opened, appended)
    assert (record_of(path, "a").head.epoch, record_of(path, "a").head.sequence) == (3, 1)
    done(writer, ("a", append(3, said(2))), ("a", append(3, said(3))), opened)
    assert (record_of(path, "a").head.epoch, record_of(path, "a").head.sequence) == (4, 3)


def test_one_statement_that_fails_leaves_nothing(writer: Writer, path: Path) -> None:
    before = record_of(path, "a")
    with sqlite3.connect(path) as other:
        other.execute("INSERT INTO entries SELECT key, 2, x'' FROM sessions WHERE id = 'b'")  # b's next, as it stands
    other.close()
    with pytest.raises(StoreUnavailable, match="UNIQUE"):
        writer.carry_out([("a", append(2, said(1))), ("b", append(2, said(1)))])
    assert record_of(path, "a") == before
    with sqlite3.connect(path) as other:
        other.execute("DELETE FROM entries WHERE entry = x''")
    other.close()
    assert all(isinstance(outcome, Applied) for outcome in done(writer, ("a", append(2, said(1)))))


def test_large_rows_share_no_statement_which_would_keep_them(writer: Writer, path: Path) -> None:
    """Of each number of rows there is one, and what was bound to it last stays in memory."""
    large = "x" * STATEMENT_BYTES
    executed = statements(writer)
    request = Request("default", (Message("user", large),), 100.0)
    done(writer, ("a", append(2, said(1, large), said(2, large))), ("b", append(2, said(1))))
    done(writer, *(Create(replace(waiting(each), request=request), None, None) for each in ("c", "d")))
    writer._connection.set_trace_callback(None)
    assert not [each[:80] for each in executed if len(each) > len(large) and "), (" in each]
    reader = Reader(path)
    assert [len(encode(entry)) > STATEMENT_BYTES for entry in reader.entries("a", 1, 9).entries] == [True, True]
    assert [entry.offset for entry in reader.entries("b", 1, 9).entries] == [2]
    assert [reader.load(each) for each in ("c", "d")] == [
        replace(waiting(each), request=request) for each in ("c", "d")
    ]
    reader.close()

"""What the writer thread of the SQLite store does: many changes in one transaction.

Each SQLite call lets go of the GIL and has to wait for it again, for as long as the event loop is busy. So the number
of statements counts more than their size. A transaction of packets alone, as nearly all are, is one statement, which
commits itself; SQLite need not keep a journal of it either, to undo it within a transaction. With four, each with its
wait, 16 appends took this thread 690 µs of CPU; now 470. Any other has about four, whatever it carries.
"""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from dispatcher.core.holds import Hold
from dispatcher.core.log import Applied, Change, Head, Outcome, Record, Refused, apply
from dispatcher.core.tenant_limits import OverLimit, TenantLimit, check
from dispatcher.store.blobs import briefly, encode, record_of
from dispatcher.store.ports import MAX_OFFERED, Created, IdempotencyKey, StoreUnavailable
from dispatcher.store.sqlite.file import open_writer, rewrite

ROWS_PER_STATEMENT = 100  # bounds the statements that are kept prepared, one for each number of rows
# Of blobs in one of them: SQLite keeps what was bound to a statement last. What is more goes row by row through one, or
# those for up to 64 results of 250 KB would come to hold half a GiB.
STATEMENT_BYTES = 64 * 1024


class Create(msgspec.Struct, frozen=True):
    """A new session, the key that is bound to it, and its tenant's limit."""

    record: Record
    key: IdempotencyKey | None
    limit: TenantLimit | None


Operation: TypeAlias = Callable[["Writer"], Any]
Job: TypeAlias = tuple[str, Change] | Create | Operation


class JobResult(msgspec.Struct, frozen=True, gc=False):
    """value: the Outcome, the operation's result, or the exception that this job alone met. sizes: bytes of each entry
    that it added.
    """

    value: Any
    sizes: Sequence[int] = ()


SESSIONS = "sessions (key, id, brief, request)"
FIRST_HEADS = "heads (session, state, since, ended_at, head)"
HEADS = "heads (session, head)"
STEPS = "steps (session, offset, entry, head)"
# Of a row of `begun`.
_LIVES = (
    "EXISTS (SELECT 1 FROM sessions JOIN heads ON heads.session = key"
    " WHERE id = begun.session AND state IN ('waiting', 'running'))"
)


@lru_cache(maxsize=4 * ROWS_PER_STATEMENT)
def _insert(into: str, rows: int) -> str:
    row = f"({', '.join('?' * (into.count(',') + 1))})"
    # A head is there already: an update. One statement for many rows, and the indexed columns are left alone.
    update = " ON CONFLICT DO UPDATE SET head = excluded.head" if into is HEADS else ""
    return f"INSERT INTO {into} VALUES {', '.join([row] * rows)}{update}"  # noqa: S608 - constants


@lru_cache(maxsize=ROWS_PER_STATEMENT)
def _select(rows: int) -> str:
    marks = ", ".join("?" * rows)
    return f"SELECT id, key, brief, head FROM sessions JOIN heads ON session = key WHERE id IN ({marks})"  # noqa: S608


def _is_small(values: Sequence[Any]) -> bool:
    return sum(len(value) for value in values if isinstance(value, bytes)) <= STATEMENT_BYTES


class Writer:
    """Owns the write connection and the records of live sessions. All calls come from one thread."""

    def __init__(self, path: Path, full: bool) -> None:
        self._connection = open_writer(path, full)
        self._live: dict[str, tuple[int, Record]] = {}
        self._found: dict[str, tuple[Any, ...] | None] = {}  # the batch's sessions' rows; None: not there
        self._last_key: int = self._connection.execute("SELECT coalesce(max(key), 0) FROM sessions").fetchone()[0]
        # What the transaction under way has to write, and whose records it took from or put into `_live`.
        self._session_values: list[Any] = []
        self._first_head_values: list[Any] = []
        self._entry_values: list[Any] = []
        self._heads: dict[int, bytes] = {}  # of what has no entries to bring it
        self._states: dict[int, Head] = {}
        self._touched: set[str] = set()

    def close(self) -> None:
        self._connection.close()

    def rewrite(self) -> None:
        """See `dispatcher.store.sqlite.file.rewrite`. Between two batches."""
        rewrite(self._connection)

    def carry_out(self, jobs: Sequence[Job]) -> list[JobResult]:
        """All jobs in order, in one transaction. Raises StoreUnavailable."""
        try:
            if self._connection.in_transaction:  # the last one failed, and rolling it back failed too
                self._connection.execute("ROLLBACK")
            self._find(jobs)
            answers = [self._operation(job) if callable(job) else self._answer(job) for job in jobs]
            if self._is_one_statement():
                self._connection.execute(_insert(STEPS, len(self._entry_values) // 4), self._entry_values)
                self._written()
            else:
                self._flush()
                if self._connection.in_transaction:
                    self._connection.execute("COMMIT")
            self._forget_ended()
        except Exception as error:
            self._abandon()
            raise StoreUnavailable(f"the store failed: {error}") from error
        return answers

    def _is_one_statement(self) -> bool:
        """All that is to be written, in no transaction yet."""
        others = self._session_values or self._heads or self._states or self._connection.in_transaction
        values = self._entry_values
        return bool(values) and not others and len(values) <= 4 * ROWS_PER_STATEMENT and _is_small(values)

    def _forget_ended(self) -> None:
        for session_id in self._touched:
            head = self._live[session_id][1].head
            if head.complete:
                del self._live[session_id]
        self._touched.clear()

    def _abandon(self) -> None:
        for session_id in self._touched:
            self._live.pop(session_id, None)
        self._touched.clear()
        self._written()
        # SQLite may have rolled back itself, as it does when the disk is full.
        if self._connection.in_transaction:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def _written(self) -> None:
        self._session_values = []
        self._first_head_values = []
        self._entry_values = []
        self._heads = {}
        self._states = {}

    # ---- changes

    def _find(self, jobs: Sequence[Job]) -> None:
        """Look once for all sessions of a batch that are not at hand."""
        names = {_session_id(job) for job in jobs if not callable(job)} - self._live.keys()
        self._found = dict.fromkeys(names)
        if not names:
            return
        try:
            rows = self._connection.execute(_select(len(names)), tuple(names)).fetchall()
        except UnicodeError:  # one is no text of SQLite's: each is looked for by itself
            self._found = {}
            return
        self._found.update((row[0], row) for row in rows)

    def _answer(self, job: tuple[str, Change] | Create) -> JobResult:
        try:
            return JobResult(self._created(job)) if isinstance(job, Create) else self._applied(*job)
        except sqlite3.Error:
            raise
        except OverLimit as over:
            return JobResult(over.with_traceback(None))  # what it would hold of this may be large, and is no fault
        except Exception as error:
            return JobResult(error)  # such as a number that has no place in a blob: the others are not to blame

    def _applied(self, session_id: str, change: Change) -> JobResult:
        known = self._known(session_id)
        if not known:
            return JobResult(Refused("unknown_session"))
        key, record = known
        outcome: Outcome = apply(record, change)
        if not isinstance(outcome, Applied) or outcome.head is record.head:
            return JobResult(outcome)
        head, before = outcome.head, record.head
        # Both before anything of it is to be written: either may have no place in a blob.
        head_blob, blobs = encode(head), [encode(entry) for entry in outcome.entries]
        if blobs:
            for entry, blob in zip(outcome.entries, blobs, strict=True):
                self._entry_values += (key, entry.offset, blob, None)
            self._entry_values[-1] = head_blob
            self._heads.pop(key, None)
        else:
            self._heads[key] = head_blob
        if head.state != before.state or head.since != before.since or head.ended_at != before.ended_at:
            self._states[key] = head
        self._live[session_id] = key, Record(session_id, record.request, head)
        self._touched.add(session_id)
        return JobResult(outcome, [len(blob) for blob in blobs])

    def _known(self, session_id: str) -> tuple[int, Record] | None:
        """Its key, and its record without its prompt."""
        if live := self._live.get(session_id):
            return live
        if session_id in self._found:
            row = self._found[session_id]
        else:
            row = self._connection.execute(_select(1), (session_id,)).fetchone()
        return (row[1], record_of(row[0], *row[2:])) if row else None

    def _created(self, job: Create) -> Created:
        record, key = job.record, job.key
        session_id, head = record.session_id, record.head
        if key:
            self._flush()  # the key may be bound by what came before
            row = self._connection.execute(
                "SELECT id, request, head, fingerprint FROM keys JOIN sessions ON keys.session = sessions.key"
                " JOIN heads ON heads.session = sessions.key WHERE keys.key = ? AND expires_at > ?",
                (key.key, record.request.created_at),
            ).fetchone()
            if row:
                return Created(record_of(*row[:3]), fresh=False, same_request=row[3] == key.fingerprint)
        if self._known(session_id):
            self._flush()
            row = self._connection.execute(
                "SELECT id, request, head FROM sessions JOIN heads ON session = key WHERE id = ?", (session_id,)
            ).fetchone()
            return Created(record_of(*row), fresh=False, same_request=False)
        if job.limit:
            self._admit(record, job.limit)
        brief = briefly(record.request)
        brief_blob, request_blob, head_blob = encode(brief), encode(record.request), encode(head)
        self._last_key += 1
        if key:
            self._begin()
            self._connection.execute(
                "REPLACE INTO keys (key, fingerprint, expires_at, session) VALUES (?, ?, ?, ?)",
                (key.key, key.fingerprint, key.expires_at, self._last_key),
            )
        self._session_values += (self._last_key, session_id, brief_blob, request_blob)
        self._first_head_values += (self._last_key, head.state, head.since, head.ended_at, head_blob)
        self._live[session_id] = self._last_key, Record(session_id, brief, head)
        self._touched.add(session_id)
        return Created(record, fresh=True)

    def _admit(self, record: Record, limit: TenantLimit) -> None:
        tenant, now = record.request.tenant, record.request.created_at
        self._begin()
        self._flush()  # who lives is known by what came before
        # Before any is counted: or each that is refused would look at all that have begun and ended in the last minute.
        over = f"DELETE FROM begun WHERE tenant = ? AND at <= ? AND NOT {_LIVES}"  # noqa: S608
        self._connection.execute(over, (tenant, limit.since(now)))
        known = self._connection.execute(f"SELECT at, {_LIVES} FROM begun WHERE tenant = ?", (tenant,))  # noqa: S608
        check(limit, known, now)
        self._connection.execute("INSERT INTO begun VALUES (?, ?, ?)", (tenant, record.session_id, now))
        if limit.tokens_per_day is not None:
            self._connection.execute("INSERT INTO metered VALUES (?, ?)", (tenant, record.session_id))

    def _flush(self) -> None:
        if not (self._entry_values or self._heads or self._session_values):
            return
        self._begin()
        self._in_chunks(SESSIONS, self._session_values, 4)
        self._in_chunks(FIRST_HEADS, self._first_head_values, 5)
        self._in_chunks(STEPS, self._entry_values, 4)
        self._in_chunks(HEADS, [value for pair in self._heads.items() for value in pair], 2)
        if self._states:
            self._connection.executemany(
                "UPDATE heads SET state = ?, since = ?, ended_at = ? WHERE session = ?",
                [(head.state, head.since, head.ended_at, key) for key, head in self._states.items()],
            )
        self._written()

    def _in_chunks(self, into: str, values: list[Any], columns: int) -> None:
        step = ROWS_PER_STATEMENT * columns
        for start in range(0, len(values), step):
            chunk = values[start : start + step]
            if _is_small(chunk):
                self._connection.execute(_insert(into, len(chunk) // columns), chunk)
            else:
                rows = (chunk[first : first + columns] for first in range(0, len(chunk), columns))
                self._connection.executemany(_insert(into, 1), rows)

    def _begin(self) -> None:
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")

    # ---- operations

    def _operation(self, operation: Operation) -> JobResult:
        self._begin()
        self._flush()  # an operation sees what came before it
        self._found.clear()  # and may change what comes after it
        self._connection.execute("SAVEPOINT operation")
        try:
            value = operation(self)
        except sqlite3.Error:
            raise
        except Exception as error:
            self._connection.execute("ROLLBACK TO operation")
            value = error
        self._connection.execute("RELEASE operation")
        return JobResult(value)

    def delete(self, session_id: str) -> bool:
        known = self._known(session_id)
        if not known or not known[1].head.final:
            return False
        self._drop(session_id, known[0])
        return True

    def expire(self, ended_before: float, limit: int) -> list[str]:
        """Drop at most `limit` sessions; their ids."""
        rows = self._connection.execute(
            "SELECT id, key FROM heads JOIN sessions ON key = session"
            " WHERE ended_at > 0 AND ended_at < ? ORDER BY ended_at LIMIT ?",
            (ended_before, limit),
        ).fetchall()
        for session_id, key in rows:
            self._drop(session_id, key)
        self._connection.execute("DELETE FROM keys WHERE expires_at < ?", (ended_before,))
        self._connection.execute("DELETE FROM offers WHERE at < ?", (ended_before,))
        self._connection.execute(
            "DELETE FROM offers WHERE agent NOT IN (SELECT agent FROM offers ORDER BY at DESC LIMIT ?)", (MAX_OFFERED,)
        )
        self._connection.execute("DELETE FROM holds WHERE ends_at < ?", (ended_before,))
        return [session_id for session_id, _ in rows]

    def _drop(self, session_id: str, key: int) -> None:
        self._live.pop(session_id, None)
        self._touched.discard(session_id)
        for table, column in (("entries", "session"), ("heads", "session"), ("keys", "session"), ("sessions", "key")):
            self._connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (key,))  # noqa: S608

    def settle(self, record: Record, tokens: int, day: int) -> None:
        tenant, session_id = record.request.tenant, record.session_id
        removed = self._connection.execute("DELETE FROM metered WHERE tenant = ? AND session = ?", (tenant, session_id))
        if removed.rowcount:
            self._connection.execute(
                "INSERT INTO settled VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET tokens = tokens + excluded.tokens",
                (tenant, day, tokens),
            )
            self._connection.execute("DELETE FROM settled WHERE day < ?", (day - 1,))

    def offer(self, agents: Sequence[str], now: float) -> None:
        self._connection.executemany(
            "INSERT INTO offers (agent, at) VALUES (?, ?) ON CONFLICT DO UPDATE SET at = max(at, excluded.at)",
            [(agent, now) for agent in agents],
        )

    def hold(self, hold: Hold) -> None:
        self._connection.execute(
            "REPLACE INTO holds (id, ends_at, hold) VALUES (?, ?, ?)", (hold.hold_id, hold.ends_at, encode(hold))
        )

    def lift(self, hold_id: str) -> bool:
        return self._connection.execute("DELETE FROM holds WHERE id = ?", (hold_id,)).rowcount > 0


def _session_id(job: tuple[str, Change] | Create) -> str:
    return job.record.session_id if isinstance(job, Create) else job[0]

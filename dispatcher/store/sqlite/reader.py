"""What the reader thread of the SQLite store does. Reads fetch all at once: an open one would let the WAL grow."""

import contextlib
import sqlite3
from collections.abc import Sequence
from heapq import nlargest
from operator import itemgetter
from pathlib import Path
from typing import Any

from dispatcher.core.holds import Hold
from dispatcher.core.log import Record, State
from dispatcher.store.blobs import entry_of, hold_of, record_of
from dispatcher.store.ports import MAX_OFFERED, LogPart, Place, StoreUnavailable, part_of
from dispatcher.store.sqlite.file import PLACE, open_reader


class Reader:
    """Owns the read connection. All calls come from one thread; each raises StoreUnavailable."""

    def __init__(self, path: Path) -> None:
        self._connection = open_reader(path)

    def close(self) -> None:
        self._connection.close()

    def load(self, session_id: str) -> Record | None:
        return self._record("request", session_id)

    def brief(self, session_id: str) -> Record | None:
        return self._record("brief", session_id)

    def _record(self, column: str, session_id: str) -> Record | None:
        statement = f"SELECT id, {column}, head FROM sessions JOIN heads ON session = key WHERE id = ?"  # noqa: S608
        rows = self._fetch(statement, (session_id,))
        return record_of(*rows[0]) if rows else None

    def entries(self, session_id: str, after: int, limit: int) -> LogPart:
        try:
            with contextlib.closing(
                self._connection.execute(
                    "SELECT entry FROM entries WHERE session = (SELECT key FROM sessions WHERE id = ?) AND offset > ?"
                    " ORDER BY offset LIMIT ?",
                    (session_id, after, limit),
                )
            ) as rows:
                return part_of(((entry_of(blob), len(blob)) for (blob,) in rows), limit)
        except sqlite3.Error as error:
            raise _failed(error) from error

    def select(self, states: Sequence[State], limit: int) -> list[Record]:
        marks = ", ".join("?" * len(states))
        rows = self._fetch(
            "SELECT id, brief, head FROM heads JOIN sessions ON key = session"  # noqa: S608 - question marks only
            f" WHERE state IN ({marks}) ORDER BY since, key LIMIT ?",
            (*states, limit),
        )
        return [record_of(*row) for row in rows]

    def page(self, states: Sequence[State], limit: int, before: Place | None) -> list[Record]:
        """The first of each state by its index, and of these the first."""
        behind, at = (f" AND ({PLACE}, id) < (?, ?)", before) if before else ("", ())
        statement = (
            f"SELECT {PLACE}, id, brief, head FROM heads JOIN sessions ON key = session"  # noqa: S608 - constants
            f" WHERE state = ?{behind} ORDER BY {PLACE} DESC, id DESC LIMIT ?"
        )
        rows = [row for state in states for row in self._fetch(statement, (state, *at, limit))]
        return [record_of(*row[1:]) for row in nlargest(limit, rows, key=itemgetter(0, 1))]

    def metered(self, tenant: str) -> list[Record]:
        rows = self._fetch(
            "SELECT id, brief, head FROM metered JOIN sessions ON id = metered.session"
            " JOIN heads ON heads.session = key WHERE tenant = ?",
            (tenant,),
        )
        return [record_of(*row) for row in rows]

    def settled(self, tenant: str, day: int) -> int:
        rows = self._fetch("SELECT tokens FROM settled WHERE tenant = ? AND day = ?", (tenant, day))
        return int(rows[0][0]) if rows else 0

    def offered(self, since: float) -> list[str]:
        rows = self._fetch(
            "SELECT agent FROM (SELECT agent FROM offers WHERE at >= ? ORDER BY at DESC LIMIT ?) ORDER BY agent",
            (since, MAX_OFFERED),
        )
        return [row[0] for row in rows]

    def holds(self, now: float) -> list[Hold]:
        rows = self._fetch("SELECT hold FROM holds WHERE ends_at > ? ORDER BY ends_at", (now,))
        return [hold_of(row[0]) for row in rows]

    def _fetch(self, statement: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise _failed(error) from error


def _failed(error: sqlite3.Error) -> StoreUnavailable:
    return StoreUnavailable(f"the store failed: {error}")

"""The SQLite file: its lock, its schema, its connections."""

import fcntl
import os
import sqlite3
from pathlib import Path

from dispatcher.store.ports import StoreMisconfigured, StoreUnavailable

APPLICATION_ID = 0x4D696473  # "Mids": tells our file from another program's (SQLite, PRAGMA application_id)
SCHEMA_VERSION = 1
WAL_LIMIT_BYTES = 64 * 1024 * 1024  # to which the WAL is cut after a checkpoint, if a long reader let it grow

# sessions  what never changes; heads: what changes, narrow, with what `select` and `expire` look for beside the blob
# entries   clustered by session and offset: a log is read in one sweep
# The blobs: `dispatcher.store.blobs`.
_SCHEMA = f"""
BEGIN;
CREATE TABLE sessions (key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, request BLOB NOT NULL);
CREATE TABLE heads (
    session INTEGER PRIMARY KEY,
    state TEXT NOT NULL DEFAULT '',
    since REAL NOT NULL DEFAULT 0,
    ended_at REAL NOT NULL DEFAULT 0,
    head BLOB NOT NULL
);
CREATE INDEX heads_by_state ON heads (state, since);
CREATE INDEX heads_by_end ON heads (ended_at) WHERE ended_at > 0;
CREATE TABLE entries (
    session INTEGER NOT NULL, offset INTEGER NOT NULL, entry BLOB NOT NULL, PRIMARY KEY (session, offset)
) WITHOUT ROWID;
CREATE TABLE keys (
    key TEXT PRIMARY KEY, fingerprint BLOB NOT NULL, expires_at REAL NOT NULL, session INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX keys_by_session ON keys (session);
CREATE INDEX keys_by_expiry ON keys (expires_at);
CREATE TABLE offers (agent TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


def lock(path: Path) -> int:
    """Make the folder, and keep every other process off the file; the lock ends with the returned descriptor.

    `flock` on a side file: SQLite's own `locking_mode=EXCLUSIVE` would lock out our own readers. It stands beside the
    file itself, whatever links lead there.
    """
    file = Path(os.path.realpath(path))  # `resolve` would raise on a loop of links; SQLite says so better
    side = file.with_name(file.name + ".lock")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(side, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreMisconfigured(f"the store {path} cannot be opened: {error.strerror} ({error.filename})") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StoreMisconfigured(f"the store {path} is in use by another Dispatcher") from None
    except OSError as error:
        os.close(descriptor)
        raise StoreMisconfigured(f"the store {path} cannot be locked: {error.strerror} ({side})") from error
    return descriptor


def open_writer(path: Path, full: bool) -> sqlite3.Connection:
    """The one connection that writes; makes the schema. full: a commit survives a power cut, not only the process."""
    try:
        connection = sqlite3.connect(path, isolation_level=None, cached_statements=512)
    except sqlite3.Error as error:
        raise StoreMisconfigured(f"the store {path} cannot be opened: {error}") from error
    try:
        _check_schema(path, connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # see checkpoints
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
    except sqlite3.Error as error:
        connection.close()
        raise StoreMisconfigured(f"the store {path} cannot be used: {error}") from error
    except StoreMisconfigured:
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error as error:
        raise StoreMisconfigured(f"the store {path} cannot be read: {error}") from error
    return connection


def open_checkpointer(path: Path) -> sqlite3.Connection:
    try:
        return sqlite3.connect(path, isolation_level=None)
    except sqlite3.Error as error:
        raise StoreMisconfigured(f"the store {path} cannot be opened: {error}") from error


def checkpoint(connection: sqlite3.Connection) -> int:
    """Move what the WAL holds into the file, as far as readers allow; the bytes of what it held. The next transaction
    begins it again, if nothing was written meanwhile. Raises StoreUnavailable.
    """
    try:
        _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the store cannot be checkpointed: {error}") from error
    return int(pages * page_bytes)


def _check_schema(path: Path, connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not (tables or application or version):
        connection.executescript(_SCHEMA)
    elif application != APPLICATION_ID:
        raise StoreMisconfigured(f"the store {path} is the database of another program")
    elif version != SCHEMA_VERSION:
        raise StoreMisconfigured(
            f"the store {path} has schema version {version}; this program works with {SCHEMA_VERSION}"
        )

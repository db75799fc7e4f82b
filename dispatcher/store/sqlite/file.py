"""The SQLite file: its lock, its modes, its schema, its connections."""

import contextlib
import fcntl
import os
import sqlite3
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from dispatcher.store.blobs import brief_of
from dispatcher.store.ports import StoreMisconfigured, StoreUnavailable

APPLICATION_ID = 0x4D696473  # "Mids": tells our file from another program's (SQLite, PRAGMA application_id)
SCHEMA_VERSION = 6
WAL_LIMIT_BYTES = 64 * 1024 * 1024  # to which the WAL is cut after a checkpoint, if a long reader let it grow

# Of what it holds: up to that a file is written anew once something was deleted, which takes as long as a slow commit.
# Where SQLite balanced its pages, copies of what it moved stay on their unused parts, unknown to `secure_delete`.
REWRITE_BYTES = 4 * 1024 * 1024
FILE_MODE, FOLDER_MODE = 0o600, 0o700  # whoever may read the file may read what users wrote
BESIDE = ("", "-wal", "-shm", "-journal", ".lock")  # what stands beside the file, by its name's end

logger = structlog.get_logger()

# sessions  what never changes; `brief`, the request without its prompt, stands before it: what is behind a large blob
#           is read only with it
# heads     what changes, narrow, with what `select`, `page` and `expire` look for beside the blob
# entries   clustered by session and offset: a log is read in one sweep
# The blobs: `dispatcher.store.blobs`.
_HOLDS = "CREATE TABLE holds (id TEXT PRIMARY KEY, ends_at REAL NOT NULL, hold BLOB NOT NULL) WITHOUT ROWID"
# Of each tenant, the sessions that began under a limit: while they live, and for a minute.
_BEGUN = """CREATE TABLE begun (
    tenant TEXT NOT NULL, session TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (tenant, session)
) WITHOUT ROWID"""
# Of each tenant, the sessions whose tokens are to be counted, and the tokens of those that were, by day.
_TOKENS = """
    CREATE TABLE metered (
        tenant TEXT NOT NULL, session TEXT NOT NULL, PRIMARY KEY (tenant, session)
    ) WITHOUT ROWID;
    CREATE TABLE settled (
        tenant TEXT NOT NULL, day INTEGER NOT NULL, tokens INTEGER NOT NULL, PRIMARY KEY (tenant, day)
    ) WITHOUT ROWID"""
_SESSIONS = "(key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, brief BLOB NOT NULL, request BLOB NOT NULL)"
PLACE = "CASE WHEN ended_at > 0 THEN ended_at ELSE since END"  # as `ports.place` has it
_PAGES = f"CREATE INDEX heads_by_place ON heads (state, {PLACE})"
_SCHEMA = f"""
BEGIN;
CREATE TABLE sessions {_SESSIONS};
CREATE TABLE heads (
    session INTEGER PRIMARY KEY,
    state TEXT NOT NULL DEFAULT '',
    since REAL NOT NULL DEFAULT 0,
    ended_at REAL NOT NULL DEFAULT 0,
    head BLOB NOT NULL
);
CREATE INDEX heads_by_state ON heads (state, since);
CREATE INDEX heads_by_end ON heads (ended_at) WHERE ended_at > 0;
{_PAGES};
CREATE TABLE entries (
    session INTEGER NOT NULL, offset INTEGER NOT NULL, entry BLOB NOT NULL, PRIMARY KEY (session, offset)
) WITHOUT ROWID;
CREATE TABLE keys (
    key TEXT PRIMARY KEY, fingerprint BLOB NOT NULL, expires_at REAL NOT NULL, session INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX keys_by_session ON keys (session);
CREATE INDEX keys_by_expiry ON keys (expires_at);
CREATE TABLE offers (agent TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
{_HOLDS};
{_BEGUN};
{_TOKENS};
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""

# What the writer's connection alone knows: an entry and, unless NULL, its session's head after it, in one statement.
_STEPS = """
CREATE TEMP VIEW steps (session, offset, entry, head) AS SELECT session, offset, entry, NULL FROM main.entries;
CREATE TEMP TRIGGER step INSTEAD OF INSERT ON steps BEGIN
    INSERT INTO entries VALUES (new.session, new.offset, new.entry);
    UPDATE heads SET head = new.head WHERE session = new.session AND new.head NOT NULL;
END;
"""


def lock(path: Path) -> int:
    """Make the folder and the file, for their owner alone, and keep every other process off them; the lock ends with
    the returned descriptor.

    `flock` on a side file: SQLite's own `locking_mode=EXCLUSIVE` would lock out our own readers. It stands beside the
    file itself, whatever links lead there.
    """
    file = Path(os.path.realpath(path))  # `resolve` would raise on a loop of links; SQLite says so better
    side = file.with_name(file.name + ".lock")
    try:
        file.parent.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
        descriptor = os.open(side, os.O_RDWR | os.O_CREAT, FILE_MODE)
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
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, FILE_MODE))  # SQLite gives what it makes beside it the same mode
    except OSError as error:
        os.close(descriptor)
        raise StoreMisconfigured(f"the store {path} cannot be opened: {error.strerror}") from error
    return descriptor


def _hide(file: Path) -> None:
    """What was there before keeps no wider mode; nor does a folder that holds nothing but ours."""
    ours = [file.with_name(file.name + end) for end in BESIDE]
    for path in ours:
        with contextlib.suppress(FileNotFoundError):
            _chmod(path, FILE_MODE)
    copies = f"{file.name}.version-"
    if all(path in ours or path.name.startswith(copies) for path in file.parent.iterdir()):
        _chmod(file.parent, FOLDER_MODE)


def _chmod(path: Path, mode: int) -> None:
    now = stat.S_IMODE(path.stat().st_mode)
    if now & ~mode:
        try:
            path.chmod(now & mode)
        except PermissionError:  # another user's; what the operator has arranged there is theirs to judge
            logger.warning("store_readable_by_others", path=str(path), mode=f"{now:o}")


def open_writer(path: Path, full: bool) -> sqlite3.Connection:
    """The one connection that writes; makes the schema. full: a commit survives a power cut, not only the process."""
    try:
        connection = sqlite3.connect(path, isolation_level=None, cached_statements=512)
    except sqlite3.Error as error:
        raise StoreMisconfigured(f"the store {path} cannot be opened: {error}") from error
    try:
        # What is deleted is overwritten, in the file and on its free pages; what more it takes: `rewrite`, `erase`.
        connection.execute("PRAGMA secure_delete = ON")
        _check_schema(path, connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # what was deleted before a `kill -9`
        connection.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # see checkpoints
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
        connection.executescript(_STEPS)
        _hide(Path(os.path.realpath(path)))
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


def erase(connection: sqlite3.Connection) -> bool:
    """Empty the WAL, which holds what was deleted as it was before. False: somebody reads, and it has to be tried
    again. Transactions wait for the second part, so the first moves most of it. Raises StoreUnavailable.
    """
    checkpoint(connection)
    try:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the store cannot be checkpointed: {error}") from error
    return not busy


def rewrite(connection: sqlite3.Connection) -> None:
    """Write a small file anew, without what once was there. Raises StoreUnavailable."""
    try:
        pages, free, page_bytes = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        if (pages - free) * page_bytes <= REWRITE_BYTES:
            connection.execute("VACUUM")
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the store cannot be written anew: {error}") from error


def _check_schema(path: Path, connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not (tables or application or version):
        connection.executescript(_SCHEMA)
    elif application != APPLICATION_ID:
        raise StoreMisconfigured(f"the store {path} is the database of another program")
    elif version > SCHEMA_VERSION or version not in (*MIGRATIONS, SCHEMA_VERSION):
        raise StoreMisconfigured(
            f"the store {path} has schema version {version}; this program works with {SCHEMA_VERSION}"
        )
    elif version < SCHEMA_VERSION:
        _migrate(path, connection, version)


# ---- older schemas


def _without_remains(connection: sqlite3.Connection) -> None:
    """Version 1 did not overwrite what it deleted: it may stand on free pages yet."""
    connection.execute("VACUUM")


def _with_briefs(connection: sqlite3.Connection) -> None:
    """Version 2 had requests with their prompts only, and no order for pages."""
    connection.create_function("brief_of", 1, brief_of, deterministic=True)
    connection.executescript(f"""
        BEGIN;
        CREATE TABLE briefed {_SESSIONS};
        INSERT INTO briefed SELECT key, id, brief_of(request), request FROM sessions;
        DROP TABLE sessions;
        ALTER TABLE briefed RENAME TO sessions;
        {_PAGES};
        PRAGMA user_version = 3;
        COMMIT;
    """)  # noqa: S608 - constants


def _with_holds(connection: sqlite3.Connection) -> None:
    """Version 3 had none."""
    connection.executescript(f"BEGIN; {_HOLDS}; PRAGMA user_version = 4; COMMIT;")


def _with_begun(connection: sqlite3.Connection) -> None:
    """Version 4 had no limits of tenants."""
    connection.executescript(f"BEGIN; {_BEGUN}; PRAGMA user_version = 5; COMMIT;")


def _with_tokens(connection: sqlite3.Connection) -> None:
    """Version 5 had limits of sessions alone."""
    connection.executescript(f"BEGIN; {_TOKENS}; PRAGMA user_version = 6; COMMIT;")


# From each older version to the next. Whatever breaks off is done again at the next start: the version is written last.
MIGRATIONS: Mapping[int, Callable[[sqlite3.Connection], None]] = {
    1: _without_remains,
    2: _with_briefs,
    3: _with_holds,
    4: _with_begun,
    5: _with_tokens,
}


def _migrate(path: Path, connection: sqlite3.Connection, version: int) -> None:
    """A copy of the file as it was stays beside it, until the operator removes it. Raises StoreMisconfigured."""
    copy = path.with_name(f"{path.name}.version-{version}")
    try:
        _copy(connection, copy)
        connection.execute("PRAGMA journal_mode = WAL")  # a file that was restored may not be; afterwards it is locked
        for step in range(version, SCHEMA_VERSION):
            MIGRATIONS[step](connection)
            connection.execute(f"PRAGMA user_version = {step + 1}")
    except (sqlite3.Error, OSError) as error:
        raise StoreMisconfigured(
            f"the store {path} cannot be brought from schema version {version} to {SCHEMA_VERSION}: {error}"
        ) from error
    logger.info("store_migrated", version=SCHEMA_VERSION, before=version, copy=str(copy))


def _copy(connection: sqlite3.Connection, to: Path) -> None:
    """Whole, or not there."""
    half = to.with_name(to.name + ".half")
    half.unlink(missing_ok=True)
    os.close(os.open(half, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE))
    with contextlib.closing(sqlite3.connect(half)) as copied:
        connection.backup(copied)
    half.replace(to)

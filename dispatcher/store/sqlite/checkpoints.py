"""Checkpoints of the SQLite store, on a thread of their own: they sync the disk, and no transaction waits for that.

SQLite's automatic one runs within a commit; on a slow disk that commit, and all behind it, took some hundred ms.
"""

from pathlib import Path

from dispatcher.store.sqlite.file import checkpoint, erase, open_checkpointer

CHECKPOINT_BYTES = 4 * 1024 * 1024  # of the WAL; SQLite's own threshold, 1,000 pages
TRANSACTION_BYTES = 16 * 1024  # that a transaction adds to the WAL besides what it was given: some pages of 4 KiB
# Beyond this transactions wait for a second checkpoint: only when nothing is written meanwhile is the WAL begun again.
# Most has been moved by then, so it is short. And no more than this is written during the first. Stops never wait.
# The file may be larger by what is written until the next one is over: CHECKPOINT_BYTES, and what comes meanwhile.
MAX_WAL_BYTES = 64 * 1024 * 1024


class Checkpointer:
    """Owns a connection, which only `run` and `close` use, from one thread."""

    def __init__(self, path: Path) -> None:
        self._connection = open_checkpointer(path)
        self._written = 0  # since the last one began, about

    def close(self) -> None:
        self._connection.close()

    def wrote(self, given: int) -> None:
        """A transaction is done that was given so many bytes."""
        self._written += given + TRANSACTION_BYTES

    @property
    def due(self) -> bool:
        return self._written >= CHECKPOINT_BYTES

    @property
    def behind(self) -> bool:
        """Too much was written since it began."""
        return self._written >= MAX_WAL_BYTES

    def begin(self) -> None:
        """`run` follows."""
        self._written = 0

    def run(self) -> bool:
        """Move what the WAL holds into the file, while others write. False: it has grown too large for that. Raises
        StoreUnavailable.
        """
        return checkpoint(self._connection) <= MAX_WAL_BYTES

    def erase(self) -> bool:
        """Let nothing of what was deleted stay in the WAL. False: it has to be tried again. Raises StoreUnavailable."""
        return erase(self._connection)

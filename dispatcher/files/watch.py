"""The operators' files while the server runs: whether they have changed."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

LOOK_SECONDS = 1.0  # between two looks at the files; what has changed is read once two looks see the same

Stamp: TypeAlias = tuple[int, int, int] | None  # of a file: when it changed, size, inode; None: it is not there


class FileWatch:
    """path: one TOML file, or a folder of them; None: nothing ever changes."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._named: set[Path] = set()
        self._read: dict[Path, Stamp] = {}

    def reading(self) -> None:
        """The TOML files are read now, as they are."""
        self._named = set()
        self._read = self._look()

    def reading_too(self, file: Path) -> None:
        """And this file, which one of them names."""
        self._named.add(file)
        self._read[file] = _stamp(file)

    async def watch(self, read: Callable[[], Awaitable[None]]) -> None:
        """Call `read`, which says `reading`, whenever they have changed, until cancelled."""
        before = self._read
        while self._path is not None:
            await asyncio.sleep(LOOK_SECONDS)
            now = self._look()
            if now == before and now != self._read:
                await read()
            before = now

    def _look(self) -> dict[Path, Stamp]:
        path = self._path
        if path is None:
            return {}
        files = path.glob("*.toml") if path.is_dir() else [path]
        return {file: _stamp(file) for file in {*files, *self._named}}


def _stamp(file: Path) -> Stamp:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino

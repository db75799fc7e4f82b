import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dispatcher.files import watch
from dispatcher.files.watch import FileWatch


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


class Reads:
    """Reads the file and, if it is there, the one that stands in it, as a loader does."""

    def __init__(self, path: Path) -> None:
        self.path, self.files = path, FileWatch(path)
        self.read: asyncio.Queue[list[str]] = asyncio.Queue()

    async def __call__(self) -> None:
        self.files.reading()
        named = Path(text_of(self.path))
        self.files.reading_too(named)
        self.read.put_nowait([str(named), text_of(named)])

    async def next(self) -> list[str]:
        async with asyncio.timeout(30):
            return await self.read.get()


@pytest.fixture
async def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reads]:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.005)
    (tmp_path / "tools.toml").write_text(str(tmp_path / "one"))
    reads = Reads(tmp_path / "tools.toml")
    await reads()
    await reads.next()
    task = asyncio.create_task(reads.files.watch(reads))
    yield reads
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_file_that_is_named_is_watched_before_it_is_there(reads: Reads, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    assert await reads.next() == [f"{tmp_path}/one", "1"]
    (tmp_path / "one").unlink()
    assert await reads.next() == [f"{tmp_path}/one", ""]


async def test_one_that_is_named_no_more_is_not(reads: Reads, tmp_path: Path) -> None:
    (tmp_path / "tools.toml").write_text(str(tmp_path / "two"))
    assert await reads.next() == [f"{tmp_path}/two", ""]
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("2")
    assert await reads.next() == [f"{tmp_path}/two", "2"]
    assert reads.read.empty()


async def test_what_changes_while_it_is_read_is_read_again(reads: Reads, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    assert await reads.next() == [f"{tmp_path}/one", "1"]
    reads.files.reading()
    (tmp_path / "tools.toml").write_text(str(tmp_path / "three"))
    reads.files.reading_too(tmp_path / "one")
    assert await reads.next() == [f"{tmp_path}/three", ""]


async def test_without_a_path_there_is_nothing_to_watch() -> None:
    async def never() -> None:
        raise AssertionError

    async with asyncio.timeout(30):
        await FileWatch(None).watch(never)

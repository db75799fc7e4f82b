from pathlib import Path

import pytest

from dispatcher.store.factory import open_store
from dispatcher.store.memory import MemoryStore
from dispatcher.store.ports import StoreMisconfigured


async def test_memory() -> None:
    assert isinstance(await open_store("memory://"), MemoryStore)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///./data/sessions.db", "data/sessions.db"),
        ("sqlite:///sessions.db?synchronous=normal", "sessions.db"),
        ("sqlite:////{folder}/deep/er/my%20sessions.db?synchronous=full", "deep/er/my sessions.db"),
    ],
)
async def test_paths(url: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = await open_store(url.format(folder=str(tmp_path).removeprefix("/")))
    await store.close()
    assert (tmp_path / path).is_file()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "no scheme"),
        ("sessions.db", "no scheme"),
        ("postgres://user:secret@host/db", "postgres:// is unknown"),
        ("redis://:secret@", "needs a host"),
        ("redis://:secret@host:port", "a port that is none"),
        ("redis://:secret@host:6379/one", "needs a number for database"),
        ("redis://:secret@host:6379/0/1", "needs a number for database"),
        ("redis://:secret@host/0?wait=many", "needs a number for wait"),
        ("redis://:secret@host/0?wait=-1", "needs a number for wait"),
        ("redis://:secret@host/0?ca=file", "no parameter 'ca'"),
        ("redis://:secret@host/0#1", "'#'"),
        ("rediss://:secret@host/0?socket_timeout=1", "no parameter 'socket_timeout'"),
        ("unix://:secret@host/redis.sock", "needs the path of a socket"),
        ("unix:///redis.sock?db=x", "needs a number for db"),
        ("sqlite://data/sessions.db", "needs the path of a file"),
        ("sqlite://", "needs the path of a file"),
        ("sqlite:///", "needs the path of a file"),
        ("sqlite:///data/", "needs the path of a file"),
        ("sqlite:///a%00b", "needs the path of a file"),
        ("sqlite:///a.db#b", "'#'"),
        ("sqlite:///a.db?mode=ro", "no parameter 'mode'"),
        ("sqlite:///a.db?synchronous=off", "no synchronous='off'"),
        ("sqlite:///a.db?synchronous=", "no synchronous=''"),
        ("memory://host", "nothing after the slashes"),
        ("memory:///?x=1", "nothing after the slashes"),
        ("sqlite://[", "not a URL"),
    ],
)
async def test_what_is_refused_is_named(url: str, says: str) -> None:
    with pytest.raises(StoreMisconfigured) as caught:
        await open_store(url)
    line = str(caught.value)
    assert says in line
    assert "\n" not in line
    assert "secret" not in line

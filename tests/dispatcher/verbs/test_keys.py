"""`dispatcher keys new`."""

import stat
import time
from pathlib import Path

import pytest

from dispatcher.access.load import load
from dispatcher.access.rules import identify
from dispatcher.verbs.main import main


def new(file: Path, *arguments: str) -> int:
    return main(["keys", "new", *arguments, "--file", str(file)])


def test_a_key_is_printed_once_and_its_digest_appended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "access.toml"
    assert new(file, "web", "--role", "user", "--tenant", "acme", "--agents", "a, b", "--expires", "2127-01-01") == 0
    first = capsys.readouterr().out.strip()
    before = file.read_text() + "# by hand, without a line's end"
    file.write_text(before)
    assert new(file, 'ops "1"', "--role", "operator") == 0
    second = capsys.readouterr().out.strip()

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().startswith(before)
    assert first not in file.read_text()
    rules = load(file)
    user = identify(rules, [f"Bearer {first}".encode()], (), time.time())
    assert (user.role, user.tenant, user.agents) == ("user", "acme", frozenset({"a", "b"}))
    assert identify(rules, [f"Bearer {second}".encode()], (), time.time()).subject == 'ops "1"'
    assert first != second
    assert len(first) == len("mst_") + 43  # 256 bits in base64


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("web", "--role", "user"), "its name is taken by key 1"),
        (("new", "--role", "operator", "--tenant", "acme"), "`tenant` is a user's"),
        (("new", "--role", "user", "--expires", "soon"), "Invalid"),
        (("new", "--role", "user", "--expires", '2127-01-01\n[[key]]'), "`role` is missing"),
    ],
)  # fmt: skip
def test_what_would_break_the_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], reason: str
) -> None:
    file = tmp_path / "access.toml"
    assert new(file, "web", "--role", "user") == 0
    before = file.read_bytes()
    capsys.readouterr()
    assert new(file, *arguments) == 2
    printed = capsys.readouterr()
    assert reason in printed.err
    assert printed.out == ""
    assert file.read_bytes() == before


@pytest.mark.parametrize("setting", ["", "open"])
@pytest.mark.usefixtures("no_settings")
def test_without_a_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], setting: str) -> None:
    monkeypatch.setenv("DISPATCHER_ACCESS", setting)
    assert main(["keys", "new", "web", "--role", "user"]) == 2
    assert "DISPATCHER_ACCESS: names no file" in capsys.readouterr().err

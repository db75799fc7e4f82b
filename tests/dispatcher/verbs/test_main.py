"""How `dispatcher serve` refuses to start: one line, and exit status 2."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from dispatcher.verbs import main as cli

Refused: TypeAlias = Callable[[], str]


@pytest.fixture
def refused(no_settings: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Refused:
    """The one line with which it refuses to start with the settings of this environment; a test adds its own."""
    monkeypatch.setenv("DISPATCHER_STORE", "memory://")
    for edge in ("GRPC", "HTTP", "OPERATOR"):
        monkeypatch.setenv(f"DISPATCHER_{edge}_ADDRESS", "127.0.0.1:0")

    def serve() -> str:
        assert cli.main(["serve"]) == 2
        out, err = capfd.readouterr()
        assert out == ""
        (line,) = err.splitlines()
        return line

    return serve


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DISPATCHER_GRACE_SECONDS", "soon"),
        ("DISPATCHER_GRACE_SECOND", "20"),
        ("DISPATCHER_STORE", "postgres://x"),
        ("DISPATCHER_HTTP_ADDRESS", "nonsense"),
        ("DISPATCHER_POLICIES", "/nowhere/policies.toml"),
        ("DISPATCHER_TOOLS", "/nowhere/tools.toml"),
        ("http_proxy", "http://user:secret@[::1"),
        ("SSL_CERT_FILE", "/nowhere.pem"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(
    refused: Refused, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert name in refused()


@pytest.mark.parametrize(
    ("name", "text", "wrong"),
    [
        ("DISPATCHER_POLICIES", '[[policy]]\nname = "limits"\nkind = "budget"\nmax_second = 1\n', "max_second"),
        ("DISPATCHER_TOOLS", '[[tool]]\nname = "search"\nkind = "smtp"\n', "kind 'smtp'"),
    ],
)
def test_a_broken_file_is_one_line_that_names_setting_file_entry_and_reason(
    refused: Refused, tmp_path: Path, name: str, text: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(text)
    monkeypatch.setenv(name, str(path))
    line = refused()
    for part in (name, str(path), ' 1 "', wrong):
        assert part in line


@pytest.mark.parametrize("edge", ["GRPC", "HTTP", "OPERATOR"])
def test_a_port_in_use_is_one_line_that_names_the_setting(
    refused: Refused, edge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv(f"DISPATCHER_{edge}_ADDRESS", f"127.0.0.1:{taken.getsockname()[1]}")
        assert f"DISPATCHER_{edge}_ADDRESS" in refused()

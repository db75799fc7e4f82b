"""What others wrote, on a terminal, and lines that fit into it."""

import io

import pytest

from shared.terminal import fitted, printable

TABLE = "\n  users  http://127.0.0.1:8080/v1/chat/completions   any OpenAI client\n  Ctrl-C ends it.\n"


class NarrowTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_text_cannot_command_the_terminal() -> None:
    assert printable("a\x1b[2J\x07\x9bb\tc\n\x7fé夜") == "a[2Jb\tc\né夜"


def test_text_cannot_turn_what_stands_beside_it() -> None:
    assert printable("rm \u202eeerht \u2066-x\u2069 שלום\u200f") == "rm eerht -x שלום\u200f"


def test_lines_go_on_as_far_in_as_they_began_and_no_address_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr("sys.stdout", NarrowTerminal())
    first, *lines = fitted(TABLE).split("\n")
    assert (first, lines[-2:]) == ("", ["  Ctrl-C ends it.", ""])
    assert all(line.startswith("  ") for line in lines[:-1])
    assert [line for line in lines if len(line) > 30] == ["  http://127.0.0.1:8080/v1/chat/completions"]
    assert " ".join(lines).split() == TABLE.split()


def test_a_pipe_gets_lines_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert fitted(TABLE) == TABLE

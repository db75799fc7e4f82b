"""How the demo shows words; that it works at all is in `tests/e2e/test_demo.py`."""

import io
import re

import pytest

from dispatcher.verbs.demo import INDENT, _Screen

STORY = "The sea is a vast and mysterious realm that has captivated humanity for centuries.\n\nIn ancient Rome"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(output: io.StringIO, pieces: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout", output)
    screen = _Screen()
    for piece in pieces:
        screen.words(piece)
    screen.line("stopped  " + "because it was asked to be, by its reader " * 2)
    return output.getvalue().splitlines()


@pytest.mark.parametrize("pieces", [[STORY], re.findall(r" ?\S+|\n+", STORY)], ids=["whole", "words"])
def test_it_wraps_at_the_terminals_width_and_breaks_no_word(pieces: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(Terminal(), pieces, monkeypatch)
    assert max(map(len, lines)) <= 40
    assert all(line.startswith((INDENT, "  ")) for line in lines if line)
    words = " ".join(lines).replace("▮", "").split()
    assert [word for word in words if word in STORY.split()] == STORY.split()


def test_a_pipe_gets_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(io.StringIO(), [STORY], monkeypatch)
    assert lines[0].endswith("for centuries.")

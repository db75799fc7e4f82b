"""What others wrote, on a terminal."""

from shared.terminal import printable


def test_text_cannot_command_the_terminal() -> None:
    assert printable("a\x1b[2J\x07\x9bb\tc\n\x7fé夜") == "a[2Jb\tc\né夜"

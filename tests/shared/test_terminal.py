"""What others wrote, on a terminal."""

from shared.terminal import printable


def test_text_cannot_command_the_terminal() -> None:
    assert printable("a\x1b[2J\x07\x9bb\tc\n\x7fé夜") == "a[2Jb\tc\né夜"


def test_text_cannot_turn_what_stands_beside_it() -> None:
    assert printable("rm \u202eeerht \u2066-x\u2069 שלום\u200f") == "rm eerht -x שלום\u200f"

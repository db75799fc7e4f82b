"""What others wrote, on a terminal."""

# C0 but for tab and newline, DEL, C1: what a terminal would obey instead of showing
_CONTROLS = dict.fromkeys([*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0)])


def printable(text: str) -> str:
    """Without what could command the terminal."""
    return text.translate(_CONTROLS)

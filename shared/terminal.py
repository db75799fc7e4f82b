"""What others wrote, on a terminal; and how wide that is."""

import shutil
import sys
import textwrap

# C0 but for tab and newline, DEL, C1: what a terminal would obey instead of showing
_CONTROLS = [*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0)]
# Embeddings, overrides and isolates: what stands behind one may be shown in another order than it is
_TURNING = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_LEFT_OUT = dict.fromkeys(_CONTROLS + _TURNING)


def printable(text: str) -> str:
    """Without what could command the terminal, or turn text round."""
    return text.translate(_LEFT_OUT)


def columns() -> int:
    """Characters a line of the standard output. On a pipe, whose reader wants whole lines, without end."""
    return max(shutil.get_terminal_size().columns, 24) if sys.stdout.isatty() else sys.maxsize


def fitted(text: str) -> str:
    """Lines that are too long for the standard output go on below, as far in as they began. Addresses stay whole."""
    width = columns()
    return "\n".join(line if len(line) <= width else _folded(line, width) for line in text.split("\n"))


def _folded(line: str, width: int) -> str:
    margin = " " * (len(line) - len(line.lstrip()))
    return textwrap.fill(line, width, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False)

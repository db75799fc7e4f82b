"""What others wrote, on a terminal."""

# C0 but for tab and newline, DEL, C1: what a terminal would obey instead of showing
_CONTROLS = [*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0)]
# Embeddings, overrides and isolates: what stands behind one may be shown in another order than it is
_TURNING = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_LEFT_OUT = dict.fromkeys(_CONTROLS + _TURNING)


def printable(text: str) -> str:
    """Without what could command the terminal, or turn text round."""
    return text.translate(_LEFT_OUT)

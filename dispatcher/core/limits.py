"""The limits that the session rules name. Their values are the settings of the same names."""

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """Seconds, counts and bytes."""

    grace_seconds: float = 20
    stop_seconds: float = 5
    takeovers: int = 2
    max_unacked_packets: int = 256
    max_unacked_bytes: int = 262144
    max_log_bytes: int = 67108864

"""What a Commander may send and not have acked (`Welcome`, rule 6 of the session rules)."""


class Credit:
    """Counts a session's unacked packets and their bytes, each as it is serialised in a batch."""

    def __init__(self, packets: int, size: int) -> None:
        self._max_packets, self._max_bytes = packets, size
        self._unacked: list[tuple[int, int]] = []  # (sequence, bytes)
        self._bytes = 0

    def exceeded_by(self, size: int) -> bool:
        """Whether a packet of that size is too much. One may always be under way, whatever its size."""
        if not self._unacked:
            return False
        return len(self._unacked) >= self._max_packets or self._bytes + size > self._max_bytes

    def take(self, sequence: int, size: int) -> None:
        self._unacked.append((sequence, size))
        self._bytes += size

    def acked(self, sequence: int) -> None:
        """An Ack up to that sequence has been handed to the stream."""
        while self._unacked and self._unacked[0][0] <= sequence:
            self._bytes -= self._unacked.pop(0)[1]

    def due(self, logged: int) -> bool:
        """Whether there is anything to ack, where that sequence is the highest in the log."""
        return bool(self._unacked) and self._unacked[0][0] <= logged

    def half_used(self, logged: int) -> bool:
        """Whether an Ack up to that sequence would free half of it: then it is due at once (rule 5)."""
        if not self._unacked:
            return False
        packets = logged - self._unacked[0][0] + 1
        return packets * 2 >= self._max_packets or self._bytes * 2 >= self._max_bytes

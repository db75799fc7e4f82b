"""A peer of the published contract: its stream is its session, and it numbers nothing."""

from shared.records import Upstream


class Numbering:
    """Sequences for the packets of one session, unless the peer gives them itself."""

    def __init__(self) -> None:
        self._last = 0  # that was given here
        self._own = False

    def numbered(self, packet: Upstream, session_id: str) -> Upstream:
        """The packet as the core takes it. Of another session, or with and without numbers by turns: it gets none, and
        is `invalid` to the core.
        """
        if packet.session_id not in ("", session_id) or (packet.sequence == 0 and self._own):
            return Upstream(session_id, packet.payload)
        if packet.sequence == 0:
            self._last += 1
            return Upstream(session_id, packet.payload, self._last, packet.timestamp, packet.size)
        self._own = self._own or self._last == 0
        return packet

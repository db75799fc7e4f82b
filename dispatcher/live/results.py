"""A session's results on their way to its Commander. Those that find its stream full wait in the log, not here."""

from dispatcher.live import clock
from dispatcher.live.ports import Link, Owner
from dispatcher.store.asking import until_known
from shared.records import ToolResult


class Results:
    """Of one session."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._waiting: list[int] = []  # offsets

    def __bool__(self) -> bool:
        """Some wait."""
        return bool(self._waiting)

    def send(self, result: ToolResult | None, offset: int) -> None:
        """On the stream that has it, if one does. As `SendResult` has them; what has no entry is sent at once."""
        link = self._owner.link
        if link and (result is None or (offset and (self._waiting or link.full))):
            self._waiting.append(offset)
            link.wait_for_room(self._owner.session_id, self.send_next)
            return
        if link and result:
            link.send(self._owner.session_id, result)
        if offset:
            self._sent(1)

    async def send_next(self, link: Link) -> bool:
        """There is room for one on that stream. Returns whether more wait for it."""
        if self._waiting and self._owner.link is link:
            offset, store = self._waiting[0], self._owner.host.store
            entries, _ = await until_known(lambda: store.read(self._owner.session_id, offset - 1, 1))
            if self._owner.link is link and self._waiting and self._waiting[0] == offset:
                del self._waiting[0]
                if entries and isinstance(entries[0].body, ToolResult):
                    link.send(self._owner.session_id, entries[0].body)
                self._sent(1)
        return bool(self._waiting) and self._owner.link is link

    def clear(self) -> None:
        """Whoever opens the session next says what it waits for."""
        self._waiting.clear()

    def forget(self) -> None:
        """The stream has it no more: as `clear`, and the core is told."""
        if waiting := len(self._waiting):
            self.clear()
            self._sent(waiting)

    def _sent(self, results: int) -> None:
        self._owner.carry_out(self._owner.session.sent(results, clock.now()))

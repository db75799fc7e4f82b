"""Which sessions an operator's order means, and its hold on new ones."""

import msgspec

from dispatcher.core.log import Record, Request


class Fits(msgspec.Struct, frozen=True):
    """Which sessions are meant: those that have all that is given. commander: of those that run."""

    agent: str | None = None
    tenant: str | None = None
    conversation_id: str | None = None
    commander: str | None = None

    def __call__(self, record: Record) -> bool:
        head = record.head
        at_commander = self.commander is None or (head.state == "running" and self.commander == head.commander_id)
        return at_commander and self.asked(record.request)

    def asked(self, request: Request) -> bool:
        """Whether what is asked for has it, wherever it runs."""
        return (
            self.agent in (None, request.agent)
            and self.tenant in (None, request.tenant)
            and self.conversation_id in (None, request.conversation_id)
        )


class Hold(msgspec.Struct, frozen=True):
    """No session that is asked for and fits begins until `ends_at` (Unix seconds). reason, detail: of the order that
    placed it. It is stored: fields are only added, with a default.
    """

    hold_id: str
    fits: Fits
    placed_at: float
    ends_at: float
    reason: str
    detail: str = ""

"""Which sessions an operator's order means, and its hold on new ones."""

import msgspec

from dispatcher.core.log import Record, Request


class Fits(msgspec.Struct, frozen=True):
    """Which sessions are meant: those that have all that is given. commander: of those that run, who has them."""

    agent: str | None = None
    tenant: str | None = None
    conversation_id: str | None = None
    commander: str | None = None

    def __call__(self, record: Record) -> bool:
        head = record.head
        return self.asked(record.request, head.commander_id if head.state == "running" else "")

    def asked(self, request: Request, commander: str = "") -> bool:
        """Whether what is asked for has it. commander: who brings it; empty: it waits for one."""
        return (
            self.commander in (None, commander)
            and self.agent in (None, request.agent)
            and self.tenant in (None, request.tenant)
            and self.conversation_id in (None, request.conversation_id)
        )


class Hold(msgspec.Struct, frozen=True):
    """No session that is asked for and fits begins until `ends_at` (Unix seconds); a Commander that is meant gets none.
    reason, detail: of the order that placed it. It is stored: fields are only added, with a default.
    """

    hold_id: str
    fits: Fits
    placed_at: float
    ends_at: float
    reason: str
    detail: str = ""

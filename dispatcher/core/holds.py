"""Which sessions an operator's order means, and its hold on new ones."""

import msgspec

from dispatcher.core.log import CommanderName, Record, Request


class Fits(msgspec.Struct, frozen=True):
    """Which sessions are meant: those that have all that is given. commander: of those that run, the id of who has
    them. credential: and what its key or certificate is called; None: that may be anything.
    """

    agent: str | None = None
    tenant: str | None = None
    conversation_id: str | None = None
    commander: str | None = None
    credential: str | None = None

    def __call__(self, record: Record) -> bool:
        head = record.head
        return self.asked(record.request, head.commander if head.state == "running" else None)

    def asked(self, request: Request, commander: CommanderName | None = None) -> bool:
        """Whether what is asked for has it. commander: who brings it; None: it waits for one."""
        return (
            self.commander in (None, commander and commander.commander_id)
            and self.credential in (None, commander and commander.credential)
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

"""What a session needs: of the streams that may carry it, and of whoever holds it."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from commander.session import Session


class Carrier(Protocol):
    """A stream, as its sessions see it."""

    def queue(self, session: "Session") -> None:
        """Something may be taken: call `session.take` soon."""


class Host(Protocol):
    """Whoever holds sessions: the worker of the pool, or `commander run`."""

    @property
    def commander_id(self) -> str: ...

    def generator_ended(self, session: "Session") -> None:
        """Its slot is free."""

    def let_go(self, session: "Session") -> None:
        """It is over: the log has its end, or it is somebody else's, or it was given up."""

    def moved(self, session: "Session") -> None:
        """It left a stream that may be waiting for that."""

    def reopen(self, session: "Session", delay: float) -> None:
        """Open it again after so many seconds, on the stream for work."""

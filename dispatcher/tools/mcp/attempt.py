"""What is known of one call on its way, where the SDK's error would not say it."""

from contextvars import ContextVar

from dispatcher.tools.http.network import CheckedNetwork


class Attempt:
    """told   headers of its requests that say who asked
    cut    its answer's stream ended before the answer was there
    over   nobody waits for it any more
    error  why it failed, where the transport knows
    network  on which its answer comes; it is closed when nobody waits for that any more
    """

    def __init__(self, told: tuple[tuple[str, str], ...] = ()) -> None:
        self.told = told
        self.cut = self.over = False
        self.error: Exception | None = None
        self.network: CheckedNetwork | None = None

    async def end(self) -> None:
        """Nobody waits for it any more."""
        self.over = True
        if self.network:
            await self.network.close()


# The SDK carries out a request in the context of whoever sent it.
CURRENT: ContextVar[Attempt | None] = ContextVar("attempt", default=None)

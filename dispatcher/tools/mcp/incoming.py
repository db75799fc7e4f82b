"""What a server says, before the SDK reads it: bounded, and told once where nobody asked for it."""

from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Protocol, Self

import anyio
import structlog
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification, JSONRPCRequest

logger = structlog.get_logger()

WINDOW = 60.0  # seconds, for which the next two count
MAX_NOTIFICATIONS = 1000  # more are told, once
MAX_REQUESTS = 100  # of the server's that are answered, each with a refusal that it may never read; more are dropped
# All of which some use is made; of the others a server may send what it likes.
USED = ("notifications/tools/list_changed", "notifications/cancelled", "notifications/subscriptions/acknowledged")


class Messages(Protocol):
    """A transport's reading end, as the SDK's transports have it."""

    async def receive(self) -> SessionMessage | Exception: ...

    async def aclose(self) -> None: ...


class Incoming:
    """That end for the SDK. lost: called when it has ended.

    What a server asks its client for (sampling, elicitation, roots) goes on to the SDK, which refuses it.
    """

    def __init__(self, toolset: str, messages: Messages, lost: Callable[[], None]) -> None:
        self._toolset, self._messages, self._lost = toolset, messages, lost
        self._told: set[str] = set()
        self._until = 0.0
        self._notifications = self._requests = 0

    @property
    def last_context(self) -> object:
        """Of the last message's sender."""
        return getattr(self._messages, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        """The next message that is of use."""
        while True:
            try:
                message = await self._messages.receive()
            except BaseException:
                self._lost()
                raise
            if self._of_use(message):
                return message

    def _of_use(self, message: SessionMessage | Exception) -> bool:
        if (now := monotonic()) >= self._until:
            self._until = now + WINDOW
            self._notifications = self._requests = 0
        match message.message if isinstance(message, SessionMessage) else None:
            case JSONRPCNotification(method=method) if method not in USED:
                self._notifications += 1
                if self._notifications > MAX_NOTIFICATIONS:
                    self._tell("floods_of_notifications")
                return False
            case JSONRPCRequest(method=method):
                self._requests += 1
                if method != "ping":
                    self._tell(f"asks_for_{method[:40]}")
                return self._requests <= MAX_REQUESTS
        return True

    def _tell(self, what: str) -> None:
        if what not in self._told and len(self._told) < MAX_REQUESTS:
            self._told.add(what)
            logger.warning("toolset_refused", toolset=self._toolset, what=what)

    async def aclose(self) -> None:
        await self._messages.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

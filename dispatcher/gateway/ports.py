"""What the gateway needs of the rest of the Dispatcher."""

import asyncio
from collections.abc import Callable
from typing import Literal, Protocol

from dispatcher.core.entries import Decision
from dispatcher.core.holds import Fits, Hold
from dispatcher.core.log import Applied, Record, Request
from dispatcher.live.fleet import FleetStop
from dispatcher.live.pool import ConnectedCommander
from dispatcher.live.ports import Unlogged
from dispatcher.store.ports import Created, IdempotencyKey, Store
from shared.records import Tool


class Tools(Protocol):
    def knows(self, name: str) -> bool:
        """Whether a tool of that name is registered."""

    @property
    def up(self) -> dict[str, bool]:
        """All tools, and whether agents are shown them: not where their server is lost."""

    def offered(self, agent: str) -> tuple[Tool, ...]:
        """The tools that the agent is shown."""


class Sessions(Protocol):
    """Creates, stops and decides for sessions, whichever replica they run at. Methods raise StoreUnavailable."""

    closing: asyncio.Event  # set when the server drains: every event stream ends then
    policy_status: Callable[[], dict[str, object]]  # what rules are in force, and what is wrong with their files

    @property
    def store(self) -> Store: ...

    @property
    def registry(self) -> Tools: ...

    async def create(self, request: Request, key: IdempotencyKey | None = None, token: str = "") -> Created:
        """A new waiting session under an unguessable id, or the one that the key is bound to. token: of its user's
        issuer. Raises OnHold, PromptRefused, PromptUnread, QueueFull, OverLimit.
        """

    async def stop(
        self,
        session_id: str,
        reason: str,
        author: Literal["user", "operator"],
        detail: str = "",
        tenant: str | None = None,
    ) -> Record | None:
        """Stop the session; the first stop counts, repeating it is harmless. None: unknown. Raises StopKept.

        tenant: whose it has to be; None: anybody's.
        """

    async def delete(self, record: Record) -> None:
        """Drop an ended session whole."""

    def stop_fleet(self, fits: Fits, reason: str, detail: str = "", hold: Hold | None = None) -> FleetStop:
        """Stop all sessions that fit, and place the hold before; what comes of it is told as it comes. Raises
        TooManyOrders.
        """

    async def decide(self, session_id: str, decision: Decision) -> Applied | None:
        """Log the decision on a call, if it is the first and fits; what came of it. None: unknown."""

    def unlogged(self, session_id: str) -> Unlogged | None:
        """None: it does not live at this instance."""

    @property
    def instance(self) -> str:
        """This one's name."""

    def commanders(self) -> list[ConnectedCommander]:
        """Those that are connected to this instance."""

    async def agents(self) -> list[str]:
        """The agents that some Commander offers, or offered a short while ago (`DISPATCHER_QUEUE_SECONDS`)."""

    async def features(self, agent: str) -> frozenset[str] | None:
        """What some Commander of that agent honours (`shared.records.FEATURES`). None: it is none of `agents`."""

    def trouble(self) -> list[str]:
        """Why the server is not ready, for operators. Empty: it is."""

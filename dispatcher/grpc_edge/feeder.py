"""Lets sessions send what waits in their logs once their stream is read again."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias

from dispatcher.live.ports import Link

Send: TypeAlias = Callable[[Link], Awaitable[bool]]


class Feeder:
    """Of one stream. room: returns when there is some. spawn: runs it as a task."""

    def __init__(
        self, link: Link, room: Callable[[], Awaitable[None]], spawn: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        self._link, self._room, self._spawn = link, room, spawn
        self._hungry: dict[str, Send] = {}  # by session, in turn

    def wait(self, session_id: str, send: Send) -> None:
        """As `Link.wait_for_room`."""
        if not self._hungry:
            self._spawn(self._feed())
        self._hungry.setdefault(session_id, send)

    async def _feed(self) -> None:
        while self._hungry:
            await self._room()
            session_id, send = next(iter(self._hungry.items()))
            more = await send(self._link)
            del self._hungry[session_id]
            if more:
                self._hungry[session_id] = send

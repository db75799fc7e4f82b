"""A user's reader: an EventSource that comes back with Last-Event-ID, each time at another replica.

Written from the SSE standard and HTTP alone, so that it shares no mistake with the product's own client.
"""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.faults.proxy import Proxy

FINAL = ("finished", "stopped", "failed")
SILENCE_SECONDS = 10.0  # then it looks whether another connection brings more
AGAIN_SECONDS = (0.02, 0.4)  # between two connections
EVENTS = (1, 80)  # events after which it leaves a connection by itself
NO_CONTENT = 204
OK = 200


class Event(NamedTuple):
    id: str
    name: str
    data: dict[str, Any]


class EventParser:
    """Bytes in any pieces into events. What is not complete yet is not an event."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Event]:
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        return [event for block in blocks if (event := self._event(block.decode()))]

    def _event(self, block: str) -> Event | None:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if "data" not in fields:
            return None
        return Event(fields.get("id", ""), fields["event"], json.loads(fields["data"]))


class Refused(Exception):
    """An answer that is neither 200 nor 204; `status` says which."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


async def events(port: int, path: str, after: str, key: str = "") -> AsyncGenerator[Event, None]:
    """The events of one connection. Raises Refused, OSError or EOFError (it broke); ends where the server ended it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    shown = f"Authorization: Bearer {key}\r\n" if key else ""
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{shown}Last-Event-ID: {after}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if (status := int(head.split(b" ", 2)[1])) != OK:
            raise Refused(status)
        parser = EventParser()
        while size := int(await reader.readuntil(b"\r\n"), 16):
            chunk = await reader.readexactly(size + 2)
            for event in parser.feed(chunk[:-2]):
                yield event
    finally:
        writer.transport.abort()


@dataclass
class Reader:
    """Reads one session to its end. `trouble`: what no reader may see. `news`: set when something came."""

    session_id: str
    replicas: Sequence[Proxy]
    chance: random.Random
    text: str = ""
    last_id: str = "0"
    calls: list[tuple[str, str, str]] = field(default_factory=list)  # (event, call_id, status)
    approvals: list[dict[str, Any]] = field(default_factory=list)
    final: tuple[str, dict[str, Any]] | None = None
    connections: int = 0
    trouble: list[str] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Return when a replica has said that nothing follows the last event."""
        while True:
            self.connections += 1
            try:
                if await self._read(self.chance.choice(self.replicas).port, self.chance.randint(*EVENTS)):
                    return
            except (OSError, EOFError, TimeoutError):
                pass  # it comes back
            await asyncio.sleep(self.chance.uniform(*AGAIN_SECONDS))

    async def _read(self, port: int, most: int) -> bool:
        """One connection, for so many events at most. True: all is read."""
        stream = events(port, f"/v1/sessions/{self.session_id}/events", self.last_id)
        async with contextlib.aclosing(stream):
            try:
                for _ in range(most):
                    async with asyncio.timeout(SILENCE_SECONDS):
                        event = await anext(stream)
                    self.take(event)
            except StopAsyncIteration:
                pass
            except Refused as refused:
                if refused.status == NO_CONTENT:
                    if not self.final:
                        self.trouble.append(f"204 after id {self.last_id}, before any last event")
                    return True
                if refused.status < 500:
                    self.trouble.append(f"HTTP {refused.status} after id {self.last_id}")
                    return True
        return False

    def take(self, event: Event) -> None:
        if self.final:
            self.trouble.append(f"{event.name} after {self.final[0]}")
        if not int(event.id) > int(self.last_id):
            self.trouble.append(f"id {event.id} after {self.last_id}")
        self.last_id = event.id
        self.news.set()
        if event.name == "content":
            self.text += event.data["text"]
        elif event.name in ("tool_call", "tool_result"):
            self.calls.append((event.name, event.data["call_id"], event.data["status"]))
        elif event.name == "approval":
            self.approvals.append(event.data)
        elif event.name in FINAL:
            self.final = (event.name, event.data)
        else:
            self.trouble.append(f"event {event.name} {event.data}")

"""A scripted `Sessions` over a real memory store, and a Commander whose part is to write the log."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec.structs import replace

from dispatcher.core.entries import (
    Approval,
    Body,
    Call,
    Decision,
    Entry,
    Failed,
    Finished,
    Started,
    StopEntry,
    Text,
)
from dispatcher.core.holds import Fits, Hold
from dispatcher.core.log import Acquire, Append, Applied, Assign, Head, Record, Request, Settle
from dispatcher.live import ids
from dispatcher.live.fleet import FleetStop, check_holds
from dispatcher.live.pool import ConnectedCommander, QueueFull
from dispatcher.live.ports import Unlogged
from dispatcher.policing.prompts import PromptRefused
from dispatcher.store.memory import MemoryStore
from dispatcher.store.ports import Created, IdempotencyKey, Store
from shared.records import ClientCall, Content, Error, Message, Stopped, Thought, Tool, ToolResult, Usage

REGISTERED = "search"


class FakeRegistry:
    def __init__(self) -> None:
        self.up = {REGISTERED: True}

    def knows(self, name: str) -> bool:
        return name == REGISTERED

    def offered(self, agent: str) -> tuple[Tool, ...]:
        return (Tool(REGISTERED, "", "{}"),)


class FakeSessions:
    """Creates waiting sessions; a test plays the Commander. `created`: the ids, in order, as they come."""

    def __init__(self) -> None:
        self.store: Store = MemoryStore()
        self.closing = asyncio.Event()
        self.registry = FakeRegistry()
        self.offered = ["default"]
        self.honoured = frozenset({"sampling"})
        self.policy_status: Callable[[], dict[str, object]] = lambda: {"errors": ["rules.toml: broken"]}
        self.troubles: list[str] = []
        self.instance = "instance"
        self.connected: list[ConnectedCommander] = []
        self.full = self.refusing = False
        self.created: asyncio.Queue[str] = asyncio.Queue()
        self.stops: asyncio.Queue[tuple[str, str, str, str]] = asyncio.Queue()
        self.seen: dict[str, Unlogged] = {}
        self.orders: list[asyncio.Task[None]] = []
        self.decisions: asyncio.Queue[Decision] = asyncio.Queue()

    async def create(self, request: Request, key: IdempotencyKey | None = None, token: str = "") -> Created:
        if self.refusing:
            raise PromptRefused
        if self.full:
            raise QueueFull
        await check_holds(self.store, request)
        request = replace(request, assignment_key=secrets.token_bytes(32))
        record = Record(ids.session_id(), request, Head(since=request.created_at))
        created = await self.store.create(record, key)
        if created.fresh:
            self.created.put_nowait(record.session_id)
        return created

    async def stop(
        self,
        session_id: str,
        reason: str,
        author: Literal["user", "operator"],
        detail: str = "",
        tenant: str | None = None,
    ) -> Record | None:
        record = await self.store.load(session_id)
        if tenant is not None and (record is None or record.request.tenant != tenant):
            return None
        stop = StopEntry(secrets.token_hex(4), reason, author, detail=detail)
        outcome = await self.store.submit(session_id, Settle(Entry(stop, time.time())))
        if not isinstance(outcome, Applied):
            return None
        self.stops.put_nowait((session_id, reason, author, detail))
        return await self.store.load(session_id)

    async def delete(self, record: Record) -> None:
        await self.store.delete(record.session_id)

    def stop_fleet(self, fits: Fits, reason: str, detail: str = "", hold: Hold | None = None) -> FleetStop:
        order = FleetStop(self.store, lambda session_id: self.stop(session_id, reason, "operator", detail), fits, hold)
        self.orders.append(asyncio.create_task(order.run()))
        return order

    def commanders(self) -> list[ConnectedCommander]:
        return self.connected

    def unlogged(self, session_id: str) -> Unlogged | None:
        return self.seen.get(session_id)

    async def decide(self, session_id: str, decision: Decision) -> Applied | None:
        outcome = await self.store.submit(session_id, Settle(Entry(decision, time.time())))
        self.decisions.put_nowait(decision)
        return outcome if isinstance(outcome, Applied) else None

    async def roll_back(self, session_id: str, offset: int, heard: bool = False) -> None:
        """The store comes back without what a live session's log held after that offset. heard: it tells followers."""
        assert isinstance(self.store, MemoryStore)
        record = self.store._records[session_id]
        assert offset < record.head.offset
        del self.store._entries[session_id][offset:]
        self.store._records[session_id] = replace(record, head=replace(record.head, offset=offset))
        if heard:
            self.store._hub.gone(session_id, offset)

    async def features(self, agent: str) -> frozenset[str] | None:
        return self.honoured if agent in await self.agents() else None

    async def agents(self) -> list[str]:
        return self.offered

    def trouble(self) -> list[str]:
        return self.troubles

    async def begin(self, session_id: str | None = None) -> "Commander":
        """A session that runs: a new one, or one that a request created."""
        if session_id is None:
            request = Request("default", (Message("user", "hello"),), time.time())
            session_id = (await self.create(request)).record.session_id
            await self.created.get()
        now = time.time()
        assigned = await self.store.submit(session_id, Assign("commander", "instance", False, now))
        assert isinstance(assigned, Applied)
        acquired = Acquire("commander", assigned.head.generation, "instance", now, excused=True)
        opened = await self.store.submit(session_id, acquired)
        assert isinstance(opened, Applied)
        return Commander(self.store, session_id, opened.head)


class Commander:
    """Appends to one session's log, as the Dispatcher would after its policies let everything out."""

    def __init__(self, store: Store, session_id: str, head: Head) -> None:
        self.store, self.session_id, self.head = store, session_id, head

    async def log(
        self, *bodies: Body, released: str = "", raw: int | None = None, redacted_by: tuple[str, ...] = ()
    ) -> Applied:
        """One packet's entries. released: of the first. raw: characters that this decides on; None: those released."""
        sequence = self.head.sequence + 1
        decided = self.head.decided + (len(released) if raw is None else raw)
        entries = tuple(
            Entry(
                body,
                time.time(),
                self.head.generation,
                sequence,
                released if n == 0 else "",
                decided,
                redacted_by=redacted_by,
            )
            for n, body in enumerate(bodies)
        )
        outcome = await self.store.submit(self.session_id, Append(self.head.epoch, entries))
        assert isinstance(outcome, Applied), outcome
        self.head = outcome.head
        return outcome

    async def settle(self, body: ToolResult | StopEntry | Approval | Started) -> Applied:
        outcome = await self.store.submit(self.session_id, Settle(Entry(body, time.time())))
        assert isinstance(outcome, Applied), outcome
        self.head = outcome.head
        return outcome

    async def say(self, *texts: str) -> None:
        for text in texts:
            await self.log(Content(text), released=text)

    async def hold(self, text: str) -> None:
        """Said, and held back by a policy."""
        await self.log(Content(text))

    async def let_out(self, text: str) -> None:
        await self.log(Text(), released=text)

    async def redact(self, text: str, released: str) -> None:
        """Said, and something else let out in its place."""
        await self.log(Content(text), released=released, raw=len(text), redacted_by=("personal data",))

    async def think(self, text: str, step: str = "Planning") -> None:
        await self.log(Thought(step, text))

    async def call(self, tool: str = REGISTERED, arguments: str = "{}", call_id: str = "call-1") -> None:
        await self.log(Call(tool, arguments, call_id, "instance"))

    async def ask_approval(
        self, arguments: str = "{}", call_id: str = "call-1", approval: str = "user", seconds: float = 60
    ) -> str:
        """A call that has to be approved, and waits. The digest of its arguments, which are canonical."""
        await self.log(Call(REGISTERED, arguments, call_id, "instance", approval=approval))
        digest = hashlib.sha256(arguments.encode()).hexdigest()
        await self.settle(Approval(call_id, REGISTERED, approval, arguments, digest, time.time() + seconds))
        return digest

    async def start_call(self, call_id: str = "call-1") -> None:
        await self.settle(Started(call_id, REGISTERED, "instance"))

    async def answer(
        self, tool: str = REGISTERED, result: str = "{}", call_id: str = "call-1", status: str = "OK"
    ) -> None:
        await self.settle(ToolResult(tool, result, call_id, status))

    async def finish(self, reason: str = "stop", usage: Usage | None = None) -> None:
        await self.log(Finished(reason, usage))

    async def hand_over(self, *calls: ClientCall) -> None:
        """End with calls of the client's tools."""
        await self.log(Finished("tool_calls", None, calls))

    async def fail(self, code: str = "agent_error", message: str = "") -> None:
        await self.log(Error(code, message))

    async def lose(self, code: str = "commander_lost") -> None:
        await self.log(Failed(code))

    async def stop(self, reason: str, author: str = "policy", policy: str = "", detail: str = "") -> None:
        await self.settle(StopEntry("stop-1", reason, author, policy, detail))

    async def halted(self) -> None:
        await self.log(Stopped("stop-1", self.head.sequence, 1, 100))


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what no event tells of."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - nothing to be told by
            await asyncio.sleep(0.005)


class Seen(msgspec.Struct):
    """One event as a client got it."""

    event: str
    data: dict[str, object]
    id: str

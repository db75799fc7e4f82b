"""A Dispatcher in this process, on ports of the system's choosing, and scripted peers that speak raw ChatStream to it.

Nothing sleeps to wait: what is waited for is awaited, within SECONDS.
"""

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast
from unittest.mock import AsyncMock

import grpc
import httpx2
import pytest

from dispatcher.app import Dispatcher, start
from dispatcher.core.entries import Body, Entry
from dispatcher.core.log import Change, Outcome, Record, Request
from dispatcher.core.tenant_limits import TenantLimit
from dispatcher.settings import DispatcherSettings
from dispatcher.store.blobs import without_prompt
from dispatcher.store.ports import Created, IdempotencyKey, LogPart, Store, StoreUnavailable
from shared import records, wire
from shared.pb import agent_pb2_grpc
from shared.records import (
    Assignment,
    Closed,
    Content,
    Downstream,
    Message,
    Open,
    Running,
    Status,
    Support,
    Upstream,
    Welcome,
)
from tests.logs import read_all
from tests.shared_store import SharedStore

SECONDS = 30.0  # for each thing that is waited for
TOKENS: dict[tuple[str, int], bytes] = {}  # of the assignments that came to any Peer, by session and generation
EMPTY_GAUGES = ("backlog_packets", "held_characters", "free_slots", "commanders", "approvals_waiting")

SignalT = TypeVar("SignalT", bound=records.DownstreamSignal)
BodyT = TypeVar("BodyT", bound=Body)


async def until(condition: Callable[[], Any], what: str = "") -> None:
    """Return when the condition holds; for what has no event to await."""
    try:
        async with asyncio.timeout(SECONDS):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(f"never came true: {what or condition}") from None


class Peer:
    """One ChatStream from the Commander's end. Sequences are counted for each session; what came waits in `inbox`."""

    def __init__(self, call: Any, reads: bool = True) -> None:
        self.call = call
        self.commander_id = secrets.token_hex(4)
        self.messages: list[list[Downstream]] = []  # as they came
        self.inbox: list[Downstream] = []  # not taken yet
        self.sequences: dict[str, int] = {}
        self.received = 0  # assignments
        self.token: bytes | None = None  # that `open` shows; None: the right one
        self.agents: tuple[str, ...] = ("default",)
        self.continues: tuple[str, ...] = ()
        self.supports: tuple[Support, ...] = ()
        self._came = asyncio.Condition()
        self._over = False
        self._reader = asyncio.create_task(self._read()) if reads else None

    async def _read(self) -> None:
        with contextlib.suppress(grpc.RpcError, asyncio.CancelledError):  # cut: grpc.aio cancels the read
            while isinstance(message := await self.call.read(), wire.DownstreamMessage):
                packets = wire.decode_downstream(message)
                self.messages.append(packets)
                self.inbox += packets
                for packet in packets:
                    if isinstance(packet.signal, Assignment):
                        self.received += 1
                        TOKENS[packet.session_id, packet.signal.generation] = packet.signal.token
                async with self._came:
                    self._came.notify_all()
        self._over = True
        async with self._came:
            self._came.notify_all()

    # ---- up

    async def send(self, *packets: Upstream) -> None:
        """In one message."""
        message = wire.UpstreamMessage.FromString(wire.encode_upstream(packets))
        await asyncio.wait_for(self.call.write(message), SECONDS)

    def packet(self, session_id: str, payload: records.UpstreamPayload, sequence: int | None = None) -> Upstream:
        """The session's next packet, or one with the given sequence."""
        if sequence is None:
            sequence = self.sequences.get(session_id, 0) + 1
        self.sequences[session_id] = sequence
        return Upstream(session_id, payload, sequence)

    async def say(self, session_id: str, *payloads: records.UpstreamPayload | str) -> None:
        """The session's next packets, in one message. A str is content."""
        await self.send(
            *(self.packet(session_id, Content(each) if isinstance(each, str) else each) for each in payloads)
        )

    async def finish(self, session_id: str, text: str = "") -> None:
        """The end, and its Ack."""
        await self.say(session_id, Content(text, True, "stop"))
        await self.acked(session_id)

    async def report(self, slots: int = 1, running: dict[str, int] | None = None, received: int | None = None) -> None:
        """A status. running: generation by session id."""
        received = self.received if received is None else received
        held = tuple(Running(*each) for each in (running or {}).items())
        status = Status(self.commander_id, self.agents, self.continues, slots, received, held, 0, self.supports)
        await self.send(Upstream("", status))

    async def request(self, session_id: str, generation: int = 0, *awaiting: str) -> None:
        """`open`, without waiting for the answer."""
        token = TOKENS.get((session_id, generation), session_id.encode()) if self.token is None else self.token
        await self.send(Upstream(session_id, Open(self.commander_id, generation, awaiting, token)))

    async def open(self, session_id: str, generation: int = 0, *awaiting: str) -> Welcome:
        await self.request(session_id, generation, *awaiting)
        welcome = await self.next(Welcome, session_id)
        self.sequences[session_id] = welcome.sequence
        return welcome

    async def serve(self) -> Assignment:
        """The next assignment, opened."""
        assignment = await self.next(Assignment)
        await self.open(assignment.session_id, assignment.generation)
        return assignment

    # ---- down

    async def take(self, matches: Callable[[Downstream], bool], what: object = "") -> Downstream:
        """The first packet that matches; what came before it stays in the inbox."""
        try:
            async with asyncio.timeout(SECONDS), self._came:
                while True:
                    for packet in self.inbox:
                        if matches(packet):
                            self.inbox.remove(packet)
                            return packet
                    assert not self._over, f"the stream ended before {what}: {self.inbox}"
                    await self._came.wait()
        except TimeoutError:
            raise AssertionError(f"never came: {what}; there are {self.inbox}") from None

    async def next(self, kind: type[SignalT], session_id: str | None = None) -> SignalT:
        """The next signal of that kind (of that session)."""
        found = await self.take(
            lambda packet: isinstance(packet.signal, kind) and session_id in (None, packet.session_id),
            (kind, session_id),
        )
        assert isinstance(found.signal, kind)
        return found.signal

    async def acked(self, session_id: str, sequence: int | None = None) -> None:
        """All up to the sequence (default: all that was sent) is acked."""
        wanted = self.sequences[session_id] if sequence is None else sequence

        def enough(packet: Downstream) -> bool:
            return packet.session_id == session_id and getattr(packet.signal, "sequence", -1) >= wanted

        await self.take(lambda packet: isinstance(packet.signal, records.Ack) and enough(packet), f"Ack {wanted}")

    async def closed(self, session_id: str) -> str:
        """The code with which the session was closed on this stream."""
        return (await self.next(Closed, session_id)).code

    async def barrier(self) -> None:
        """What was queued for this stream before this call has come."""
        stranger = secrets.token_hex(8)
        await self.request(stranger, 7)
        assert await self.closed(stranger) == "unknown_session"

    def has(self, kind: type[records.DownstreamSignal], session_id: str | None = None) -> list[Any]:
        """What came of that kind and was not taken."""
        return [
            packet.signal
            for packet in self.inbox
            if isinstance(packet.signal, kind) and session_id in (None, packet.session_id)
        ]

    # ---- the end

    async def half_close(self) -> None:
        await asyncio.wait_for(self.call.done_writing(), SECONDS)

    async def status(self) -> grpc.StatusCode:
        """What the stream ended with, after all was read."""
        if self._reader:
            await asyncio.wait({self._reader}, timeout=SECONDS)
        code = await asyncio.wait_for(self.call.code(), SECONDS)
        assert isinstance(code, grpc.StatusCode)
        return code

    async def details(self) -> str:
        return str(await asyncio.wait_for(self.call.details(), SECONDS))

    async def cut(self) -> None:
        """Gone, as by a kill."""
        self.call.cancel()
        if self._reader:
            await asyncio.wait({self._reader}, timeout=SECONDS)


class Unserved:
    """In place of the HTTP servers, which have tests of their own: the application, by port."""

    apps: ClassVar[dict[int, Any]] = {}

    def __init__(self, app: Any, listening: socket.socket, **_: float) -> None:
        self.apps[listening.getsockname()[1]] = app

    async def start(self) -> None: ...

    async def close(self) -> None: ...


class Trouble:
    """A store that can be away, lose its answers, or keep them waiting."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.away = False  # nothing is carried out
        self.mute: type | None = None  # changes of this type are carried out, and nobody is told
        self.answers = asyncio.Event()
        self.answers.set()
        self.reads = asyncio.Event()
        self.reads.set()
        self.asked = 0  # changes
        self.lost = 0  # answers

    def submit(self, session_id: str, change: Change) -> asyncio.Future[Outcome]:
        self.asked += 1
        return asyncio.ensure_future(self._submitted(session_id, change))

    async def _submitted(self, session_id: str, change: Change) -> Outcome:
        self._check()
        outcome = await self.store.submit(session_id, change)
        await self.answers.wait()
        if self.mute and isinstance(change, self.mute):
            self.lost += 1
            raise StoreUnavailable("the answer is lost")
        return outcome

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("away")

    async def load(self, session_id: str) -> Record | None:
        self._check()
        record = await self.store.load(session_id)
        await self.reads.wait()
        return record

    async def brief(self, session_id: str) -> Record | None:
        record = await self.load(session_id)
        return record and without_prompt(record)

    async def read(self, session_id: str, after: int, limit: int) -> LogPart:
        self._check()
        part = await self.store.read(session_id, after, limit)
        await self.reads.wait()
        return part

    async def create(
        self, record: Record, key: IdempotencyKey | None = None, limit: TenantLimit | None = None
    ) -> Created:
        self._check()
        created = await self.store.create(record, key, limit)
        await self.answers.wait()
        if self.mute is Record:
            raise StoreUnavailable("the answer is lost")
        return created

    def __getattr__(self, name: str) -> Any:
        self._check()
        return getattr(self.store, name)


def samples(metrics: str) -> dict[str, float]:
    """By name and labels: `dispatcher_sessions{state="running"}`. Without histogram buckets."""
    lines = (line.rpartition(" ") for line in metrics.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines if "_bucket{" not in name}


class World:
    """A Dispatcher that serves, and its peers."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.sessions = dispatcher.sessions
        self.peers: list[Peer] = []
        self._channels: list[grpc.aio.Channel] = []

    def channel(self, **options: int) -> grpc.aio.Channel:
        """A connection of its own: equal options would share one."""
        named = [("test.channel", len(self._channels)), *options.items()]
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.dispatcher.grpc_port}", options=named)
        self._channels.append(channel)
        return channel

    def stream(self, reads: bool = True) -> Peer:
        """A stream of a connection of its own, nothing sent yet."""
        stub = agent_pb2_grpc.AgentInteractionStub(self.channel())  # type: ignore[no-untyped-call]
        peer = Peer(stub.ChatStream(), reads)
        self.peers.append(peer)
        return peer

    async def join(
        self,
        slots: int = 1,
        agents: tuple[str, ...] = ("default",),
        continues: tuple[str, ...] = (),
        supports: tuple[Support, ...] = (),
        commander_id: str = "",
        **options: Any,
    ) -> Peer:
        """A Commander of the pool."""
        peer = self.stream(**options)
        peer.agents, peer.continues, peer.supports = agents, continues, supports
        peer.commander_id = commander_id or peer.commander_id
        before = set(self.sessions.pool.members)
        await peer.report(slots)
        await until(lambda: self.sessions.pool.members - before, "joined")
        return peer

    async def own(self, session_id: str = "") -> tuple[Peer, str]:
        """A Commander that has brought a session of its own."""
        peer, session_id = self.stream(), session_id or secrets.token_hex(16)
        await peer.open(session_id)
        return peer, session_id

    async def create(self, agent: str = "default", prompt: str = "hello") -> str:
        created = await self.sessions.create(Request(agent, (Message("user", prompt),), time.time()))
        return created.record.session_id

    async def served(self, slots: int = 1, **options: Any) -> tuple[Peer, str, int]:
        """A member with a session open on it: (member, session id, generation)."""
        member = await self.join(slots, **options)
        await self.create(member.agents[0])
        assignment = await member.serve()
        return member, assignment.session_id, assignment.generation

    async def record(self, session_id: str) -> Record:
        record = await self.sessions.store.load(session_id)
        assert record
        return record

    async def state(self, session_id: str) -> str:
        """The user's view, with the code or reason of an end."""
        head = (await self.record(session_id)).head
        return " ".join(filter(None, (head.state, head.code, head.reason)))

    async def ended(self, session_id: str) -> str:
        """As `state`, once it is no longer live."""
        with self.sessions.store.follow(session_id) as follower:
            async with asyncio.timeout(SECONDS):
                while not (await self.record(session_id)).head.final:
                    await follower.wait(1)
        runners = self.sessions.runners.by_session
        await until(lambda: session_id not in runners or runners[session_id].session.head.final, "told")
        return await self.state(session_id)

    async def passes(self, session_id: str, deadline: str) -> None:
        """That deadline comes as soon as it is set."""
        runner = self.sessions.runners.by_session[session_id]
        await until(lambda: deadline in runner.deadlines, f"the {deadline} begins")
        runner.deadlines.come(deadline)

    async def forsaken(self, session_id: str) -> str:
        """The state of a session whose Commander does not come back, when no grace is left: each is over at once."""
        runners = self.sessions.runners.by_session
        head = (await self.record(session_id)).head
        generation = head.generation
        async with asyncio.timeout(SECONDS):
            while (head.state, head.generation) == ("running", generation):
                if (runner := runners.get(session_id)) and "grace" in runner.deadlines:
                    runner.deadlines.come("grace")
                await asyncio.sleep(0.002)
                head = (await self.record(session_id)).head
        return await self.ended(session_id) if head.final else head.state

    async def over(self, session_id: str) -> None:
        """Return when nothing more can come of it, from its Commander or a tool."""
        async with asyncio.timeout(SECONDS):
            while not (head := (await self.record(session_id)).head).over or head.calls:  # noqa: ASYNC110
                await asyncio.sleep(0.002)
        await until(lambda: session_id not in self.sessions.runners.by_session, "let go")

    async def becomes(self, session_id: str, state: str) -> None:
        """Return when the log, whatever trouble hides it, has the session in that state."""
        store = self.sessions.store
        store = store.store if isinstance(store, Trouble) else store
        async with asyncio.timeout(SECONDS):
            while not ((record := await store.load(session_id)) and record.head.state == state):  # noqa: ASYNC110
                await asyncio.sleep(0.002)

    async def waits(self, session_id: str) -> None:
        """The session is among the waiting (again)."""
        await self.becomes(session_id, "waiting")

    async def log(self, session_id: str) -> list[Entry]:
        return await read_all(self.sessions.store, session_id)

    async def bodies(self, session_id: str, kind: type[BodyT]) -> list[BodyT]:
        return [entry.body for entry in await self.log(session_id) if isinstance(entry.body, kind)]

    async def text(self, session_id: str) -> str:
        """What users see of it."""
        return "".join(entry.released for entry in await self.log(session_id))

    async def ask(self, path: str, body: object = None, method: str = "") -> httpx2.Response:
        """An operator's route, or else a user's: POST where there is a body, else GET, unless it is said."""
        of = self.dispatcher
        app = Unserved.apps[of.http_port if path.startswith("/v1/") else of.operator_port]
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1") as client:
            return await client.request(method or ("GET" if body is None else "POST"), path, json=body)

    async def metrics(self) -> dict[str, float]:
        """`/metrics`, as `samples` has it."""
        return samples((await self.ask("/metrics")).text)

    def trouble(self) -> Trouble:
        """Puts a store that makes trouble before the Dispatcher's."""
        trouble = Trouble(self.sessions.store)
        self.sessions.runners.store = cast("Store", trouble)
        return trouble

    def _forgotten(self) -> bool:
        """Nobody comes back to a session, whenever it is left."""
        runners = self.sessions.runners.by_session
        for runner in list(runners.values()):
            for deadline in ("grace", "stop"):
                if deadline in runner.deadlines:
                    runner.deadlines.come(deadline)
        return not runners

    async def end(self) -> None:
        """Cut the peers and stop what lives: then nothing may be left."""
        for peer in self.peers:
            await peer.cut()
        for channel in self._channels:
            await channel.close()
        service = self.dispatcher.service
        await until(lambda: not service._streams, "streams left")
        await self.sessions.shut_down()
        await until(self._forgotten, "runners left")
        await until(lambda: not self.sessions.runners._tasks, "tasks left")
        await until(lambda: not self.sessions.pool.waiting, "waiting sessions left")
        assert not self.sessions.pool._places
        metrics = await self.metrics()
        left = {name: value for name in EMPTY_GAUGES if (value := metrics[f"dispatcher_{name}"])}
        left |= {name: value for name, value in metrics.items() if name.startswith("dispatcher_sessions{") and value}
        assert not left, f"gauges not back at 0: {left}"


@contextlib.asynccontextmanager
async def serving(
    store: str = "memory://", clean: bool = True, shared: SharedStore | None = None, **settings: Any
) -> AsyncIterator[World]:
    """A Dispatcher with these settings. clean: at the end, nothing may be left of what happened. shared: its store is
    a view of this one.
    """
    before = asyncio.all_tasks()
    address = "127.0.0.1:0"
    # No test is to be as fast as these, and none waits for them (`forsaken`, `passes`).
    values = {"grace_seconds": 60, "stop_seconds": 60, "drain_seconds": 1} | settings
    asked = DispatcherSettings(
        grpc_address=address, http_address=address, operator_address=address, store=store, **values
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dispatcher.app.HttpServer", Unserved)
        if shared:
            view = shared.view()
            patch.setattr("dispatcher.app.open_store", AsyncMock(return_value=view))
        dispatcher = await start(asked)
    world = World(dispatcher)
    try:
        yield world
        if clean:
            await world.end()
    finally:
        for peer in world.peers:
            await peer.cut()
        for channel in world._channels:
            await channel.close()
        await dispatcher.close()
    if not shared:  # else others serve on
        await until(lambda: not asyncio.all_tasks() - before - {asyncio.current_task()}, "tasks left")


def sqlite(folder: Path) -> str:
    return f"sqlite:///{folder}/sessions.db"

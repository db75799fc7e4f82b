"""A Dispatcher that does what a test says: a real grpc.aio server, each ChatStream in the test's hands."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, TypeVar, cast

import grpc
from prometheus_client import CollectorRegistry

from commander.agent import Agent
from commander.metrics import Metrics
from commander.run import Run
from commander.settings import CommanderSettings
from commander.stream import DispatcherChannel
from commander.worker import Worker
from shared import records, wire
from shared.channel import client_options
from shared.envelope import split
from shared.grpc_metrics import ClientMetrics
from shared.pb import agent_pb2_grpc

SECONDS = 30.0  # for each thing that is waited for

PayloadT = TypeVar("PayloadT", bound=records.UpstreamPayload)


async def soon(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, SECONDS)


class Peer:
    """One ChatStream as the Dispatcher sees it. Statuses are kept apart: they come whenever they like."""

    def __init__(self, context: Any) -> None:
        self.packets: asyncio.Queue[records.Upstream | None] = asyncio.Queue()
        self.statuses: asyncio.Queue[records.Status] = asyncio.Queue()
        self.messages = 0
        self._context = context
        self._over: asyncio.Future[grpc.StatusCode] = asyncio.get_running_loop().create_future()

    async def serve(self) -> None:
        reader = asyncio.create_task(self._read())
        try:
            code = await self._over
        finally:
            reader.cancel()
        if code is not grpc.StatusCode.OK:
            await self._context.abort(code, "as the test says")

    async def _read(self) -> None:
        while isinstance(message := await self._context.read(), wire.UpstreamMessage):
            self.messages += 1
            for packet in map(wire.decode_upstream, split(message.SerializeToString())[1]):
                if isinstance(packet.payload, records.Status):
                    self.statuses.put_nowait(packet.payload)
                else:
                    self.packets.put_nowait(packet)
        self.packets.put_nowait(None)

    def end(self, code: grpc.StatusCode = grpc.StatusCode.OK) -> None:
        if not self._over.done():
            self._over.set_result(code)

    async def send(self, session_id: str, *signals: records.DownstreamSignal) -> None:
        await self._context.write(wire.encode_downstream([records.Downstream(session_id, each) for each in signals]))

    async def packet(self) -> records.Upstream:
        """The next packet of a session."""
        packet = await soon(self.packets.get())
        assert packet is not None, "the Commander half-closed"
        return cast("records.Upstream", packet)

    async def next(self, kind: type[PayloadT]) -> tuple[records.Upstream, PayloadT]:
        """The next packet, which has to be of that kind."""
        packet = await self.packet()
        assert isinstance(packet.payload, kind), packet
        return packet, packet.payload

    async def until(self, kind: type[PayloadT]) -> tuple[str, records.Upstream, PayloadT]:
        """The content up to the next packet of that kind, and that packet."""
        text = ""
        while True:
            packet = await self.packet()
            if isinstance(packet.payload, kind) and not (
                isinstance(packet.payload, records.Content) and not packet.payload.is_finish
            ):
                return text, packet, packet.payload
            if isinstance(packet.payload, records.Content):
                text += packet.payload.text

    async def status(self, **wanted: Any) -> records.Status:
        """The next status with these fields."""
        while True:
            status: records.Status = await soon(self.statuses.get())
            if all(getattr(status, name) == value for name, value in wanted.items()):
                return status

    @property
    def certificate(self) -> bytes:
        """That the Commander showed, in PEM."""
        return cast("bytes", self._context.auth_context()["x509_pem_cert"][0])

    async def half_closed(self) -> None:
        assert await soon(self.packets.get()) is None

    async def assign(self, session_id: str, generation: int = 1, **more: Any) -> None:
        await self.send("", records.Assignment(session_id, generation, more.pop("agent", "default"), **more))

    async def welcome(self, session_id: str, sequence: int = 0, packets: int = 256, size: int = 262144) -> records.Open:
        """Answer the next packet, an `open`, with Welcome."""
        packet, opened = await self.next(records.Open)
        assert packet.session_id == session_id
        await self.send(session_id, records.Welcome(sequence, packets, size))
        return opened


class FakeDispatcher(agent_pb2_grpc.AgentInteractionServicer):
    """`metadata`: what it announces; None: an older one, which sends no initial metadata of its own."""

    def __init__(self, metadata: tuple[tuple[str, str], ...] | None = (("midsentence-contract", "1"),)) -> None:
        self.metadata = metadata
        self.port = 0
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()
        self._all: list[Peer] = []

    async def ChatStream(self, request_iterator: Any, context: Any) -> None:  # noqa: N802 # gRPC's name
        if self.metadata is not None:
            await context.send_initial_metadata(self.metadata)
        peer = Peer(context)
        self._all.append(peer)
        self._peers.put_nowait(peer)
        await peer.serve()

    async def peer(self) -> Peer:
        """The next stream that a Commander opened."""
        return cast("Peer", await soon(self._peers.get()))

    @contextlib.asynccontextmanager
    async def serving(self, tls: grpc.ServerCredentials | None = None) -> AsyncIterator["FakeDispatcher"]:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        agent_pb2_grpc.add_AgentInteractionServicer_to_server(self, server)  # type: ignore[no-untyped-call]
        address = "127.0.0.1:0"
        self.port = server.add_secure_port(address, tls) if tls else server.add_insecure_port(address)
        await server.start()
        try:
            yield self
        finally:
            for peer in self._all:
                peer.end()
            await server.stop(0)


def settings(dispatcher: FakeDispatcher, **more: Any) -> CommanderSettings:
    return CommanderSettings(dispatcher=f"ipv4:127.0.0.1:{dispatcher.port}", **more)


class Commander:
    """A Commander in this process; `registry` is what its /metrics would show."""

    def __init__(self, config: CommanderSettings) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.config = config
        self.channel = DispatcherChannel(
            config.dispatcher, client_options(config.keepalive), ClientMetrics(self.registry)
        )

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


class Serving(Commander):
    worker: Worker
    task: asyncio.Task[None]


@contextlib.asynccontextmanager
async def serving(dispatcher: FakeDispatcher, agent: Agent, **more: Any) -> AsyncIterator[Serving]:
    """`commander serve`, until the block ends; then it is told twice to leave."""
    commander = Serving(settings(dispatcher, **more))
    commander.worker = Worker(commander.config, agent, commander.channel, commander.metrics)
    commander.task = asyncio.create_task(commander.worker.serve())
    try:
        yield commander
    finally:
        commander.task.cancel()
        await asyncio.gather(commander.task, return_exceptions=True)
        await commander.channel.close()


class Running(Commander):
    run: Run
    task: asyncio.Task[int]


@contextlib.asynccontextmanager
async def running(dispatcher: FakeDispatcher, agent: Agent, **more: Any) -> AsyncIterator[Running]:
    """`commander run PROMPT`."""
    commander = Running(settings(dispatcher, **more))
    commander.run = Run(commander.config, agent, "Say something.", commander.channel, commander.metrics)
    commander.task = asyncio.create_task(commander.run.run())
    try:
        yield commander
    finally:
        commander.task.cancel()
        await asyncio.gather(commander.task, return_exceptions=True)
        await commander.channel.close()

"""The floor: what a pair on this contract, and written to the wire in this way, can do at best.

    python -m tests.bench.floor dispatcher                  prints its two addresses as JSON
    python -m tests.bench.floor commander GRPC_ADDRESS [CONNECTIONS]

One stream for all sessions, or so many, each on a connection of its own that has its share of them; batches, a 1 ms
flush, raw ASGI events out, uvloop. No store, no policies, no tools, no sequences, no acks: the handlers only count and
pass on. HTTP/2's window is its only flow control.
"""

import asyncio
import json
import secrets
import socket
import sys
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc
import msgspec
import uvicorn
import uvloop

from shared.channel import ClientKeepalive, ServerKeepalive, client_options, server_options
from shared.pb import agent_pb2 as pb
from shared.pb import agent_pb2_grpc
from tests.bench.agents import agent

FLUSH_SECONDS = 0.001
PACKET_CHARACTERS = 64 * 1024
USER_CHARACTERS = 1024 * 1024  # not yet read by a user: then the stream is not read on
HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache, no-transform")]


class Session:
    """What a user has not read yet."""

    def __init__(self, stream: "Stream") -> None:
        self.stream = stream
        self.text: list[str] = []
        self.characters = 0
        self.end = ""
        self.changed = asyncio.Event()
        self.read = asyncio.Event()

    def say(self, text: str) -> None:
        self.text.append(text)
        self.characters += len(text)
        self.changed.set()

    def over(self, end: str) -> None:
        self.end = self.end or end
        self.changed.set()


class Stream:
    """What goes down to one Commander."""

    def __init__(self) -> None:
        self.outbox: deque[pb.DownstreamPacket] = deque()
        self.wake = asyncio.Event()

    def send(self, packet: pb.DownstreamPacket) -> None:
        self.outbox.append(packet)
        self.wake.set()

    async def write(self, context: Any) -> None:
        while True:
            await self.wake.wait()
            self.wake.clear()
            packets = list(self.outbox)
            self.outbox.clear()
            await context.write(packets[0] if len(packets) == 1 else pb.DownstreamPacket(batch=packets))


class Dispatcher(agent_pb2_grpc.AgentInteractionServicer):
    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.streams: deque[Stream] = deque()  # the next one's turn first
        self.joined = asyncio.Event()  # the first of them is there
        self.packets = 0

    async def ChatStream(self, request_iterator: Any, context: Any) -> None:  # noqa: N802
        stream = Stream()
        self.streams.append(stream)
        self.joined.set()
        writing = asyncio.create_task(stream.write(context))
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                for packet in message.batch or (message,):
                    self.packets += 1
                    await self._take(packet)
        finally:
            writing.cancel()
            self.streams.remove(stream)

    async def _take(self, packet: pb.UpstreamPacket) -> None:
        session = self.sessions.get(packet.session_id)
        if session is None or session.end:
            return
        if packet.content.text:
            session.say(packet.content.text)
        if packet.content.is_finish:
            session.over("finished")
        while session.characters > USER_CHARACTERS and not session.end:
            session.read.clear()
            await session.read.wait()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The users' side, as an ASGI application."""
        match scope["method"], scope["path"].split("/")[1:]:
            case "POST", ["v1", "sessions"]:
                prompt = msgspec.json.decode((await receive())["body"])["prompt"]
                session_id = secrets.token_urlsafe(16)
                await self.joined.wait()
                session = self.sessions[session_id] = Session(self.streams[0])
                self.streams.rotate(-1)
                messages = [pb.Message(role="user", content=prompt)]
                assignment = pb.Assignment(session_id=session_id, messages=messages)
                session.stream.send(pb.DownstreamPacket(session_id=session_id, assignment=assignment))
                await respond(send, 201, msgspec.json.encode({"session_id": session_id}))
            case "POST", ["v1", "sessions", session_id, "stop"]:
                session = self.sessions[session_id]
                session.stream.send(pb.DownstreamPacket(session_id=session_id, stop=pb.StopSignal(reason="UserCancel")))
                session.over("stopped")
                await respond(send, 202, b"{}")
            case "GET", ["v1", "sessions", session_id, "events"]:
                await self._events(self.sessions[session_id], send)
                del self.sessions[session_id]
            case _:
                await respond(send, 404, b"{}")

    async def _events(self, session: Session, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        number = 0
        while True:
            await session.changed.wait()
            session.changed.clear()
            frames = b""
            if session.text:
                number += len(session.text)
                text = msgspec.json.encode({"text": "".join(session.text)})
                session.text.clear()
                session.characters = 0
                frames = b"id: %d\nevent: content\ndata: %b\n\n" % (number, text)
            session.read.set()
            if session.end:
                frames += b"id: %d\nevent: %b\ndata: {}\n\n" % (number + 1, session.end.encode())
            await send({"type": "http.response.body", "body": frames, "more_body": not session.end})
            if session.end:
                return


async def respond(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def serve_http(app: Any, **addresses: str) -> None:
    """uvicorn on this loop, until SIGTERM; prints the addresses, its own under `http`, when it listens."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(2048)
        config = uvicorn.Config(app, http="httptools", log_level="error", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listening]))
        addresses["http"] = f"127.0.0.1:{listening.getsockname()[1]}"
        print(json.dumps(addresses), flush=True)  # a connection that comes now waits in the backlog
        await serving


async def dispatcher() -> None:
    floor = Dispatcher()
    server = grpc.aio.server(options=server_options(ServerKeepalive()))
    agent_pb2_grpc.add_AgentInteractionServicer_to_server(floor, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await serve_http(floor, grpc=f"127.0.0.1:{port}")
    await server.stop(0)


@dataclass(frozen=True)
class Said:
    content: str


@dataclass(frozen=True)
class Turn:
    messages: tuple[Said, ...]


class Speaking:
    """A session's text that is not written yet."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.characters = 0
        self.over = False
        self.room = asyncio.Event()


class Commander:
    def __init__(self, call: Any) -> None:
        self.call = call
        self.wake = asyncio.Event()
        self.speaking: dict[str, Speaking] = {}
        self.running: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        writing = asyncio.create_task(self._write())
        while (message := await self.call.read()) is not grpc.aio.EOF:
            for packet in message.batch or (message,):
                if packet.HasField("assignment"):
                    task = asyncio.create_task(self._speak(packet.session_id, packet.assignment.messages))
                    self.running[packet.session_id] = task
                elif packet.HasField("stop") and packet.session_id in self.running:
                    self.running[packet.session_id].cancel()
        writing.cancel()

    async def _speak(self, session_id: str, messages: Iterable[pb.Message]) -> None:
        mine = self.speaking[session_id] = Speaking()
        generator = agent(Turn(tuple(Said(message.content) for message in messages)))
        try:
            async for text in generator:
                mine.text.append(text)
                mine.characters += len(text)
                self.wake.set()
                if mine.characters >= PACKET_CHARACTERS:
                    mine.room.clear()
                    await mine.room.wait()
        finally:
            await generator.aclose()
            mine.over = True
            self.wake.set()
            del self.running[session_id]

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        last = 0.0
        while True:
            await self.wake.wait()
            if (pause := last + FLUSH_SECONDS - loop.time()) > 0:
                await asyncio.sleep(pause)
            self.wake.clear()
            packets = [self._packet(name, mine) for name, mine in self.speaking.items() if mine.text or mine.over]
            for packet in packets:
                if packet.content.is_finish:
                    del self.speaking[packet.session_id]
            if packets:
                await self.call.write(packets[0] if len(packets) == 1 else pb.UpstreamPacket(batch=packets))
            last = loop.time()

    def _packet(self, session_id: str, mine: Speaking) -> pb.UpstreamPacket:
        content = pb.ContentChunk(text="".join(mine.text), is_finish=mine.over)
        mine.text.clear()
        mine.characters = 0
        mine.room.set()
        return pb.UpstreamPacket(session_id=session_id, content=content)


async def commander(grpc_address: str, connections: str = "1") -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(int(connections)):
            group.create_task(_connected(grpc_address))


async def _connected(grpc_address: str) -> None:
    # Else channels of one process to one address share a connection.
    options = [*client_options(ClientKeepalive()), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(grpc_address, options=options) as channel:
        await channel.channel_ready()
        stub: Any = agent_pb2_grpc.AgentInteractionStub(channel)  # type: ignore[no-untyped-call]
        call = stub.ChatStream()
        await call.write(pb.UpstreamPacket(status=pb.CommanderStatus(commander_id="floor", free_slots=1)))
        await Commander(call).run()


if __name__ == "__main__":
    role, *addresses = sys.argv[1:]
    uvloop.run(dispatcher() if role == "dispatcher" else commander(*addresses))

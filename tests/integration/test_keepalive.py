"""Keepalive as promised, spoken as raw HTTP/2: no gRPC library between the test and the Dispatcher's bytes."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes

from shared.pb import agent_pb2 as pb
from tests import programs

CONTRACT_SILENCE_SECONDS = 35.0  # longer than the idle limit (15 s) and several rounds of keepalive (5 s)
PING_SECONDS = 0.5
CUT_OFF_SECONDS = 7.0  # "a peer that is cut off is noticed by the server within 7 s"


class Peer:
    """One HTTP/2 connection to the Dispatcher."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str) -> None:
        self._reader, self._writer, self._authority = reader, writer, authority
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._http.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self._writer.write(self._http.data_to_send())

    def ping(self) -> None:
        self._http.ping(b"midsents")
        self.flush()

    def open_chat_stream(self) -> int:
        """A ChatStream whose session has begun."""
        stream = self._http.get_next_available_stream_id()
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": "/southwest.ai.agent.v1.AgentInteraction/ChatStream",
            ":authority": self._authority,
            "te": "trailers",
            "content-type": "application/grpc",
        }
        self._http.send_headers(stream, list(headers.items()))
        self.say(stream, pb.ContentChunk(text="Let me think. "))
        return stream

    def say(self, stream: int, content: pb.ContentChunk) -> None:
        message = pb.UpstreamPacket(content=content).SerializeToString()
        self._http.send_data(stream, struct.pack(">BI", 0, len(message)) + message, end_stream=content.is_finish)
        self.flush()

    async def received(self) -> AsyncIterator[events.Event]:
        """What the server sends, answered as HTTP/2 asks (pings too), until it closes the connection."""
        while data := await self._reader.read(65536):
            for event in self._http.receive_data(data):
                if isinstance(event, events.DataReceived) and event.flow_controlled_length:
                    self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                yield event
            self.flush()

    async def cut_off(self) -> None:
        """Answer nothing any more, and return when the server has closed the connection."""
        with contextlib.suppress(ConnectionResetError):
            while await self._reader.read(65536):
                pass


@pytest.fixture
def dispatcher(tmp_path: Path) -> Iterator[programs.Dispatcher]:
    with programs.dispatcher(tmp_path / "log") as ready:
        yield ready


@contextlib.asynccontextmanager
async def connected(address: str) -> AsyncIterator[Peer]:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Peer(reader, writer, address)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def pings_too_often(address: str) -> None:
    """A ping every half second: sent away, and told why."""
    async with connected(address) as peer, asyncio.timeout(15):

        async def pinging() -> None:
            while True:
                peer.ping()
                await asyncio.sleep(PING_SECONDS)

        pings = asyncio.create_task(pinging())
        try:
            goaway = [event async for event in peer.received() if isinstance(event, events.ConnectionTerminated)]
        finally:
            pings.cancel()
        assert goaway[0].error_code == ErrorCodes.ENHANCE_YOUR_CALM
        assert goaway[0].additional_data == b"too_many_pings"


async def is_silent(address: str) -> None:
    """Silence on an open stream, pings answered: it lives, and finishes its session afterwards."""
    async with connected(address) as peer:
        stream = peer.open_chat_stream()
        pings = 0
        headers: dict[str | bytes, str | bytes] = {}

        async def listen() -> None:
            nonlocal pings
            async for event in peer.received():
                assert not isinstance(event, events.ConnectionTerminated)
                pings += isinstance(event, events.PingReceived)
                if isinstance(event, events.ResponseReceived | events.TrailersReceived):
                    headers.update(event.headers)
                if isinstance(event, events.StreamEnded):
                    return

        listening = asyncio.create_task(listen())
        done, _ = await asyncio.wait([listening], timeout=CONTRACT_SILENCE_SECONDS)
        assert not done, "cut while silent"
        assert pings >= 4  # the server did look: every 5 s
        peer.say(stream, pb.ContentChunk(text="Done.", is_finish=True))
        await asyncio.wait_for(listening, 10)
        assert headers["grpc-status"] == "0"


async def is_cut_off(address: str) -> None:
    """No ping is answered: the server closes the connection in time."""
    async with connected(address) as peer:
        peer.open_chat_stream()
        await asyncio.wait_for(peer.cut_off(), CUT_OFF_SECONDS + 1)  # one for a busy machine


@pytest.mark.slow
async def test_keepalive(dispatcher: programs.Dispatcher) -> None:
    async with asyncio.TaskGroup() as peers:  # at once: the longest takes 35 s
        peers.create_task(pings_too_often(dispatcher.grpc))
        peers.create_task(is_cut_off(dispatcher.grpc))
        peers.create_task(is_silent(dispatcher.grpc))

"""The one writer of a ChatStream: stops first (rule 19), acks together, no message larger than a batch may be."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from dispatcher.live.ports import Carried
from shared.records import Ack, Downstream, Stop, Welcome
from shared.wire import DownstreamMessage, downstream_messages, encode_downstream

ACK_SECONDS = 0.05  # an Ack that is not due at once waits this long for others (rule 5)
PACKETS_A_TURN = 256  # that are taken from the queue before stops are looked for again


class PeerDoesNotRead(Exception):
    """A write has taken too long."""


class StreamWriter:
    """Queues packets, and writes them as long as `run` does. Concurrent writes to a stream fail now and then.

    write     of the RPC
    seconds   the longest that one write may take
    written   called with what has just been handed to gRPC
    acked     called with a session whose end's Ack goes out now
    idle      called whenever all is written
    batches   False: an older peer, whose packets go one by one and name no session
    """

    def __init__(
        self,
        write: Callable[[Any], Awaitable[None]],
        seconds: float,
        written: Callable[[list[Downstream]], None],
        acked: Callable[[Carried], None],
        idle: Callable[[], None],
    ) -> None:
        self.batches = True
        self._write, self._seconds = write, seconds
        self._written, self._acked, self._idle = written, acked, idle
        self._loop = asyncio.get_running_loop()
        self._first: deque[Downstream] = deque()  # Welcomes and Stops
        self._rest: deque[Downstream] = deque()
        self._acks: dict[str, Carried] = {}  # due
        self._acks_later: dict[str, Carried] = {}
        self._ack_timer: asyncio.TimerHandle | None = None
        self._work = asyncio.Event()
        self._writing = False

    def queue(self, packet: Downstream) -> None:
        """Welcome and Stop go ahead of all else; so a Stop never comes before its Welcome."""
        (self._first if isinstance(packet.signal, Welcome | Stop) else self._rest).append(packet)
        self._work.set()

    @property
    def queued(self) -> int:
        return len(self._rest)

    @property
    def busy(self) -> bool:
        """Something is not written yet."""
        return self._writing or bool(self._first or self._rest or self._acks)

    def ack(self, carried: Carried, at_once: bool) -> None:
        """Ack what is logged: at once, or with what else comes within ACK_SECONDS."""
        if at_once:
            self._acks_later.pop(carried.session_id, None)
            self._acks[carried.session_id] = carried
            self._work.set()
        elif carried.session_id not in self._acks:
            self._acks_later[carried.session_id] = carried
            if self._ack_timer is None:
                self._ack_timer = self._loop.call_later(ACK_SECONDS, self._acks_due)

    def forget_ack(self, session_id: str) -> Carried | None:
        """The session whose Ack was due, sooner or later."""
        due, later = self._acks.pop(session_id, None), self._acks_later.pop(session_id, None)
        return due or later

    def ack_packet(self, carried: Carried) -> Downstream:
        return Downstream(carried.session_id if self.batches else "", Ack(carried.take_ack()))

    def close(self) -> None:
        """No Ack is timed any more."""
        if self._ack_timer:
            self._ack_timer.cancel()

    def _acks_due(self) -> None:
        self._ack_timer = None
        self._acks.update(self._acks_later)
        self._acks_later.clear()
        self._work.set()

    async def run(self) -> None:
        """Write until cancelled. Raises PeerDoesNotRead, and what `write` raises."""
        while True:
            await self._work.wait()
            self._work.clear()
            self._writing = True
            while packets := self._next():
                await self._put(packets)
            self._writing = False
            self._idle()

    async def _put(self, packets: list[Downstream]) -> None:
        """Write these. What has to go ahead of all else goes ahead of each message that is not written yet."""
        for message in self._messages(packets):
            if self._first:
                await self._put(self._urgent())
            try:
                async with asyncio.timeout(self._seconds):
                    await self._write(message)
            except TimeoutError:
                raise PeerDoesNotRead from None
        self._written(packets)

    def _messages(self, packets: list[Downstream]) -> list[DownstreamMessage]:
        if self.batches:
            return list(downstream_messages(packets))
        return [encode_downstream([packet]) for packet in packets]

    def _urgent(self) -> list[Downstream]:
        packets = list(self._first)
        self._first.clear()
        return packets

    def _next(self) -> list[Downstream]:
        """What goes out next: stops first."""
        packets = self._urgent()
        for carried in self._acks.values():
            packets.append(self.ack_packet(carried))
            if carried.over:
                self._loop.call_soon(self._acked, carried)
        self._acks.clear()
        while self._rest and len(packets) < PACKETS_A_TURN:
            packets.append(self._rest.popleft())
        return packets

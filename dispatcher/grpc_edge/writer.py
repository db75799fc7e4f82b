"""The one writer of a ChatStream: stops first (rule 19), acks together, no message larger than a batch may be."""

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from time import perf_counter
from typing import Any

from dispatcher.grpc_edge.limits import FULL_BYTES
from dispatcher.grpc_edge.patience import Patience
from dispatcher.live.ports import Carried
from shared.records import MAX_BATCH_BYTES, Ack, Assignment, Downstream, Said, Stop, ToolCall, ToolResult, Welcome
from shared.turns import Begun
from shared.wire import DownstreamMessage, downstream_messages, encode_downstream

ACK_SECONDS = 0.05  # an Ack that is not due at once waits this long for others (rule 5)
PACKETS_A_TURN = 256  # that are taken from the queue before stops are looked for again
PACKET_BYTES = 512  # of memory that a small packet takes while it waits


class StreamWriter:
    """Queues packets, and writes them as long as `run` does. Concurrent writes to a stream fail now and then.

    write     of the RPC
    seconds   the longest that one write may take; stuck: called where one takes longer
    written   called with what has just been handed to gRPC, and when that began (`perf_counter`)
    roomy     called when it is no longer full
    acked     called with a session whose end's Ack goes out now
    idle      called whenever all is written
    batches   False: an older peer, whose packets go one by one and name no session
    """

    def __init__(
        self,
        write: Callable[[Any], Coroutine[Any, Any, None]],
        seconds: float,
        stuck: Callable[[], None],
        written: Callable[[list[Downstream], float], None],
        acked: Callable[[Carried], None],
        idle: Callable[[], None],
        roomy: Callable[[], None],
    ) -> None:
        self.batches = True
        self.unread = 0  # bytes that wait, about
        self._write, self._patience = write, Patience(seconds, stuck)
        self._written, self._acked, self._idle, self._roomy = written, acked, idle, roomy
        self._loop = asyncio.get_running_loop()
        self._first: deque[Downstream] = deque()  # Welcomes and Stops
        self._rest: deque[Downstream] = deque()
        self._acks: dict[str, Carried] = {}  # due
        self._acks_later: dict[str, Carried] = {}
        self._ack_timer: asyncio.TimerHandle | None = None
        self._work = asyncio.Event()
        self._writing = False
        self._rests = False  # `run` waits for work
        self._begun: Begun[None] | None = None  # a write of stops, for `run` to go on with
        self._room = asyncio.Event()  # it is not full
        self._room.set()

    def queue(self, packet: Downstream) -> None:
        """Welcome and Stop go ahead of all else; so a Stop never comes before its Welcome. Where nothing is being
        written, a Stop's write begins in this turn of the loop: what else follows from it comes after that.
        """
        (self._first if isinstance(packet.signal, Welcome | Stop) else self._rest).append(packet)
        self._work.set()
        self.unread += _bytes(packet)
        if self.full:
            self._room.clear()
        if self._rests and isinstance(packet.signal, Stop):
            self._rests, self._writing = False, True
            self._begun = Begun(self._put(self._urgent()))

    @property
    def full(self) -> bool:
        """Nothing large is to be added."""
        return self.unread >= FULL_BYTES

    async def room(self) -> None:
        """Return when it is not full."""
        await self._room.wait()

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
        """Nothing is timed any more."""
        self._patience.close()
        if self._ack_timer:
            self._ack_timer.cancel()

    def _acks_due(self) -> None:
        self._ack_timer = None
        self._acks.update(self._acks_later)
        self._acks_later.clear()
        self._work.set()

    async def run(self) -> None:
        """Write until cancelled. Raises what `write` raises."""
        while True:
            await self._some_work()
            self._writing = True
            if self._begun:
                begun, self._begun = self._begun, None
                await begun
            while packets := self._next():
                await self._put(packets)
            self._writing = False
            self._idle()

    async def _some_work(self) -> None:
        """Return when there is work."""
        self._rests = True
        try:
            await self._work.wait()
        finally:
            self._rests = False
        self._work.clear()

    async def _put(self, packets: list[Downstream]) -> None:
        """Write these. What has to go ahead of all else goes ahead of each message that is not written yet."""
        for message in self._messages(packets):
            if self._first:
                await self._put(self._urgent())
            self._patience.begin()
            began = perf_counter()
            writing = Begun(self._write(message))
            if packets and not writing.failed:
                self._written(packets, began)  # not once it is over: a stop's answer may be there before that
                packets = []
            await writing
            self._patience.rest()

    def _messages(self, packets: list[Downstream]) -> list[DownstreamMessage]:
        if self.batches:
            return list(downstream_messages(packets))
        return [encode_downstream([packet]) for packet in packets]

    def _urgent(self) -> list[Downstream]:
        packets = list(self._first)
        self._first.clear()
        self._taken(sum(map(_bytes, packets)))
        return packets

    def _taken(self, size: int) -> None:
        self.unread -= size
        if not self.full and not self._room.is_set():
            self._room.set()
            self._roomy()

    def _next(self) -> list[Downstream]:
        """What goes out next: stops first."""
        packets = self._urgent()
        for carried in self._acks.values():
            packets.append(self.ack_packet(carried))
            if carried.over:
                self._loop.call_soon(self._acked, carried)
        self._acks.clear()
        size = 0
        while self._rest and len(packets) < PACKETS_A_TURN and size < MAX_BATCH_BYTES:
            packets.append(self._rest.popleft())
            size += _bytes(packets[-1])
        self._taken(size)
        return packets


def _bytes(packet: Downstream) -> int:
    """About what it takes while it waits."""
    match packet.signal:
        case ToolResult() as result:
            return PACKET_BYTES + _text_bytes(result)
        case Assignment(messages=messages, parameters_json=parameters, history=history):
            said = sum([_text_bytes(entry) for entry in history.entries]) if history else 0
            return PACKET_BYTES + sys.getsizeof(parameters) + said + sum([sys.getsizeof(m.content) for m in messages])
    return PACKET_BYTES


def _text_bytes(entry: Said | ToolCall | ToolResult) -> int:
    match entry:
        case Said(text):
            return sys.getsizeof(text)
        case ToolCall(tool_name, arguments_json):
            return sys.getsizeof(tool_name) + sys.getsizeof(arguments_json)
        case ToolResult(tool_name, result_json):
            return sys.getsizeof(tool_name) + sys.getsizeof(result_json)

"""What one session has to send, and what it keeps until the log has it. Pure: no asyncio, no clock, no gRPC.

    say, think, call, end   the agent's side: waits un-numbered; deltas of a kind (thoughts: of one step) join
    take                    the writer's side: numbers what waits and hands it out, within the credit
    ack, welcome            the Dispatcher's side: what the log has is dropped; after Welcome the rest is sent again

Rules 3, 5 and 6 of the session rules. Sequences are 1, 2, 3 …; sizes are bytes of a packet as serialised in a batch.
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TypeAlias

from shared.records import MAX_TEXT_BYTES, Content, Error, Stopped, Thought, ToolCall, Upstream
from shared.wire import packed, split_text, well_formed

FinalPayload: TypeAlias = Content | Error | Stopped

# What may wait un-numbered before the agent has to: one session's share of a batch.
MAX_WAITING_BYTES = MAX_TEXT_BYTES
# No text is cut into less: a packet costs what some hundred deltas do.
LEAST_PIECE_BYTES = 4 * 1024
# Counted for each waiting packet besides its text, so that many small ones are bounded too.
PACKET_BYTES = 64


@dataclass(slots=True)
class _Run:
    """Deltas that will be one packet. `step`: of a thought; None: content. `size`: bytes of UTF-8."""

    step: str | None
    parts: list[str] = field(default_factory=list)
    size: int = 0


class Outbox:
    """The packets of one session, in order.

    history   the sequence that its agent's history ends with: what is said here follows it. None: it has no history
    last      the highest sequence that was numbered here, or that the log had at the first Welcome
    acked     the highest sequence that the log is known to hold
    """

    def __init__(self, session_id: str, history: int | None = None, *, retain: bool = True) -> None:
        self.session_id = session_id
        self.last = self.acked = history or 0
        self._begins_anywhere = history is None
        self.retain = retain  # False: an older Dispatcher, which never acks
        # Lists, for an idle session has nothing in them and a deque's first block takes 0.6 KiB. They are short.
        self._waiting: list[_Run | ToolCall | FinalPayload] = []
        self._waiting_bytes = 0
        self._again: list[Upstream] = []  # numbered; to be sent again on this stream
        self._sent: list[Upstream] = []  # on this stream, not acked
        self._sent_bytes = 0
        self._max_packets = 0
        self._max_bytes = 0
        self._starved = False  # the credit is used up, or what stands first does not fit
        self._welcomed = False
        self._end_waits = False
        self._end_sequence = 0

    @property
    def full(self) -> bool:
        """The agent has to wait: enough waits already, or the Dispatcher has to ack first."""
        return self._waiting_bytes >= MAX_WAITING_BYTES or (self._starved and self._waiting_bytes > 0)

    @property
    def waiting(self) -> bool:
        """There is something to send, if the credit allows it."""
        return bool(self._waiting or self._again)

    @property
    def unacked(self) -> int:
        """Packets that were numbered and that the log is not known to hold."""
        return len(self._sent) + len(self._again)

    @property
    def ending(self) -> bool:
        """An end waits or was numbered: nothing may follow."""
        return self._end_waits or self._end_sequence > 0

    @property
    def ended(self) -> bool:
        """An end was numbered: it can no longer be replaced by another."""
        return self._end_sequence > 0

    @property
    def settled(self) -> bool:
        """The log holds the end: the session may be let go."""
        return 0 < self._end_sequence <= self.acked

    # ---- the agent's side

    def say(self, text: str) -> None:
        """Content. Lone surrogates become U+FFFD."""
        self._delta(None, text)

    def think(self, step_name: str, delta: str) -> None:
        """A thought. A step's name may be as long as a text."""
        self._delta(next(iter(split_text(well_formed(step_name))), ""), delta)

    def call(self, call: ToolCall) -> None:
        self._add(call)

    def end(self, end: FinalPayload) -> None:
        """The last packet, outside the credit."""
        self._end_waits = True
        self._add(end)

    def discard_waiting(self) -> None:
        """Forget what was not numbered: after a stop nobody may see it, and a successor says it itself."""
        self._waiting.clear()
        self._waiting_bytes = 0
        self._end_waits = False

    def _delta(self, step: str | None, text: str) -> None:
        if text.isascii():
            size = len(text)
        else:
            text = well_formed(text)
            size = len(text.encode())
        if size > MAX_TEXT_BYTES:
            for piece in split_text(text):
                self._delta(step, piece)
            return
        if not size:
            return
        run = self._waiting[-1] if self._waiting else None
        if not isinstance(run, _Run) or run.step != step or run.size + size > MAX_TEXT_BYTES:
            run = _Run(step)
            self._add(run)
        run.parts.append(text)
        run.size += size
        self._waiting_bytes += size

    def _add(self, item: _Run | ToolCall | FinalPayload) -> None:
        self._waiting.append(item)
        self._waiting_bytes += _text_bytes(item) + PACKET_BYTES

    # ---- the writer's side

    def take(self, budget: int, now_ms: int, *, hold_calls: bool = False) -> list[Upstream]:
        """What may be sent now: in order, about `budget` bytes (one packet at least), within the credit. A text that
        is larger is cut, so that the others on the stream have their turns.

        hold_calls   stop before a tool call that is not numbered yet: the session is being opened on another stream,
                     and that `open` does not name this call
        """
        taken: list[Upstream] = []
        fits = True
        while budget > 0 and self._welcomed and self.waiting:
            packet = self._again[0] if self._again else self._next(budget, now_ms, hold_calls)
            if packet is None:
                break
            fits = self._fits(packet)
            if not fits:
                break
            self._number(packet)
            taken.append(packet)
            budget -= packet.size
        if not self.retain and taken:
            self.ack(self.last)
        self._starved = not fits or self._used_up
        return taken

    def _next(self, budget: int, now_ms: int, hold_calls: bool) -> Upstream | None:
        """The packet that the first of what waits would become. None: it is held."""
        item = self._waiting[0]
        if isinstance(item, _Run):
            text = "".join(item.parts)
            item.parts = [text]
            if item.size > max(budget, LEAST_PIECE_BYTES):
                text = self._cut(item, max(budget, LEAST_PIECE_BYTES))
            payload = Content(text) if item.step is None else Thought(item.step, text)
            return self._packet(payload, now_ms)
        if isinstance(item, ToolCall) and hold_calls:
            return None
        return self._packet(item, now_ms)

    def _cut(self, run: _Run, size: int) -> str:
        """The first of a joined run, about so many bytes, as a run of its own."""
        data = run.parts[0].encode()
        while data[size] & 0xC0 == 0x80:  # within a code point
            size -= 1
        first = _Run(run.step, [data[:size].decode()], size)
        run.parts, run.size = [data[size:].decode()], run.size - size
        self._waiting.insert(0, first)
        self._waiting_bytes += PACKET_BYTES
        return first.parts[0]

    def _packet(self, payload: Content | Thought | ToolCall | Error | Stopped, now_ms: int) -> Upstream:
        return packed(self.session_id, payload, self.last + 1, now_ms)

    def _fits(self, packet: Upstream) -> bool:
        if len(self._sent) < self._max_packets and self._sent_bytes + packet.size <= self._max_bytes:
            return True
        return not self._sent or is_end(packet)  # one packet may always be under way; ends are outside the credit

    @property
    def _used_up(self) -> bool:
        return len(self._sent) >= self._max_packets or self._sent_bytes >= self._max_bytes

    def _number(self, packet: Upstream) -> None:
        if self._again:
            del self._again[0]
        else:
            item = self._waiting.pop(0)
            self._waiting_bytes -= _text_bytes(item) + PACKET_BYTES
            self.last = packet.sequence
            if is_end(packet):
                self._end_waits = False
                self._end_sequence = packet.sequence
        self._sent.append(packet)
        self._sent_bytes += packet.size

    # ---- the Dispatcher's side

    def ack(self, sequence: int) -> None:
        """The log holds everything up to `sequence`."""
        self._sent_bytes -= sum([packet.size for packet in _acked(self._sent, sequence)])
        _acked(self._again, sequence)
        self.acked = max(self.acked, min(sequence, self.last))
        self._starved = self._used_up

    def welcome(self, sequence: int, max_packets: int, max_bytes: int) -> bool:
        """The session is open (again): send what the log does not hold. False: the log lost what it had acked, or part
        of the history, or holds what was never sent from here; then the session cannot go on (see `fail`).
        """
        self._max_packets, self._max_bytes = max_packets, max_bytes
        self._starved = False
        self._welcomed = True
        if self._begins_anywhere:
            self._begins_anywhere = False
            self.last = self.acked = sequence
            return True
        if not self.acked <= sequence <= self.last:
            return False
        self._again = self._sent + self._again
        self._sent = []
        self._sent_bytes = 0
        self.ack(sequence)
        return True

    def fail(self, sequence: int, error: Error) -> None:
        """Drop everything: the session ends with this error, numbered after `sequence`, what the log holds."""
        self.discard_waiting()
        self._again.clear()
        self._sent.clear()
        self._sent_bytes = 0
        self.last = self.acked = sequence
        self._end_sequence = 0
        self.end(error)


def is_end(packet: Upstream) -> bool:
    """Whether it ends the session here: `is_finish`, any error (a hand-over too), `stopped`."""
    match packet.payload:
        case Content(is_finish=finish):
            return finish
        case Error() | Stopped():
            return True
        case _:
            return False


def _acked(packets: list[Upstream], sequence: int) -> list[Upstream]:
    """Take those up to that sequence out."""
    count = bisect_right(packets, sequence, key=lambda packet: packet.sequence)
    acked = packets[:count]
    del packets[:count]
    return acked


def _text_bytes(item: _Run | ToolCall | FinalPayload) -> int:
    if isinstance(item, _Run):
        return item.size
    return len(item.arguments_json) if isinstance(item, ToolCall) else 0

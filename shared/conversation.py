"""One session on one stream, as both ends see it: a table (phase, what happens) → phase.

Role-blind: each end asks it of what it sends and of what it receives, with the same table. Only what leaves a phase as
it is need not be asked for: an end that sends `ack` and `tool_result` counts them in its own books.

    IDLE       nothing opened yet, or closed and not opened again: packets are dropped
    OPENING    `open` sent, `welcome` not yet
    OPEN       the Commander talks
    STOPPING   `stop` sent, not yet answered
    ENDED      an end was sent (`is_finish`, an error that is none to retry, `stopped`), its ack may be outstanding
    GIVEN      handed over by a retryable error: an end on this stream only

What is not in the table is a fault of the peer (`next_phase` raises ProtocolError), never of the program that reads it.
"""

from enum import Enum, auto
from typing import Literal, TypeAlias

from shared.records import (
    Ack,
    Closed,
    Content,
    DownstreamSignal,
    Error,
    Open,
    Stop,
    Stopped,
    ToolResult,
    UpstreamPayload,
    Welcome,
)


class Phase(Enum):
    __hash__ = object.__hash__  # Enum's own is a call of Python's, and the table is asked for each packet
    IDLE = auto()
    OPENING = auto()
    OPEN = auto()
    STOPPING = auto()
    ENDED = auto()
    GIVEN = auto()


Kind: TypeAlias = Literal[
    "open", "say", "end", "give", "stopped", "welcome", "ack", "tool_result", "stop", "closed", "lost"
]
# say: thought, content, tool_call, unknown; end: is_finish, error; give: retryable error; lost: no packet, but silence
UPSTREAM: tuple[Kind, ...] = ("open", "say", "end", "give", "stopped")
DOWNSTREAM: tuple[Kind, ...] = ("welcome", "ack", "tool_result", "stop", "closed")

_IDLE, _OPENING, _OPEN, _STOPPING, _ENDED, _GIVEN = Phase

TABLE: dict[tuple[Phase, Kind], Phase] = {
    # `open` begins a session, or begins it again, from wherever it is (rule 2 of the session rules).
    **{(phase, "open"): _OPENING for phase in Phase},
    # `closed` ends it on this stream, from wherever it is, and so does the stream's loss, or its Commander's.
    **{(phase, "closed"): _IDLE for phase in Phase},
    **{(phase, "lost"): _IDLE for phase in Phase},
    (_OPENING, "welcome"): _OPEN,
    (_OPEN, "say"): _OPEN,
    (_OPEN, "end"): _ENDED,
    (_OPEN, "give"): _GIVEN,
    (_OPEN, "stopped"): _ENDED,
    (_OPEN, "ack"): _OPEN,
    (_OPEN, "tool_result"): _OPEN,
    (_OPEN, "stop"): _STOPPING,
    # A stop is on its way: what was said before it was read still arrives.
    (_STOPPING, "say"): _STOPPING,
    (_STOPPING, "end"): _ENDED,
    (_STOPPING, "give"): _GIVEN,
    (_STOPPING, "stopped"): _ENDED,
    (_STOPPING, "ack"): _STOPPING,
    (_STOPPING, "tool_result"): _STOPPING,
    (_STOPPING, "stop"): _STOPPING,
    # What was queued before the end arrived may cross it.
    (_ENDED, "ack"): _ENDED,
    (_ENDED, "tool_result"): _ENDED,
    (_ENDED, "stop"): _ENDED,
    (_GIVEN, "ack"): _GIVEN,
    (_GIVEN, "tool_result"): _GIVEN,
    (_GIVEN, "stop"): _GIVEN,
}


class ProtocolError(Exception):
    """The peer sent what this phase has no place for. `code`: the `closed` code of the contract."""

    def __init__(self, phase: Phase, kind: Kind) -> None:
        super().__init__(f"{kind} while {phase.name.lower()}")
        self.code = "ended" if phase in (Phase.ENDED, Phase.GIVEN) else "unknown_session"


def next_phase(phase: Phase, kind: Kind) -> Phase:
    """The phase after that packet. Raises ProtocolError."""
    try:
        return TABLE[phase, kind]
    except KeyError:
        raise ProtocolError(phase, kind) from None


_SIGNALS: dict[type, Kind] = {
    Welcome: "welcome",
    Ack: "ack",
    ToolResult: "tool_result",
    Stop: "stop",
    Closed: "closed",
}


def kind_of_signal(signal: DownstreamSignal) -> Kind | None:
    """Which kind of packet a signal makes. None: of no session's conversation."""
    return _SIGNALS.get(type(signal))


def kind_of(payload: UpstreamPayload) -> Kind:
    """Which kind of packet a session's payload makes."""
    match payload:
        case Content():  # nearly every packet
            return "end" if payload.is_finish else "say"
        case Error():
            return "give" if payload.retryable else "end"
        case Stopped():
            return "stopped"
        case Open():
            return "open"
        case _:
            return "say"

"""What stands in a session's log, and what the pure core asks the runner to do. No asyncio, no clock, no gRPC."""

from typing import Literal, TypeAlias

import msgspec

from dispatcher.policies.questions import Question
from shared.records import Content, Error, Record, Stopped, Thought, ToolResult, Unknown, Usage

# ---- entries of the log: packets as they came (Thought, Content, ToolCall, Error, Stopped, Unknown), and these


class Text(Record, tag="text", frozen=True):
    """Held text that something other than a content packet let out: the entry's `released`, no raw text of its own."""


class Finished(Record, tag="finished", frozen=True):
    """The `is_finish` of a content packet; its text, if any, is the entry before."""

    finish_reason: str = "stop"
    usage: Usage | None = None


class StopEntry(Record, tag="stop", frozen=True):
    """The decision to stop. author: `user`, `operator`, `policy` or `dispatcher`. policy, detail: for operators."""

    stop_id: str
    reason: str
    author: str
    policy: str = ""
    detail: str = ""


class Failed(Record, tag="failed", frozen=True):
    """The Dispatcher ended the session: `commander_lost`, `no_commander`, `protocol_error`, `history_too_large`."""

    code: str
    detail: str = ""


class Assigned(Record, tag="assigned", frozen=True):
    generation: int
    commander_id: str


class Call(Record, tag="call", frozen=True):
    """A logged tool call, and the one instance that may run it. `refused`: its call_id was used before, so it is
    answered INVALID_ARGUMENTS and not run. `denied`: a policy denies it, and its result is the entry after it.
    """

    tool_name: str
    arguments_json: str
    call_id: str
    instance: str
    refused: bool = False
    denied: bool = False


Body: TypeAlias = (
    Thought | Content | Call | ToolResult | Error | Stopped | Unknown | Text | Finished | StopEntry | Failed | Assigned
)


class Entry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One entry of a session's log.

    offset      1, 2, 3 ... within the session; set by the store
    at          Unix seconds at the Dispatcher
    generation  under which it came; 0 for a session without Assignment
    sequence    the Commander's number; 0 where the Dispatcher made the entry. The entries of one packet share it
    released    the content that this entry lets out to users
    decided     raw content characters of the session let out, redacted or dropped so far, this entry included
    timestamp   the Commander's clock, Unix milliseconds; 0: not given
    """

    body: Body
    at: float
    generation: int = 0
    sequence: int = 0
    released: str = ""
    decided: int = 0
    timestamp: int = 0
    offset: int = 0


# ---- effects: what the core asks the runner to carry out, in order


class Store(msgspec.Struct, frozen=True):
    """Append these under the epoch that the session's `open` got."""

    entries: tuple[Entry, ...]


class Settle(msgspec.Struct, frozen=True):
    """Append this without an epoch: a stop, of which the first counts."""

    entry: Entry


class Ack(msgspec.Struct, frozen=True):
    """What is logged may be acked: at once, or within 50 ms together with others (rule 5)."""

    at_once: bool


class SendStop(msgspec.Struct, frozen=True):
    """Ahead of all else that is queued for this session's Commander."""

    stop: StopEntry


class SendResult(msgspec.Struct, frozen=True):
    result: ToolResult


class SendClosed(msgspec.Struct, frozen=True):
    """The session is over on its stream."""

    code: str


class RunTool(msgspec.Struct, frozen=True):
    """Run it, unless this instance has begun it already."""

    call: Call


class CancelTools(msgspec.Struct, frozen=True):
    """The session was stopped: cancel what runs, and settle every call without a result as CANCELLED."""


class Wake(msgspec.Struct, frozen=True):
    """Call `Session.deadline(name)` at that time (Unix seconds); replaces an earlier one of that name. None: never."""

    name: Literal["grace", "stop", "policy"]
    at: float | None


class GiveBack(msgspec.Struct, frozen=True):
    """Put the session back among the waiting (rules 1 and 8)."""

    handed_over: bool


class GiveUp(msgspec.Struct, frozen=True):
    """The Commander did not answer a stop: fence it off."""


class Ask(msgspec.Struct, frozen=True):
    """Get a verdict, within the policy's time, and bring it to `Session.answered`."""

    question: Question


class PolicyHit(msgspec.Struct, frozen=True):
    """A fact for metrics and logs: a policy has acted, once for each match. action: stop, redact or observe."""

    policy: str
    action: str


Effect: TypeAlias = (
    Store
    | Settle
    | Ack
    | SendStop
    | SendResult
    | SendClosed
    | RunTool
    | CancelTools
    | Wake
    | GiveBack
    | GiveUp
    | Ask
    | PolicyHit
)

"""What the pure core asks the runner to carry out, in order. No asyncio, no clock, no gRPC."""

from typing import Literal, TypeAlias

import msgspec

from dispatcher.core.entries import Call, Entry, StopEntry
from dispatcher.policies.questions import Question
from shared.records import ClientCall, ToolResult


class AppendEntries(msgspec.Struct, frozen=True):
    """Append these under the epoch that the session's `open` got."""

    entries: tuple[Entry, ...]


class AppendWithoutEpoch(msgspec.Struct, frozen=True):
    """A stop, a result, or what becomes of a call that has to be approved; of each the first counts."""

    entry: Entry


class SendAck(msgspec.Struct, frozen=True):
    """What is logged may be acked: at once, or within 50 ms together with others (rule 5)."""

    at_once: bool


class SendStop(msgspec.Struct, frozen=True):
    """Ahead of all else that is queued for this session's Commander."""

    stop: StopEntry


class SendResult(msgspec.Struct, frozen=True):
    """offset: of its entry, from which it can be read again; 0: it has none. result: None: only there."""

    result: ToolResult | None
    offset: int = 0


class SendClosed(msgspec.Struct, frozen=True):
    """The session is over on its stream."""

    code: str


class RunTool(msgspec.Struct, frozen=True):
    """Run it, unless this instance has begun it already."""

    call: Call


class AskApproval(msgspec.Struct, frozen=True):
    """Read and check the call, and log that it waits for a decision, or its answer. Repetitions are harmless."""

    call: Call


class CancelTools(msgspec.Struct, frozen=True):
    """The session was stopped: cancel what runs, and settle this instance's calls without a result as CANCELLED."""


class Wake(msgspec.Struct, frozen=True):
    """Call `Session.deadline(name)` at that time (Unix seconds); replaces an earlier one of that name. None: never."""

    name: Literal["grace", "stop", "policy", "approval"]
    at: float | None


class GiveBack(msgspec.Struct, frozen=True):
    """Put the session back among the waiting (rules 1 and 8)."""

    handed_over: bool


class GiveUp(msgspec.Struct, frozen=True):
    """The Commander did not answer a stop: fence it off."""


class Ask(msgspec.Struct, frozen=True):
    """Get a verdict, within the policy's time, and bring it to `Session.answered`."""

    question: Question


class AskCalls(msgspec.Struct, frozen=True):
    """Ask the policies that are asked about arguments about these calls of the client's tools, before anything of them
    gets out, and bring what they deny to `Session.calls_read`.
    """

    calls: tuple[ClientCall, ...]


class PolicyHit(msgspec.Struct, frozen=True):
    """A fact for metrics and logs: a policy has acted, so many times. action: stop, redact or observe."""

    policy: str
    action: str
    times: int = 1


Effect: TypeAlias = (
    AppendEntries
    | AppendWithoutEpoch
    | SendAck
    | SendStop
    | SendResult
    | SendClosed
    | RunTool
    | AskApproval
    | CancelTools
    | Wake
    | GiveBack
    | GiveUp
    | Ask
    | AskCalls
    | PolicyHit
)

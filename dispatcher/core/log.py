"""The session log's head, and the atomic steps by which a log changes (rules 1, 2, 4, 8, 12 to 14, 35, 36
and 40).

Pure: `apply(record, change)` answers with what a store has to write, or with a refusal. Every store runs this same
function inside its atomic step, so that there is one set of rules (`README.md`) whatever keeps the log.
"""

from typing import Literal, NamedTuple, TypeAlias, get_args

import msgspec
from msgspec.structs import replace

from dispatcher.core import tokens
from dispatcher.core.entries import (
    Approval,
    Assigned,
    Call,
    Decision,
    Entry,
    Failed,
    Finished,
    Started,
    StopEntry,
    StopSent,
    Text,
)
from dispatcher.core.packets import disapproval
from shared.records import MAX_NAME, Error, Message, Stopped, Tool, ToolResult

State: TypeAlias = Literal["waiting", "running", "finished", "stopped", "failed"]
STATES: tuple[State, ...] = get_args(State)
LIVE: frozenset[State] = frozenset({"waiting", "running"})
FINAL: tuple[State, ...] = tuple(state for state in STATES if state not in LIVE)
OF_CALLS = (Call, Approval, Decision, Started, ToolResult)  # entries by which the open calls change
MAX_GENERATION = 2**63 - 1  # that a Commander may bring: uint64 on the wire, and it must still be raised


class Request(msgspec.Struct, frozen=True, array_like=True):
    """What a session was created with; never changes.

    origin: `user` (over HTTP; assigned to the pool), `commander` (brought by `open` with generation 0) or `older` (a
    peer of the published contract). created_at: Unix seconds. background: of OpenAI's Responses; the client may leave.
    prompt_bytes: of `messages`, `parameters_json` and `tools`, known also where these are left out. assignment_key:
    that the tokens of a user's session are made of. owner_sha256: of the token under which a Commander brought its own;
    empty: it brought none (rule 2). Neither is ever shown. tools: the client's own. needs: what the agent has to honour
    for it, as in `shared.records.FEATURES`, sorted. shown_json: what the gateway shows again of how it was asked.
    tenant, subject: whose it is, and who of them made it; empty where access is open, and where a Commander brought it.
    claims: of the maker's token, by name, those that agents and tools are told.
    """

    agent: str
    messages: tuple[Message, ...]
    created_at: float
    origin: Literal["user", "commander", "older"] = "user"
    parameters_json: str = ""
    conversation_id: str = ""
    traceparent: str = ""
    background: bool = False
    prompt_bytes: int = 0
    assignment_key: bytes = b""
    owner_sha256: bytes = b""
    tools: tuple[Tool, ...] = ()
    tenant: str = ""
    subject: str = ""
    needs: tuple[str, ...] = ()
    shown_json: str = ""
    claims: tuple[tuple[str, str], ...] = ()
    tracestate: str = ""

    @property
    def wanted(self) -> str:
        """Under what it waits: the agent, and what that has to honour."""
        return "\0".join((self.agent, *self.needs))


class OpenCall(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A logged call without a result. tool_name: its beginning, for the head is written with each step.

    instance  that runs it; empty: it has to be approved and started first
    at        when it was logged, or started; Unix seconds
    approval  who has to approve it, `operator` or `user`; empty: nobody
    asked     the offset of its Approval; 0: it is not there yet. arguments_sha256, expires_at: what stands there
    approved  by whoever had to
    """

    tool_name: str
    sequence: int
    instance: str
    at: float
    approval: str = ""
    asked: int = 0
    arguments_sha256: str = ""
    expires_at: float = 0.0
    approved: bool = False

    @property
    def waits(self) -> bool:
        """For a decision."""
        return self.asked > 0 and not (self.approved or self.instance)


class CommanderName(NamedTuple):
    """An id is what a Commander calls itself, and so can another: only both together name one. credential: what the key
    or certificate that it showed is called; empty: it showed none.
    """

    commander_id: str
    credential: str = ""


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What the atomic steps read and write.

    state         the user's view; the first stop or end in the log decides it for good
    over          the Commander's part is done too: an end was logged, or nobody is left to send one
    reason        of a stop; code: of a failure; both empty otherwise
    opened        the current generation has been opened on some stream
    continues     the Commander of the current generation said that its agent can be taken over
    takeovers     requeued after a Commander was lost; a hand-over does not count (rule 8)
    since         waiting or running since, Unix seconds; ended_at: 0 while live
    calls         logged calls without a result, by call_id
    credential    of the Commander; no rule asks for it, for a key that is replaced ends no session
    """

    state: State = "waiting"
    over: bool = False
    generation: int = 0
    epoch: int = 0
    sequence: int = 0
    offset: int = 0
    decided: int = 0
    commander_id: str = ""
    instance: str = ""
    opened: bool = False
    continues: bool = False
    takeovers: int = 0
    since: float = 0.0
    ended_at: float = 0.0
    reason: str = ""
    code: str = ""
    calls: dict[str, OpenCall] = {}
    credential: str = ""

    @property
    def commander(self) -> CommanderName:
        return CommanderName(self.commander_id, self.credential)

    @property
    def final(self) -> bool:
        return self.state not in LIVE

    @property
    def complete(self) -> bool:
        """Nothing more can be logged: nobody is left to send a packet, and every call has its result."""
        return self.over and not self.calls


class Record(msgspec.Struct, frozen=True):
    """A session as a store keeps it, without its entries."""

    session_id: str
    request: Request
    head: Head


class Offsets:
    """Which entries have been taken in. The outcomes of two steps may be heard of in another order than they stand."""

    def __init__(self, highest: int = 0) -> None:
        self.highest = highest  # all up to this one
        self._beyond: set[int] = set()

    def add(self, offset: int) -> bool:
        """Whether it is taken in now for the first time."""
        if offset == self.highest + 1 and not self._beyond:  # as nearly always
            self.highest = offset
            return True
        if offset <= self.highest or offset in self._beyond:
            return False
        self._beyond.add(offset)
        while self.highest + 1 in self._beyond:
            self.highest += 1
            self._beyond.remove(self.highest)
        return True


# ---- changes: the atomic steps


class Assign(msgspec.Struct, frozen=True):
    """Give a waiting session to a Commander: an acquire of its own (rule 1). Refused: `not_waiting`."""

    commander_id: str
    instance: str
    continues: bool
    now: float
    credential: str = ""


class Acquire(msgspec.Struct, frozen=True):
    """A Commander opens the session on a stream (rule 2). Refused: `fenced`, `exists`, `unknown_session`.

    token: that it showed. excused: it may come without one.
    """

    commander_id: str
    generation: int
    instance: str
    now: float
    token: bytes = b""
    excused: bool = False
    credential: str = ""


class Append(msgspec.Struct, frozen=True):
    """Packets that came under `epoch`, or what was concluded from silence under it (rule 4).

    Refused: `superseded`, `gap`, `ended`. Entries with a sequence that is stored already are skipped, and texts that
    are let out already. Conclusions (sequence 0) are dropped as `ended` once the session is over. commander_id: of the
    stream; a log that was rolled back gives the same epoch out again, to another Commander. Empty: not known.
    """

    epoch: int
    entries: tuple[Entry, ...]
    commander_id: str = ""


class Settle(msgspec.Struct, frozen=True):
    """What any replica may append without an epoch: a tool's result, or what becomes of a call that has to be approved
    (rule 40), idempotent by call_id; or a stop, of which the first counts (rule 12), and that it was sent. Applied to
    nothing where it comes second, or too late.
    """

    entry: Entry


class Requeue(msgspec.Struct, frozen=True):
    """Put a session whose Commander is lost, or gave it back, among the waiting again (rules 1 and 8).

    Refused: `superseded`, `ended`; `unanswered`: a call has no result, so the next Commander's history would lack it.
    """

    epoch: int
    now: float
    handed_over: bool = False


class Fence(msgspec.Struct, frozen=True):
    """Give up a Commander that did not answer a stop: raise the generation, so that nothing of it is appended any more
    (rule 19). Refused: `superseded`, `ended`.
    """

    epoch: int


class TakeOver(msgspec.Struct, frozen=True):
    """The lease of the instance that had the session under `epoch`, `gone`, has ended: `instance` has it from now, and
    starts its grace (rule 35). The epoch stays, for the stream may live. Refused: `superseded` (another has it, or
    `gone` is back and was given it anew), `gap` (the log was rolled back), `ended`.
    """

    epoch: int
    gone: str
    instance: str


class TakeBack(msgspec.Struct, frozen=True):
    """An instance whose lease had ended still has the session's stream: nothing that another concluded from the silence
    counts any more (rule 36). Refused: `superseded`, `ended`; `gap`: it waits again, and has to be opened again.
    """

    epoch: int
    instance: str


Change: TypeAlias = Assign | Acquire | Append | Settle | Requeue | Fence | TakeOver | TakeBack

# ---- outcomes


class Applied(msgspec.Struct, frozen=True):
    """The head as it is now, and the entries that were added, with their offsets. None added: a repetition."""

    head: Head
    entries: tuple[Entry, ...] = ()


class Refused(msgspec.Struct, frozen=True):
    code: Literal["fenced", "exists", "superseded", "gap", "ended", "not_waiting", "unanswered", "unknown_session"]


Outcome: TypeAlias = Applied | Refused


def apply(record: Record, change: Change) -> Outcome:
    """Carry out one atomic step. The caller stores `head` and `entries` together or not at all."""
    head = record.head
    match change:
        case Append():
            return _append(head, change)
        case Settle(entry=entry):
            return _settle(head, entry)
        case Acquire():
            return _acquire(record, change)
        case Assign():
            return _assign(head, change)
        case Requeue():
            if refusal := _not_current(head, change.epoch):
                return refusal
            if head.state == "waiting":
                return Applied(head)  # a repetition
            if head.final:
                return Refused("ended")  # a stopped session is never assigned
            if head.calls:
                return Refused("unanswered")
            takeovers = head.takeovers + (not change.handed_over)
            return Applied(replace(head, state="waiting", opened=False, takeovers=takeovers, since=change.now))
        case Fence():
            if refusal := _not_current(head, change.epoch):
                return refusal
            return Applied(replace(head, generation=head.generation + 1, epoch=head.epoch + 1, over=True))
        case TakeOver(epoch, gone, instance):
            if refusal := _other_epoch(head, epoch):
                return refusal
            if head.instance == instance:
                return Applied(head)  # a repetition
            if head.instance != gone or head.state == "waiting":
                return Refused("superseded")
            return Refused("ended") if head.complete else Applied(replace(head, instance=instance))
        case TakeBack(epoch, instance):
            if head.instance == instance and head.epoch == epoch + 1:
                return Applied(head)  # a repetition
            if refusal := _not_current(head, epoch):
                return refusal
            if head.state == "waiting":
                return Refused("gap")
            return Applied(replace(head, instance=instance, epoch=head.epoch + 1))


def _not_current(head: Head, epoch: int) -> Refused | None:
    return _other_epoch(head, epoch) or (Refused("ended") if head.over else None)


def _other_epoch(head: Head, epoch: int) -> Refused | None:
    """A lower epoch in the log: it was rolled back, and nobody else has the session. It has to be opened again."""
    if head.epoch == epoch:
        return None
    return Refused("superseded" if head.epoch > epoch else "gap")


def _assign(head: Head, change: Assign) -> Outcome:
    if head.state != "waiting":
        return Refused("not_waiting")
    generation = head.generation + 1
    entry = Entry(Assigned(generation, change.commander_id), change.now, generation, decided=head.decided)
    head = replace(
        head,
        state="running",
        generation=generation,
        epoch=head.epoch + 1,
        commander_id=change.commander_id,
        credential=change.credential,
        instance=change.instance,
        continues=change.continues,
        opened=False,
        since=change.now,
    )
    return _added(head, [entry])


def _acquire(record: Record, change: Acquire) -> Outcome:
    head = record.head
    if (record.request.origin == "user") == (change.generation == 0) or not _may_open(record, change):
        return Refused("exists" if change.generation == 0 else "unknown_session")
    if change.generation < head.generation or change.generation > MAX_GENERATION:
        return Refused("fenced")
    if change.generation == head.generation and change.commander_id != head.commander_id:
        return Refused("exists" if change.generation == 0 else "fenced")
    # A higher generation than the stored one: the log was rolled back, and the Commander knows better.
    head = replace(
        head,
        state="running" if head.state == "waiting" else head.state,
        since=change.now if head.state == "waiting" else head.since,
        generation=change.generation,
        epoch=head.epoch + 1,
        commander_id=change.commander_id,
        credential=change.credential,
        instance=change.instance,
        opened=True,
        continues=head.continues and change.generation == head.generation,
    )
    return Applied(head)


def _may_open(record: Record, change: Acquire) -> bool:
    """It shows the token of its assignment, or under which it brought the session; or it may come without one."""
    if change.excused and not change.token:
        return True
    request = record.request
    if change.generation == 0:
        return change.token != b"" and tokens.same(tokens.digest(change.token), request.owner_sha256)
    if not request.assignment_key:
        return True  # an earlier version made it: its assignments had no tokens
    key, commander_id = request.assignment_key, change.commander_id
    wanted = tokens.assignment_token(key, record.session_id, change.generation, commander_id)
    return tokens.same(change.token, wanted)


def _append(head: Head, change: Append) -> Outcome:
    if refusal := _other_epoch(head, change.epoch):
        return refusal
    if change.commander_id and change.commander_id != head.commander_id:
        return Refused("superseded")
    stored = sequence = head.sequence
    decided = head.decided
    if head.over:
        # All that is numbered is stored already: a repetition, checked before "ended".
        highest = max((entry.sequence for entry in change.entries), default=0)
        return Applied(head) if 0 < highest <= stored else Refused("ended")
    fresh: list[Entry] = []
    for entry in change.entries:
        if entry.sequence:
            if entry.sequence <= stored:
                continue
            if not sequence <= entry.sequence <= sequence + 1:
                return Refused("gap")
            sequence = entry.sequence
        elif isinstance(entry.body, Text):
            if entry.decided <= decided:
                continue  # a repetition: what a verdict lets out was undecided before
            decided = entry.decided
        fresh.append(entry)
    if head.state == "waiting" and fresh:
        if sequence > stored:
            # It was given up while this packet was on its way. Opened again, it no longer waits; until then a history
            # that the next Commander gets must not grow.
            return Refused("gap")
        if not any(isinstance(entry.body, Failed) and entry.body.code == "no_commander" for entry in fresh):
            return Refused("superseded")  # somebody else concluded first, and found that it may be assigned again
    return _added(head, fresh) if fresh else Applied(head)


def _settle(head: Head, entry: Entry) -> Outcome:
    entry = replace(entry, generation=head.generation)
    match entry.body:
        case ToolResult(call_id=call_id):
            return _added(head, [entry]) if call_id in head.calls else Applied(head)
        case Approval() | Decision() | Started() as body:
            call = head.calls.get(body.call_id)
            if call is None or head.final or not _follows(call, entry):
                return Applied(head)
            if isinstance(body, Decision) and body.decision != "approve":
                return _added(head, [entry, replace(entry, body=disapproval(call.tool_name, body))])
            return _added(head, [entry])
        case StopSent():
            return Applied(head) if head.over or head.state != "stopped" else _added(head, [entry])
    return Applied(head) if head.final else _added(head, [entry])


def _follows(call: OpenCall, entry: Entry) -> bool:
    """A call that has to be approved takes one step after the other, and each once (rule 40)."""
    match entry.body:
        case Approval():
            return not (call.asked or call.instance)
        case Decision(decision=decision, arguments_sha256=arguments_sha256):
            in_time = entry.at < call.expires_at
            return call.waits and arguments_sha256 == call.arguments_sha256 and in_time == (decision != "expire")
        case _:
            return call.approved and not call.instance


def _added(head: Head, entries: list[Entry]) -> Applied:
    """Number the entries and take them into the head. After the first stop or end nothing is released (rule 14)."""
    state, over, ended_at, reason, code = head.state, head.over, head.ended_at, head.reason, head.code
    sequence, offset, decided, calls = head.sequence, head.offset, head.decided, head.calls
    added = []
    for entry in entries:
        body = entry.body
        live = state in LIVE
        if isinstance(body, StopEntry) and not live:
            continue  # a second stop adds no entry
        if entry.sequence > sequence:
            sequence = entry.sequence
        offset += 1
        if live:
            decided = max(decided, entry.decided)
            added.append(replace(entry, offset=offset, decided=decided))
        else:
            added.append(replace(entry, offset=offset, released="", decided=decided))
        if isinstance(body, OF_CALLS) and calls is head.calls:
            calls = dict(calls)  # once for all entries
        match body:
            case Call(refused=False):
                instance = "" if body.approval else body.instance
                calls[body.call_id] = OpenCall(
                    body.tool_name[:MAX_NAME], entry.sequence, instance, entry.at, body.approval
                )
            case Approval(call_id, arguments_sha256=sha256, expires_at=expires_at):
                calls[call_id] = replace(calls[call_id], asked=offset, arguments_sha256=sha256, expires_at=expires_at)
            case Decision(call_id, decision="approve"):
                calls[call_id] = replace(calls[call_id], approved=True)
            case Started(call_id, instance=instance):
                calls[call_id] = replace(calls[call_id], instance=instance, at=entry.at)
            case ToolResult():
                calls.pop(body.call_id, None)
            case StopEntry():
                over, reason = over or state == "waiting", body.reason
                state, ended_at = "stopped", entry.at
            case Finished() | Failed() | Stopped() | Error(retryable=False):
                over = True
                if live:
                    state = "finished" if isinstance(body, Finished) else "failed"
                    code, ended_at = getattr(body, "code", ""), entry.at
    head = replace(
        head,
        state=state,
        over=over,
        sequence=sequence,
        offset=offset,
        decided=decided,
        ended_at=ended_at,
        reason=reason,
        code=code,
        calls=calls,
    )
    return Applied(head, tuple(added))

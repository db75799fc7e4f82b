"""The rules of a log: a table of single steps, and every interleaving that Hypothesis finds."""

from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from dispatcher.core.entries import (
    Approval,
    Assigned,
    Body,
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
from dispatcher.core.log import (
    MAX_GENERATION,
    Acquire,
    Append,
    Applied,
    Assign,
    Change,
    Fence,
    Head,
    OpenCall,
    Outcome,
    Record,
    Refused,
    Request,
    Requeue,
    Settle,
    TakeBack,
    TakeOver,
    apply,
)
from dispatcher.core.tokens import digest
from shared.records import Content, Error, Message, Stopped, Thought, ToolResult, Unknown, Usage
from tests.contracts.sessions import (
    acquire,
    append,
    assign,
    brought,
    call,
    failed,
    finished,
    head_of,
    numbered,
    refusal,
    result,
    said,
    stop,
    waiting,
)

WAITING = waiting()
GIVEN = Head("running", generation=1, epoch=1, offset=1, commander_id="c1", instance="i1", since=105.0)
RUNNING = replace(GIVEN, epoch=2, sequence=3, offset=4, decided=10, opened=True)
CALLING = replace(RUNNING, calls={"call": OpenCall("search", 3, "i1", 110.0)})
STOPPED = replace(RUNNING, state="stopped", offset=5, ended_at=115.0, reason="UserCancel")
FINISHED = replace(RUNNING, state="finished", over=True, ended_at=115.0)
REQUEUED = replace(RUNNING, state="waiting", opened=False, takeovers=1, since=130.0)
OVER_STOPPED = replace(STOPPED, over=True, sequence=4, offset=6)

# A call on its way to being run: logged, asked about, approved, started.
LOGGED_CALL = OpenCall("search", 3, "", 110.0, "user")
ASKED_CALL = replace(LOGGED_CALL, asked=4, arguments_sha256="digest", expires_at=200.0)
APPROVED_CALL = replace(ASKED_CALL, approved=True)
STARTED_CALL = replace(APPROVED_CALL, instance="i2", at=120.0)
LOGGED, ASKED, APPROVED, STARTED = (
    replace(RUNNING, calls={"call": each}) for each in (LOGGED_CALL, ASKED_CALL, APPROVED_CALL, STARTED_CALL)
)
APPROVAL = Entry(Approval("call", "search", "user", "{}", "digest", 200.0), 120.0)
START = Entry(Started("call", "search", "i2"), 120.0)


def decided(decision: str, at: float = 120.0, digest: str = "digest") -> Settle:
    return Settle(Entry(Decision("call", decision, "user", digest), at))


OLD = acquire("c1", 0)
TOKENLESS = replace(brought(), request=replace(brought().request, owner_sha256=digest(b"")))
ERROR = numbered(Error("agent_error", "it raised"), 4)
GIVES_BACK = numbered(Error("", "", retryable=True), 4)
SENT = Entry(StopSent("stop-1", 120.0), 121.0)
HALTED = numbered(Stopped("stop-1", 3, 0, 900), 4)


def record(head: Head) -> Record:
    return replace(WAITING, head=head)


# before, change, what differs in the head afterwards, what the log gains
APPLIED: dict[str, tuple[Head, Change, dict[str, Any], list[tuple[int, type[Body]]]]] = {
    "a waiting session is assigned": (
        WAITING.head,
        Assign("c1", "i1", True, 105.0),
        {
            "state": "running",
            "generation": 1,
            "epoch": 1,
            "offset": 1,
            "commander_id": "c1",
            "instance": "i1",
            "continues": True,
            "since": 105.0,
        },
        [(1, Assigned)],
    ),
    "a requeued session is assigned to another": (
        REQUEUED,
        assign("c2", 140.0),
        {
            "state": "running",
            "generation": 2,
            "epoch": 3,
            "offset": 5,
            "commander_id": "c2",
            "since": 140.0,
        },
        [(5, Assigned)],
    ),
    "an assigned session is opened": (GIVEN, acquire(), {"epoch": 2, "opened": True}, []),
    "it is opened again": (RUNNING, acquire(), {"epoch": 3}, []),
    "a requeued session is opened by its Commander, who is back": (
        REQUEUED,
        acquire(now=140.0),
        {"state": "running", "epoch": 3, "opened": True, "since": 140.0},
        [],
    ),
    "the log was rolled back behind an assignment": (
        replace(REQUEUED, continues=True),
        acquire("c2", 2, 140.0),
        {
            "state": "running",
            "generation": 2,
            "epoch": 3,
            "commander_id": "c2",
            "opened": True,
            "since": 140.0,
            "continues": False,
        },
        [],
    ),
    "an ended session answers its last generation": (FINISHED, acquire(), {"epoch": 3}, []),
    "content is appended": (
        RUNNING,
        append(2, said(4, "a", 11), said(5, "b", 12)),
        {"sequence": 5, "offset": 6, "decided": 12},
        [(5, Content), (6, Content)],
    ),
    "a repetition": (RUNNING, append(2, said(2), said(3)), {}, []),
    "half a repetition": (
        RUNNING,
        append(2, said(3), said(4, decided=11)),
        {"sequence": 4, "offset": 5, "decided": 11},
        [(5, Content)],
    ),
    "a repetition after the end": (FINISHED, append(2, said(2), finished(3)), {}, []),
    "a repetition with what was concluded": (FINISHED, append(2, said(3), failed("protocol_error")), {}, []),
    "a repetition and a conclusion that is new": (
        RUNNING,
        append(2, said(3), failed()),
        {"state": "failed", "over": True, "offset": 5, "code": "commander_lost", "ended_at": 120.0},
        [(5, Failed)],
    ),
    "nothing is appended": (RUNNING, append(2), {}, []),
    "text, then the end, of one packet": (
        RUNNING,
        append(2, said(4, decided=15), finished(4)),
        {"sequence": 4, "offset": 6, "decided": 15, "state": "finished", "over": True, "ended_at": 120.0},
        [(5, Content), (6, Finished)],
    ),
    "a packet and the stop that it causes": (
        RUNNING,
        append(2, said(4, decided=12), replace(stop(reason="PolicyViolation"), sequence=4), said(5, decided=20)),
        {
            "sequence": 5,
            "offset": 7,
            "decided": 12,
            "state": "stopped",
            "reason": "PolicyViolation",
            "ended_at": 120.0,
        },
        [(5, Content), (6, StopEntry), (7, Content)],
    ),
    "an error": (
        RUNNING,
        append(2, ERROR),
        {"sequence": 4, "offset": 5, "state": "failed", "over": True, "code": "agent_error", "ended_at": 120.0},
        [(5, Error)],
    ),
    "a Commander gives it back": (RUNNING, append(2, GIVES_BACK), {"sequence": 4, "offset": 5}, [(5, Error)]),
    "the end after a stop": (
        STOPPED,
        append(2, HALTED),
        {"sequence": 4, "offset": 6, "over": True},
        [(6, Stopped)],
    ),
    "an end that crosses the stop": (
        STOPPED,
        append(2, finished(4)),
        {"sequence": 4, "offset": 6, "over": True},
        [(6, Finished)],
    ),
    "a call": (
        RUNNING,
        append(2, call(4)),
        {"sequence": 4, "offset": 5, "calls": {"call": OpenCall("search", 4, "i1", 110.0)}},
        [(5, Call)],
    ),
    "a call that is refused waits for nothing": (
        CALLING,
        append(2, numbered(Call("search", "{}", "call", "i1", refused=True), 4)),
        {"sequence": 4, "offset": 5},
        [(5, Call)],
    ),
    "a call that has to be approved is nobody's to run": (
        RUNNING,
        append(2, numbered(Call("search", "{}", "call", "i1", approval="user"), 4)),
        {"sequence": 4, "offset": 5, "calls": {"call": OpenCall("search", 4, "", 120.0, "user")}},
        [(5, Call)],
    ),
    "it waits for a decision": (
        LOGGED,
        Settle(APPROVAL),
        {"offset": 5, "calls": {"call": replace(ASKED_CALL, asked=5)}},
        [(5, Approval)],
    ),
    "it waits already": (ASKED, Settle(APPROVAL), {}, []),
    "it is approved": (ASKED, decided("approve"), {"offset": 5, "calls": {"call": APPROVED_CALL}}, [(5, Decision)]),
    "it is denied, and has its result": (
        ASKED,
        decided("deny"),
        {"offset": 6, "calls": {}},
        [(5, Decision), (6, ToolResult)],
    ),
    "nobody decided in time": (
        ASKED,
        decided("expire", at=200.0),
        {"offset": 6, "calls": {}},
        [(5, Decision), (6, ToolResult)],
    ),
    "it does not expire before its time": (ASKED, decided("expire", at=199.9), {}, []),
    "nor is it approved after it": (ASKED, decided("approve", at=200.0), {}, []),
    "nor with other arguments in mind": (ASKED, decided("approve", digest="another"), {}, []),
    "nor before it waits": (LOGGED, decided("approve", digest=""), {}, []),
    "a second decision": (APPROVED, decided("deny"), {}, []),
    "a decision on a call that needs none": (CALLING, decided("approve", digest=""), {}, []),
    "an approved call is started": (
        APPROVED,
        Settle(START),
        {"offset": 5, "calls": {"call": STARTED_CALL}},
        [(5, Started)],
    ),
    "one that is not approved is not": (ASKED, Settle(START), {}, []),
    "nor one that was started": (replace(STARTED, instance="i3"), Settle(START), {}, []),
    "nor one of a session that is over": (replace(APPROVED, state="stopped"), Settle(START), {}, []),
    "nor is it decided on": (replace(ASKED, state="finished", over=True), decided("approve"), {}, []),
    "what waits can be given its result": (ASKED, Settle(result()), {"offset": 5, "calls": {}}, [(5, ToolResult)]),
    "its result": (CALLING, Settle(result()), {"offset": 5, "calls": {}}, [(5, ToolResult)]),
    "a second result": (RUNNING, Settle(result()), {}, []),
    "a result after the end": (
        replace(CALLING, state="finished", over=True),
        Settle(result()),
        {"offset": 5, "calls": {}},
        [(5, ToolResult)],
    ),
    "a stop": (
        RUNNING,
        Settle(stop()),
        {"state": "stopped", "reason": "UserCancel", "ended_at": 120.0, "offset": 5},
        [(5, StopEntry)],
    ),
    "a stop of a waiting session ends it": (
        WAITING.head,
        Settle(stop()),
        {"state": "stopped", "reason": "UserCancel", "ended_at": 120.0, "offset": 1, "over": True},
        [(1, StopEntry)],
    ),
    "a packet whose stop comes second": (
        STOPPED,
        append(2, said(4), replace(stop(reason="PolicyViolation"), sequence=4)),
        {"sequence": 4, "offset": 6},
        [(6, Content)],
    ),
    "a second stop": (STOPPED, Settle(stop("stop-2", "Timeout")), {}, []),
    "a stop was sent": (STOPPED, Settle(SENT), {"offset": 6}, [(6, StopSent)]),
    "nothing is said of it once the session is over": (replace(STOPPED, over=True), Settle(SENT), {}, []),
    "nor where a rolled back log has no stop": (RUNNING, Settle(SENT), {}, []),
    "a stop after the end": (FINISHED, Settle(stop()), {}, []),
    "its queue time is over": (
        WAITING.head,
        append(0, failed("no_commander")),
        {"state": "failed", "code": "no_commander", "ended_at": 120.0, "offset": 1, "over": True},
        [(1, Failed)],
    ),
    "a lost Commander": (
        RUNNING,
        Requeue(2, 130.0),
        {"state": "waiting", "opened": False, "takeovers": 1, "since": 130.0},
        [],
    ),
    "a hand-over does not count": (
        RUNNING,
        Requeue(2, 130.0, handed_over=True),
        {"state": "waiting", "opened": False, "since": 130.0},
        [],
    ),
    "requeued again": (REQUEUED, Requeue(2, 150.0), {}, []),
    "its instance's lease has ended": (RUNNING, TakeOver(2, "i1", "i2"), {"instance": "i2"}, []),
    "taken over, and asked for again": (replace(RUNNING, instance="i2"), TakeOver(2, "i1", "i2"), {}, []),
    "its instance is back": (replace(RUNNING, instance="i2"), TakeBack(2, "i1"), {"instance": "i1", "epoch": 3}, []),
    "taken back, and asked for again": (replace(RUNNING, epoch=3), TakeBack(2, "i1"), {}, []),
    "its Commander's packet": (
        RUNNING,
        Append(2, (said(4),), "c1"),
        {"sequence": 4, "offset": 5},
        [(5, Content)],
    ),
    "a Commander that does not answer the stop": (
        STOPPED,
        Fence(2),
        {"generation": 2, "epoch": 3, "over": True},
        [],
    ),
}


@pytest.mark.parametrize("name", APPLIED)
def test_a_step_is_applied(name: str) -> None:
    before, change, changes, added = APPLIED[name]
    outcome = apply(record(before), change)
    assert isinstance(outcome, Applied), outcome
    assert outcome.head == replace(before, **changes)
    assert [(entry.offset, type(entry.body)) for entry in outcome.entries] == added


REFUSED: dict[str, tuple[Record, Change, str]] = {
    "assigned already": (record(RUNNING), assign(), "not_waiting"),
    "stopped before it was assigned": (record(OVER_STOPPED), assign(), "not_waiting"),
    "a lower generation": (record(replace(RUNNING, generation=2)), acquire("c1", 1), "fenced"),
    "the same generation of another Commander": (record(RUNNING), acquire("c2", 1), "fenced"),
    "a generation that cannot be raised": (record(RUNNING), acquire("c1", MAX_GENERATION + 1), "fenced"),
    "no generation for an assigned session": (record(RUNNING), OLD, "exists"),
    "a generation for a session without Assignment": (brought(), acquire("c1", 1), "unknown_session"),
    "the session of another Commander": (brought(), acquire("c2", 0), "exists"),
    "a session that was brought without a token": (TOKENLESS, acquire("c1", 0, token=b""), "exists"),
    "an older epoch": (record(RUNNING), append(1, said(4)), "superseded"),
    "an older epoch, though a repetition": (record(RUNNING), append(1, said(3)), "superseded"),
    "an epoch that the log has lost": (record(RUNNING), append(3, said(4)), "gap"),
    "a gap": (record(RUNNING), append(2, said(5)), "gap"),
    "a gap inside": (record(RUNNING), append(2, said(4), said(6)), "gap"),
    "going back inside": (record(RUNNING), append(2, said(4), said(5), said(4)), "gap"),
    "after the end": (record(FINISHED), append(2, said(4)), "ended"),
    "after the end, a repetition and more": (record(FINISHED), append(2, said(3), said(4)), "ended"),
    "a conclusion after the end": (record(FINISHED), append(2, failed()), "ended"),
    "requeued from an older epoch": (record(RUNNING), Requeue(1, 130.0), "superseded"),
    "a packet of a session that was given up": (record(REQUEUED), append(2, said(4)), "gap"),
    "lost, though somebody else has found that it may be assigned again": (
        record(REQUEUED),
        append(2, failed()),
        "superseded",
    ),
    "a fault of its old Commander, while it waits": (
        record(REQUEUED),
        append(2, failed("protocol_error")),
        "superseded",
    ),
    "the epoch, given out again after a rollback, is another Commander's": (
        record(RUNNING),
        Append(2, (said(4),), "c2"),
        "superseded",
    ),
    "taken over after another did": (record(replace(RUNNING, instance="i3")), TakeOver(2, "i1", "i2"), "superseded"),
    "taken over after it was opened there again, or taken back": (
        record(replace(RUNNING, epoch=3)),
        TakeOver(2, "i1", "i2"),
        "superseded",
    ),
    "taken over after a rollback": (record(RUNNING), TakeOver(3, "i1", "i2"), "gap"),
    "taken over while it waits": (record(REQUEUED), TakeOver(2, "i1", "i2"), "superseded"),
    "taken over after the end": (record(FINISHED), TakeOver(2, "i1", "i2"), "ended"),
    "taken back while it waits": (record(REQUEUED), TakeBack(2, "i1"), "gap"),
    "taken back after it was opened elsewhere": (record(replace(RUNNING, epoch=3)), TakeBack(2, "i2"), "superseded"),
    "requeued while a call has no result": (record(CALLING), Requeue(2, 130.0), "unanswered"),
    "a stopped session is not requeued": (record(STOPPED), Requeue(2, 130.0), "ended"),
    "an ended session is not requeued": (record(FINISHED), Requeue(2, 130.0), "ended"),
    "fenced from an older epoch": (record(STOPPED), Fence(1), "superseded"),
    "fenced after the end": (record(OVER_STOPPED), Fence(2), "ended"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_step_is_refused(name: str) -> None:
    before, change, code = REFUSED[name]
    assert refusal(apply(before, change)) == code


@pytest.mark.parametrize(
    ("decision", "at", "message"),
    [("deny", 120.0, "The call was not approved."), ("expire", 200.0, "Nobody approved the call in time.")],
)
def test_what_an_agent_reads_of_a_call_that_was_not_approved(decision: str, at: float, message: str) -> None:
    outcome = apply(record(ASKED), decided(decision, at))
    assert isinstance(outcome, Applied)
    body = outcome.entries[1].body
    assert isinstance(body, ToolResult)
    assert (body.tool_name, body.call_id, body.status) == ("search", "call", "DENIED")
    assert msgspec.json.decode(body.result_json) == {"error": {"code": "denied", "message": message}}


def test_what_comes_after_a_stop_is_logged_and_not_released() -> None:
    outcome = apply(record(STOPPED), append(2, said(4, "late", decided=14), numbered(Text(), 5)))
    assert isinstance(outcome, Applied)
    assert [(entry.body, entry.released, entry.decided) for entry in outcome.entries] == [
        (Content("late"), "", 10),
        (Text(), "", 10),
    ]


def test_what_is_settled_carries_the_generation_of_the_log() -> None:
    outcome = apply(record(replace(CALLING, generation=7)), Settle(result()))
    assert isinstance(outcome, Applied)
    assert [entry.generation for entry in outcome.entries] == [7]


# ---- every interleaving

STREAMS = st.integers(0, 2)
COMMANDERS = st.sampled_from(["c1", "c2"])
KINDS = ["say", "say", "say", "think", "call", "call", "give", "odd", "finish", "halt", "err"]
ENDS = (Finished, Failed, Stopped, StopEntry)


def is_final(body: Body) -> bool:
    return isinstance(body, ENDS) or (isinstance(body, Error) and not body.retryable)


class Log(RuleBasedStateMachine):
    """Two Commanders on three streams, and Dispatchers that act on what they knew some time ago."""

    def __init__(self) -> None:
        super().__init__()
        self.record = WAITING
        self.log: list[Entry] = []
        self.now = 1000.0
        self.streams: dict[
            int, tuple[int, int, int]
        ] = {}  # epoch, generation and next sequence as the stream knows them
        self.last: tuple[Change, bool] | None = None  # and whether it was applied
        self.given: dict[int, int] = {0: 0}  # by generation: the sequence that its Commander's history ended with
        self.ending: tuple[str, float, str, str] | None = None

    def step(self, change: Change) -> Outcome:
        before = self.record.head
        outcome = apply(self.record, change)
        self.last = (change, isinstance(outcome, Applied))
        if isinstance(outcome, Refused):
            return outcome
        head = outcome.head
        for name in ("epoch", "generation", "sequence", "offset", "decided", "takeovers"):
            assert getattr(head, name) >= getattr(before, name), name
        assert not (before.over and not head.over)
        self.record = replace(self.record, head=head)
        self.log += outcome.entries
        return outcome

    def tick(self) -> float:
        self.now += 1
        return self.now

    @initialize()
    def begin(self) -> None:
        self.assign("c1", continues=False)
        self.acquire(0, right=True, skew=0)

    @rule(commander=COMMANDERS, continues=st.booleans())
    def assign(self, commander: str, continues: bool) -> None:
        was = self.record.head
        outcome = self.step(Assign(commander, "i1", continues, self.tick()))
        assert isinstance(outcome, Applied) == (was.state == "waiting")
        if isinstance(outcome, Applied):
            assert (outcome.head.epoch, outcome.head.generation) == (was.epoch + 1, was.generation + 1)
            self.given[outcome.head.generation] = outcome.head.sequence

    @rule(stream=STREAMS, right=st.sampled_from([True, True, True, False]), skew=st.sampled_from([0, 0, 0, -1, 1]))
    def acquire(self, stream: int, right: bool, skew: int) -> None:
        known = self.record.head
        commander = known.commander_id if right else f"not {known.commander_id}"
        # A higher generation than the stored one: the log was rolled back.
        generation = max(known.generation + skew, 0)
        outcome = self.step(Acquire(commander, generation, "i1", self.tick()))
        fenced = generation < known.generation or (generation == known.generation and not right)
        if generation:
            assert (outcome == Refused("fenced")) == fenced
        if isinstance(outcome, Applied):
            assert outcome.head.epoch == known.epoch + 1
            self.given.setdefault(outcome.head.generation, outcome.head.sequence)
            self.streams[stream] = (outcome.head.epoch, outcome.head.generation, outcome.head.sequence + 1)

    @precondition(lambda self: self.streams)
    @rule(
        stream=STREAMS,
        kinds=st.lists(st.sampled_from(KINDS), max_size=4),
        skew=st.sampled_from([0, 0, 0, -1, -2, 1]),
        violates=st.sampled_from([False, False, True]),
    )
    def append(self, stream: int, kinds: list[str], skew: int, violates: bool) -> None:
        stream = stream if stream in self.streams else max(self.streams)
        epoch, generation, sequence = self.streams[stream]
        head = self.record.head
        entries: list[Entry] = []
        first = max(sequence + skew, 1)
        for number, kind in enumerate(kinds, first):
            entries += self.packet(kind, number, generation)
            if kind in ("finish", "halt", "err"):
                break
        if violates and entries:
            policy = StopEntry(f"policy-{first}", "PolicyViolation", "policy")
            entries.append(Entry(policy, self.tick(), generation, entries[-1].sequence))
        outcome = self.step(Append(epoch, tuple(entries)))
        if head.epoch != epoch:
            assert outcome == Refused("superseded")
        if head.over:
            assert not (isinstance(outcome, Applied) and outcome.entries)
        if isinstance(outcome, Applied):
            assert {entry.generation for entry in outcome.entries} <= {head.generation}
            self.streams[stream] = (epoch, generation, outcome.head.sequence + 1)

    def packet(self, kind: str, number: int, generation: int) -> list[Entry]:
        decided = self.record.head.decided + number % 3 - 1  # a Dispatcher may not know yet how far it is
        body: Body
        match kind:
            case "say":
                body = Content("word")
            case "finish":
                text = Entry(Content("end"), self.tick(), generation, number, "end", decided)
                return [text, Entry(Finished(), self.tick(), generation, number, "", decided)]
            case "think":
                body = Thought("plan", "…")
            case "call":
                body = Call("search", "{}", f"call-{number % 3}-{generation}", "i1")
            case "halt":
                body = Stopped("stop")
            case "err":
                body = Error("agent_error")
            case "give":
                body = Error(retryable=True)
            case _:
                body = Unknown()
        released = "word" if kind == "say" else ""
        return [Entry(body, self.tick(), generation, number, released, decided)]

    @rule(number=st.integers(0, 2), generation=st.integers(0, 3))
    def settle_result(self, number: int, generation: int) -> None:
        call_id = f"call-{number}-{generation}"
        open_before = call_id in self.record.head.calls
        outcome = self.step(Settle(Entry(ToolResult("search", "1", call_id, "OK"), self.tick())))
        assert isinstance(outcome, Applied)
        assert len(outcome.entries) == open_before
        assert call_id not in outcome.head.calls

    @rule(dice=st.integers(0, 5))
    def settle_stop(self, dice: int) -> None:
        if dice == 0:
            head = head_of(self.step(Settle(Entry(StopEntry("user", "UserCancel", "user"), self.tick()))))
            assert head.final

    @rule(back=st.integers(0, 1), handed_over=st.booleans())
    def requeue(self, back: int, handed_over: bool) -> None:
        before = self.record.head
        outcome = self.step(Requeue(before.epoch - back, self.tick(), handed_over))
        if back:
            assert outcome == Refused("superseded")
        elif before.final:
            assert outcome == Refused("ended")
        elif before.calls and before.state == "running":
            assert outcome == Refused("unanswered")
        else:
            assert head_of(outcome).state == "waiting"

    @rule(back=st.integers(0, 1))
    def conclude(self, back: int) -> None:
        """The grace is over: `failed`, on the epoch that it was concluded from."""
        before = self.record.head
        if before.state != "running" or before.opened:
            return
        outcome = self.step(append(before.epoch - back, Entry(Failed("commander_lost"), self.tick())))
        assert isinstance(outcome, Refused) == bool(back)

    @precondition(lambda self: self.record.head.state == "stopped")
    @rule(back=st.integers(0, 1))
    def fence(self, back: int) -> None:
        before = self.record.head
        outcome = self.step(Fence(before.epoch - back))
        if isinstance(outcome, Applied):
            assert not back
            assert (outcome.head.epoch, outcome.head.generation) == (before.epoch + 1, before.generation + 1)
            self.given[outcome.head.generation] = outcome.head.sequence

    @precondition(lambda self: self.last)
    @rule()
    def repeat(self) -> None:
        """The answer was lost: the same change again, at once."""
        assert self.last
        change, applied = self.last
        length, takeovers = len(self.log), self.record.head.takeovers
        outcome = self.step(change)
        assert len(self.log) == length
        assert self.record.head.takeovers == takeovers
        if isinstance(change, Append) and any(entry.sequence for entry in change.entries):
            assert isinstance(outcome, Applied) == applied
        if isinstance(change, Settle | Requeue):
            assert isinstance(outcome, Applied) == applied

    @invariant()
    def the_log_is_numbered_without_gaps(self) -> None:
        assert [entry.offset for entry in self.log] == list(range(1, len(self.log) + 1))
        assert self.record.head.offset == len(self.log)
        sequences = [entry.sequence for entry in self.log if entry.sequence]
        for one, two in zip([0, *sequences], sequences, strict=False):
            assert two in (one, one + 1)
        assert self.record.head.sequence == (sequences[-1] if sequences else 0)

    @invariant()
    def a_generation_follows_the_history_that_it_was_given(self) -> None:
        packets = [(entry.generation, entry.sequence) for entry in self.log if entry.sequence]
        firsts: dict[int, int] = {}
        for generation, sequence in packets:
            firsts.setdefault(generation, sequence)
        assert list(firsts) == sorted(firsts)
        assert [generation for generation, _ in packets] == sorted(generation for generation, _ in packets)
        for generation, first in firsts.items():
            assert first == self.given[generation] + 1

    @invariant()
    def the_first_stop_or_end_is_final(self) -> None:
        head = self.record.head
        finals = [index for index, entry in enumerate(self.log) if is_final(entry.body)]
        assert head.final == bool(finals)
        assert head.final or not head.over
        if not finals:
            assert (head.ended_at, head.reason, head.code) == (0, "", "")
            return
        assert all(not entry.released for entry in self.log[finals[0] :])
        first = self.log[finals[0]]
        assert (head.state == "finished") == isinstance(first.body, Finished)
        assert (head.state == "stopped") == isinstance(first.body, StopEntry)
        assert head.ended_at == first.at
        ending = (head.state, head.ended_at, head.reason, head.code)
        assert self.ending in (None, ending)
        self.ending = ending

    @invariant()
    def one_stop_and_one_result_for_each_call(self) -> None:
        assert sum(isinstance(entry.body, StopEntry) for entry in self.log) <= 1
        waiting_for: set[str] = set()
        for entry in self.log:
            if isinstance(entry.body, Call):
                waiting_for.add(entry.body.call_id)
            elif isinstance(entry.body, ToolResult):
                waiting_for.remove(entry.body.call_id)
        assert set(self.record.head.calls) == waiting_for

    @invariant()
    def decided_grows_along_the_log(self) -> None:
        decided = [entry.decided for entry in self.log]
        assert decided == sorted(decided)
        assert self.record.head.decided == (decided[-1] if decided else 0)


TestLog = Log.TestCase
TestLog.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def test_a_request_that_an_earlier_version_stored_is_read() -> None:
    stored = msgspec.msgpack.encode(["default", [["user", "hi"]], 100.0, "user", "", "", ""])
    assert msgspec.msgpack.decode(stored, type=Request) == Request("default", (Message("user", "hi"),), 100.0)


def test_an_end_that_an_earlier_version_stored_is_read() -> None:
    stored = msgspec.msgpack.encode([["finished", "length", [7, 9]], 120.0, 1, 2])
    assert msgspec.msgpack.decode(stored, type=Entry) == numbered(Finished("length", Usage(7, 9)), 2)

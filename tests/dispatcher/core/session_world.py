"""A world without sockets or clocks around the pure core: one log, a Dispatcher that can die, Commanders, streams.

The log is carried by the same `dispatcher.core.log.apply` that every store runs; nothing of the core is faked.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from dispatcher.core import effects, log
from dispatcher.core.entries import Approval, Decision, Entry, StopEntry
from dispatcher.core.limits import Limits
from dispatcher.core.session import Session
from dispatcher.core.strict import Misfit
from dispatcher.policies.questions import Question, Verdict
from dispatcher.policies.rules import PhrasesPolicy, RuleSet
from shared.records import ClientCall, Content, Message, Stopped, ToolCall, ToolResult, Upstream

RULES = RuleSet([PhrasesPolicy("names", ("nightingale",))])
NO_RULES = RuleSet([])
LIMITS = Limits(grace_seconds=20, stop_seconds=5, takeovers=2, max_unacked_packets=8, max_unacked_bytes=4096)


APPROVAL_SECONDS = 600.0
DIGEST = "0" * 64


def asked(tool: str) -> str:
    """Who has to approve its calls."""
    return "user" if tool == "asked" else ""


def new_record(origin="user", **head) -> log.Record:
    return log.Record("s", log.Request("default", (Message("user", "hi"),), 0.0, origin), log.Head(**head))


class Log:
    """What a store keeps: applies changes one after the other."""

    def __init__(self, origin="user") -> None:
        self.record = new_record(origin)
        if origin != "user":
            self.record = new_record(origin, state="running", commander_id="c0")
        self.entries: list[Entry] = []

    def submit(self, change: log.Change) -> log.Outcome:
        outcome = log.apply(self.record, change)
        if isinstance(outcome, log.Applied):
            self.record = log.Record("s", self.record.request, outcome.head)
            self.entries += outcome.entries
        return outcome

    @property
    def head(self) -> log.Head:
        return self.record.head

    @property
    def text(self) -> str:
        """What users have seen: a reader ends at the first stop or end."""
        return "".join(entry.released for entry in self.entries)


@dataclass
class Stream:
    """One stream of one Commander: what is on its way up, and which core it ends at."""

    up: deque[Upstream] = field(default_factory=deque)
    welcome: int = -1
    acked: int = 0
    closed: str = ""
    stops: list[StopEntry] = field(default_factory=list)
    results: list[ToolResult] = field(default_factory=list)
    full: bool = False
    unsent: int = 0  # results that found it so


class Dispatcher:
    """The runner's part, without asyncio: appends are submitted by `answer`, so a test chooses their outcome."""

    def __init__(self, log_: Log, instance: str, rules: RuleSet = NO_RULES, limits: Limits = LIMITS) -> None:
        self.log, self.instance, self.rules, self.limits = log_, instance, rules, limits
        self.now = 100.0
        self.session: Any = None  # a Session, once there is one; a test that uses it before fails all the same
        self.stream: Any = None  # likewise a Stream
        self.pending: list[Entry] = []
        self.flying: log.Append | None = None
        self.wakes: dict[str, float] = {}
        self.ran: list[str] = []
        self.running: set[str] = set()
        self.given_back = 0
        self.hits: list[tuple[str, str]] = []
        self.questions: list[tuple[Any, Question]] = []  # (the core that asks, what)
        self.asked_calls: list[tuple[ClientCall, ...]] = []
        self.misfit: Misfit | None = None

    def rebuild(self) -> Any:
        self.pending, self.flying = [], None
        gate = self.rules.gate(0.0)
        entries = list(self.log.entries)
        self.session = Session(self.log.record, entries, gate, self.limits, self.instance, asked, self.misfit)
        return self.session

    def open(self, stream: Stream, commander: str, generation: int, awaiting=()) -> str | None:
        acquire = log.Acquire(commander, generation, self.instance, self.now, excused=True)
        outcome = self.log.submit(acquire)
        if isinstance(outcome, log.Refused):
            stream.closed = outcome.code
            return outcome.code
        if self.stream and self.stream is not stream:
            self.stream.closed = "superseded"
        self.stream = stream
        session = self.rebuild()
        stream.welcome = session.head.sequence
        self.carry_out(session.restored(self.now) + session.attach(awaiting, self.now))
        self.settle_unknown()
        return None

    def settle_unknown(self) -> None:
        for call_id, call in self.log.head.calls.items():
            if call.instance not in ("", self.instance):
                self.settle(Entry(ToolResult(call.tool_name, "{}", call_id, "UNKNOWN_OUTCOME"), self.now))

    def deliver(self) -> None:
        self.carry_out(self.session.receive(self.stream.up.popleft(), self.now))

    def answer(self, applied: bool = True, told: bool = True) -> None:
        """The append under way reaches the log or not, and its answer the Dispatcher or not (then it is repeated)."""
        if self.flying is None:
            return
        change = self.flying
        outcome = self.log.submit(change) if applied else None
        if outcome is None or not told:
            outcome = self.log.submit(change)
            if isinstance(outcome, log.Applied):
                outcome = log.Applied(outcome.head, tuple(self.log.entries))
        self.flying = None
        if self.session is None:
            return  # it was given back meanwhile
        if isinstance(outcome, log.Applied):
            self.carry_out(self.session.logged(outcome, self.now))
        else:
            self.pending = []
            self.carry_out(self.session.refused(outcome, self.now))
        self.flush()

    def settle(self, entry: Entry) -> None:
        outcome = self.log.submit(log.Settle(entry))
        if isinstance(outcome, log.Applied) and self.session:
            self.carry_out(self.session.logged(outcome, self.now))

    def stop(self, reason="UserCancel") -> None:
        self.settle(Entry(StopEntry("user-stop", reason, "user"), self.now))

    def decide(self, call_id: str, decision="approve", digest=DIGEST) -> None:
        self.settle(Entry(Decision(call_id, decision, "user", digest), self.now))

    def finish_tool(self, call_id: str, status="OK", result_json="1") -> None:
        self.running.discard(call_id)
        result = ToolResult("t", result_json, call_id, status)
        if status != "CANCELLED" and self.session:
            result, asked = self.session.result(result, self.now)
            self.carry_out(asked)
        self.settle(Entry(result, self.now))

    def verdict(self, kind="pass", *texts: str) -> None:
        """The oldest question is answered; what an earlier core asked is of no use."""
        session, question = self.questions.pop(0)
        if session is self.session:
            verdict = Verdict(kind, texts, "broken" if kind == "unavailable" else "")
            self.carry_out(session.answered(question, verdict, self.now))

    def cut(self) -> None:
        """The stream breaks: what was on its way up is lost."""
        if self.stream:
            self.stream.up.clear()
            self.stream = None
            self.carry_out(self.session.detach(self.now))

    def wake(self, name: str) -> None:
        """A deadline comes, at its time."""
        self.now = max(self.now, self.wakes.pop(name))
        self.carry_out(self.session.deadline(name, self.now))

    def flush(self) -> None:
        if self.flying is None and self.pending:
            self.flying = log.Append(self.session.epoch, tuple(self.pending))
            self.pending = []

    def carry_out(self, asked: list[effects.Effect]) -> None:
        for effect in asked:
            match effect:
                case effects.AppendEntries(entries):
                    self.pending += entries
                    self.flush()
                case effects.AskApproval(wanted):
                    until = self.now + APPROVAL_SECONDS
                    approval = Approval(wanted.call_id, wanted.tool_name, wanted.approval, "{}", DIGEST, until)
                    self.settle(Entry(approval, self.now))
                case effects.AppendWithoutEpoch(entry):
                    self.settle(entry)
                case effects.SendAck():
                    if self.stream:
                        self.stream.acked = self.session.head.sequence
                        self.session.acked(self.stream.acked)
                case effects.SendStop(stop):
                    self.stream.stops.append(stop)
                case effects.SendResult(result, offset):
                    if self.stream and offset and self.stream.full:
                        self.stream.unsent += 1
                        continue
                    if self.stream:
                        told = result or self.log.entries[offset - 1].body
                        assert isinstance(told, ToolResult)
                        self.stream.results.append(told)
                    if offset:
                        self.carry_out(self.session.sent(1, self.now))
                case effects.SendClosed(code):
                    if self.stream:
                        self.stream.closed = code
                        self.stream.up.clear()
                        self.stream = None
                case effects.RunTool(wanted) if wanted.call_id not in self.ran:
                    self.ran.append(wanted.call_id)
                    self.running.add(wanted.call_id)
                case effects.CancelTools():
                    for call_id, call in self.log.head.calls.items():
                        if call.instance == self.instance:
                            self.finish_tool(call_id, "CANCELLED")
                case effects.Wake(name, at):
                    self.wakes.pop(name, None)
                    if at is not None:
                        self.wakes[name] = at
                case effects.GiveBack(handed_over):
                    outcome = self.log.submit(log.Requeue(self.session.epoch, self.now, handed_over))
                    if isinstance(outcome, log.Applied):
                        self.given_back += 1
                        self.session, self.stream, self.wakes, self.pending = None, None, {}, []
                        return
                    if outcome.code == "unanswered":
                        session = self.rebuild()
                        self.carry_out(session.restored(self.now) + session.await_open(self.now))
                        return
                case effects.Ask(question):
                    self.questions.append((self.session, question))
                case effects.AskCalls(calls):
                    self.asked_calls.append(calls)
                case effects.PolicyHit(policy, action, times):
                    self.hits += [(policy, action)] * times
                case effects.GiveUp():
                    outcome = self.log.submit(log.Fence(self.session.epoch))
                    if isinstance(outcome, log.Applied):
                        self.carry_out(self.session.fenced(outcome, self.now))


def packet(sequence: int, payload, size: int = 10) -> Upstream:
    return Upstream("s", payload, sequence, 0, size)


def said(sequence: int, text: str) -> Upstream:
    return packet(sequence, Content(text))


def end(sequence: int, text: str = "") -> Upstream:
    return packet(sequence, Content(text, is_finish=True))


def called(sequence: int, call_id: str, tool: str = "t") -> Upstream:
    return packet(sequence, ToolCall(tool, "{}", call_id))


def halted(sequence: int, stop_id: str) -> Upstream:
    return packet(sequence, Stopped(stop_id))

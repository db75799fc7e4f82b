"""One session at the Dispatcher that holds it: inputs in, effects out (`README.md`, the session rules).

Pure: no asyncio, no clock, no ids of chance, no gRPC, no logging; `now` is Unix seconds. What the outside may rely on:

- A packet is accepted once and in order, or refused; only accepted packets reach a policy and the log.
- Effects that the world sees (acks, stops, results, tools) come from `logged`, never from `receive`: they leave only
  after the log has what they follow from.
- A session is always rebuilt from its log: after an `open`, a restart or a takeover alike. The log is the state.
"""

from collections.abc import Callable, Container, Iterable

from dispatcher.core.calls import SessionCalls, abandon, expired, expiry
from dispatcher.core.credit import Credit
from dispatcher.core.effects import (
    AppendEntries,
    AppendWithoutEpoch,
    Ask,
    AskCalls,
    CancelTools,
    Effect,
    GiveBack,
    GiveUp,
    PolicyHit,
    SendAck,
    SendClosed,
    SendResult,
    SendStop,
    Wake,
)
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
    size_of,
)
from dispatcher.core.guard import Guard
from dispatcher.core.limits import Limits
from dispatcher.core.log import Applied, Head, Offsets, Record, Refused
from dispatcher.core.packets import (
    Taken,
    WaitingEnd,
    denial,
    ends,
    entries_of,
    misses,
    read_as,
    reused_call_id,
    spoken,
    without,
)
from dispatcher.core.strict import Misfit, StrictAnswer
from dispatcher.policies.ahead import Slices
from dispatcher.policies.gate import Gate
from dispatcher.policies.matches import Channel
from dispatcher.policies.outcomes import Reading, Release, Violation
from dispatcher.policies.questions import AskedPolicy, Question, Verdict
from shared.conversation import Kind, Phase, ProtocolError, kind_of, next_phase
from shared.records import (
    FINISH_REASONS,
    TALK,
    Content,
    Error,
    Open,
    Status,
    Stopped,
    Thought,
    ToolCall,
    ToolResult,
    Unknown,
    Upstream,
)
from shared.sizes import oversize


class Session:
    """The core of one session. `entries`: its log, or of it what is not given to `replay`; `gate`: a fresh one;
    `approval`, `awaited`: as of `SessionCalls`; `misfit`: where something has to fit (rule 41). Follow with `restored`.
    """

    def __init__(
        self,
        record: Record,
        entries: Iterable[Entry],
        gate: Gate,
        limits: Limits,
        instance: str,
        approval: Callable[[str], str],
        misfit: Misfit | None = None,
        awaited: Container[str] | None = None,
    ) -> None:
        self.record = record
        self.head: Head = record.head
        self.epoch = record.head.epoch  # what this core appends under; the log's may move on
        self.stop: StopEntry | None = None
        self.conversation = Phase.IDLE
        self.limits = limits
        self.older = record.request.origin == "older"
        self._guard, self._calls = Guard(gate, record.head.decided), SessionCalls(instance, approval, awaited)
        self._accepted = 0  # the highest sequence taken from the stream, in the log or on its way there
        self._waiting: list[Upstream] = []  # accepted, behind a call that waits for another's result (rule 16)
        self._closing = ""  # the `closed` code to send once the end that goes with it is logged
        self._ending: WaitingEnd | None = None
        self._hit = False  # the policy that stops it was counted
        self._seen = Offsets()
        self._log_bytes = 0
        self._credit = Credit(limits.max_unacked_packets, limits.max_unacked_bytes)
        self._leaving: GiveBack | None = None  # waits for the results of running tools
        self._found: Violation | None = None
        self._offered = {tool.name for tool in record.request.tools}
        self._strict = StrictAnswer(misfit) if misfit else None
        self._spoken = False  # something but hand-overs was logged
        self._handed_over = False  # by the Commander that was given it last
        for entry in entries:
            self.replay(entry)

    @property
    def offset(self) -> int:
        """Every entry up to it has been taken in."""
        return self._seen.highest

    @property
    def held(self) -> int:
        """Characters of content that policies hold back."""
        return 0 if self.stop else self._guard.gate.held

    # ---- from the log

    def replayed(self, entries: Iterable[Entry]) -> Slices[None]:
        """`replay` of these, a slice of a large text, or an entry, at a time."""
        for entry in entries:
            if not (self.stop or self._found):
                yield from self._guard.ahead_of(entry)
            self.replay(entry)
            yield

    def replay(self, entry: Entry) -> None:
        """Take an entry that was there before: the policies read it again, nothing is let out again."""
        self._seen.add(entry.offset)
        self._remember(entry)
        if self._strict:
            self._strict.add(entry.released)
        if isinstance(entry.body, ToolResult):
            self._calls.found(entry.body, entry.offset)
        if not self.stop:
            self._found = self._found or self._guard.again(entry)

    def _remember(self, entry: Entry) -> None:
        self._log_bytes += size_of(entry)
        self._spoken |= entry.sequence > 0 and not isinstance(entry.body, Error)
        if isinstance(entry.body, TALK):
            return  # nothing follows from one once it is in the log
        match entry.body:
            case (Call() | ToolResult()) as body:
                self._calls.remember(body, self.head)
            case StopEntry() as stop:
                self.stop = self.stop or stop
            case Error(retryable=True):
                self._handed_over = True
            case Assigned():
                self._handed_over = False

    def restored(self, now: float) -> list[Effect]:
        """What follows from the log as it was found: today's policies may stop what was said before (rule 28).

        A call that was logged for this instance may not have been begun, where its append's answer was lost. The runner
        knows which it has begun (rule 15).
        """
        self._accepted = self.head.sequence
        self._guard.resume(self.head.decided)
        if self.head.final:
            return [CancelTools(), *abandon(self.head, now)] if self.head.calls else []
        if self._found:
            return self._settle_stop(self._found, now)
        pursued = [effect for call_id in self.head.calls for effect in self._pursue(call_id, now)]
        return [Wake("policy", self._guard.gate.deadline), *pursued, *self._ask()]

    # ---- the stream

    def attach(self, awaiting_call_ids: Iterable[str], now: float) -> list[Effect]:
        """A stream has opened the session, and its Welcome is the next that is sent (rule 2)."""
        self._enter("open")
        self._enter("welcome")
        if self.head.over:
            self._enter("end")  # as the log has it
        effects: list[Effect] = [Wake("grace", None)]
        if self.stop and not self.head.over:
            effects += self._send_stop(self.stop, now)
        return [*effects, *self._calls.await_results(awaiting_call_ids)]

    @property
    def closing(self) -> bool:
        """It broke the contract: `closed` follows once the end that goes with it is logged."""
        return bool(self._closing)

    def detach(self, now: float) -> list[Effect]:
        """Its stream is gone without an end (rule 8). A disconnect is never a stop."""
        self._enter("lost")
        if self.head.over or self._closing:
            return []
        if self.older:
            return self._fail("commander_lost", now)
        return [Wake("grace", now + self.limits.grace_seconds)]

    def await_open(self, now: float) -> list[Effect]:
        """It was assigned, or found after a restart: somebody must open it within the grace."""
        if self.older:
            return self._fail("commander_lost", now)
        return [] if self.head.over else [Wake("grace", now + self.limits.grace_seconds)]

    def unserved(self, now: float) -> list[Effect]:
        """Its time in the queue is over."""
        return [] if self.head.final else self._fail("no_commander", now, waits=False)  # nobody has it meanwhile

    def receive(self, packet: Upstream, now: float) -> list[Effect]:
        """A packet of the attached stream; not `open`, not `status`."""
        sequence = packet.sequence
        if self.conversation is Phase.IDLE or self._closing:
            return []  # closed on this stream: what still comes is dropped
        if sequence == 0:
            return self._refuse("invalid", now)
        if sequence <= self._accepted:
            return [SendAck(at_once=False)] if sequence <= self.head.sequence else []
        kind = kind_of(packet.payload)
        try:
            after = next_phase(self.conversation, kind)
        except ProtocolError as error:
            return self._close(error.code)
        if sequence > self._accepted + 1:
            return [*self._close("gap"), Wake("grace", now + self.limits.grace_seconds)]
        if field := oversize(packet.payload):
            return self._refuse("invalid", now, f"{field} is too large")
        if isinstance(packet.payload, Content) and kind == "end" and misses(packet.payload, self._offered):
            return self._refuse("invalid", now, "client_calls are not of the client's tools, or none")
        if kind == "say" and not self.older and self._credit.exceeded_by(packet.size):
            return self._refuse("credit", now)
        if kind in ("say", "give") and self._log_bytes >= self.limits.max_log_bytes:
            return self._full(now)
        self.conversation = after
        self._accepted = sequence
        self._credit.take(sequence, packet.size)
        self._waiting.append(packet)
        return self._take_in(now)

    def read_ahead(self, body: Upstream | ToolResult) -> Slices[None]:
        """Let the policies read what is about to be received, or a tool's result, without taking it in."""
        if self.stop:
            return
        if isinstance(body, Upstream) and (body.sequence <= self._accepted or oversize(body.payload)):
            return  # it is not taken in
        match body:
            case Upstream(payload=Content(text, client_calls=calls)):
                yield from self._guard.read_ahead("content", text)
                yield from self._guard.read_ahead("arguments", *(read_as(call).arguments_json for call in calls))
            case Upstream(payload=Thought(step_name, delta)):
                yield from self._guard.read_ahead("thoughts", delta, step_name=step_name)
            case Upstream(payload=ToolCall(arguments_json=text)):
                yield from self._guard.read_ahead("arguments", text)
            case ToolResult(result_json=text):
                yield from self._guard.read_ahead("results", text)

    @property
    def waits(self) -> bool:
        """A call waits for another's result, and all that came after it."""
        return bool(self._waiting)

    def _take_in(self, now: float) -> list[Effect]:
        """What was accepted, up to a call that has to wait."""
        effects: list[Effect] = []
        while self._waiting and not self._too_many(self._waiting[0]):
            packet = self._waiting.pop(0)
            taken = self._take(packet, now, effects)
            end = taken[-1][0]
            asked = end.calls if isinstance(end, Finished) and not self.stop and self.asked("arguments") else ()
            if asked or (ends(end) and self._guard.gate.waiting and not self.stop):
                self._ending = WaitingEnd(packet, taken, unread=bool(asked))
                effects += [AskCalls(asked)] if asked else []
            else:
                effects.append(self._store(packet, taken, now))
        return effects + self._ask()

    def _too_many(self, packet: Upstream) -> bool:
        return isinstance(packet.payload, ToolCall) and self._calls.full

    def sent(self, results: int, now: float) -> list[Effect]:
        """So many results have been handed to the stream, or never will be. Until then their calls count as open."""
        self._calls.unsent -= results
        return self._take_in(now) if self._waiting and not self.head.over else []

    def acked(self, sequence: int) -> None:
        """An Ack up to that sequence has been handed to the stream."""
        self._credit.acked(sequence)

    # ---- a packet's entries

    def _take(self, packet: Upstream, now: float, effects: list[Effect]) -> list[Taken]:
        decided = self._guard.decided
        match packet.payload:
            case Content(text, is_finish, finish_reason, usage, client_calls):
                taken: list[Taken] = []
                if self.stop and (text or not is_finish):  # what comes after a stop is logged, never released
                    taken.append((Content(text), "", decided, ()))
                elif text or not is_finish:
                    release = self._guard.content(text, now)
                    taken.append((Content(text), release.text, release.decided, release.redacted_by))
                    taken += self._act(release, effects)
                if is_finish:
                    taken += self._let_out(now, effects)
                    reason = finish_reason if finish_reason in FINISH_REASONS else "stop"
                    end, stop = self._read_calls(Finished(reason, usage, client_calls), now, effects)
                    taken += [*stop, (end, "", self._guard.decided, ())]
                return taken
            case Thought() as thought:
                return [(thought, "", decided, ()), *self._act(self._read(thought, now), effects)]
            case ToolCall(tool_name, arguments_json, call_id):
                call = self._calls.made(tool_name, arguments_json, call_id or f"seq-{packet.sequence}")
                reading = self._read(call, now)
                call = self._calls.take(call, bool(reading.denied) and not (reading.violation or call.refused))
                bodies: list[Body] = [call, denial(call)] if call.denied else [call]
                return [*((body, "", decided, ()) for body in bodies), *self._act(reading, effects)]
            case Error(code, message, retryable):
                if retryable and self.record.request.origin == "user" and not self.stop:
                    return [(packet.payload, "", decided, ())]
                last: Taken = (Error(code or "agent_error", message), "", self._guard.decided, ())
                return [*self._let_out(now, effects), last]
            case Stopped() as stopped if not self.stop:
                failed = Failed("protocol_error", "stopped without a stop")
                return [(failed, "", decided, ()), (stopped, "", decided, ())]
            case (Stopped() | Unknown()) as body:
                return [(body, "", decided, ())]
            case Open() | Status():
                raise AssertionError("open and status are the edge's, not a session's")

    def _read_calls(self, end: Finished, now: float, effects: list[Effect]) -> tuple[Finished, list[Taken]]:
        """The end without the calls that policies deny, and the stop that they cause."""
        denied, stop = set[str](), list[Taken]()
        for call in end.calls:
            reading = self._read(read_as(call), now)
            stop += self._act(reading, effects)
            if reading.denied:
                denied.add(call.call_id)
        return without(end, denied), stop

    def calls_read(self, denied: Container[str], now: float) -> list[Effect]:
        """What the policies that are asked deny of the calls that the end waits with (`AskCalls`)."""
        if not self._ending or not self._ending.unread:
            return []  # a stop has let it go
        self._ending.unread = False
        *before, (end, released, decided, redacted_by) = self._ending.taken
        if isinstance(end, Finished):
            self._ending.taken = [*before, (without(end, denied), released, decided, redacted_by)]
        return [] if self._end_waits else [self._end(now)]

    # ---- policies that are asked

    @property
    def _end_waits(self) -> bool:
        return self._guard.gate.waiting or bool(self._ending and self._ending.unread)

    def _ask(self) -> list[Effect]:
        if self.stop or not (questions := self._guard.gate.questions()):
            return []
        return [Ask(question) for question in questions]

    def asked(self, channel: Channel) -> list[AskedPolicy]:
        """The policies that are to be asked about a call's arguments before it runs, and about its result."""
        return self._guard.gate.asked(channel)

    def answered(self, question: Question, verdict: Verdict, now: float) -> list[Effect]:
        """A verdict on content or a thought. After a stop or an end it only counts."""
        release = self._guard.answered(question, verdict, now)
        effects: list[Effect] = []
        if self.stop or self.head.final:
            return [PolicyHit(hit.policy, hit.action, hit.times) for hit in release.hits]
        taken = spoken(release)
        taken += self._act(release, effects)
        if self._ending and (self._ending.speaks or self.stop or not self._end_waits):
            self._ending.taken[-1:-1] = taken
            taken = []
            if self.stop or not self._end_waits:
                effects.append(self._end(now))
        if taken:
            self._let_go(taken)
            effects.append(AppendEntries(entries_of(taken, now, self.head.generation)))
        return effects + self._ask()

    def _end(self, now: float) -> AppendEntries:
        """What the end waited for has come, or a stop, after which nothing is let out."""
        assert self._ending  # noqa: S101
        ending, self._ending = self._ending, None
        *before, (end, *_) = ending.taken
        return self._store(ending.packet, [*before, (end, "", self._guard.decided, ())], now)

    def result(self, result: ToolResult, now: float) -> tuple[ToolResult, list[Effect]]:
        """A tool has answered: what goes into the log for that, before the Commander sees it; and what else follows."""
        denied, effects = self.judged(result, self._guard.read(result, now), now)
        return denied or result, effects

    def judged(self, of: Call | ToolResult, reading: Reading, now: float) -> tuple[ToolResult | None, list[Effect]]:
        """What policies say to a call before it runs, or to its result: the result that goes into the log instead, if
        any; and what else follows.
        """
        effects: list[Effect] = [PolicyHit(hit.policy, hit.action, hit.times) for hit in reading.hits]
        if reading.violation and not (self.stop or self.head.final):
            effects += self._settle_stop(reading.violation, now)
        return denial(of) if reading.violation or reading.denied else None, effects

    def _read(self, body: Thought | Call, now: float) -> Reading:
        return Reading() if self.stop else self._guard.read(body, now)

    def _let_out(self, now: float, effects: list[Effect]) -> list[Taken]:
        """The content is over: what is held goes out as an entry of its own, unless a rule fires at the end."""
        if self.stop:
            return []
        release = self._guard.end(now)
        return spoken(release) + self._act(release, effects)

    def _act(self, reading: Release | Reading, effects: list[Effect]) -> list[Taken]:
        """What counts is counted; the stop that a packet causes is one append with it."""
        if reading.hits:
            effects += [PolicyHit(hit.policy, hit.action, hit.times) for hit in reading.hits]
        violation = reading.violation
        if not violation or self.stop:
            return []
        effects += self._hit_once(violation)
        self.stop = self._stop_entry(violation)
        return [(self.stop, "", self._guard.decided, ())]

    def _stop_entry(self, violation: Violation) -> StopEntry:
        stop_id = f"policy-{self.epoch}-{self._accepted}"
        return StopEntry(stop_id, violation.reason, "policy", violation.policy, violation.detail)

    def _settle_stop(self, violation: Violation, now: float) -> list[Effect]:
        stop = self._stop_entry(violation)
        entry = Entry(stop, now, self.head.generation, decided=self._guard.decided)
        return [*self._hit_once(violation), AppendWithoutEpoch(entry)]

    def _hit_once(self, violation: Violation) -> list[Effect]:
        hit, self._hit = self._hit, True
        return [] if hit else [PolicyHit(violation.policy, "stop")]

    def _let_go(self, taken: list[Taken]) -> None:
        """On its way into the log."""
        if self._strict:
            for _, released, *_ in taken:
                self._strict.add(released)

    def _store(self, packet: Upstream, taken: list[Taken], now: float) -> AppendEntries:
        self._let_go(taken)
        end, _, decided, _ = taken[-1]
        if self._strict and isinstance(end, Finished) and not self.stop and (failed := self._strict.failure(end)):
            taken = [*taken[:-1], (failed, "", decided, ()), taken[-1]]
        return AppendEntries(entries_of(taken, now, self.head.generation, packet.sequence, packet.timestamp))

    def take_rules(self, guard: Guard, found: Violation | None, now: float) -> list[Effect]:
        """Go on under other rules. guard: has read the whole log, and what is on its way there. found: what stops in
        that. What ends or is stopped keeps the rules that it has.
        """
        if self.stop or self.head.final or self._ending or self._closing:
            return []
        guard.resume(self._guard.decided)
        self._guard = guard
        if found:
            return self._settle_stop(found, now)
        return [Wake("policy", guard.gate.deadline), *self._ask()]

    # ---- the log has grown

    def logged(self, outcome: Applied, now: float) -> list[Effect]:
        """Entries stand in the log, this session's own or another's: what they lead to. Repetitions are harmless."""
        if outcome.head.epoch < self.epoch:  # it was asked before this core was built
            return []
        if outcome.head.epoch > self.epoch:  # somebody else has it
            return [] if self.conversation is Phase.IDLE else self._close("superseded")
        if outcome.head.offset >= self.head.offset:
            self.head = outcome.head
        effects: list[Effect] = []
        at_once = False
        for entry in outcome.entries:
            if not self._seen.add(entry.offset):
                continue
            self._remember(entry)
            if not isinstance(entry.body, TALK):
                at_once |= self._follow(entry, effects, now)
        logged = self.head.sequence
        # An end that the Dispatcher made is told too: the stream lets go then.
        if self._credit.due(logged) or (at_once and self.head.over):
            effects.append(SendAck(at_once or self._credit.half_used(logged)))
        if self.head.over and self._closing:
            effects += self._close(self._closing)
        if self._waiting and not self.head.over:
            effects += self._take_in(now)
        if self._leaving:
            effects += self._leave(self._leaving, now)
        return effects

    def _pursue(self, call_id: str, now: float) -> list[Effect]:
        return self._calls.pursue(call_id, self.head, bool(self.stop), now)

    def _follow(self, entry: Entry, effects: list[Effect], now: float) -> bool:
        """The effects of one entry; True: its Ack is due at once."""
        match entry.body:
            case Call(refused=True) as call:
                effects.append(SendResult(reused_call_id(call)))
                return True
            case Call() as call:
                effects += self._calls.logged(call, self.head, bool(self.stop), now)
                return True
            case Approval(call_id) | Started(call_id):
                effects += self._pursue(call_id, now)
            case Decision(call_id):
                effects += [expiry(self.head), *self._pursue(call_id, now)]
            case ToolResult(call_id=call_id) as result:
                if self._calls.awaited(call_id) and self.conversation is not Phase.IDLE:
                    self._calls.unsent += 1
                    effects.append(SendResult(result, entry.offset))
            case StopEntry():
                effects += [Wake("policy", None), CancelTools(), *abandon(self.head, now)]
                if self._ending:
                    effects.append(self._end(now))
                if self.stop and self.conversation in (Phase.OPEN, Phase.STOPPING):
                    effects += self._send_stop(self.stop, now)
                elif self.conversation is Phase.GIVEN:
                    effects.append(GiveUp())  # its Commander has let go, and nobody gets it any more
            case Finished() | Stopped() | Failed() | Error(retryable=False):
                effects += [Wake("grace", None), Wake("stop", None), Wake("policy", None), *abandon(self.head, now)]
                return True
            case Error():
                self._leaving = GiveBack(handed_over=True)
                return True
        return False

    def _send_stop(self, stop: StopEntry, now: float) -> list[Effect]:
        """Sent after Welcome or when it is logged, again after each `open`, until an end answers it (rule 19)."""
        self._enter("stop")
        return [SendStop(stop), Wake("stop", now + self.limits.stop_seconds)]

    def refused(self, refusal: Refused, now: float) -> list[Effect]:
        """An append of this session was refused: it is over on this stream, and what was on its way is dropped."""
        self._accepted = self.head.sequence
        self._waiting.clear()
        if self.conversation is Phase.IDLE:
            return []
        effects = self._close(refusal.code)
        if refusal.code == "gap":
            effects.append(Wake("grace", now + self.limits.grace_seconds))
        return effects

    # ---- deadlines and ends that nobody sends

    def deadline(self, name: str, now: float) -> list[Effect]:
        """A time that `Wake` named has come."""
        match name:
            case "grace":
                return self.lost(now)
            case "stop":
                return [] if self.head.over else [GiveUp()]
            case "approval":
                return expired(self.head, now)
            case _:
                return self._overdue(now)

    def _overdue(self, now: float) -> list[Effect]:
        if self.head.final or self.stop:
            return []
        violation = self._guard.overdue(now)
        return self._settle_stop(violation, now) if violation else [Wake("policy", self._guard.gate.deadline)]

    def lost(self, now: float, sent: bool = True) -> list[Effect]:
        """Its Commander is lost: the grace is over, or it was dropped. sent: False for an assignment that was not sent,
        which does not count.
        """
        if self.conversation is Phase.GIVEN:
            return []  # it was handed over: not lost
        self._enter("lost")
        return self._leave(GiveBack(handed_over=not sent), now)

    def _leave(self, how: GiveBack, now: float) -> list[Effect]:
        """Assign again where rule 8 allows it; else the session has failed. First what came has to be in the log, and
        every call to have its result: the next Commander's history must be complete. A stopped session is given up:
        nobody is left to say that it has halted.
        """
        if self.head.over:
            return []
        if self._handed_over:  # also where the grace ran out before it was put among the waiting
            how = GiveBack(handed_over=True)
        may = self.record.request.origin == "user" and (self.head.continues or not self._spoken)
        may = may and (how.handed_over or self.head.takeovers < self.limits.takeovers)
        # Where nobody can go on, a call that nobody has started gets its result by the end, and not before that is
        # logged: the Commander may come back.
        awaited = any(may or call.instance for call in self.head.calls.values())
        if awaited or self._accepted > self.head.sequence:
            self._leaving = how
            return []
        self._leaving = None
        if self.head.final:
            return [GiveUp()]
        return [how] if may else self._fail("commander_lost", now)

    def unstorable(self, now: float) -> list[Effect]:
        """What it sent cannot be stored at all, now or later."""
        return self._refuse("invalid", now)

    def taken_back(self, outcome: Applied) -> None:
        """This instance's lease had ended, and it has the session again, under the next epoch."""
        self.head = outcome.head
        self.epoch = outcome.head.epoch

    def fenced(self, outcome: Applied, now: float) -> list[Effect]:
        """The Commander was given up after a stop. A call may stand in the log of which nobody was told: it is
        cancelled now, for the log's epoch is another from here on.
        """
        self.head = outcome.head
        cancel: list[Effect] = [CancelTools(), *abandon(self.head, now)] if self.head.calls else []
        return [Wake("grace", None), *cancel, *self._close("fenced")]

    def _refuse(self, code: str, now: float, detail: str = "") -> list[Effect]:
        """The peer broke the contract: the Dispatcher logs the end itself, then closes."""
        self._closing = code
        return self._fail("protocol_error", now, f"{code}: {detail}" if detail else code)

    def _full(self, now: float) -> list[Effect]:
        """The log has as many bytes as it may: it ends there, and no fault of the peer's is that (rule 42)."""
        self._closing = "ended"
        return self._fail("log_full", now)

    def _fail(self, code: str, now: float, detail: str = "", waits: bool = True) -> list[Effect]:
        """An end that nobody sent. waits: for verdicts on the content before it, as one that was sent does."""
        if self._ending or (self._waiting and kind_of(self._waiting[-1].payload) in ("end", "stopped")):
            return []  # it has come, and waits
        self._waiting.clear()
        effects: list[Effect] = []
        taken: list[Taken] = [*self._let_out(now, effects), (Failed(code, detail), "", self._guard.decided, ())]
        packet = Upstream(self.record.session_id, Error(code, detail))
        if waits and self._guard.gate.waiting and not self.stop:
            self._ending = WaitingEnd(packet, taken)
            return effects + self._ask()
        return [*effects, self._store(packet, taken, now)]

    def _close(self, code: str) -> list[Effect]:
        self._enter("closed")
        self._closing = ""
        return [SendClosed(code)]

    def _enter(self, kind: Kind) -> None:
        self.conversation = next_phase(self.conversation, kind)

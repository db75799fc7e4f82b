"""What becomes of a packet, and where policies have a say in a session: the core's part beside the stream and the log.

Pure, like the core.
"""

from collections.abc import Iterable
from typing import TypeAlias

import msgspec
from msgspec.structs import replace

from dispatcher.core.effects import Ask, Effect, PolicyHit, Settle, Store, Wake
from dispatcher.core.entries import Body, Call, Entry, Failed, Finished, StopEntry, Text
from dispatcher.core.guard import Gate, Guard
from dispatcher.core.log import Head, Record
from dispatcher.policies.matches import Channel
from dispatcher.policies.outcomes import Reading, Release, Violation
from dispatcher.policies.questions import AskedPolicy, Question, Verdict
from shared.records import (
    FINISH_REASONS,
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

Taken: TypeAlias = tuple[Body, str, int]  # what becomes an entry: (body, released, decided)


class Ending(msgspec.Struct):
    """An end that waits, and with it its packet, until verdicts on the content before it are in. taken: what becomes of
    the packet, the end last.
    """

    packet: Upstream
    taken: list[Taken]

    @property
    def speaks(self) -> bool:
        """Something is let out before it that is not in the log yet: what its packet says, or what other rules held."""
        return len(self.taken) > 1


class Intake:
    """`Session` without its stream."""

    def __init__(self, record: Record, gate: Gate, instance: str) -> None:
        self.record = record
        self.head: Head = record.head
        self.epoch = record.head.epoch  # what this core appends under; the log's may move on
        self.stop: StopEntry | None = None
        self._guard, self._instance = Guard(gate, record.head.decided), instance
        self._accepted = 0  # the highest sequence taken from the stream, in the log or on its way there
        self._calls: dict[str, Call] = {}  # by call_id
        self._closing: str = ""  # the `closed` code to send once the end that goes with it is logged
        self._ending: Ending | None = None
        self._hit = False  # the policy that stops it was counted

    # ---- a packet's entries: (body, released, decided)

    def _take(self, packet: Upstream, now: float, effects: list[Effect]) -> list[Taken]:
        decided = self._guard.decided
        match packet.payload:
            case Content(text, is_finish, finish_reason, usage):
                taken: list[Taken] = []
                if self.stop and (text or not is_finish):  # what comes after a stop is logged, never released
                    taken.append((Content(text), "", decided))
                elif text or not is_finish:
                    release = self._guard.content(text, now)
                    taken.append((Content(text), release.text, release.decided))
                    taken += self._act(release, effects)
                if is_finish:
                    taken += self._let_out(now, effects)
                    reason = finish_reason if finish_reason in FINISH_REASONS else "stop"
                    taken.append((Finished(reason, usage), "", self._guard.decided))
                return taken
            case Thought() as thought:
                return [(thought, "", decided), *self._act(self._read(thought, now), effects)]
            case ToolCall(tool_name, arguments_json, call_id):
                call_id = call_id or f"seq-{packet.sequence}"
                call = Call(tool_name, arguments_json, call_id, self._instance, refused=call_id in self._calls)
                reading = self._read(call, now)
                denied = bool(reading.denied) and not (reading.violation or call.refused)
                call = replace(call, denied=denied)
                self._calls.setdefault(call_id, call)
                bodies: list[Body] = [call, denial(call)] if denied else [call]
                return [*((body, "", decided) for body in bodies), *self._act(reading, effects)]
            case Error(code, message, retryable):
                if retryable and self.record.request.origin == "user" and not self.stop:
                    return [(packet.payload, "", decided)]
                return [*self._let_out(now, effects), (Error(code or "agent_error", message), "", self._guard.decided)]
            case Stopped() as stopped if not self.stop:
                return [(Failed("protocol_error", "stopped without a stop"), "", decided), (stopped, "", decided)]
            case (Stopped() | Unknown()) as body:
                return [(body, "", decided)]
            case Open() | Status():
                raise AssertionError("open and status are the edge's, not a session's")

    # ---- policies that are asked

    def _ask(self) -> list[Effect]:
        return [] if self.stop else [Ask(question) for question in self._guard.questions()]

    def asked(self, channel: Channel) -> list[AskedPolicy]:
        """The policies that are to be asked about a call's arguments before it runs, and about its result."""
        return self._guard.asked(channel)

    def answered(self, question: Question, verdict: Verdict, now: float) -> list[Effect]:
        """A verdict on content or a thought. After a stop or an end it only counts."""
        release = self._guard.answered(question, verdict, now)
        effects: list[Effect] = []
        if self.stop or self.head.final:
            return [PolicyHit(hit.policy, hit.action) for hit in release.hits]
        taken: list[Taken] = [(Text(), release.text, release.decided)] if release.text else []
        taken += self._act(release, effects)
        if self._ending and (self._ending.speaks or self.stop or not self._guard.waiting):
            self._ending.taken[-1:-1] = taken
            taken = []
            if self.stop or not self._guard.waiting:
                effects.append(self._end(now))
        if taken:
            generation = self.head.generation
            entries = [Entry(body, now, generation, 0, released, decided) for body, released, decided in taken]
            effects.append(Store(tuple(entries)))
        return effects + self._ask()

    def _end(self, now: float) -> Store:
        """What the end waited for has come, or a stop, after which nothing is let out."""
        assert self._ending  # noqa: S101
        ending, self._ending = self._ending, None
        *before, (end, _, _) = ending.taken
        return self._store(ending.packet, [*before, (end, "", self._guard.decided)], now)

    def result(self, result: ToolResult, now: float) -> tuple[ToolResult, list[Effect]]:
        """A tool has answered: what goes into the log for that, before the Commander sees it; and what else follows."""
        denied, effects = self.judged(result, self._guard.read(result, now), now)
        return denied or result, effects

    def judged(self, of: Call | ToolResult, reading: Reading, now: float) -> tuple[ToolResult | None, list[Effect]]:
        """What policies say to a call before it runs, or to its result: the result that goes into the log instead, if
        any; and what else follows.
        """
        effects: list[Effect] = [PolicyHit(hit.policy, hit.action) for hit in reading.hits]
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
        entries: list[Taken] = [(Text(), release.text, release.decided)] if release.text else []
        return entries + self._act(release, effects)

    def _act(self, reading: Release | Reading, effects: list[Effect]) -> list[Taken]:
        """What counts is counted; the stop that a packet causes is one append with it."""
        if reading.hits:
            effects += [PolicyHit(hit.policy, hit.action) for hit in reading.hits]
        violation = reading.violation
        if not violation or self.stop:
            return []
        effects += self._hit_once(violation)
        self.stop = self._stop_entry(violation)
        return [(self.stop, "", self._guard.decided)]

    def _stop_entry(self, violation: Violation) -> StopEntry:
        stop_id = f"policy-{self.epoch}-{self._accepted}"
        return StopEntry(stop_id, violation.reason, "policy", violation.policy, violation.detail)

    def _settle_stop(self, violation: Violation, now: float) -> list[Effect]:
        stop = self._stop_entry(violation)
        entry = Entry(stop, now, self.head.generation, decided=self._guard.decided)
        return [*self._hit_once(violation), Settle(entry)]

    def _hit_once(self, violation: Violation) -> list[Effect]:
        hit, self._hit = self._hit, True
        return [] if hit else [PolicyHit(violation.policy, "stop")]

    def _store(self, packet: Upstream, taken: list[Taken], now: float) -> Store:
        generation, sequence, timestamp = self.head.generation, packet.sequence, packet.timestamp
        return Store(
            tuple(
                Entry(body, now, generation, sequence, released, decided, timestamp)
                for body, released, decided in taken
            )
        )

    def take_rules(self, gate: Gate, entries: Iterable[Entry], now: float) -> list[Effect]:
        """Go on under other rules. entries: the whole log, and what is on its way there. What ends or is stopped keeps
        the rules that it has.
        """
        if self.stop or self.head.final or self._ending or self._closing:
            return []
        guard = Guard(gate, self._guard.decided)
        found = None
        for entry in entries:
            found = found or read_again(guard, entry)
        guard.resume(self._guard.decided)
        guard.decided, self._guard = self._guard.decided, guard
        if found:
            return self._settle_stop(found, now)
        return [Wake("policy", guard.deadline), *self._ask()]


def read_again(guard: Guard, entry: Entry) -> Violation | None:
    """What the policies say today to what was logged then. What was denied stays so; what was not has been seen."""
    match entry.body:
        case Content(text):
            return guard.content(text, entry.at).violation
        case Thought() | Call() | ToolResult() as body:
            return guard.read(body, entry.at).violation
    return None


def ends(body: Body) -> bool:
    return isinstance(body, Finished) or (isinstance(body, Error) and not body.retryable)


def denial(of: Call | ToolResult) -> ToolResult:
    """The result of a call that a policy does not let through, or in place of the result."""
    error = '{"error": {"code": "denied", "message": "A rule forbids this."}}'
    return ToolResult(of.tool_name, error, of.call_id, "DENIED")

"""Drives one session: carries the core's effects out, and tells it what came of them.

No task of its own while nothing happens: appends answer through futures, deadlines are timers of the loop.
"""

import time
from collections.abc import Callable, Container
from functools import partial

import structlog

from dispatcher.core.effects import (
    AppendEntries,
    AppendWithoutEpoch,
    Ask,
    AskApproval,
    AskCalls,
    CancelTools,
    Effect,
    GiveBack,
    GiveUp,
    PolicyHit,
    RunTool,
    SendAck,
    SendClosed,
    SendResult,
    SendStop,
    Wake,
)
from dispatcher.core.entries import Approval, Call, Entry, StopEntry, StopSent
from dispatcher.core.guard import Guard
from dispatcher.core.log import Applied, Change, Fence, Head, Outcome, Record, Refused, Requeue, Settle, TakeBack
from dispatcher.core.session import Session
from dispatcher.live import clock
from dispatcher.live.appends import Appends
from dispatcher.live.approval_requests import ApprovalRequests
from dispatcher.live.deadlines import Deadlines
from dispatcher.live.facts import SessionFacts
from dispatcher.live.ports import Batch, Host, Link
from dispatcher.live.results import Results
from dispatcher.live.screening import Screening
from dispatcher.live.tool_runs import ToolRuns
from dispatcher.policies.ahead import at_once
from dispatcher.policies.gate import Gate
from dispatcher.policies.outcomes import Violation
from dispatcher.store.asking import READ_ENTRIES, until_known
from dispatcher.tools.registry import ApprovalRequest
from shared.conversation import Phase
from shared.flags import Flag
from shared.records import DownstreamSignal, Stop, ToolResult, Upstream, Welcome
from shared.turns import LoopTurn, in_turns

logger = structlog.get_logger()
IN_TURN = ("grace", "stop")  # deadlines from whose passing it is concluded that a Commander is lost: rarely one alone
RULE_ROUNDS = 5  # in which a session's log is read by changed rules, each what came in the one before
ELSEWHERE = ("superseded", "unknown_session")  # why a step is refused where another has the session, or nobody


class Runner:
    """One session on this instance, from its assignment (or `open`) to its end."""

    def __init__(self, host: Host, session: Session) -> None:
        self.session_id = session.record.session_id
        self.session = session
        self._complete = session.head.complete
        self.link: Link | None = None
        self.host = host
        self.appends, self.tools = Appends(self), ToolRuns(self)
        self._results, self._screening = Results(self), Screening(self)
        self._approvals = ApprovalRequests(self)
        self.deadlines = Deadlines(self._due, host.pace, IN_TURN)
        self._held = 0
        self._closed = False  # another instance has it, or nobody need
        self._looking = self._look_again = self._taking_back = self._catching_up = False
        self._concluding = 0  # steps under way that follow from silence
        self._changed = Flag()  # something was done, or has ended
        self.facts = self._new_facts(session.record)

    def _new_facts(self, record: Record) -> SessionFacts:
        host = self.host
        trace = host.trace(record.session_id, record.request)
        return SessionFacts(host.metrics, record, host.log_thoughts, host.registry.knows, host.ended, trace)

    # ---- attachment

    def begin(
        self, session: Session, link: Link | None, awaiting_call_ids: tuple[str, ...] = (), anew: bool = False
    ) -> None:
        """Go on with a core that was just rebuilt from the log, on that stream if one is given. anew: even if its epoch
        is a lower one, as the log was rolled back.
        """
        if link and not link.alive:
            link = None
        if session.epoch < self.session.epoch and not anew:
            if link:
                link.close(self.session_id, "superseded")
            return
        old_link, self.link = self.link, link
        if old_link and old_link is not link:
            old_link.close(self.session_id, "superseded")
        self.appends.forget()  # it comes again after Welcome
        self._results.clear()
        self.session = session
        if self._closed:  # another instance had it, and counted what it did
            self.facts = self._new_facts(session.record)
            self._closed = False
        now = clock.now()
        effects = session.restored(now)
        if link:
            limits = session.limits
            link.attach(self)
            if not session.older:
                welcome = Welcome(session.head.sequence, limits.max_unacked_packets, limits.max_unacked_bytes)
                link.send(self.session_id, welcome)
            effects += session.attach(awaiting_call_ids, now)
        else:
            effects += session.await_open(now)
        self.carry_out(effects)
        self.judge_calls()

    def judge_calls(self) -> None:
        """See to the calls that other instances should have answered."""
        nobodys_or_mine = ("", self.host.instance)
        if self.owned and any(call.instance not in nobodys_or_mine for call in self.session.head.calls.values()):
            self.host.judge_calls(self.settle_gone)

    def settle_gone(self, alive: Container[str]) -> None:
        """Answer the calls of instances that are gone."""
        if self.owned:
            self.tools.settle_gone(self.session.head.calls, alive, clock.now())

    def detach(self, link: Link) -> None:
        """The stream is gone."""
        if self.link is link:
            self.link = None
            self._results.forget()
            self.carry_out(self.session.detach(clock.now()))
            self.maybe_settled()

    def unserved(self) -> None:
        """Nobody took it from the queue in time."""
        now = clock.now()
        self.carry_out([*self.session.restored(now), *self.session.unserved(now)])

    def lost(self, sent: bool = True) -> None:
        """The Commander does not hold the session, as it says, or because the assignment was not sent: no grace."""
        self._leave()
        self.carry_out(self.session.lost(clock.now(), sent))

    # ---- the stream's side (`Carried`)

    async def read_ahead(self, packet: Upstream, turn: LoopTurn) -> None:
        """Let the policies read a large packet before it is received; others have the loop in between."""
        for _ in self.session.read_ahead(packet):
            await turn.step()

    def receive(self, packet: Upstream) -> None:
        """A packet of the stream that has the session."""
        self.carry_out(self.session.receive(packet, clock.now()))

    def take_ack(self) -> int:
        """The sequence to ack now; what is acked no longer counts against the credit."""
        sequence = self.session.head.sequence
        self.session.acked(sequence)
        return sequence

    def stop_written(self, began: float) -> None:
        """A stop has just been handed to gRPC, which began at that time (`perf_counter`)."""
        stop = self.session.stop
        if stop and self.owned and self.facts.stop_written(began):
            at = clock.now() - (time.perf_counter() - began)
            self.host.spawn(self._settle_stop_sent(stop.stop_id, at))

    async def _settle_stop_sent(self, stop_id: str, at: float) -> None:
        """A turn later: the facts know by now when the stop was logged."""
        sent = StopSent(stop_id, self.facts.stop_logged_at)
        await self._settle_until_known(Entry(sent, at, self.session.head.generation))

    @property
    def over(self) -> bool:
        return self.session.head.over

    @property
    def expected(self) -> int:
        """The generation whose Commander has to hold it now; 0: nobody has to."""
        talks = self.session.conversation in (Phase.OPEN, Phase.STOPPING)
        return self.session.head.generation if talks and not self.over else 0

    @property
    def done(self) -> bool:
        """Its end has come, or is about to be refused: nothing more of it is awaited on its stream."""
        return self.session.conversation in (Phase.ENDED, Phase.GIVEN) or self.session.closing

    @property
    def answered_by_leaving(self) -> bool:
        """It was stopped, and its peer is an older one, which has no other answer than to end its stream."""
        session = self.session
        ended = session.conversation in (Phase.ENDED, Phase.GIVEN)
        return session.older and session.head.final and not session.head.over and not ended

    async def room(self) -> None:
        """Return when fewer packets than its credit are on their way to the log and no call waits for another's end."""
        while self.session.waits and self.link:
            await self._change()
        if self.appends.backlog >= self.session.limits.max_unacked_packets:
            await self.appends.drained()

    @property
    def tools_run(self) -> bool:
        return bool(self.tools or self._results)

    async def tools_over(self) -> None:
        while self.tools_run:
            await self._change()

    async def _change(self) -> None:
        """Return when something was done, or has ended."""
        self._changed.clear()
        await self._changed.wait()

    async def run_call(self, call: Call) -> ToolResult:
        """The result of a call; raises nothing but CancelledError."""
        return await self._screening.run(call)

    async def check_call(self, call: Call) -> ApprovalRequest | ToolResult:
        """What has to be approved before the call runs; or its result, where it does not come to that."""
        return await self._screening.check(call)

    @property
    def approvals_waiting(self) -> int:
        """Calls that wait for a decision."""
        return sum(call.waits for call in self.session.head.calls.values()) if self.owned else 0

    # ---- the log has grown

    def observe(self, outcome: Applied) -> None:
        """The log has grown by this, through whomever."""
        if self._taking_back:  # its answer has not come yet, or its epoch would be taken for another's
            self._look_again = True
            return
        counts = not self._closed
        now = clock.now()
        self.carry_out(self.session.logged(outcome, now))  # a stop goes out before it is told of
        if counts:
            self.facts.appended(outcome, now)
        if outcome.head.complete and not self._complete:
            self._complete = True
            if outcome.head.instance in ("", self.host.instance):
                self.host.completed(self.session_id)
        if outcome.head.epoch > self.session.epoch:
            self._give_way()
        elif self.link and outcome.head.instance != self.host.instance and not outcome.head.over:
            self.grown()  # it was taken over, and the news of that may be lost: the answer to a step has it too
        elif self._misses(outcome.head) and not self._catching_up:
            self._catching_up = True
            self.host.spawn(self._catch_up())
        self.maybe_settled()

    async def take_rules(self, gate_of: Callable[[Record, list[Entry]], Gate]) -> None:
        """Go on under today's rules: a fresh gate reads what the session has said so far, and then what it has said
        meanwhile, a part of the log at a time. After RULE_ROUNDS of that the rest is read in one turn, or one that
        talks on would never be done.
        """
        session, store = self.session, self.host.store
        guard: Guard | None = None
        found: Violation | None = None
        read = sequence = rounds = 0  # up to that offset, and that sequence
        more = True  # stands in the log, as far as that is known
        while not found:
            logged: list[Entry] = []
            if more or read < session.offset:
                part = await until_known(lambda: store.read(self.session_id, read, READ_ENTRIES))  # noqa: B023
                if not (more or part.entries):
                    return  # it is gone
                logged, more = part
            fresh = [entry for entry in logged if not 0 < entry.sequence <= sequence]
            known = max((entry.sequence for entry in fresh), default=sequence)
            if not more:
                fresh += [entry for entry in self.appends.unlogged if entry.sequence > known]
            if guard and not (logged or fresh):
                break
            read = logged[-1].offset if logged else read
            sequence = max((entry.sequence for entry in fresh), default=sequence)
            guard = guard or Guard(gate_of(session.record, logged), 0)
            reading, rounds = guard.all_again(fresh), rounds + (not more)
            found = await in_turns(reading) if rounds <= RULE_ROUNDS else at_once(reading)
            if session is not self.session or not self.owned:
                return  # it was rebuilt meanwhile, under today's rules
        if guard:
            self.carry_out(session.take_rules(guard, found, clock.now()))

    # ---- other instances

    def grown(self) -> None:
        """Another instance has changed the session in the log."""
        self._look_again = True
        if not self._looking:
            self._looking = True
            self.host.spawn(self._look())

    async def _look(self) -> None:
        try:
            while self._look_again:
                self._look_again = False
                await self._look_once()
        finally:
            self._looking = False

    async def _look_once(self) -> None:
        session, store = self.session, self.host.store
        record = await until_known(lambda: store.brief(self.session_id))
        part = await self._read_on(session) if record else []  # what is behind it: `_catch_up`
        if session is not self.session:
            self._look_again = True
            return
        if record and record.head.final and self.tools:
            self.tools.cancel(record.head.calls)
        elsewhere = record is None or (
            record.head.instance != self.host.instance and record.head.epoch <= session.epoch  # lower: rolled back
        )
        if elsewhere and self.link and record:
            await self.take_back()
        elif elsewhere:
            self._give_way()
            self.maybe_settled()
        elif record:
            self._observe_read(record.head, part)
            if record.head.instance == self.host.instance and self.unattended:
                # Its Commander was told that it is over here, and the log gives it to this instance all the same.
                await self.host.look_again(self.session_id)

    @property
    def unattended(self) -> bool:
        """The session lives, and nothing here leads to its end: no stream, no deadline, nothing under way."""
        head = self.session.head
        calls = self.tools or self._approvals
        under_way = self.link or self.appends.busy or calls or self._taking_back or self._concluding
        awaited = any(name in self.deadlines for name in ("grace", "stop", "approval"))
        return self.owned and not (head.complete or head.state == "waiting" or under_way or awaited)

    async def take_back(self) -> None:
        """This instance's lease had ended, and it still has the session's stream: nobody else's silence counts."""
        session = self.session
        if not self.link or session.head.over or self._taking_back:
            return
        self._taking_back = True
        self.appends.hold(True)
        try:
            outcome = await self._submit_until_known(TakeBack(session.epoch, self.host.instance))
        finally:
            self._taking_back = False
        if session is self.session:
            if isinstance(outcome, Applied):
                logger.info("session_taken_back", session_id=self.session_id)
                session.taken_back(outcome)
            else:
                self.carry_out(session.refused(outcome, clock.now()))
            self.grown()
        self.appends.hold(False)

    def _give_way(self) -> None:
        """Another instance has it. What runs here for it, a tool, runs on."""
        if not self.link:
            self.close()

    @property
    def owned(self) -> bool:
        """This instance has the session."""
        return not self._closed

    def _misses(self, head: Head) -> bool:
        """Not all that stands in the log by then was taken in."""
        return self.session.offset < head.offset and head.epoch == self.session.epoch

    async def _catch_up(self) -> None:
        """Read what the log holds and nobody told of: the answer to an append was lost, or is still under way; or
        another instance has added much. A part at a time: others have the loop in between.
        """
        try:
            while (session := self.session).offset < session.head.offset:
                before = session.offset
                part = await self._read_on(session)
                if session is self.session:
                    self._observe_read(session.head, part)
                    if session.offset == before:  # it is gone, or has to be looked at again
                        return
        finally:
            self._catching_up = False

    async def _read_on(self, session: Session) -> list[Entry]:
        """The next that its core has not taken in."""
        store = self.host.store
        part, _ = await until_known(lambda: store.read(self.session_id, session.offset, READ_ENTRIES))
        return part

    def _observe_read(self, head: Head, part: list[Entry]) -> None:
        """What the log was read to have, but for what stands behind that head: nothing would follow from a call that
        the head lacks, and with the next head it comes again.
        """
        entries = tuple(entry for entry in part if entry.offset <= head.offset)
        if any(isinstance(entry.body, StopEntry) for entry in entries):
            self.facts.stop_detected()
        self.observe(Applied(head, entries))

    # ---- effects

    def carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case AppendEntries():
                    self.appends.add(effect.entries)
                case SendAck():
                    if self.link:
                        self.link.send_ack(self, effect.at_once)
                case SendResult(result, offset):
                    self._results.send(result, offset)
                case SendStop(stop):
                    self._send(Stop(stop.reason, stop.stop_id, stop.detail))
                case RunTool(call):
                    self.tools.run(call)
                case AskApproval(call):
                    self._approvals.ask(call)
                case AppendWithoutEpoch(entry):
                    self._settle(entry)
                case CancelTools():
                    self._screening.cancel()
                    self._approvals.cancel()
                    self.tools.cancel(self.session.head.calls)
                case Wake(name, at):
                    self.deadlines.set(name, at)
                case SendClosed(code):
                    self._close(code)
                case GiveBack(handed_over):
                    requeue = partial(Requeue, now=time.time(), handed_over=handed_over)
                    self._conclude(requeue)
                case GiveUp():
                    if self.session.conversation is Phase.STOPPING:
                        logger.warning("commander_did_not_stop", session_id=self.session_id)
                    self._conclude(Fence)
                case Ask() | AskCalls():
                    self._screening.ask(effect)
                case PolicyHit(policy, action, times):
                    if action == "stop":
                        self.facts.stop_detected()
                    self.host.metrics.policy_hit(policy, action, times)
        if self._held != (held := self.session.held) and not self._closed:
            self.host.metrics.held_characters.inc(held - self._held)
            self._held = held
        self._changed.set()

    def _send(self, signal: DownstreamSignal) -> None:
        if self.link:
            self.link.send(self.session_id, signal)

    def _close(self, code: str) -> None:
        if self.link:
            logger.info("session_closed", session_id=self.session_id, code=code)
            link, self.link = self.link, None
            self._results.forget()
            link.close(self.session_id, code)

    def _leave(self) -> None:
        """Its peer knows that it is no longer on its stream."""
        if self.link:
            link, self.link = self.link, None
            self._results.forget()
            link.leave(self.session_id, over=False)

    def _due(self, name: str) -> None:
        self.carry_out(self.session.deadline(name, clock.now()))

    # ---- the log

    def answered(self, outcome: Outcome | BaseException, session: Session, batch: Batch) -> None:
        current = session is self.session and self.owned
        if isinstance(outcome, BaseException):
            logger.error("append_failed", session_id=self.session_id, exc_info=outcome)
            if current:
                self.carry_out(session.unstorable(clock.now()))
        elif isinstance(outcome, Applied):
            self.facts.packets(batch)
            if current:
                self.observe(outcome)
            elif self.owned:
                self.facts.appended(outcome, clock.now())  # the core that went on has read it from the log
        elif current:
            concluded = session.conversation is Phase.IDLE
            self.carry_out(session.refused(outcome, clock.now()))
            if outcome.code in (*ELSEWHERE, "ended"):
                self.grown()
            elif outcome.code == "gap" and concluded:  # nobody is told to open it again
                self.host.spawn(self.host.look_again(self.session_id))

    def _settle(self, entry: Entry) -> None:
        self.host.spawn(self._settle_until_known(entry))

    async def _settle_until_known(self, entry: Entry) -> None:
        outcome = await self._submit_until_known(Settle(entry))
        if isinstance(outcome, Applied):
            self.host.observe(self.session_id, outcome)
        elif outcome.code == "unknown_session":
            self.grown()  # it was deleted meanwhile: no deadline needs to lead here any more

    async def settle(self, body: ToolResult | Approval) -> None:
        await self._settle_until_known(Entry(body, clock.now(), self.session.head.generation))

    async def _submit_until_known(self, change: Change) -> Outcome:
        return await until_known(lambda: self.host.store.submit(self.session_id, change))

    def _conclude(self, change_of: Callable[[int], Requeue | Fence]) -> None:
        """What silence leads to, under the session's epoch. Refused: somebody has it, and nothing is concluded."""
        self._concluding += 1
        self.host.spawn(self._conclude_until_known(change_of))

    async def _conclude_until_known(self, change_of: Callable[[int], Requeue | Fence]) -> None:
        try:
            change, outcome = await self._concluded(change_of)
        finally:
            self._concluding -= 1
        if isinstance(outcome, Refused):
            if outcome.code in ELSEWHERE:
                self.grown()
            else:
                self.host.spawn(self.host.look_again(self.session_id))
            return
        session = self.session
        if isinstance(change, Fence):
            self.carry_out(session.fenced(outcome, clock.now()))
        else:
            self._leave()
            self.close()
            if outcome.head.takeovers > session.record.head.takeovers:
                self.host.metrics.takeovers.inc()
                self.host.ended(outcome.head.commander, False)
            self.host.requeued(self, Record(self.session_id, session.record.request, outcome.head))
        self.maybe_settled()

    async def _concluded(self, change_of: Callable[[int], Requeue | Fence]) -> tuple[Requeue | Fence, Outcome]:
        session = self.session
        change = change_of(session.epoch)
        outcome = await self._submit_until_known(change)
        while isinstance(outcome, Refused) and session is self.session and session.epoch != change.epoch:
            change = change_of(session.epoch)  # it was taken back meanwhile
            outcome = await self._submit_until_known(change)
        return change, outcome

    # ---- the end

    def maybe_settled(self) -> None:
        """Nothing is left to do here: the host forgets this runner, and the log keeps the session."""
        self._changed.set()
        if self.link or self.appends.busy or self.tools:
            return
        head = self.session.head
        if self._closed or head.complete or head.state == "waiting":
            self.close()
            self.host.settled(self)

    def close(self) -> None:
        """Let go of timers, of what is held, and of what is on its way to the log. Idempotent."""
        self._closed = True
        self.appends.forget()
        if not self.session.head.final:  # observers may still count
            self._screening.cancel()
        self.deadlines.clear()
        self.host.metrics.held_characters.dec(self._held)
        self._held = 0

"""Interleavings: two Dispatchers on one log, Commanders of several generations, cut streams, crashes, unknown outcomes.

Every Commander says the alphabet on from where its history ends, one letter a packet. Whatever happens in between, the
log must hold the alphabet once, in order; each tool ran at most once; there is one final state, with nothing after it.
"""

import os
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dispatcher.core import log
from dispatcher.core.entries import Approval, Call, Decision, Entry, Failed, Finished, Started, StopEntry
from dispatcher.policies.questions import AskedPolicy
from dispatcher.policies.rules import PhrasesPolicy, RuleSet
from shared.conversation import Phase
from shared.records import Content, Error, Stopped, ToolCall, ToolResult, Upstream
from tests.dispatcher.core.session_world import DIGEST, NO_RULES, Dispatcher, Log, Stream, packet

EXAMPLES = {"long": 2000, "thorough": 20_000}.get(os.environ.get("HYPOTHESIS_PROFILE", ""), 100)

ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def letters(count: int) -> str:
    return (ALPHABET * (count // 26 + 1))[:count]


@dataclass
class Commander:
    """Keeps to the contract: numbers its packets, sends nothing before Welcome, keeps what is not acked."""

    name: str
    generation: int
    sequence: int  # the highest that it has numbered, or that its history names
    position: int  # letters said, its predecessors' included
    stream: Any = None  # a Stream, once it has one
    outbox: list[Upstream] = field(default_factory=list)
    awaited: set[str] = field(default_factory=set)
    over: bool = False  # it has sent an end
    dead: bool = False  # fenced
    calls: int = 0

    def send(self, payload) -> None:
        self.sequence += 1
        item = packet(self.sequence, payload, size=1)
        self.outbox.append(item)
        self.stream.up.append(item)

    def resume(self, stream: Stream) -> None:
        self.stream = stream
        self.outbox = [item for item in self.outbox if item.sequence > stream.welcome]
        stream.up.extend(self.outbox)

    @property
    def can_send(self) -> bool:
        unacked = [item for item in self.outbox if item.sequence > (self.stream.acked if self.stream else 0)]
        return bool(self.stream and not self.stream.closed and not self.over and len(unacked) < 8)


class Sessions(RuleBasedStateMachine):
    policies = NO_RULES

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.instances = 0
        self.dispatchers = [self.start(), self.start()]
        self.commanders: list[Commander] = []
        self.ran: list[str] = []
        self.calls = 0

    def start(self) -> Dispatcher:
        self.instances += 1
        return Dispatcher(self.log, f"d{self.instances}", self.policies)

    def talkers(self) -> list[Commander]:
        return [c for c in self.commanders if c.can_send]

    # ---- the pool

    @precondition(lambda self: self.log.head.state == "waiting")
    @rule(which=st.integers(0, 1), continues=st.booleans())
    def assign(self, which, continues):
        name = f"c{len(self.commanders)}"
        outcome = self.log.submit(log.Assign(name, self.dispatchers[which].instance, continues, 0.0))
        assert isinstance(outcome, log.Applied)
        said = "".join(e.body.text for e in self.log.entries if isinstance(e.body, Content))
        self.commanders.append(Commander(name, outcome.head.generation, outcome.head.sequence, len(said)))
        assert not outcome.head.calls, "a history has a result for every call"
        dispatcher = self.dispatchers[which]
        dispatcher.stream = None
        session = dispatcher.rebuild()
        dispatcher.carry_out(session.restored(dispatcher.now) + session.await_open(dispatcher.now))

    @precondition(lambda self: any(not c.dead for c in self.commanders))
    @rule(data=st.data(), which=st.integers(0, 1))
    def open(self, data, which):
        """Also a late one, of an old generation, and one while another stream has the session."""
        commander = data.draw(st.sampled_from([c for c in self.commanders if not c.dead]))
        stream = Stream()
        first = commander.stream is None and not commander.outbox
        before = self.log.head.generation
        code = self.dispatchers[which].open(stream, commander.name, commander.generation, tuple(commander.awaited))
        if commander.generation < before:
            assert code == "fenced"
        if code == "fenced":
            commander.dead = True
        elif code is None:
            if first and commander.sequence != stream.welcome:
                assert stream.welcome > commander.sequence >= 0
            commander.resume(stream)

    # ---- what a Commander does

    @precondition(lambda self: self.talkers())
    @rule(data=st.data())
    def say(self, data):
        commander = data.draw(st.sampled_from(self.talkers()))
        commander.send(Content(letters(commander.position + 1)[-1]))
        commander.position += 1

    @precondition(lambda self: self.talkers())
    @rule(data=st.data(), tool=st.sampled_from(["t", "asked"]))
    def call(self, data, tool):
        commander = data.draw(st.sampled_from(self.talkers()))
        self.calls += 1
        call_id = f"{commander.name}-{self.calls}"
        commander.awaited.add(call_id)
        commander.send(ToolCall(tool, "{}", call_id))

    @precondition(lambda self: self.talkers())
    @rule(data=st.data(), how=st.sampled_from(["finish", "error", "give"]))
    def end(self, data, how):
        commander = data.draw(st.sampled_from(self.talkers()))
        ends = {"finish": Content("", is_finish=True), "error": Error("e"), "give": Error("leaving", retryable=True)}
        commander.send(ends[how])
        commander.over = True

    @precondition(lambda self: any(c.can_send and c.stream.stops for c in self.commanders))
    @rule(data=st.data())
    def halt(self, data):
        commander = data.draw(st.sampled_from([c for c in self.commanders if c.can_send and c.stream.stops]))
        commander.send(Stopped(commander.stream.stops[0].stop_id))
        commander.over = True

    # ---- what the world does

    def attached(self) -> list[Dispatcher]:
        return [d for d in self.dispatchers if d.session]

    @precondition(lambda self: any(d.stream and d.stream.up for d in self.dispatchers))
    @rule(data=st.data())
    def deliver(self, data):
        data.draw(st.sampled_from([d for d in self.dispatchers if d.stream and d.stream.up])).deliver()

    @precondition(lambda self: any(d.flying for d in self.dispatchers))
    @rule(data=st.data(), applied=st.booleans(), told=st.booleans())
    def answer(self, data, applied, told):
        data.draw(st.sampled_from([d for d in self.dispatchers if d.flying])).answer(applied, told)

    @precondition(lambda self: any(d.stream for d in self.dispatchers))
    @rule(data=st.data())
    def cut(self, data):
        dispatcher = data.draw(st.sampled_from([d for d in self.dispatchers if d.stream]))
        dispatcher.stream.closed = "cut"
        dispatcher.cut()

    @precondition(lambda self: any(d.wakes and d.session for d in self.dispatchers))
    @rule(data=st.data())
    def wake(self, data):
        dispatcher = data.draw(st.sampled_from([d for d in self.dispatchers if d.wakes and d.session]))
        dispatcher.wake(data.draw(st.sampled_from(sorted(dispatcher.wakes))))

    @rule(which=st.integers(0, 1), applied=st.booleans())
    def crash(self, which, applied):
        """kill -9: what was under way reached the log, or not; the next instance takes the session up."""
        dead = self.dispatchers[which]
        if dead.flying and applied:
            self.log.submit(dead.flying)
        if dead.stream:
            dead.stream.closed = "cut"
        self.ran += dead.ran
        self.dispatchers[which] = heir = self.start()
        if self.log.head.state == "running":
            session = heir.rebuild()
            heir.carry_out(session.restored(heir.now) + session.await_open(heir.now))
            gone = {d.instance for d in self.dispatchers}
            for call_id, call in self.log.head.calls.items():
                if call.instance not in {"", *gone}:
                    heir.settle(Entry(ToolResult("t", "{}", call_id, "UNKNOWN_OUTCOME"), heir.now))

    @precondition(lambda self: any(d.running for d in self.dispatchers))
    @rule(data=st.data())
    def finish_tool(self, data):
        dispatcher = data.draw(st.sampled_from([d for d in self.dispatchers if d.running]))
        dispatcher.finish_tool(data.draw(st.sampled_from(sorted(dispatcher.running))))

    @precondition(lambda self: any(call.asked for call in self.log.head.calls.values()))
    @rule(
        data=st.data(),
        which=st.integers(0, 1),
        decision=st.sampled_from(["approve", "approve", "deny"]),
        digest=st.sampled_from([DIGEST, DIGEST, "f" * 64]),
    )
    def decide(self, data, which, decision, digest):
        asked = sorted(call_id for call_id, call in self.log.head.calls.items() if call.asked)
        self.dispatchers[which].decide(data.draw(st.sampled_from(asked)), decision, digest)

    @rule(which=st.integers(0, 1))
    def stop(self, which):
        self.dispatchers[which].stop()

    # ---- what holds at every moment

    @invariant()
    def the_log_holds_the_alphabet_once(self):
        said = "".join(e.body.text for e in self.log.entries if isinstance(e.body, Content))
        assert said == letters(len(said))
        assert self.log.text == said[: self.log.head.decided]

    @invariant()
    def offsets_and_sequences_have_no_gap(self):
        assert [e.offset for e in self.log.entries] == list(range(1, len(self.log.entries) + 1))
        numbered = list(dict.fromkeys(e.sequence for e in self.log.entries if e.sequence))
        assert numbered == list(range(1, len(numbered) + 1))
        assert self.log.head.sequence == len(numbered)

    @invariant()
    def nothing_is_released_after_the_first_stop_or_end(self):
        final = False
        for entry in self.log.entries:
            assert not (final and entry.released)
            body = entry.body
            final |= isinstance(body, StopEntry | Finished | Failed | Stopped)
            final |= isinstance(body, Error) and not body.retryable
        assert final == self.log.head.final

    @invariant()
    def a_tool_runs_at_most_once(self):
        ran = self.ran + [call_id for d in self.dispatchers for call_id in d.ran]
        assert len(ran) == len(set(ran))
        logged = {e.body.call_id for e in self.log.entries if isinstance(e.body, Call)}
        assert set(ran) <= logged

    @invariant()
    def what_has_to_be_approved_runs_only_then(self):
        ran = self.ran + [call_id for d in self.dispatchers for call_id in d.ran]
        bodies = [e.body for e in self.log.entries]
        decisions = [each for each in bodies if isinstance(each, Decision)]
        approved = {e.call_id for e in decisions if (e.decision, e.arguments_sha256) == ("approve", DIGEST)}
        assert {each.call_id for each in bodies if isinstance(each, Call) and each.approval} & set(ran) <= approved
        for kind in (Approval, Decision, Started):
            of = [each.call_id for each in bodies if isinstance(each, kind)]
            assert len(set(of)) == len(of)

    @invariant()
    def results_are_given_once(self):
        results = [e.body.call_id for e in self.log.entries if isinstance(e.body, ToolResult)]
        assert len(results) == len(set(results))

    @invariant()
    def an_ack_names_only_what_is_logged(self):
        for commander in self.commanders:
            if commander.stream:
                assert commander.stream.acked <= self.log.head.sequence

    @invariant()
    def only_one_core_believes_to_have_the_current_epoch(self):
        current = [
            d
            for d in self.dispatchers
            if d.session and d.session.epoch == self.log.head.epoch and d.session.conversation is not Phase.IDLE
        ]
        assert len(current) <= 1


class AskedSessions(Sessions):
    """What is said waits for a verdict, which comes at any time, or fails; some of it waits for what follows too."""

    policies = RuleSet(
        [
            AskedPolicy("asked", "plugin", "any:thing", action="redact", reads=frozenset({"content"})),
            PhrasesPolicy("names", ("abcd!", "ghijkl!", "tuvwxyzab!")),
        ]
    )

    @precondition(lambda self: any(d.questions for d in self.dispatchers))
    @rule(data=st.data(), kind=st.sampled_from(["pass"] * 5 + ["unavailable"]))
    def verdict(self, data, kind):
        data.draw(st.sampled_from([d for d in self.dispatchers if d.questions])).verdict(kind)


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=EXAMPLES, stateful_step_count=50, deadline=None)
TestAskedSessions = AskedSessions.TestCase
TestAskedSessions.settings = settings(max_examples=EXAMPLES, stateful_step_count=50, deadline=None)

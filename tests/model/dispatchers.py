"""What the careless Dispatchers do (`tests.model.careless`), one step at a time."""

from collections.abc import Iterator
from typing import Self

from msgspec.structs import asdict, replace

from dispatcher.core import log
from dispatcher.core.entries import Body, Call, Decision, Entry, Failed, Finished, Started, StopEntry
from shared.records import Content, Error, Stopped, ToolResult
from tests.model.journal import ASKED, LATER, NOW, REQUEST, Journal, asks, token_of, told
from tests.model.search import Broken
from tests.model.sides import COMMANDERS, NONE, Hand, Orphan, Post, Sides


class Dispatchers(Sides, frozen=True, gc=False):
    """Two of them."""

    # ---- streams

    def acquire(self, number: int, told_: bool) -> Self:
        stream = self._at(number)
        hand, name = self.hands[stream.hand], self.posts[stream.post].name
        token = token_of(hand.generation, hand.commander_id)
        change = log.Acquire(hand.commander_id, hand.generation, name, NOW, token)
        journal, outcome = self.journal.submit(change, tag=stream.hand + 1)
        world = replace(self._stream(number, replace(stream, up=stream.up[1:])), journal=journal)
        if not told_:
            world = world._spend("unanswered")._closed(number, "unavailable")
            return world._post(stream.post, asks=True)
        if isinstance(outcome, log.Refused):
            return world._closed(number, outcome.code)
        world = world._lets_go(stream.post, "superseded")._has(stream.post, number)
        return world._welcomed(number, outcome.head.sequence)

    def impose(self, number: int, commander_id: str, generation: int, token: bytes) -> Self:
        """It is opened by who knows all of an assignment but its token."""
        change = log.Acquire(commander_id, generation, self.posts[number].name, NOW, token)
        if isinstance(log.apply(log.Record("s", REQUEST, self.journal.head), change), log.Applied):
            raise Broken("it is opened by somebody to whom it was not given")
        return self

    def deliver(self, number: int) -> Self:
        stream = self._at(number)
        world = self._stream(number, replace(stream, up=stream.up[1:]))
        post = self.posts[stream.post]
        if post.stream != number:
            return world  # it is not open on this stream
        return world._post(stream.post, pending=(*post.pending, (stream.hand + 1, stream.up[0])))

    def _lets_go(self, number: int, code: str) -> Self:
        """The stream that it has the session on, if any, loses it."""
        stream = self.posts[number].stream
        return self if stream == NONE else self._closed(stream, code)

    def _has(self, number: int, stream: int = NONE) -> Self:
        """It begins anew with the session, as the log has it."""
        head, given = self.journal.head, self.journal.given
        changes = {"epoch": head.epoch, "basis": given, "commander_id": head.commander_id, "stream": stream}
        return self._post(number, **changes, pending=(), asks=False, takes_back=False)._runs(number)

    def _has_not(self, number: int) -> Self:
        return self._post(number, epoch=NONE, basis=0, commander_id="", stream=NONE, pending=(), takes_back=False)

    # ---- the log

    def append(self, number: int, told_: bool) -> Self:
        post = self.posts[number]
        change = log.Append(post.epoch, tuple(self._entries(post)), post.commander_id)
        journal, outcome = self.journal.submit(change, post.basis)
        world = replace(self, journal=journal)
        if not told_:
            return world._unanswered(change, outcome)
        if isinstance(outcome, log.Refused):
            return world._refused(number, outcome)
        world = world._post(number, pending=())._runs(number)
        return world._acked(post.stream, outcome.head.sequence) if post.stream != NONE else world

    def _entries(self, post: Post) -> Iterator[Entry]:
        for tag, (sequence, what) in post.pending:
            generation = self.hands[tag - 1].generation
            item = what if isinstance(what, str) else self.journal.script[what]
            body: Body
            match item:
                case "halt":
                    body = Stopped("stop")
                case "give":
                    body = Error(retryable=True)
                case "loss":
                    body = Error("data_loss")
                case "T" | "Q":
                    body = Call("t", "{}", f"{what}-{tag}", post.name, approval="user" if item == "Q" else "")
                case ".":
                    body = Finished()
                case _:
                    body = Content(item)
            released = item if isinstance(body, Content) and item != "!" else ""
            yield Entry(body, NOW, generation, sequence, released, timestamp=tag)
            if item == "!":
                stop = StopEntry("policy", "PolicyViolation", "policy")
                yield Entry(stop, NOW, generation, sequence, timestamp=tag)

    def _unanswered(self, change: log.Change, outcome: log.Outcome) -> Self:
        if isinstance(outcome, log.Applied):
            self.journal.repeated(change)
        return self._spend("unanswered")

    def _refused(self, number: int, refusal: log.Refused) -> Self:
        world = self._lets_go(number, refusal.code)
        if refusal.code == "gap":  # somebody may open it again here
            return world._post(number, stream=NONE, pending=(), takes_back=False)
        return world._has_not(number)

    def stop(self) -> Self:
        stop = StopEntry(f"user-{self.faults.stops}", "UserCancel", "user")
        return replace(self._spend("stops"), journal=self._settled(Entry(stop, NOW)))

    def settle(self, number: int, call_id: str, status: str) -> Self:
        world = replace(self, journal=self._settled(Entry(ToolResult("t", "1", call_id, status), NOW)))
        return world._post(number, running=tuple(each for each in self.posts[number].running if each != call_id))

    def ask(self, call_id: str) -> Self:
        return replace(self, journal=self._settled(asks(call_id)))

    def decide(self, call_id: str, decision: str, under: str, at: float) -> Self:
        decided = Decision(call_id, decision, "user", under)
        return replace(self._spend("decisions"), journal=self._settled(Entry(decided, at)))

    def expire(self, call_id: str) -> Self:
        decided = Decision(call_id, "expire", "dispatcher", ASKED)
        return replace(self, journal=self._settled(Entry(decided, LATER)))

    def start_call(self, number: int, call_id: str) -> Self:
        started = Started(call_id, "t", self.posts[number].name)
        return replace(self, journal=self._settled(Entry(started, NOW)))._runs(number)

    def _settled(self, entry: Entry) -> Journal:
        journal, _ = self.journal.submit(log.Settle(entry))
        journal.repeated(log.Settle(entry))
        return journal

    def _runs(self, number: int) -> Self:
        """It reads the log, and runs the calls that stand there in its name."""
        post, journal = self.posts[number], self.journal
        for call_id, call in journal.head.calls.items():
            if call.instance == post.name and call_id not in post.begun:
                journal = journal.run(call_id)
                post = replace(post, begun=(*post.begun, call_id), running=(*post.running, call_id))
        return replace(self._post(number, begun=post.begun, running=post.running), journal=journal)

    def roll_back(self, number: int) -> Self:
        world = replace(self, journal=self.journal.roll_back(number))
        if self.faults.failovers:
            return world._spend("failovers")
        for each in range(len(self.posts)):
            world = world._dies(each)
        return world._spend("power_cuts")

    # ---- silence, and what is heard of others

    def conclude(self, number: int, told_: bool) -> Self:
        post, head = self.posts[number], self.journal.head
        change: log.Change
        if self.journal.given_back or head.takeovers < self.faults.takeovers:
            change = log.Requeue(post.epoch, NOW, self.journal.given_back)
        else:
            change = log.Append(post.epoch, (Entry(Failed("commander_lost"), NOW, head.generation),))
        journal, outcome = self.journal.submit(change, post.basis)
        world = replace(self, journal=journal)
        if not told_:
            return world._unanswered(change, outcome)
        if isinstance(outcome, log.Refused) and outcome.code != "superseded" and not head.complete:
            return world._has(number)
        return world._has_not(number)

    def fence(self, number: int) -> Self:
        post = self.posts[number]
        journal, outcome = self.journal.submit(log.Fence(post.epoch), post.basis)
        if isinstance(outcome, log.Refused):
            return self.hear(number)
        return replace(self, journal=journal)._lets_go(number, "fenced")._has_not(number)

    def hear(self, number: int) -> Self:
        """Of what another instance did."""
        post, head = self.posts[number], self.journal.head
        if post.epoch == head.epoch and post.stream != NONE:
            return self._post(number, takes_back=True)
        return self._lets_go(number, "superseded")._has_not(number)

    def look(self, number: int) -> Self:
        head, post = self.journal.head, self.posts[number]
        mine = not head.complete and head.state != "waiting" and head.instance == post.name
        if mine and head.epoch != post.epoch:
            return self._lets_go(number, "superseded")._has(number)
        return self._post(number, asks=False)

    # ---- assignments

    def read_first(self, number: int) -> Self:
        return self._post(number, snapshot=told(self.journal.entries))

    def assign(self, number: int, told_: bool) -> Self:
        post, given = self.posts[number], len(self.hands)
        change = log.Assign(COMMANDERS[given], post.name, True, NOW)
        journal, outcome = self.journal.submit(change, tag=given + 1)
        if isinstance(outcome, log.Refused):
            return self
        head = outcome.head
        hand = Hand(COMMANDERS[given], head.generation, head.sequence, holds=told_)
        world = replace(self, journal=journal, hands=(*self.hands, hand))
        if not told_:  # then no assignment is sent
            return world._spend("unanswered")._post(number, asks=True)
        return world._lets_go(number, "superseded")._has(number)._post(number, gives=given, given=journal.given)

    def give(self, number: int) -> Self:
        """The history is read after the assignment (rule 1)."""
        post = self.posts[number]
        world = self._post(number, gives=NONE)
        if post.given != self.journal.given:
            return world._hand(post.gives, holds=False)
        hand = self.hands[post.gives]
        for index, held in enumerate(self.hands):
            if held.commander_id == hand.commander_id and index != post.gives and held.holds:
                if held.generation >= hand.generation:
                    return world._hand(post.gives, holds=False)
                world = world._let_go(index)
        return world._hand(post.gives, begun=told(self.journal.entries) if post.snapshot == NONE else post.snapshot)

    def unserved(self, number: int) -> Self:
        failed = Entry(Failed("no_commander"), NOW)
        journal, _ = self.journal.submit(log.Append(self.journal.head.epoch, (failed,)), self.journal.given)
        return replace(self, journal=journal)

    # ---- leases, and death

    def end_lease(self, number: int) -> Self:
        return self._spend("leases")._post(number, away=True)

    def come_back(self, number: int) -> Self:
        """It finds its lease ended: first it takes back the session whose stream it has."""
        post = self.posts[number]
        return self._post(number, away=False, takes_back=post.epoch != NONE and post.stream != NONE)

    def take_back(self, number: int, told_: bool) -> Self:
        post = self.posts[number]
        change = log.TakeBack(post.epoch, post.name)
        journal, outcome = self.journal.submit(change, post.basis)
        world = replace(self, journal=journal)
        if not told_:
            return world._unanswered(change, outcome)
        if isinstance(outcome, log.Refused):
            return world._refused(number, outcome)
        return world._post(number, epoch=outcome.head.epoch, basis=journal.given, takes_back=False)

    def find(self, number: int) -> Self:
        journal = self.journal
        orphan = Orphan(journal.head.instance, journal.head.epoch, journal.given, journal.taken)
        return self._post(number, orphan=orphan)

    def take_over(self, number: int, told_: bool) -> Self:
        orphan, name = self.posts[number].orphan, self.posts[number].name
        assert orphan
        change = log.TakeOver(orphan.epoch, orphan.gone, name)
        journal, outcome = self.journal.submit(change, orphan.basis, taken=orphan.taken)
        world = replace(self, journal=journal)
        if not told_:
            return world._unanswered(change, outcome)
        world = world._post(number, orphan=None)
        if isinstance(outcome, log.Refused):
            return world
        return world._lets_go(number, "superseded")._has(number)

    def kill_dispatcher(self, number: int) -> Self:
        return self._spend("dispatchers")._dies(number)

    def _dies(self, number: int) -> Self:
        post = self.posts[number]
        world = self
        if post.gives != NONE:
            world = world._hand(post.gives, holds=False)
        for slot, stream in enumerate(self.streams):
            if stream and stream.post == number:
                world = (world._break(slot) if stream.heard else world)._stream(slot, None)
        return world._post(number, **asdict(Post(post.name + "'")))

"""What the Dispatchers do in the world of the real cores: the steps of the runner, the edge and the service."""

from typing import Any

from dispatcher.core import effects, log
from dispatcher.core.entries import Decision, Entry, StopEntry
from shared import records
from shared.conversation import Phase
from shared.records import Open, ToolResult
from tests.model.commanders import Commander
from tests.model.journal import ASKED, LATER, NOW, asks, told
from tests.model.parts import Parts, Stream
from tests.model.runners import Post
from tests.model.search import Broken
from tests.model.sides import COMMANDERS, NONE, Orphan

MANY_TIMES = 10  # that a session is given to somebody: no world has faults for so many


class Instances(Parts):
    """Two of them."""

    # ---- streams

    def stream_over(self, slot: int) -> None:
        """The Dispatcher notices; what was on its way and has not come by now is lost."""
        number = self._at(slot).post
        self.streams[slot] = None
        if self.posts[number].stream == slot:
            post = self._post(number)
            post.stream = NONE
            self._carry_out(number, post.session.detach(NOW))
            self._settled(number)

    def acquire(self, slot: int, told_: bool) -> None:
        stream = self._at(slot)
        hand, number = self.hands[stream.hand], stream.post
        opening = stream.up[0].payload
        assert isinstance(opening, Open)
        self.streams[slot] = Stream(stream.hand, number, stream.up[1:], stream.heard)
        name = self.posts[number].name
        change = log.Acquire(opening.commander_id, opening.generation, name, NOW, opening.token)
        outcome = self._submit(change, tag=hand.tag)
        if not told_:
            self._spend("unanswered")
            self._post(number).asks = True
            self._refuse(slot, "unavailable")
        elif isinstance(outcome, log.Refused):
            self._refuse(slot, outcome.code)
        else:
            self._take_up(number, slot, opening.awaiting_call_ids)
            if self.journal.stops and self.posts[number].stream == slot and not self._knows_of_its_stop(slot):
                raise Broken("it is open, and nobody tells of its stop")

    def _knows_of_its_stop(self, slot: int) -> bool:
        stream = self._at(slot)
        session = self.hands[stream.hand].session
        return bool(not stream.heard or session.stop or session.outbox.ended or self.journal.head.over)

    def _refuse(self, slot: int, code: str) -> None:
        self._tell(slot, records.Closed(code))
        self.streams[slot] = None

    def deliver(self, slot: int) -> None:
        stream = self._at(slot)
        packet = stream.up[0]
        self.streams[slot] = Stream(stream.hand, stream.post, stream.up[1:], stream.heard)
        if self.posts[stream.post].stream == slot:
            post = self._post(stream.post)
            self._carry_out(stream.post, post.session.receive(packet, NOW))

    # ---- the runner

    def _submit(self, change: log.Change, basis: int = -1, tag: int = 0, taken: int = 0) -> log.Outcome:
        self.journal, outcome = self.journal.submit(change, basis, tag, taken)
        if self.journal.times > MANY_TIMES:
            raise Broken("it is given away over and over")
        return outcome

    def _unanswered(self, change: log.Change, outcome: log.Outcome) -> None:
        self._spend("unanswered")
        if isinstance(outcome, log.Applied) and not isinstance(change, log.Fence):
            self.journal.repeated(change)

    def _take_up(self, number: int, slot: int = NONE, awaiting: tuple[str, ...] = (), anew: bool = False) -> None:
        post, journal = self._post(number), self.journal
        session = post.core(journal)
        anew = anew and post.stream == NONE
        if slot != NONE or anew or post.session is None or post.session.epoch < session.epoch:
            self._begin(number, session, slot, awaiting)
        self._observe(number, log.Applied(journal.head, journal.entries))

    def _begin(self, number: int, session: Any, slot: int, awaiting: tuple[str, ...]) -> None:
        post = self._post(number)
        if post.stream not in (NONE, slot):
            old, post.stream = post.stream, NONE
            self._refuse(old, "superseded")
        post.pending, post.flying, post.takes_back, post.taken = [], (), False, None
        post.session, post.stream, post.basis = session, slot, self.journal.given
        asked = session.restored(NOW)
        if slot != NONE:
            limits = post.session.limits
            self._tell(
                slot, records.Welcome(session.head.sequence, limits.max_unacked_packets, limits.max_unacked_bytes)
            )
            asked += session.attach(awaiting, NOW)
        else:
            asked += session.await_open(NOW)
        self._carry_out(number, asked)

    def _carry_out(self, number: int, asked: list[effects.Effect]) -> None:
        post = self._post(number)
        for effect in asked:
            match effect:
                case effects.AppendEntries(entries):
                    post.pending += entries
                case effects.SendAck():
                    if post.stream != NONE:
                        sequence = post.session.head.sequence
                        post.session.acked(sequence)
                        self._tell(post.stream, records.Ack(sequence))
                case effects.SendResult(result, offset):
                    if post.stream != NONE:
                        told = result or self.journal.entries[offset - 1].body
                        assert isinstance(told, ToolResult)
                        self._tell(post.stream, told)
                    if offset:
                        self._carry_out(number, post.session.sent(1, NOW))
                case effects.SendStop(stop):
                    if post.stream != NONE:
                        self._tell(post.stream, records.Stop(stop.reason, stop.stop_id))
                case effects.RunTool(call):
                    if call.call_id not in post.begun:
                        post.begun.add(call.call_id)
                        post.running.add(call.call_id)
                        self.journal = self.journal.run(call.call_id)
                case effects.AppendWithoutEpoch(entry):
                    post.settle(entry)
                case effects.AskApproval(call):
                    post.settle(asks(call.call_id))
                case effects.CancelTools():
                    self._cancel_tools(post)
                case effects.Wake(name, at):
                    (post.wakes.discard if at is None else post.wakes.add)(name)
                case effects.SendClosed(code):
                    if post.stream != NONE:
                        slot, post.stream = post.stream, NONE
                        self._refuse(slot, code)
                case effects.GiveBack() | effects.GiveUp():
                    post.conclude(effect)

    def _cancel_tools(self, post: Post) -> None:
        mine = {call_id for call_id, call in post.session.head.calls.items() if call.instance == post.name}
        for call_id in sorted(mine | post.running):
            post.settle(Entry(ToolResult("t", "{}", call_id, "CANCELLED"), NOW))
        post.running.clear()

    def _observe(self, number: int, outcome: log.Applied) -> None:
        post = self._post(number)
        session = post.session
        if post.takes_back or session is None:
            return
        self._carry_out(number, session.logged(outcome, NOW))
        if outcome.head.epoch > session.epoch:
            self._give_way(number)
        elif session.offset < outcome.head.offset and outcome.head.epoch == session.epoch:
            known = self.journal.entries[session.offset : session.head.offset]
            self._observe(number, log.Applied(session.head, known))
        self._settled(number)

    def _give_way(self, number: int) -> None:
        post = self._post(number)
        if post.stream == NONE:
            post.session, post.pending, post.flying, post.wakes = None, [], (), set()

    def _settled(self, number: int) -> None:
        post = self._post(number)
        if post.session and post.idle and (post.session.head.complete or post.session.head.state == "waiting"):
            post.session, post.wakes = None, set()

    def append(self, number: int, told_: bool) -> None:
        post = self._post(number)
        session = post.session
        if not post.flying:
            post.flying, post.pending = tuple(post.pending), []
        change = log.Append(session.epoch, post.flying, session.record.head.commander_id)
        outcome = self._submit(change, post.basis)
        if not told_:
            self._unanswered(change, outcome)
            return
        if isinstance(outcome, log.Refused) and post.says_nothing(outcome):
            return  # the same again, under the epoch that comes
        post.flying = ()
        if isinstance(outcome, log.Applied):
            self._observe(number, outcome)
            return
        post.pending = []
        concluded = session.conversation is Phase.IDLE
        self._carry_out(number, session.refused(outcome, NOW))
        if outcome.code == "superseded":
            self.look(number)
        elif outcome.code == "gap" and concluded:
            self._look_again(number)
        self._settled(number)

    def wake(self, number: int, name: str) -> None:
        post = self._post(number)
        post.wakes.remove(name)
        self._carry_out(number, post.session.deadline(name, LATER if name == "approval" else NOW))

    def look(self, number: int) -> None:
        """Of what another instance did, it hears."""
        post, head = self._post(number), self.journal.head
        session = post.session
        if session is None:
            return
        if head.instance != post.name and head.epoch == session.epoch:
            if post.stream != NONE:
                post.takes_back = not session.head.over
            else:
                self._give_way(number)
        else:
            known = self.journal.entries[session.offset : head.offset]
            self._observe(number, log.Applied(head, known))
            if head.instance == post.name and not head.complete and head.state != "waiting" and post.unattended:
                self._look_again(number)

    def _look_again(self, number: int) -> None:
        """The log knows more than the core did."""
        self._take_up(number, anew=True)

    def take_back(self, number: int, told_: bool) -> None:
        change, outcome = self._submit_take_back(number)
        if told_:
            self._taken_back(number, outcome, self.journal.given)
        else:
            self._unanswered(change, outcome)

    def take_back_late(self, number: int) -> None:
        self._spend("late")
        post = self._post(number)
        _, post.taken = self._submit_take_back(number)
        post.taken_basis = self.journal.given

    def hear_of_take_back(self, number: int) -> None:
        post = self._post(number)
        outcome, post.taken = post.taken, None
        assert outcome
        self._taken_back(number, outcome, post.taken_basis)

    def _submit_take_back(self, number: int) -> tuple[log.Change, log.Outcome]:
        post = self._post(number)
        change = log.TakeBack(post.session.epoch, post.name)
        return change, self._submit(change, post.basis)

    def _taken_back(self, number: int, outcome: log.Outcome, basis: int) -> None:
        post = self._post(number)
        session = post.session
        post.takes_back = False
        if isinstance(outcome, log.Applied):
            before, post.basis = session.epoch, basis
            session.taken_back(outcome)
            post.concludes = [each.again(before, session.epoch, post.basis) for each in post.concludes]
        else:
            self._carry_out(number, session.refused(outcome, NOW))
        self.look(number)

    def settle(self, number: int, index: int) -> None:
        entry = self._post(number).settles.pop(index)
        self._settle(number, entry)

    def _settle(self, number: int, entry: Entry) -> None:
        outcome = self._submit(log.Settle(entry))
        self.journal.repeated(log.Settle(entry))
        if isinstance(outcome, log.Applied):
            self._observe(number, outcome)

    def finish_tool(self, number: int, call_id: str) -> None:
        self._post(number).running.remove(call_id)
        self._settle(number, Entry(ToolResult("t", "1", call_id, "OK"), NOW))
        self._settled(number)

    def settle_gone(self, number: int, call_id: str) -> None:
        self._settle(number, Entry(ToolResult("t", "{}", call_id, "UNKNOWN_OUTCOME"), NOW))

    def decide(self, call_id: str, decision: str) -> None:
        """At any instance; whoever has it will hear of it."""
        self._spend("decisions")
        self._submit(log.Settle(Entry(Decision(call_id, decision, "user", ASKED), NOW)))

    def stop(self) -> None:
        """At any instance, also one that has nothing else to do with it; whoever has it will hear of it."""
        stop = StopEntry(f"user-{self.faults.stops}", "UserCancel", "user")
        self._spend("stops")
        self._submit(log.Settle(Entry(stop, NOW)))

    def conclude(self, number: int, index: int, told_: bool) -> None:
        post = self._post(number)
        kind, epoch, basis = post.concludes[index]
        change = log.Fence(epoch) if kind == "fence" else log.Requeue(epoch, NOW, kind == "hand over")
        outcome = self._submit(change, basis)
        if not told_:
            self._unanswered(change, outcome)
            return
        del post.concludes[index]
        session = post.session
        if isinstance(outcome, log.Refused):
            if outcome.code == "superseded":
                self.look(number)
            else:
                self._look_again(number)
        elif session is None:
            pass
        elif kind == "fence":
            self._carry_out(number, session.fenced(outcome, NOW))
        else:
            if post.stream != NONE:
                self.streams[post.stream], post.stream = None, NONE
            post.session, post.pending, post.flying, post.wakes = None, [], (), set()
        self._settled(number)

    # ---- the service

    def assign(self, number: int, told_: bool) -> None:
        post, given = self._post(number), len(self.hands)
        change = log.Assign(COMMANDERS[given], post.name, self.continues, NOW)
        outcome = self._submit(change, tag=given + 1)
        assert isinstance(outcome, log.Applied)
        head = outcome.head
        hand = Commander(given + 1, COMMANDERS[given], head.generation, head.sequence)
        self.hands.append(hand)
        self._mine.add(id(hand))
        if not told_:
            self._spend("unanswered")
            hand.over, post.asks = True, True  # no assignment is sent
            return
        self._take_up(number)
        post.gives = given

    def give(self, number: int) -> None:
        """The history is read after the assignment (rule 1)."""
        post = self._post(number)
        given, post.gives = post.gives, NONE
        hand = self._hand(given)
        for index, held in enumerate(self.hands[:given]):
            if held.commander_id == hand.commander_id and not held.over and held.session:
                if held.generation >= hand.generation:
                    hand.over = True
                    return
                earlier = self._hand(index)
                earlier.session.give_up()
                earlier.over = True
                self._pump(index)
        hand.assigned(told(self.journal.entries) if self.continues else 0)

    def unserved(self, number: int) -> None:
        post, journal = self._post(number), self.journal
        session = post.core(journal)
        post.session, post.basis = session, journal.given
        self._carry_out(number, [*session.restored(NOW), *session.unserved(NOW)])

    def find_again(self, number: int) -> None:
        post, head = self._post(number), self.journal.head
        post.asks = False
        if head.state != "waiting" and not head.complete and head.instance == post.name:
            self._take_up(number)

    def find(self, number: int) -> None:
        head = self.journal.head
        self._post(number).orphan = Orphan(head.instance, head.epoch, self.journal.given, self.journal.taken)

    def take_over(self, number: int, told_: bool) -> None:
        post = self._post(number)
        orphan = post.orphan
        assert orphan
        change = log.TakeOver(orphan.epoch, orphan.gone, post.name)
        outcome = self._submit(change, orphan.basis, taken=orphan.taken)
        post.orphan = None
        if not told_:
            self._unanswered(change, outcome)
            post.asks = True
        elif isinstance(outcome, log.Applied):
            self._take_up(number)

    def end_lease(self, number: int) -> None:
        self._spend("leases")
        self._post(number).away = True

    def come_back(self, number: int) -> None:
        post = self._post(number)
        post.away = False
        post.takes_back = post.stream != NONE and not post.session.head.over

    def lose_store(self) -> None:
        self._spend("outages")
        self.outage = True

    def find_store(self) -> None:
        """All leases have ended meanwhile."""
        self.outage = False
        for number in range(len(self.posts)):
            self.come_back(number)

    def kill_dispatcher(self, number: int) -> None:
        self._spend("dispatchers")
        self._die(number)

    def _die(self, number: int) -> None:
        post = self.posts[number]
        if post.gives != NONE:
            self._hand(post.gives).over = True
        for slot, stream in enumerate(self.streams):
            if stream and stream.post == number:
                if stream.heard:
                    self._break(slot)
                self.streams[slot] = None
        self.posts[number] = Post(post.name + "'")

    def roll_back(self, change: int) -> None:
        self.journal = self.journal.roll_back(change)
        if self.faults.failovers:
            self._spend("failovers")
            return
        self._spend("power_cuts")
        for number in range(len(self.posts)):
            self._die(number)

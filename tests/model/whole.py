"""The real pieces together: `dispatcher.core.log`, the core of `dispatcher.core.session`, and the Commander's
`commander.session` with its outbox, over one log, in every interleaving.

Between the cores stands what has no rules of its own: streams, that break with what is on their way or deliver it late;
stores, that answer or do not; and what the runner and the edge do of what the cores ask for (`tests.model.instances`).
"""

from collections.abc import Iterator

from shared.records import Open
from tests.model.commanders import Commander
from tests.model.instances import Instances
from tests.model.journal import Journal
from tests.model.parts import Stream
from tests.model.runners import Post
from tests.model.search import Label, Move
from tests.model.sides import COMMANDERS, NONE, Faults


class Whole(Instances):
    """A world of them, and what may happen in it."""

    # ---- what may happen

    def moves(self) -> Iterator[Move]:
        for slot, stream in enumerate(self.streams):
            if stream:
                yield from self._stream_moves(slot, stream)
        for number, hand in enumerate(self.hands):
            if not hand.over and hand.session:
                yield from self._hand_moves(number, hand)
        for number, post in enumerate(self.posts):
            yield from self._wakes(number, post) if self.outage else self._post_moves(number, post)
        if self.outage:
            yield self._one(("the store is back",), True, "find_store")
            return
        if self.faults.outages:
            yield self._one(("the store goes away",), False, "lose_store")
        for call_id, call in self.journal.head.calls.items():
            for decision in ("approve", "deny") if call.waits and self.faults.decisions else ():
                yield Move(("a user decides:", decision, call_id), False, self._after, ("decide", call_id, decision))
        if self.faults.stops:
            yield Move(("a user stops it",), False, self._after, ("stop",))
        if self.journal.remembers and not self.journal.head.final and sum(not hand.over for hand in self.hands) < 2:
            how = "power fails, and" if self.faults.power_cuts else "the store fails over, and"
            for change in range(len(self.journal.past)):
                yield Move((how, "all is lost after change", change), False, self._after, ("roll_back", change))

    def _one(self, label: Label, helps: bool, *what: object) -> Move:
        return Move(label, helps, self._after, what)

    def _asked(self, label: Label, *what: object) -> Iterator[Move]:
        yield Move(label, True, self._after, (*what, True))
        if self.faults.unanswered:
            yield Move((*label, "(unanswered)"), False, self._after, (*what, False))

    def _stream_moves(self, slot: int, stream: Stream) -> Iterator[Move]:
        name = ("stream", slot + 1)
        if stream.up:
            first = stream.up[0]
            if isinstance(first.payload, Open):
                if not self.outage:
                    yield from self._asked((*name, "delivers open"), "acquire", slot)
            else:
                yield self._one((*name, "delivers packet", first.sequence), True, "deliver", slot)
                if self.faults.drops and stream.up[1:]:
                    yield self._one((*name, "loses packet", first.sequence), False, "drop", slot)
                if self.faults.doubles:
                    yield self._one((*name, "doubles packet", first.sequence), False, "double", slot)
        if not stream.heard:
            yield self._one((*name, "is over"), True, "stream_over", slot)
        elif self.faults.cuts:
            yield self._one((*name, "breaks"), False, "cut", slot)

    def _hand_moves(self, number: int, hand: Commander) -> Iterator[Move]:
        name = ("Commander", number + 1)
        homeless, session = hand.homeless, hand.session
        if not session.being_opened and (homeless or self.faults.moves) and None in self.streams:
            slot = self.streams.index(None)
            for post, each in enumerate(self.posts):
                yield self._one(
                    (*name, "opens it on stream", slot + 1, "to", each.name), homeless, "open", number, post
                )
        if item := hand.may_say(self.journal.script):
            yield self._one((*name, "says", item), True, "say", number, item)
        if hand.agent and hand.agent.halted and not hand.agent.ended:
            yield self._one((*name, "has halted"), True, "end_agent", number)
        if self.faults.hand_overs and hand.agent and not session.outbox.ending:
            yield self._one((*name, "hands over"), False, "hand_over", number)
        if self.faults.commanders:
            yield self._one((*name, "is killed"), False, "kill_commander", number)

    def _post_moves(self, number: int, post: Post) -> Iterator[Move]:
        head, name, session = self.journal.head, post.name, post.session
        if session:
            if post.may_append():
                batch = post.flying or post.pending
                yield from self._asked((name, "appends", *(entry.sequence for entry in batch)), "append", number)
            yield from self._wakes(number, post)
            if post.taken:
                yield self._one((name, "hears that it took it back"), True, "hear_of_take_back", number)
            elif post.takes_back:
                yield from self._asked((name, "takes it back"), "take_back", number)
                if self.faults.late:
                    yield self._one((name, "takes it back (answered late)"), False, "take_back_late", number)
            elif not post.away:  # else it hears of it once it is back
                elsewhere = head.instance != name and head.epoch == session.epoch
                if elsewhere or head.epoch > session.epoch or head.offset > session.offset:
                    yield self._one((name, "hears"), True, "look", number)
            for call_id, call in session.head.calls.items():
                if call.instance not in ("", name) and not self._will_answer(call.instance, call_id):
                    yield self._one((name, "gives up", call_id), True, "settle_gone", number, call_id)
        for index, entry in enumerate(post.settles):
            yield self._one((name, "settles", type(entry.body).__name__), True, "settle", number, index)
        for index, conclusion in enumerate(post.concludes):
            yield from self._asked((name, "concludes:", conclusion.kind), "conclude", number, index)
        for call_id in sorted(post.running):
            yield self._one((name, "has the result of", call_id), True, "finish_tool", number, call_id)
        forgotten = self.journal.rolled_back and head.instance == name and not session and post.gives == NONE
        if post.asks or (forgotten and not head.complete and head.state != "waiting"):
            yield self._one((name, "looks"), True, "find_again", number)
        if post.gives != NONE:
            yield self._one((name, "sends the assignment"), True, "give", number)
        elif head.state == "waiting":
            yield from self._waiting_moves(number, post)
        yield from self._lease_moves(number, post)

    def _wakes(self, number: int, post: Post) -> Iterator[Move]:
        for wake in sorted(post.wakes if post.session else ()):
            yield self._one((post.name, "wakes:", wake), True, "wake", number, wake)

    def _waiting_moves(self, number: int, post: Post) -> Iterator[Move]:
        given = len(self.hands)
        if not given and number:
            return  # the other one first: they are alike
        if given < self.faults.assignments:
            yield from self._asked((post.name, "assigns it to", COMMANDERS[given]), "assign", number)
        elif not post.session:
            yield self._one((post.name, "finds that it waited too long"), True, "unserved", number)

    def _lease_moves(self, number: int, post: Post) -> Iterator[Move]:
        head, name = self.journal.head, post.name
        if post.orphan:
            yield from self._asked((name, "takes over from", post.orphan.gone), "take_over", number)
        elif not head.complete and head.state != "waiting" and head.instance != name and self._gone(head.instance):
            yield self._one((name, "finds it left by", head.instance), True, "find", number)
        if post.away:
            yield self._one((name, "comes back"), True, "come_back", number)
        elif self.faults.leases:
            yield self._one((name, "loses its lease"), False, "end_lease", number)
        if self.faults.dispatchers:
            yield self._one((name, "is killed"), False, "kill_dispatcher", number)

    def _gone(self, instance: str) -> bool:
        return instance != "" and all(post.name != instance or post.away for post in self.posts)

    def _will_answer(self, instance: str, call_id: str) -> bool:
        """In time: it lives, and runs it."""
        return any(post.name == instance and not post.away and call_id in post.running for post in self.posts)


def start(script: str, continues: bool = True, **faults: int) -> Whole:
    """A session that waits, with nobody doing anything yet."""
    left = Faults(**faults)
    remembers = bool(left.power_cuts or left.failovers)
    return Whole(Journal(script, left.takeovers, remembers, bool(left.full)), left, continues)

"""The rules of the log alone, against Dispatchers that check nothing.

Commanders keep to the contract; each says the script from where its history ends. The Dispatchers do only what no rule
of the log can do for them: an append carries the epoch that the `open` on its stream got, an Ack leaves once the append
has answered, a tool runs once the log has the call in this instance's name, a history is read after the assignment.
Else they are careless: they take whatever comes, neither dropping duplicates nor refusing gaps, release all of it, know
of nothing that another instance did until they hear of it, and conclude from silence whenever nobody is connected to
them. Whatever they do in whatever order, the log must hold what was promised.

A change of the log may go unanswered (it is then asked for again, with anything in between); a stream breaks with what
is on its way, or delivers that long after its Commander has opened another; processes die at any moment. After the
store has lost its newest changes, epochs are given out a second time, so that an old stream or a conclusion from old
silence may pass for a new one; what is still promised then is that nothing of the text is missing or said twice without
a word.
"""

from collections.abc import Callable, Iterator
from typing import Self

from dispatcher.core.log import OpenCall
from tests.model.dispatchers import Dispatchers
from tests.model.journal import ASKED, LATER, NOW, Journal, token_of
from tests.model.search import Label, Move
from tests.model.sides import COMMANDERS, CREDIT, NONE, OPEN, Faults, Hand, Post, Stream

DECISIONS = (
    ("approve", ASKED, NOW),
    ("deny", ASKED, NOW),
    ("approve", "of others", NOW),
    ("approve", ASKED, LATER),
)


class Careless(Dispatchers, frozen=True, gc=False):
    """A world of them, and what may happen in it."""

    # ---- what may happen

    def moves(self) -> Iterator[Move]:
        for number, stream in enumerate(self.streams):
            if stream:
                yield from self._stream_moves(number, stream)
        for number, hand in enumerate(self.hands):
            if hand.holds and hand.begun != NONE:
                yield from self._hand_moves(number, hand)
        for number, post in enumerate(self.posts):
            yield from self._post_moves(number, post)
        if self.faults.impostors:
            for number, hand in enumerate(self.hands):
                yield from self._impostor_moves(number, hand)
        for call_id, call in self.journal.head.calls.items():
            yield from self._approval_moves(call_id, call)
        if self.faults.stops:
            yield Move(("a user stops it",), False, self.stop)
        if self.journal.remembers and not self.journal.head.final and sum(hand.holds for hand in self.hands) < 2:
            how = "power fails, and" if self.faults.power_cuts else "the store fails over, and"
            for number in range(len(self.journal.past)):
                yield Move((how, "all is lost after change", number), False, self.roll_back, (number,))

    def _approval_moves(self, call_id: str, call: OpenCall) -> Iterator[Move]:
        """Any instance starts it, approved or not; whoever decides may come late, or have seen other arguments."""
        if not call.approval:
            return
        yield Move(("approval is asked for:", call_id), True, self.ask, (call_id,))
        yield Move(("it expires:", call_id), True, self.expire, (call_id,))
        if self.faults.decisions:
            for decision, under, at in DECISIONS:
                label = ("a user decides:", decision, call_id, under, "at", at)
                yield Move(label, False, self.decide, (call_id, decision, under, at))
        for number, post in enumerate(self.posts):
            yield Move((post.name, "starts", call_id), True, self.start_call, (number, call_id))
        if self.journal.head.final and not call.instance:
            yield Move(("it is over before it began:", call_id), True, self.settle, (0, call_id, "CANCELLED"))

    def _impostor_moves(self, number: int, hand: Hand) -> Iterator[Move]:
        """Its log is refused to them, so the world stays as it is."""
        name = ("Commander", number + 1)
        own = token_of(hand.generation, hand.commander_id)
        for ahead in (0, 1):
            guessed = ("somebody opens it as", *name, "generations ahead:", ahead)
            yield Move(guessed, False, self.impose, (0, hand.commander_id, hand.generation + ahead, b"guessed"))
        next_ = (*name, "opens it under the next generation")
        yield Move(next_, False, self.impose, (0, hand.commander_id, hand.generation + 1, own))

    def _stream_moves(self, number: int, stream: Stream) -> Iterator[Move]:
        name = ("stream", number + 1)
        if stream.up[:1] == (OPEN,):
            yield from self._asked((*name, "delivers open"), self.acquire, number)
        elif stream.up:
            yield Move((*name, "delivers packet", stream.up[0][0]), True, self.deliver, (number,))
            if self.faults.drops and stream.up[1:]:  # else nobody could tell
                yield Move((*name, "loses packet", stream.up[0][0]), False, self.drop, (number,))
        if not stream.heard:
            yield Move((*name, "is over"), True, self.over, (number,))
        elif self.faults.cuts:
            yield Move((*name, "breaks"), False, self.cut, (number,))

    def _hand_moves(self, number: int, hand: Hand) -> Iterator[Move]:
        name = ("Commander", number + 1)
        homeless = hand.current == NONE
        if hand.opening == NONE and (homeless or self.faults.moves) and None in self.streams:
            slot = self.streams.index(None)
            for post, each in enumerate(self.posts):
                label = (*name, "opens it on stream", slot + 1, "to", each.name)
                yield Move(label, homeless, self.open, (number, post))
        if not homeless:
            for end in self._next(number, hand):
                what = end or self.journal.script[hand.begun + hand.sent]
                yield Move((*name, "sends", what), end != "give", self.send, (number, end))
        if self.faults.commanders:
            yield Move((*name, "is killed"), False, self.kill_commander, (number,))

    def _next(self, number: int, hand: Hand) -> Iterator[str]:
        script = self.journal.script
        if hand.ended(script) or hand.last - hand.acked >= CREDIT:
            return
        place = hand.begun + hand.sent
        calling = hand.said(script).endswith(("T", "Q"))
        if not calling or self.journal.result_of(f"{place - 1}-{number + 1}"):
            yield ""
        if self.journal.stops:
            yield "halt"
        elif self.faults.hand_overs:
            yield "give"

    def _post_moves(self, number: int, post: Post) -> Iterator[Move]:
        head, name = self.journal.head, post.name
        if post.pending and not post.takes_back:
            label = (name, "appends", *(packet[0] for _, packet in post.pending))
            yield from self._asked(label, self.append, number)
        if post.epoch != NONE:
            if post.stream == NONE:
                yield from self._asked((name, "concludes from silence"), self.conclude, number)
            if self.journal.stops and not head.over:
                yield Move((name, "fences off"), True, self.fence, (number,))
            if post.takes_back:
                yield from self._asked((name, "takes it back"), self.take_back, number)
            elif post.epoch < head.epoch or (post.epoch == head.epoch and post.name != head.instance):
                yield Move((name, "hears"), True, self.hear, (number,))
        forgotten = self.journal.rolled_back and head.instance == name and post.epoch == post.gives == NONE
        if post.asks or (forgotten and not head.complete and head.state != "waiting"):
            yield Move((name, "looks"), True, self.look, (number,))
        if post.gives != NONE:
            yield Move((name, "sends the assignment"), True, self.give, (number,))
        elif head.state == "waiting":
            awaited = self.faults.returns and self.journal.lost_track and any(hand.holds for hand in self.hands)
            if not awaited:
                yield from self._waiting_moves(number, post)
        elif number and len(self.hands) < self.faults.assignments:  # it knows an old list of what waits
            yield Move((name, "assigns it to", COMMANDERS[len(self.hands)]), True, self.assign, (number, True))
        for call_id in post.running:
            yield Move((name, "has the result of", call_id), True, self.settle, (number, call_id, "OK"))
        for call_id, call in head.calls.items():
            if call.instance not in ("", name) and not self._will_answer(call.instance, call_id):
                yield Move((name, "gives up", call_id), True, self.settle, (number, call_id, "UNKNOWN_OUTCOME"))
        yield from self._lease_moves(number, post)

    def _waiting_moves(self, number: int, post: Post) -> Iterator[Move]:
        given = len(self.hands)
        if not given and number:
            return  # the other one first: they are alike
        if given == self.faults.assignments:
            yield Move((post.name, "finds that it waited too long"), True, self.unserved, (number,))
        elif self.faults.history_first and post.snapshot == NONE:
            yield Move((post.name, "reads the history"), True, self.read_first, (number,))
        else:
            yield from self._asked((post.name, "assigns it to", COMMANDERS[given]), self.assign, number)

    def _lease_moves(self, number: int, post: Post) -> Iterator[Move]:
        head, name = self.journal.head, post.name
        if post.orphan:
            yield from self._asked((name, "takes over from", post.orphan.gone), self.take_over, number)
        elif not head.complete and head.state != "waiting" and head.instance != name and self._gone(head.instance):
            yield Move((name, "finds it left by", head.instance), True, self.find, (number,))
        if post.away:
            yield Move((name, "comes back"), True, self.come_back, (number,))
        elif self.faults.leases:
            yield Move((name, "loses its lease"), False, self.end_lease, (number,))
        if self.faults.dispatchers:
            yield Move((name, "is killed"), False, self.kill_dispatcher, (number,))

    def _asked(self, label: Label, act: Callable[..., Self], number: int) -> Iterator[Move]:
        yield Move(label, True, act, (number, True))
        if self.faults.unanswered:
            yield Move((*label, "(unanswered)"), False, act, (number, False))

    def _gone(self, instance: str) -> bool:
        return instance != "" and all(post.name != instance or post.away for post in self.posts)

    def _will_answer(self, instance: str, call_id: str) -> bool:
        """In time: it lives, and runs it."""
        return any(post.name == instance and not post.away and call_id in post.running for post in self.posts)


def start(script: str, **faults: int) -> Careless:
    """A session that waits, with nobody doing anything yet."""
    left = Faults(**faults)
    return Careless(Journal(script, left.takeovers, remembers=bool(left.power_cuts or left.failovers)), left)

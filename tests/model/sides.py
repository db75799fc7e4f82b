"""What the world of the careless Dispatchers is made of, and its Commanders, which keep to the contract."""

from collections.abc import Hashable
from typing import Self, TypeAlias

import msgspec
from msgspec.structs import replace

from tests.model.journal import Journal
from tests.model.search import Broken

NONE = -1
OPEN = (0, "open")
STREAMS = 3
CREDIT = 2
COMMANDERS = ("c1", "c2", "c1")  # to whom it is assigned, one after the other


# What goes up: a sequence, and a place in the script or the name of an end that is not the script's.
Packet: TypeAlias = tuple[int, int | str]


class Faults(msgspec.Struct, frozen=True, gc=False):
    """How often each may still happen. takeovers, assignments: what rule 8 allows, and how many Commanders there are.
    returns: 1, after the store lost something, the Commander that has the session opens it before it is assigned again.
    history_first: 1, the history is read before the assignment, which rule 1 forbids. impostors: 1, who has no right to
    it tries to open it, whenever that may be. full: 1, the log has as many bytes as it may from its first entry on.
    """

    cuts: int = 0  # a Commander's stream breaks
    drops: int = 0  # a packet is lost on a stream that goes on
    doubles: int = 0  # a packet comes twice
    moves: int = 0  # a Commander opens the session on another stream while it has one
    unanswered: int = 0  # the log is changed, and nobody is told
    commanders: int = 0  # killed
    dispatchers: int = 0  # killed
    leases: int = 0  # ended, of an instance that lives
    outages: int = 0  # the store is away for longer than leases last, and is back with all that it had
    late: int = 0  # a session is taken back, and the answer comes late
    stops: int = 0
    decisions: int = 0  # on a call that has to be approved; also late ones, and under other arguments
    hand_overs: int = 0
    power_cuts: int = 0  # the store loses its newest changes, and all Dispatchers die
    failovers: int = 0  # it loses them, and they do not
    takeovers: int = 1
    assignments: int = 2
    returns: int = 0
    history_first: int = 0
    impostors: int = 0
    full: int = 0


class Hand(msgspec.Struct, frozen=True, gc=False):
    """A Commander that the session was assigned to: its packets are start + 1 … start + sent, the script from `begun`.

    history   the sequence that its history ends with
    begun     how much of the script that tells; NONE: the assignment has not come yet
    start     NONE: not welcomed yet
    end       its last packet, where that is not the script's: `halt`, `give`, `loss`
    current   the stream that it talks on; opening: the one that it is being opened on
    holds     the session; else it has let go of it, or is dead
    """

    commander_id: str
    generation: int
    history: int
    begun: int = NONE
    start: int = NONE
    sent: int = 0
    end: str = ""
    acked: int = 0
    current: int = NONE
    opening: int = NONE
    holds: bool = True

    @property
    def last(self) -> int:
        return self.start + self.sent

    def packets(self, after: int) -> tuple[Packet, ...]:
        """Those that it has numbered, after that sequence."""
        whole: list[Packet] = [(self.start + n, self.begun + n - 1) for n in range(1, self.sent + 1)]
        if self.end:
            whole[-1] = (self.last, self.end)
        return tuple(whole[after - self.start :])

    def said(self, script: str) -> str:
        return script[self.begun : self.begun + self.sent - bool(self.end)]

    def ended(self, script: str) -> bool:
        return bool(self.end) or self.said(script).endswith(".")


class Stream(msgspec.Struct, frozen=True, gc=False):
    """up: what is on its way. heard: by its Commander; else it broke there, and the Dispatcher does not know yet."""

    hand: int
    post: int
    up: tuple[Packet, ...]
    heard: bool = True


class Orphan(msgspec.Struct, frozen=True, gc=False):
    """A session that was found to be an instance's that is gone: what was known of it then."""

    gone: str
    epoch: int
    basis: int
    taken: int


class Post(msgspec.Struct, frozen=True, gc=False):
    """A Dispatcher.

    epoch      what it appends under, with commander_id; NONE: it has nothing to do with the session
    pending    with the tag of who numbered it
    asks       it was not answered when the session was to be its own: it looks
    gives      the hand that its assignment is for, until that is sent; given: the time of it
    snapshot   how much of the script was told by the history that was read first
    away       its lease has ended
    begun      calls; running: those without a result
    """

    name: str
    epoch: int = NONE
    basis: int = 0
    commander_id: str = ""
    stream: int = NONE
    pending: tuple[tuple[int, Packet], ...] = ()
    asks: bool = False
    gives: int = NONE
    given: int = 0
    snapshot: int = NONE
    away: bool = False
    takes_back: bool = False
    orphan: Orphan | None = None
    begun: tuple[str, ...] = ()
    running: tuple[str, ...] = ()


class Sides(msgspec.Struct, frozen=True, gc=False):
    journal: Journal
    faults: Faults
    hands: tuple[Hand, ...] = ()
    streams: tuple[Stream | None, ...] = (None,) * STREAMS
    posts: tuple[Post, ...] = (Post("A"), Post("B"))

    @property
    def key(self) -> Hashable:
        journal = self.journal
        posts = []
        for post in self.posts:
            ages: tuple[object, ...] = ()
            if post.epoch != NONE:
                ages = journal.age(post.epoch, post.basis)
            if orphan := post.orphan:
                ages += (orphan.gone, journal.taken == orphan.taken, *journal.age(orphan.epoch, orphan.basis))
            current = post.gives != NONE and post.given == journal.given
            posts.append((replace(post, epoch=0, basis=0, orphan=None, given=0), current, ages))
        return (journal.key, self.faults, self.hands, self.streams, *posts)

    @property
    def done(self) -> bool:
        return self.journal.head.complete and not any(hand.holds for hand in self.hands)

    # ---- parts replaced

    def _hand(self, number: int, **changes: object) -> Self:
        hands = list(self.hands)
        hands[number] = replace(hands[number], **changes)
        return replace(self, hands=tuple(hands))

    def _post(self, number: int, **changes: object) -> Self:
        posts = list(self.posts)
        posts[number] = replace(posts[number], **changes)
        return replace(self, posts=tuple(posts))

    def _stream(self, number: int, stream: Stream | None) -> Self:
        streams = list(self.streams)
        streams[number] = stream
        return replace(self, streams=tuple(streams))

    def _spend(self, fault: str) -> Self:
        return replace(self, faults=replace(self.faults, **{fault: getattr(self.faults, fault) - 1}))

    def _at(self, number: int) -> Stream:
        stream = self.streams[number]
        assert stream
        return stream

    # ---- what Commanders do

    def open(self, number: int, post: int) -> Self:
        hand = self.hands[number]
        slot = self.streams.index(None)
        world = self if hand.current == NONE else self._spend("moves")
        return world._stream(slot, Stream(number, post, (OPEN,)))._hand(number, opening=slot)

    def send(self, number: int, end: str) -> Self:
        hand = replace(self.hands[number], sent=self.hands[number].sent + 1, end=end)
        world = self._hand(number, sent=hand.sent, end=end)
        if end == "give":
            world = world._spend("hand_overs")
        stream = self._at(hand.current)
        return world._stream(hand.current, replace(stream, up=stream.up + hand.packets(hand.last - 1)))

    def kill_commander(self, number: int) -> Self:
        return self._spend("commanders")._let_go(number)

    def _let_go(self, number: int) -> Self:
        """It is over there: killed, or it knows."""
        hand = self.hands[number]
        world = self._hand(number, holds=False, current=NONE, opening=NONE)
        for slot in (hand.current, hand.opening):
            if slot != NONE:
                world = world._stream(slot, replace(self._at(slot), heard=False))
        return world

    # ---- what Commanders hear

    def _welcomed(self, slot: int, sequence: int) -> Self:
        """Rules 3 and 6: what the log has is dropped, the rest sent again; where it lost something, that is said."""
        stream = self._at(slot)
        number = stream.hand
        hand = self.hands[number]
        if not stream.heard or hand.opening != slot:
            return self  # it has moved on
        if hand.start == NONE:
            hand = replace(hand, start=hand.history, acked=hand.history)
        if not hand.acked <= sequence <= hand.last:
            if not self.journal.rolled_back:
                raise Broken(f"welcomed at packet {sequence}, where {hand.acked} are acked and {hand.last} numbered")
            hand = replace(hand, start=sequence, acked=sequence, sent=1, end="loss")
        world = self
        if hand.current != NONE:
            world = world._stream(hand.current, replace(self._at(hand.current), heard=False))
        world = world._stream(slot, replace(stream, up=hand.packets(sequence)))
        hands = list(world.hands)
        hands[number] = replace(hand, current=slot, opening=NONE)
        return replace(world, hands=tuple(hands))._acked(slot, sequence)

    def _acked(self, slot: int, sequence: int) -> Self:
        stream = self.streams[slot]
        if not stream or not stream.heard:
            return self
        number = stream.hand
        hand = self.hands[number]
        sequence = min(sequence, hand.last)
        if hand.current != slot or sequence <= hand.acked:
            return self
        self.journal.acked(sequence, hand.start, number + 1)
        world = self._hand(number, acked=sequence)
        return world._let_go(number) if sequence == hand.last and hand.ended(self.journal.script) else world

    def _closed(self, slot: int, code: str) -> Self:
        """The session is over on that stream: what still comes on it is dropped."""
        stream = self._at(slot)
        number = stream.hand
        hand = self.hands[number]
        world = self._stream(slot, None)
        if not stream.heard:
            return world
        if slot == hand.opening:
            world = world._hand(number, opening=NONE)
        else:
            world = world._hand(number, current=NONE)
            if hand.opening != NONE and code in ("superseded", "gap"):
                return world
        return world if code in ("gap", "unavailable") else world._let_go(number)

    # ---- what streams do

    def cut(self, number: int) -> Self:
        return self._spend("cuts")._break(number)

    def _break(self, number: int) -> Self:
        stream = self._at(number)
        hand = self.hands[stream.hand]
        changes = {name: NONE for name in ("current", "opening") if getattr(hand, name) == number}
        return self._stream(number, replace(stream, heard=False))._hand(stream.hand, **changes)

    def drop(self, number: int) -> Self:
        stream = self._at(number)
        return self._spend("drops")._stream(number, replace(stream, up=stream.up[1:]))

    def over(self, number: int) -> Self:
        """The Dispatcher notices; what was on its way and has not come by now is lost."""
        post = self._at(number).post
        world = self._stream(number, None)
        return world._post(post, stream=NONE) if self.posts[post].stream == number else world

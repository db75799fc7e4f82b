"""What a world of the real cores is made of, and the Commanders' side of it."""

from collections.abc import Hashable
from typing import Self

from msgspec.structs import replace

from shared import records
from shared.records import Upstream
from tests.model.commanders import CARRIERS, Commander
from tests.model.journal import Journal
from tests.model.runners import Post
from tests.model.search import Broken
from tests.model.sides import NONE, Faults


class Stream:
    """up: what is on its way. heard: by its Commander."""

    __slots__ = ("hand", "heard", "post", "up")

    def __init__(self, hand: int, post: int, up: tuple[Upstream, ...] = (), heard: bool = True) -> None:
        self.hand, self.post, self.up, self.heard = hand, post, up, heard

    @property
    def key(self) -> Hashable:
        return self.hand, self.post, self.up, self.heard


class Parts:
    """A world that `_after` copies before it changes; of the parts, those that change."""

    def __init__(self, journal: Journal, faults: Faults, continues: bool) -> None:
        self.journal, self.faults, self.continues = journal, faults, continues
        self.hands: list[Commander] = []
        self.streams: list[Stream | None] = [None] * len(CARRIERS)
        self.posts = [Post("A"), Post("B")]
        self.outage = False  # the store is away
        self._mine: set[int] = set()  # parts that were copied already

    @property
    def key(self) -> Hashable:
        journal = self.journal
        return (
            journal.key, journal.head.epoch, journal.given, journal.entries, self.faults, self.outage,
            *[hand.key for hand in self.hands],
            *[stream and stream.key for stream in self.streams],
            *[post.key for post in self.posts],
        )  # fmt: skip

    @property
    def done(self) -> bool:
        return self.journal.head.complete and all(hand.over for hand in self.hands)

    def _after(self, name: str, *arguments: object) -> Self:
        world = object.__new__(type(self))
        world.journal, world.faults, world.continues = self.journal, self.faults, self.continues
        world.hands, world.streams, world.posts = self.hands[:], self.streams[:], self.posts[:]
        world.outage = self.outage
        world._mine = set()
        getattr(world, name)(*arguments)
        return world

    def _hand(self, number: int) -> Commander:
        hand = self.hands[number]
        if id(hand) not in self._mine:
            hand = self.hands[number] = hand.copy()
            self._mine.add(id(hand))
        return hand

    def _post(self, number: int) -> Post:
        post = self.posts[number]
        if id(post) not in self._mine:
            post = self.posts[number] = post.copy()
            self._mine.add(id(post))
        return post

    def _at(self, slot: int) -> Stream:
        stream = self.streams[slot]
        assert stream
        return stream

    def _spend(self, fault: str) -> None:
        self.faults = replace(self.faults, **{fault: getattr(self.faults, fault) - 1})

    # ---- Commanders, and their streams

    def open(self, number: int, post: int) -> None:
        hand = self._hand(number)
        if not hand.homeless:
            self._spend("moves")
        slot = self.streams.index(None)
        self.streams[slot] = Stream(number, post)
        hand.session.open_on(CARRIERS[slot])
        self._pump(number)

    def say(self, number: int, item: str) -> None:
        self._hand(number).say(item)
        self._pump(number)

    def end_agent(self, number: int) -> None:
        self._hand(number).end_agent()
        self._pump(number)

    def hand_over(self, number: int) -> None:
        self._spend("hand_overs")
        self._hand(number).session.hand_over()
        self._pump(number)

    def kill_commander(self, number: int) -> None:
        self._spend("commanders")
        self._hand(number).over = True
        self._pump(number)

    def _pump(self, number: int) -> None:
        """Its writers put what there is on the streams. One that has let go hears of nothing any more."""
        hand = self._hand(number)
        for slot, stream in enumerate(self.streams):
            if stream and stream.hand == number and stream.heard:
                up = stream.up
                if not hand.over and hand.carried_by(slot):
                    up += tuple(hand.take(slot))
                    self._judge_letting_go(hand)
                if up is not stream.up or hand.over or not hand.carried_by(slot):
                    self.streams[slot] = Stream(number, stream.post, up, not hand.over and hand.carried_by(slot))

    def _tell(self, slot: int, signal: records.DownstreamSignal) -> None:
        stream = self._at(slot)
        if not stream.heard:
            return
        hand = self._hand(stream.hand)
        match signal:
            case records.Welcome(sequence) if hand.start == NONE:
                hand.start = sequence
                if sequence != hand.history and not self.journal.rolled_back:
                    raise Broken(f"its history ends at packet {hand.history}, the log at {sequence}")
            case records.Ack(sequence):
                self.journal.acked(sequence, hand.start, hand.tag)
                hand.acked = max(hand.acked, sequence)
            case records.Stop() if not self.journal.stops:
                raise Broken("a stop is sent that is not in the log")
        lost = isinstance(signal, records.Welcome) and signal.sequence < hand.acked
        hand.receive(slot, signal)
        if lost and hand.session.failure != "data_loss":
            raise Broken("the log lost what was acked, and nobody says so")
        self._judge_letting_go(hand)
        if signal == records.Closed("fenced") and not hand.over:
            raise Broken("a Commander is fenced off, and does not let go")
        self._pump(stream.hand)

    def _judge_letting_go(self, hand: Commander) -> None:
        journal = self.journal
        if not hand.over or hand.tag != journal.assigned or journal.head.over or journal.given_back:
            return
        if journal.lost_track or not journal.rolled_back:  # else its epoch may have been given out twice
            raise Broken("its Commander lets go of it, though it is still its own")

    def cut(self, slot: int) -> None:
        self._spend("cuts")
        self._break(slot)

    def _break(self, slot: int) -> None:
        stream = self._at(slot)
        hand = self._hand(stream.hand)
        hand.session.stream_ended(CARRIERS[slot])
        self.streams[slot] = Stream(stream.hand, stream.post, stream.up, heard=False)
        self._pump(stream.hand)

    def drop(self, slot: int) -> None:
        self._spend("drops")
        stream = self._at(slot)
        self.streams[slot] = Stream(stream.hand, stream.post, stream.up[1:], stream.heard)

    def double(self, slot: int) -> None:
        self._spend("doubles")
        stream = self._at(slot)
        self.streams[slot] = Stream(stream.hand, stream.post, stream.up[:1] + stream.up, stream.heard)

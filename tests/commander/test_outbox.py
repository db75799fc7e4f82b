"""The outbox: credit, coalescing, resend, rollback; and a state machine against a log whose stream is cut."""

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from commander.outbox import LEAST_PIECE_BYTES, MAX_WAITING_BYTES, Outbox
from shared.records import MAX_TEXT_BYTES, Content, Error, Stopped, Thought, ToolCall, Upstream

FINISH = Content("", is_finish=True, finish_reason="stop")


def outbox(packets: int = 256, size: int = 262144, sequence: int = 0) -> Outbox:
    made = Outbox("s", sequence)
    assert made.welcome(sequence, packets, size)
    return made


def take(box: Outbox, budget: int = MAX_TEXT_BYTES, **options: Any) -> list[Upstream]:
    return box.take(budget, 0, **options)


def full(box: Outbox) -> bool:
    return box.full  # asked by a function, for mypy takes two answers of one property to be the same


def payloads(packets: list[Upstream]) -> list[object]:
    return [packet.payload for packet in packets]


def test_nothing_is_sent_before_the_welcome() -> None:
    box = Outbox("s")
    box.say("early")
    assert take(box) == []
    box.welcome(0, 1, 1000)
    assert payloads(take(box)) == [Content("early")]


def test_deltas_of_a_kind_become_one_packet_numbered_when_taken() -> None:
    box = outbox()
    for text in ("a", "b"):
        box.say(text)
    box.think("plan", "c")
    box.think("plan", "d")
    box.think("other", "e")
    box.say("f")
    packets = take(box)
    assert payloads(packets) == [Content("ab"), Thought("plan", "cd"), Thought("other", "e"), Content("f")]
    assert [packet.sequence for packet in packets] == [1, 2, 3, 4]
    assert [packet.size for packet in packets] == [len(packet.data) for packet in packets]


def test_a_new_generation_goes_on_after_the_log() -> None:
    box = outbox(sequence=41)
    box.say("x")
    assert [packet.sequence for packet in take(box)] == [42]
    assert box.unacked == 1


def test_long_text_is_split_and_a_turn_takes_its_share_only() -> None:
    box = outbox(size=10**9)
    text = "ä" * MAX_TEXT_BYTES  # two bytes each
    box.say(text)
    turns = []
    while packets := take(box):
        assert sum(packet.size for packet in packets) <= MAX_TEXT_BYTES + 100
        turns.append(packets)
    said = [packet.payload.text for packets in turns for packet in packets if isinstance(packet.payload, Content)]
    assert "".join(said) == text
    assert all(len(piece.encode()) <= MAX_TEXT_BYTES for piece in said)
    assert len(turns) == 2


@pytest.mark.parametrize("letter", ["x", "ä", "語", "😀"])
def test_joined_text_is_cut_to_a_share_and_nothing_of_it_is_lost(letter: str) -> None:
    box = outbox(size=10**9)
    for number in range(2000):
        box.think("step", f"{number}{letter}")
    turns = []
    while packets := take(box, LEAST_PIECE_BYTES + 1):
        turns.append([packet.payload for packet in packets if isinstance(packet.payload, Thought)])
    assert len(turns) > 1
    assert all(len(turn) == 1 and len(turn[0].delta.encode()) <= LEAST_PIECE_BYTES + 1 for turn in turns)
    assert {turn[0].step_name for turn in turns} == {"step"}
    assert "".join(turn[0].delta for turn in turns) == "".join(f"{number}{letter}" for number in range(2000))
    assert box._waiting_bytes == 0


def test_no_text_is_cut_to_crumbs() -> None:
    box = outbox(size=10**9)
    box.say("x" * (LEAST_PIECE_BYTES + 10))
    assert [packet.size > LEAST_PIECE_BYTES for packet in take(box, 1)] == [True]


def test_lone_surrogates_become_the_replacement_character() -> None:
    box = outbox()
    box.say("a\ud83db")
    box.think("p\udc00", "\udc00")
    assert payloads(take(box)) == [Content("a\ufffdb"), Thought("p\ufffd", "\ufffd")]


def test_empty_deltas_make_no_packet() -> None:
    box = outbox()
    box.say("")
    assert take(box) == []


def test_packets_are_bounded_by_the_credit_and_ends_are_not() -> None:
    box = outbox(packets=2)
    for step in "abc":
        box.think(step, "x")
    assert len(take(box)) == 2
    assert full(box)
    box.ack(1)
    assert not full(box)
    assert len(take(box)) == 1
    box.end(FINISH)
    assert payloads(take(box)) == [FINISH]


def test_bytes_are_bounded_but_one_packet_may_always_be_under_way() -> None:
    box = outbox(size=100)
    box.say("x" * 1000)
    box.call(ToolCall("t", "{}", "c"))
    assert len(take(box)) == 1
    assert take(box) == []
    box.ack(1)
    assert len(take(box)) == 1


def test_the_agent_waits_when_enough_waits() -> None:
    box = outbox()
    box.say("x" * (MAX_WAITING_BYTES - 100))
    assert not full(box)
    box.say("y" * 100)
    assert full(box)
    take(box)
    assert not full(box)


def test_the_end_is_settled_by_its_ack_only() -> None:
    box = outbox()
    box.say("x")
    box.end(FINISH)
    assert (box.ending, box.ended) == (True, False)
    take(box)
    box.ack(1)
    assert (box.acked, box.settled) == (1, False)
    box.ack(2)
    assert (box.acked, box.settled) == (2, True)


def test_an_end_that_waits_is_replaced_by_another() -> None:
    box = outbox(packets=1)
    box.say("a")
    take(box)
    box.say("never logged")
    box.end(FINISH)
    assert take(box) == []
    box.discard_waiting()
    assert not box.ending
    box.end(Stopped("stop", 1))
    assert payloads(take(box)) == [Stopped("stop", 1)]


def test_what_the_log_does_not_hold_is_sent_again_with_its_numbers() -> None:
    box = outbox()
    for step in "abc":
        box.think(step, step)
    first = take(box)
    box.think("d", "d")
    assert box.welcome(1, 256, 262144)
    assert box.acked == 1
    again = take(box)
    assert again[:2] == first[1:]
    assert [packet.sequence for packet in again] == [2, 3, 4]


def test_sending_again_keeps_to_a_smaller_credit() -> None:
    box = outbox()
    for step in "abc":
        box.think(step, step)
    take(box)
    assert box.welcome(0, 2, 262144)
    assert [packet.sequence for packet in take(box)] == [1, 2]
    box.ack(2)
    assert [packet.sequence for packet in take(box)] == [3]


@pytest.mark.parametrize("sequence", [0, 3])
def test_a_log_below_its_acks_or_beyond_what_was_sent_ends_in_data_loss(sequence: int) -> None:
    box = outbox()
    for step in "ab":
        box.think(step, step)
    take(box)
    box.ack(1)
    assert not box.welcome(sequence, 256, 262144)
    box.fail(sequence, Error("data_loss"))
    packets = take(box)
    assert payloads(packets) == [Error("data_loss")]
    assert packets[0].sequence == sequence + 1
    box.ack(sequence + 1)
    assert box.settled


@pytest.mark.parametrize("sequence", [0, 4, 6])
def test_a_log_that_does_not_end_with_the_history_ends_in_data_loss(sequence: int) -> None:
    box = Outbox("s", 5)
    box.say("goes on")
    assert not box.welcome(sequence, 256, 262144)
    box.fail(sequence, Error("data_loss"))
    assert [(packet.sequence, packet.payload) for packet in take(box)] == [(sequence + 1, Error("data_loss"))]


def test_calls_wait_while_the_session_is_opened_elsewhere() -> None:
    box = outbox()
    box.say("a")
    box.call(ToolCall("t", "{}", "c"))
    box.say("b")
    assert payloads(take(box, hold_calls=True)) == [Content("a")]
    assert payloads(take(box)) == [ToolCall("t", "{}", "c"), Content("b")]


def test_an_older_dispatcher_gets_everything_once() -> None:
    box = Outbox("s", retain=False)
    box.welcome(0, 2**32 - 1, 2**32 - 1)
    for number in range(1000):
        box.think(str(number), "x")
    assert sum(len(packets) for packets in iter(lambda: take(box), [])) == 1000
    assert box.unacked == 0
    box.end(FINISH)
    take(box)
    assert box.settled


class AgainstALog(RuleBasedStateMachine):
    """An agent says things; packets are lost with their stream, acks come late; the log is what the user would see."""

    @initialize(packets=st.integers(1, 6), size=st.integers(20, 400))
    def begin(self, packets: int, size: int) -> None:
        self.limits = (packets, size)
        self.box = outbox(packets, size)
        self.said: list[tuple[str, str]] = []
        self.log: list[Upstream] = []
        self.wire: list[Upstream] = []  # sent on this stream, not logged
        self.open = True
        self.over = False

    @precondition(lambda self: not self.over)
    @rule(kind=st.sampled_from(["", "p", "q"]), text=st.text("aé夜", min_size=1, max_size=12))
    def says(self, kind: str, text: str) -> None:
        if kind:
            self.box.think(kind, text)
        else:
            self.box.say(text)
        self.said.append((kind, text))

    @precondition(lambda self: not self.over)
    @rule()
    def ends(self) -> None:
        self.box.end(FINISH)
        self.over = True

    @precondition(lambda self: self.open)
    @rule(budget=st.integers(1, 300))
    def takes(self, budget: int) -> None:
        self.wire += self.box.take(budget, 0)

    @precondition(lambda self: self.wire)
    @rule(share=st.integers(1, 4))
    def is_logged(self, share: int) -> None:
        for packet in self.wire[:share]:
            assert packet.sequence == len(self.log) + 1, "no gap, nothing twice"
            self.log.append(packet)
        del self.wire[:share]

    @precondition(lambda self: self.open and self.log)
    @rule(behind=st.integers(0, 3))
    def is_acked(self, behind: int) -> None:
        self.box.ack(max(0, len(self.log) - behind))

    @precondition(lambda self: self.open)
    @rule()
    def is_cut(self) -> None:
        self.wire.clear()
        self.open = False

    @precondition(lambda self: not self.open)
    @rule()
    def is_opened_again(self) -> None:
        assert self.box.welcome(len(self.log), *self.limits)
        self.open = True

    @invariant()
    def credit_is_kept(self) -> None:
        if not hasattr(self, "box") or not self.open:
            return
        unacked = [p for p in [*self.log, *self.wire] if p.sequence > self.box.acked and p.payload != FINISH]
        assert len(unacked) <= self.limits[0]
        assert len(unacked) <= 1 or sum(packet.size for packet in unacked) <= self.limits[1]

    def teardown(self) -> None:
        if not hasattr(self, "box"):
            return
        self.ends_if_not_over()
        if not self.open:
            self.is_opened_again()
        while not self.box.settled:
            self.is_logged(len(self.wire))
            self.box.ack(len(self.log))
            taken = self.box.take(1000, 0)
            assert taken or self.box.settled, "it always gets on"
            self.wire += taken
        assert self.logged() == self.joined()

    def ends_if_not_over(self) -> None:
        if not self.over:
            self.ends()

    def joined(self) -> list[list[str]]:
        runs: list[list[str]] = []
        for kind, text in self.said:
            if runs and runs[-1][0] == kind:
                runs[-1][1] += text
            else:
                runs.append([kind, text])
        return runs

    def logged(self) -> list[list[str]]:
        runs: list[list[str]] = []
        for packet in self.log:
            match packet.payload:
                case Content(text, is_finish=False):
                    kind = ""
                case Thought(kind, text):
                    pass
                case _:
                    continue
            if runs and runs[-1][0] == kind:
                runs[-1][1] += text
            else:
                runs.append([kind, text])
        return runs


TestAgainstALog = AgainstALog.TestCase

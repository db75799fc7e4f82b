"""The core's rules, one by one; the interleavings stand in test_session_machine.py."""

import pytest
from msgspec.structs import replace

from dispatcher.core import log
from dispatcher.core.effects import AppendEntries, GiveBack, SendAck, SendClosed
from dispatcher.core.entries import Entry, Failed, Finished, StopEntry, Text, size_of
from dispatcher.core.limits import Limits
from shared.conversation import TABLE, Phase
from shared.records import Content, Error, Stopped, Thought, ToolCall, ToolResult, Unknown
from tests.dispatcher.core.session_world import (
    LIMITS,
    NO_RULES,
    RULES,
    Dispatcher,
    Log,
    Stream,
    called,
    end,
    halted,
    packet,
    said,
)


@pytest.fixture
def world():
    return opened()


def opened(rules=None, origin="user", limits=LIMITS, continues=False):
    log_ = Log(origin)
    dispatcher = Dispatcher(log_, "d1", rules or NO_RULES, limits)
    if origin == "user":
        log_.submit(log.Assign("c1", "d1", continues, 100.0))
        stream = Stream()
        assert dispatcher.open(stream, "c1", 1) is None
    else:
        stream = Stream()
        assert dispatcher.open(stream, "c0", 0) is None
    return dispatcher, stream, log_


def feed(dispatcher, stream, *packets, answered=True):
    for item in packets:
        stream.up.append(item)
        dispatcher.deliver()
        if answered:
            dispatcher.answer()


RETRY = Error("x", retryable=True)
REACHED = {
    Phase.IDLE: lambda dispatcher, stream: dispatcher.session.detach(100.0),
    Phase.OPEN: lambda dispatcher, stream: None,
    Phase.STOPPING: lambda dispatcher, stream: dispatcher.stop(),
    Phase.ENDED: lambda dispatcher, stream: feed(dispatcher, stream, end(1), answered=False),
    Phase.GIVEN: lambda dispatcher, stream: feed(dispatcher, stream, packet(1, RETRY), answered=False),
}  # OPENING is passed through: its Welcome is the next that is sent
HAPPENS = {
    "say": lambda session, log_: session.receive(packet(session._accepted + 1, Thought("s", "x")), 100.0),
    "end": lambda session, log_: session.receive(end(session._accepted + 1), 100.0),
    "give": lambda session, log_: session.receive(packet(session._accepted + 1, RETRY), 100.0),
    "stopped": lambda session, log_: session.receive(packet(session._accepted + 1, Stopped("x")), 100.0),
    "stop": lambda session, log_: session.logged(
        log_.submit(log.Settle(Entry(StopEntry("x", "UserCancel", "user"), 100.0))), 100.0
    ),
    "closed": lambda session, log_: session.refused(log.Refused("superseded"), 100.0),
    "lost": lambda session, log_: session.detach(100.0),
}  # `open` and `welcome` are `attach`; the core takes `ack` and `tool_result`, which change nothing, from nobody


@pytest.mark.parametrize("kind", HAPPENS)
@pytest.mark.parametrize("state", REACHED)
def test_each_state_is_left_as_the_table_says(state, kind, world):
    dispatcher, stream, log_ = world
    session = dispatcher.session
    REACHED[state](dispatcher, stream)
    assert session.conversation is state
    effects = HAPPENS[kind](session, log_)
    if (state, kind) in TABLE:
        assert session.conversation is TABLE[state, kind]
    else:
        assert session.conversation is Phase.IDLE
        assert (SendClosed("ended") in effects) == (state is not Phase.IDLE)


@pytest.mark.parametrize(("over", "state"), [(False, Phase.OPEN), (True, Phase.ENDED)])
def test_it_is_opened_as_the_table_says(over, state, world):
    dispatcher, stream, log_ = world
    if over:
        feed(dispatcher, stream, end(1))
    session = dispatcher.rebuild()
    assert session.conversation is Phase.IDLE
    session.attach((), 100.0)
    assert session.conversation is state


def test_text_is_released_acked_and_finished(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, said(1, "Hello "), end(2, "world."))
    assert log_.text == "Hello world."
    assert [type(e.body) for e in log_.entries][-2:] == [Content, Finished]
    assert [e.sequence for e in log_.entries] == [0, 1, 2, 2]
    assert (log_.head.state, log_.head.over, stream.acked) == ("finished", True, 2)


def test_no_ack_before_the_append_has_answered(world):
    dispatcher, stream, _ = world
    feed(dispatcher, stream, said(1, "x"), called(2, "a"), answered=False)
    assert stream.acked == 0
    assert dispatcher.ran == []
    dispatcher.answer()
    dispatcher.answer()
    assert stream.acked == 2
    assert dispatcher.ran == ["a"]


def test_a_duplicate_is_acked_and_not_logged_again(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, said(1, "x"))
    assert dispatcher.session.receive(said(1, "x"), 100.0) == [SendAck(at_once=False)]
    feed(dispatcher, stream, said(2, "y"), answered=False)
    assert dispatcher.session.receive(said(2, "y"), 100.0) == []  # on its way to the log: not yet to be acked
    dispatcher.answer()
    assert log_.text == "xy"


def test_a_gap_closes_and_the_grace_begins(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, said(1, "x"), said(3, "z"))
    assert stream.closed == "gap"
    assert log_.text == "x"
    assert "grace" in dispatcher.wakes


def test_a_packet_after_the_end_closes_ended(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, end(1, "x"))
    feed(dispatcher, stream, said(2, "y"))
    assert stream.closed == "ended"
    assert log_.text == "x"


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (packet(0, Content("x")), "invalid"),
        (packet(1, Content("é" * 40_000)), "invalid"),
        (packet(1, Thought("s", "x" * 70_000)), "invalid"),
    ],
)
def test_what_breaks_the_contract_ends_the_session_in_the_log_first(bad, code, world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, bad, answered=False)
    assert stream.closed == ""
    dispatcher.answer()
    assert stream.closed == code
    assert (log_.head.state, log_.head.code) == ("failed", "protocol_error")


def test_more_than_the_credit_ends_the_session(world):
    dispatcher, stream, log_ = world
    for sequence in range(1, LIMITS.max_unacked_packets + 2):
        feed(dispatcher, stream, said(sequence, "x"), answered=False)
    while dispatcher.flying:
        dispatcher.answer()
    assert stream.closed == "credit"
    assert (log_.head.state, log_.text) == ("failed", "x" * LIMITS.max_unacked_packets)


def test_bytes_count_too_but_one_packet_may_always_be_under_way(world):
    dispatcher, stream, _ = world
    feed(dispatcher, stream, packet(1, Content("x"), size=100_000), answered=False)
    assert stream.closed == ""
    feed(dispatcher, stream, packet(2, Content("x"), size=1), answered=False)
    while dispatcher.flying:
        dispatcher.answer()
    assert stream.closed == "credit"


def test_ends_are_outside_the_credit(world):
    dispatcher, stream, log_ = world
    for sequence in range(1, LIMITS.max_unacked_packets + 1):
        feed(dispatcher, stream, said(sequence, "x"), answered=False)
    feed(dispatcher, stream, end(LIMITS.max_unacked_packets + 1), answered=False)
    while dispatcher.flying:
        dispatcher.answer()
    assert log_.head.state == "finished"


def test_a_full_log_ends_its_session_exact_to_what_was_let_out():
    """Whoever rebuilds the session counts what stands there too."""
    limits = replace(LIMITS, max_log_bytes=500)
    dispatcher, stream, log_ = opened(limits=limits)
    feed(dispatcher, stream, said(1, "a"))
    dispatcher.cut()
    again = Stream()
    assert dispatcher.open(again, "c1", 1) is None
    sequence = 1
    while dispatcher.stream:
        sequence += 1
        feed(dispatcher, again, said(sequence, "a"))
    *before, failure = log_.entries
    assert (again.closed, failure.body) == ("ended", Failed("log_full"))
    assert (log_.head.state, log_.head.over, log_.text) == ("failed", True, "a" * (sequence - 1))
    assert sum(map(size_of, before[:-1])) < limits.max_log_bytes <= sum(map(size_of, before))


@pytest.mark.parametrize(("last", "state"), [(end(1, "a"), "finished"), (packet(1, Error("x")), "failed")])
def test_an_end_may_still_come_into_a_full_log(last, state):
    dispatcher, stream, log_ = opened(limits=replace(LIMITS, max_log_bytes=1))
    feed(dispatcher, stream, last)
    assert (log_.head.state, log_.head.code) == (state, "x" if state == "failed" else "")


def test_results_of_calls_count_for_a_full_log_and_hand_overs_do():
    dispatcher, stream, log_ = opened(limits=replace(LIMITS, max_log_bytes=1000), continues=True)
    feed(dispatcher, stream, called(1, "c"))
    dispatcher.finish_tool("c", result_json=f'"{"x" * 1000}"')
    feed(dispatcher, stream, packet(2, RETRY))
    assert (log_.head.code, dispatcher.given_back) == ("log_full", 0)


def test_an_ack_is_due_at_once_when_half_of_the_credit_is_used(world):
    dispatcher, stream, _ = world
    effects = []
    for sequence in range(1, LIMITS.max_unacked_packets // 2 + 1):
        effects += dispatcher.session.receive(said(sequence, "x"), 100.0)
    entries = tuple(entry for effect in effects if isinstance(effect, AppendEntries) for entry in effect.entries)
    outcome = dispatcher.log.submit(log.Append(dispatcher.session.epoch, entries))
    assert SendAck(at_once=True) in dispatcher.session.logged(outcome, 100.0)


# ---- the stop


def test_a_users_stop_is_in_the_log_before_it_is_sent_and_nothing_is_released_after(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, said(1, "seen "))
    feed(dispatcher, stream, said(2, "on its way"), answered=False)
    dispatcher.stop()
    assert [stop.stop_id for stop in stream.stops] == ["user-stop"]
    dispatcher.answer()
    feed(dispatcher, stream, said(3, "late"), halted(4, "user-stop"))
    assert log_.text == "seen "
    assert (log_.head.state, log_.head.reason, log_.head.over) == ("stopped", "UserCancel", True)
    assert [e.body.text for e in log_.entries if isinstance(e.body, Content)] == ["seen ", "on its way", "late"]


def test_an_empty_packet_is_logged_before_and_after_a_stop(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, said(1, ""))
    dispatcher.stop()
    feed(dispatcher, stream, said(2, ""), end(3))
    assert (log_.head.sequence, stream.acked, log_.head.over) == (3, 3, True)


def test_a_second_stop_adds_no_entry(world):
    dispatcher, stream, log_ = world
    dispatcher.stop()
    dispatcher.stop("Timeout")
    assert len([e for e in log_.entries if isinstance(e.body, StopEntry)]) == 1
    assert log_.head.reason == "UserCancel"


def test_a_policy_stop_is_one_append_with_its_packet():
    dispatcher, stream, log_ = opened(RULES)
    feed(dispatcher, stream, said(1, "sing, night"), answered=False)
    feed(dispatcher, stream, said(2, "ingale, sing"), answered=False)
    assert [type(e.body) for e in dispatcher.pending] == [Content, StopEntry]
    dispatcher.answer()
    dispatcher.answer()
    assert log_.text == "sing, "
    assert log_.head.reason == "PolicyViolation"
    assert stream.stops[0].policy == "names"
    assert not any("nightingale" in repr(e.body) for e in log_.entries if isinstance(e.body, StopEntry))


def test_held_text_goes_out_at_the_end_as_an_entry_of_its_own():
    dispatcher, stream, log_ = opened(RULES)
    feed(dispatcher, stream, said(1, "a night"))
    assert log_.text == "a "
    assert dispatcher.session.held == 5
    feed(dispatcher, stream, end(2))
    assert [type(e.body) for e in log_.entries][-2:] == [Text, Finished]
    assert log_.text == "a night"


@pytest.mark.parametrize(
    "payload", [ToolCall("t", '{"a": "NIGHTINGALE"}', "c"), ToolCall("t", '{"\\u006eightingale": 1}')]
)
def test_arguments_are_read_before_the_tool_runs(payload):
    dispatcher, stream, log_ = opened(RULES)
    feed(dispatcher, stream, packet(1, payload))
    assert dispatcher.ran == []
    assert log_.head.state == "stopped"
    assert stream.results[0].status == "CANCELLED"


def test_a_stop_is_sent_again_after_each_welcome_until_it_is_answered(world):
    dispatcher, stream, _ = world
    dispatcher.stop()
    dispatcher.cut()
    again = Stream()
    assert dispatcher.open(again, "c1", 1) is None
    assert len(again.stops) == 1
    feed(dispatcher, again, halted(1, "user-stop"))
    third = Stream()
    dispatcher.open(third, "c1", 1)
    assert (third.welcome, third.stops) == (1, [])


def test_a_commander_that_does_not_stop_is_fenced(world):
    dispatcher, stream, log_ = world
    dispatcher.stop()
    dispatcher.wake("stop")
    assert stream.closed == "fenced"
    assert log_.head.generation == 2
    assert dispatcher.open(Stream(), "c1", 1) == "fenced"


def test_a_stopped_session_whose_commander_is_lost_is_given_up(world):
    """Else nobody would ever say that its log is over."""
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, said(1, "x"))
    dispatcher.cut()
    dispatcher.stop()
    assert (log_.head.state, log_.head.over) == ("stopped", False), "its Commander may come back to say that it halted"
    dispatcher.wake("grace")
    assert (log_.head.state, log_.head.over) == ("stopped", True)
    assert dispatcher.open(Stream(), "c1", 1) == "fenced"


def test_a_session_that_is_stopped_while_a_takeover_waits_for_its_tool_is_given_up():
    dispatcher, stream, log_ = opened(continues=True)
    feed(dispatcher, stream, called(1, "a"))
    dispatcher.cut()
    dispatcher.wake("grace")
    dispatcher.stop()
    assert (log_.head.state, log_.head.over, log_.head.calls) == ("stopped", True, {})


def test_a_stopped_session_that_is_found_after_a_restart_is_given_up(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, called(1, "a"))
    log_.submit(log.Settle(Entry(StopEntry("user-stop", "UserCancel", "user"), 100.0)))
    restarted = Dispatcher(log_, "d2")
    session = restarted.rebuild()
    restarted.carry_out(session.restored(restarted.now) + session.await_open(restarted.now))
    restarted.settle_unknown()
    restarted.wake("grace")
    assert (log_.head.state, log_.head.over, log_.head.calls) == ("stopped", True, {})


def test_stopped_without_a_stop_is_a_protocol_error(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, halted(1, "?"))
    assert (log_.head.state, log_.head.code) == ("failed", "protocol_error")


def test_a_policy_that_raises_stops_the_session(world, monkeypatch):
    dispatcher, stream, log_ = world

    def broken(text, at):
        raise RuntimeError("internals")

    monkeypatch.setattr(dispatcher.session._guard.gate, "content", broken)
    feed(dispatcher, stream, said(1, "anything"))
    assert (log_.head.state, log_.head.reason, log_.text) == ("stopped", "RiskControl", "")
    stop = next(e.body for e in log_.entries if isinstance(e.body, StopEntry))
    assert stop.detail == "policy_unavailable: RuntimeError"


# ---- tools


def test_a_result_goes_to_the_commander_and_a_call_id_is_never_run_twice(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, called(1, "a"))
    dispatcher.finish_tool("a")
    feed(dispatcher, stream, called(2, "a"))
    assert dispatcher.ran == ["a"]
    assert [(r.call_id, r.status) for r in stream.results] == [("a", "OK"), ("a", "INVALID_ARGUMENTS")]


def test_a_call_without_an_id_gets_one_from_its_sequence(world):
    dispatcher, stream, _ = world
    feed(dispatcher, stream, called(1, ""))
    assert dispatcher.ran == ["seq-1"]


def test_after_a_resume_exactly_the_awaited_results_are_sent(world):
    dispatcher, stream, _ = world
    feed(dispatcher, stream, called(1, "a"), called(2, "b"), called(3, "c"))
    dispatcher.finish_tool("a")
    dispatcher.finish_tool("b")
    dispatcher.cut()
    again = Stream()
    dispatcher.open(again, "c1", 1, awaiting=("b", "c"))
    assert [r.call_id for r in again.results] == ["b"]
    dispatcher.finish_tool("c")
    assert [r.call_id for r in again.results] == ["b", "c"]


@pytest.fixture
def two_open(monkeypatch):
    monkeypatch.setattr("dispatcher.core.calls.MAX_OPEN_CALLS", 2)


def test_a_call_that_has_its_result_is_not_run(world):
    """Another instance believed this one to be gone, before this one heard of its own append."""
    dispatcher, stream, log_ = world
    stream.up.append(called(1, "a"))
    dispatcher.deliver()
    log_.submit(dispatcher.flying)
    log_.submit(log.Settle(Entry(ToolResult("t", "{}", "a", "UNKNOWN_OUTCOME"), 101.0)))
    dispatcher.answer()
    dispatcher.carry_out(dispatcher.session.logged(log.Applied(log_.head, tuple(log_.entries)), 102.0))
    assert not dispatcher.ran
    assert [result.status for result in stream.results] == ["UNKNOWN_OUTCOME"]


def test_a_call_beyond_those_that_may_be_open_waits_for_a_result(two_open, world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, *(called(number, f"c{number}") for number in range(1, 6)), end(6, "all"))
    assert dispatcher.ran == ["c1", "c2"]
    assert (stream.acked, log_.head.sequence) == (2, 2)
    dispatcher.finish_tool("c2")
    dispatcher.answer()
    assert dispatcher.ran == ["c1", "c2", "c3"]
    for number in (1, 3, 4, 5):
        dispatcher.finish_tool(f"c{number}")
        dispatcher.answer()
        dispatcher.answer()
    assert dispatcher.ran == ["c1", "c2", "c3", "c4", "c5"]
    assert {result.call_id for result in stream.results} == set(dispatcher.ran)
    assert (log_.text, log_.head.state, stream.acked) == ("all", "finished", 6)


def test_a_result_that_waits_for_its_stream_counts_as_an_open_call(two_open, world):
    dispatcher, stream, log_ = world
    stream.full = True
    feed(dispatcher, stream, *(called(number, f"c{number}") for number in range(1, 6)))
    dispatcher.finish_tool("c1")
    dispatcher.finish_tool("c2")
    dispatcher.answer()
    assert (dispatcher.ran, stream.unsent) == (["c1", "c2"], 2)
    for number in (3, 4, 5):
        dispatcher.carry_out(dispatcher.session.sent(1, 100.0))
        dispatcher.answer()
        assert dispatcher.ran[-1] == f"c{number}"
        dispatcher.finish_tool(f"c{number}")


def test_what_waits_is_within_the_credit(two_open, world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, *(called(number, f"c{number}") for number in range(1, 12)))
    assert (stream.closed, log_.head.state) == ("credit", "failed")
    assert not dispatcher.session.waits


def test_after_a_stop_what_waited_is_logged_and_nothing_of_it_runs(two_open, world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, *(called(number, f"c{number}") for number in range(1, 5)), said(5, "late"))
    dispatcher.stop()
    for _ in range(4):
        dispatcher.answer()
    feed(dispatcher, stream, halted(6, "user-stop"))
    assert dispatcher.ran == ["c1", "c2"]
    statuses = {e.body.call_id: e.body.status for e in log_.entries if isinstance(e.body, ToolResult)}
    assert statuses == dict.fromkeys(["c1", "c2", "c3", "c4"], "CANCELLED")
    assert (log_.head.over, log_.text, stream.acked) == (True, "", 6)


def test_what_waited_comes_again_after_a_cut(two_open, world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, *(called(number, f"c{number}") for number in range(1, 5)))
    dispatcher.cut()
    again = Stream()
    dispatcher.open(again, "c1", 1, awaiting=("c1", "c2", "c3", "c4"))
    assert again.welcome == 2
    feed(dispatcher, again, called(3, "c3"), called(4, "c4"), end(5))
    for number in range(1, 5):
        dispatcher.finish_tool(f"c{number}")
        dispatcher.answer()
    dispatcher.answer()
    assert dispatcher.ran == ["c1", "c2", "c3", "c4"]
    assert (len(again.results), log_.head.state) == (4, "finished")


def test_an_end_that_waits_for_a_call_is_the_end_all_the_same(two_open):
    """Of an older peer, whose stream ends with its session."""
    dispatcher, stream, log_ = opened(origin="older")
    feed(dispatcher, stream, called(1, "a"), called(2, "b"), called(3, "c"), end(4, "all"))
    dispatcher.cut()
    for call_id in "abc":
        dispatcher.finish_tool(call_id)
        dispatcher.answer()
    dispatcher.answer()
    assert (log_.text, log_.head.state) == ("all", "finished")


def test_of_a_call_that_has_its_result_only_the_id_is_kept(world):
    dispatcher, stream, _ = world
    feed(dispatcher, stream, called(1, "a"), called(2, "b"))
    dispatcher.finish_tool("a")
    assert set(dispatcher.session._calls._open) == {"b"}
    assert set(dispatcher.rebuild()._calls._open) == {"b"}


def test_no_result_is_kept_once_it_was_sent(world):
    """Each has up to 256 KiB, and the log has it for whoever opens the session again."""
    dispatcher, stream, _ = world
    feed(dispatcher, stream, called(1, "a"), called(2, "b"))
    dispatcher.finish_tool("a")
    assert not dispatcher.session._calls._results
    dispatcher.cut()
    again = Stream()
    dispatcher.open(again, "c1", 1, awaiting=("a", "b"))
    dispatcher.finish_tool("b")
    assert [r.call_id for r in again.results] == ["a", "b"]
    assert not dispatcher.session._calls._results


def test_a_call_whose_instance_is_gone_has_an_unknown_outcome(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, called(1, "a"))
    restarted = Dispatcher(log_, "d2")
    again = Stream()
    restarted.open(again, "c1", 1, awaiting=("a",))
    assert restarted.ran == []
    assert [(r.call_id, r.status) for r in again.results] == [("a", "UNKNOWN_OUTCOME")]


def test_a_repeated_append_does_not_run_its_tool_twice(world):
    dispatcher, stream, _ = world
    feed(dispatcher, stream, called(1, "a"), answered=False)
    dispatcher.answer(applied=True, told=False)
    assert dispatcher.ran == ["a"]


def test_a_call_whose_append_was_never_answered_is_run_after_the_resume(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, called(1, "a"), answered=False)
    log_.submit(dispatcher.flying)  # it is in the log; the answer is lost with the stream
    again = Stream()
    dispatcher.open(again, "c1", 1, awaiting=("a",))
    assert dispatcher.ran == ["a"]
    dispatcher.finish_tool("a")
    assert [r.status for r in again.results] == ["OK"]


def test_outcomes_may_be_heard_of_in_another_order_than_the_entries_stand(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, called(1, "a"), called(2, "b"), answered=False)
    dispatcher.answer()
    second = log_.submit(dispatcher.flying)
    dispatcher.finish_tool("a")  # its outcome is there before that of the append that stands before it
    dispatcher.carry_out(dispatcher.session.logged(second, 100.0))
    dispatcher.carry_out(dispatcher.session.logged(second, 100.0))
    assert dispatcher.ran == ["a", "b"]
    assert [r.call_id for r in stream.results] == ["a"]


# ---- lost Commanders


@pytest.mark.parametrize(
    ("continues", "spoken", "again"), [(False, False, True), (False, True, False), (True, True, True)]
)
def test_after_the_grace_it_is_assigned_again_only_where_rule_8_allows_it(continues, spoken, again):
    dispatcher, stream, log_ = opened(continues=continues)
    if spoken:
        feed(dispatcher, stream, said(1, "x"))
    dispatcher.cut()
    assert dispatcher.wakes["grace"] == dispatcher.now + LIMITS.grace_seconds
    dispatcher.wake("grace")
    dispatcher.answer()
    assert log_.head.state == ("waiting" if again else "failed")
    assert log_.head.code == ("" if again else "commander_lost")
    assert log_.head.takeovers == int(again)


def test_takeovers_are_bounded_also_for_assignments_that_nobody_opens():
    log_ = Log()
    dispatcher = Dispatcher(log_, "d1")
    for attempt in range(3):
        assert log_.head.takeovers == attempt
        log_.submit(log.Assign(f"c{attempt}", "d1", False, 100.0))
        session = dispatcher.rebuild()
        dispatcher.carry_out(session.await_open(dispatcher.now))
        dispatcher.wake("grace")
        dispatcher.answer()
    assert (log_.head.state, log_.head.code) == ("failed", "commander_lost")


def test_a_hand_over_is_assigned_again_at_once_and_does_not_count():
    dispatcher, stream, log_ = opened(continues=True)
    feed(dispatcher, stream, said(1, "half "), packet(2, Error("leaving", retryable=True)))
    assert (log_.head.state, log_.head.takeovers) == ("waiting", 0)
    log_.submit(log.Assign("c2", "d1", True, 101.0))
    heir = Stream()
    assert dispatcher.open(heir, "c2", 2) is None
    assert heir.welcome == 2
    feed(dispatcher, heir, end(3, "whole"))
    assert log_.text == "half whole"


def test_a_call_that_was_logged_without_an_answer_is_cancelled_where_its_commander_is_given_up():
    """Else nobody would: the log's epoch is another by then, so the core takes in no more of it."""
    dispatcher, stream, log_ = opened()
    feed(dispatcher, stream, called(1, "a"), answered=False)
    dispatcher.stop()
    log_.submit(dispatcher.flying)
    dispatcher.wake("stop")
    assert log_.head.complete
    assert [entry.body.status for entry in log_.entries if isinstance(entry.body, ToolResult)] == ["CANCELLED"]


def test_a_hand_over_that_another_instance_finds_in_the_log_does_not_count():
    dispatcher, stream, log_ = opened(continues=True)
    feed(dispatcher, stream, said(1, "half "), packet(2, Error("leaving", retryable=True)), answered=False)
    for entry in dispatcher.flying.entries, dispatcher.pending:
        log_.submit(log.Append(log_.head.epoch, tuple(entry)))  # and the first one dies
    log_.submit(log.TakeOver(log_.head.epoch, "d1", "d2"))
    second = Dispatcher(log_, "d2")
    second.carry_out(second.rebuild().await_open(second.now))
    second.wake("grace")
    assert (log_.head.state, log_.head.takeovers) == ("waiting", 0)
    log_.submit(log.Assign("c2", "d2", True, 101.0))
    second.carry_out(second.rebuild().await_open(second.now))
    second.wake("grace")  # that one is lost
    assert (log_.head.state, log_.head.takeovers) == ("waiting", 1)


def test_a_hand_over_of_an_agent_that_cannot_continue_fails():
    dispatcher, stream, log_ = opened()
    feed(dispatcher, stream, said(1, "half "), packet(2, Error("leaving", retryable=True)))
    dispatcher.answer()
    assert (log_.head.state, log_.head.code, log_.text) == ("failed", "commander_lost", "half ")


def test_a_takeover_waits_for_the_results_of_running_tools():
    dispatcher, stream, log_ = opened(continues=True)
    feed(dispatcher, stream, called(1, "a"))
    dispatcher.cut()
    dispatcher.wake("grace")
    assert log_.head.state == "running"
    dispatcher.finish_tool("a")
    assert log_.head.state == "waiting"


def test_so_does_the_end_of_a_session_that_nobody_can_go_on_with(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, called(1, "a"))
    dispatcher.cut()
    dispatcher.wake("grace")
    dispatcher.answer()
    assert log_.head.state == "running"
    dispatcher.finish_tool("a")
    dispatcher.answer()
    assert (log_.head.state, log_.head.code) == ("failed", "commander_lost")


def test_a_takeover_waits_for_appends_with_unknown_outcome():
    dispatcher, stream, log_ = opened(continues=True)
    feed(dispatcher, stream, called(1, "a"), answered=False)
    dispatcher.cut()
    dispatcher.wake("grace")
    assert log_.head.state == "running"
    dispatcher.answer(applied=False)
    assert log_.head.state == "running"
    dispatcher.finish_tool("a")
    assert log_.head.state == "waiting"


def test_a_takeover_waits_for_no_append_that_was_refused():
    dispatcher, stream, _ = opened(continues=True)
    feed(dispatcher, stream, said(1, "x"), answered=False)
    dispatcher.session.refused(log.Refused("gap"), 100.0)
    assert dispatcher.session.deadline("grace", 130.0) == [GiveBack(handed_over=False)]


@pytest.mark.parametrize("origin", ["commander", "older"])
def test_a_session_without_assignment_is_never_taken_over(origin):
    dispatcher, stream, log_ = opened(origin=origin)
    feed(dispatcher, stream, said(1, "x"))
    dispatcher.cut()
    if origin == "commander":
        dispatcher.wake("grace")
    dispatcher.answer()
    assert (log_.head.state, log_.head.code) == ("failed", "commander_lost")


def test_a_retryable_error_without_assignment_is_the_end():
    dispatcher, stream, log_ = opened(origin="commander")
    feed(dispatcher, stream, packet(1, Error("x", retryable=True)))
    assert (log_.head.state, log_.head.code) == ("failed", "x")


def test_what_silence_leads_to_is_dropped_when_somebody_has_the_session(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, said(1, "x"))
    dispatcher.cut()
    log_.submit(log.Acquire("c1", 1, "d2", 101.0))  # at another replica
    dispatcher.wake("grace")
    dispatcher.answer()
    assert log_.head.state == "running"


# ---- rebuilt from the log


def test_todays_policies_read_what_was_said_under_yesterdays():
    dispatcher, stream, log_ = opened()
    feed(dispatcher, stream, said(1, "the nightingale sings"))
    stricter = Dispatcher(log_, "d2", RULES)
    again = Stream()
    stricter.open(again, "c1", 1)
    assert (log_.head.state, len(again.stops)) == ("stopped", 1)


def test_held_text_is_held_again_after_a_restart_and_let_out_once():
    dispatcher, stream, log_ = opened(RULES)
    feed(dispatcher, stream, said(1, "a night"))
    restarted = Dispatcher(log_, "d2", RULES)
    again = Stream()
    restarted.open(again, "c1", 1)
    assert restarted.session.held == 5
    feed(restarted, again, said(2, " in May"), end(3))
    assert log_.text == "a night in May"


def test_a_split_phrase_is_found_over_a_restart():
    dispatcher, stream, log_ = opened(RULES)
    feed(dispatcher, stream, said(1, "a night"))
    restarted = Dispatcher(log_, "d2", RULES)
    again = Stream()
    restarted.open(again, "c1", 1)
    feed(restarted, again, said(2, "ingale"))
    assert (log_.head.state, log_.text) == ("stopped", "a ")


def test_an_unknown_payload_with_a_sequence_is_logged_and_is_no_gap(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, packet(1, Unknown()), end(2, "x"))
    assert (log_.head.state, log_.text) == ("finished", "x")


def test_an_agents_error_is_the_end_and_lets_out_what_is_held():
    dispatcher, stream, log_ = opened(RULES)
    feed(dispatcher, stream, said(1, "a night"), packet(2, Error("", "secret")))
    assert (log_.head.state, log_.head.code, log_.text) == ("failed", "agent_error", "a night")


PAYLOADS = {
    "say": Content("x"),
    "call": ToolCall("t", "{}", "c"),
    "think": Thought("s", "x"),
    "end": Content("", is_finish=True),
    "error": Error("e"),
    "give": Error("e", retryable=True),
    "stopped": Stopped("user-stop"),
    "unknown": Unknown(),
}


@pytest.mark.parametrize("name", PAYLOADS)
@pytest.mark.parametrize("state", list(Phase))
def test_every_state_takes_or_refuses_every_packet_and_never_raises(state, name):
    dispatcher, stream, log_ = opened(limits=Limits())
    sequence = 1
    match state:
        case Phase.IDLE | Phase.OPENING:
            dispatcher.cut()
            dispatcher.stream = stream
        case Phase.STOPPING:
            dispatcher.stop()
        case Phase.ENDED:
            feed(dispatcher, stream, end(1))
            sequence = 2
        case Phase.GIVEN:
            feed(dispatcher, stream, packet(1, Error("x", retryable=True)), answered=False)
            sequence = 2
    before = log_.head.sequence
    feed(dispatcher, stream, packet(sequence, PAYLOADS[name]))
    match state:
        case Phase.IDLE | Phase.OPENING:
            assert (stream.closed, log_.head.sequence) == ("", before)
        case Phase.ENDED | Phase.GIVEN:
            assert stream.closed == "ended"
        case _:
            assert log_.head.sequence == 1


def test_the_queues_time_is_an_end():
    dispatcher = Dispatcher(Log(), "d1")
    session = dispatcher.rebuild()
    dispatcher.carry_out(session.unserved(dispatcher.now))
    dispatcher.answer()
    assert (dispatcher.log.head.state, dispatcher.log.head.code) == ("failed", "no_commander")
    assert isinstance(dispatcher.log.entries[-1].body, Failed)


def test_a_budget_of_time_stops_without_a_packet(tmp_path):
    from dispatcher.policing.load import load

    file = tmp_path / "p.toml"
    file.write_text('[[policy]]\nname = "limits"\nkind = "budget"\nmax_seconds = 60\nreason = "Timeout"\n')
    dispatcher, stream, log_ = opened(load(file))
    assert dispatcher.wakes["policy"] == 60.0
    dispatcher.wake("policy")
    assert (log_.head.state, log_.head.reason, len(stream.stops)) == ("stopped", "Timeout", 1)

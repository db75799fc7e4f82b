"""Content that waits for verdicts: what is logged meanwhile, how it ends, and what a stop, a loss or a restart does."""

import pytest

from dispatcher.core.entries import Finished, StopEntry, Text
from dispatcher.policies.questions import AskedPolicy
from dispatcher.policies.rules import PhrasesPolicy, RuleSet
from shared.records import Content, Error, Thought
from tests.dispatcher.core.session_world import Dispatcher, Log, Stream, end, halted, packet, said
from tests.dispatcher.core.test_session import feed, opened


def rules(**more):
    return RuleSet([AskedPolicy("asked", "plugin", "any:thing", **more)])


@pytest.fixture
def world():
    return opened(rules())


def bodies(log_):
    return [type(entry.body) for entry in log_.entries[1:]]


def test_what_is_said_is_logged_and_acked_at_once_and_let_out_with_its_verdict(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, said(1, "one "), said(2, "two "))
    assert (log_.text, log_.head.sequence) == ("", 2)
    dispatcher.verdict()
    dispatcher.answer()
    assert log_.text == "one "
    assert bodies(log_) == [Content, Content, Text]
    assert log_.entries[-1].sequence == 0
    dispatcher.verdict()
    feed(dispatcher, stream, said(3, "three"))
    assert log_.text == "one two "


def test_an_end_waits_for_the_verdicts_before_it(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, said(1, "one "), said(2, "two"), end(3))
    assert bodies(log_) == [Content, Content]
    dispatcher.verdict()
    dispatcher.answer()
    assert (log_.text, log_.head.over) == ("one ", False), "what is decided does not wait for the end"
    dispatcher.verdict()
    dispatcher.answer()
    assert bodies(log_) == [Content, Content, Text, Text, Finished]
    assert (log_.text, log_.head.state, log_.head.sequence, stream.acked) == ("one two", "finished", 3, 3)


def test_an_end_that_speaks_waits_for_the_verdict_on_what_it_says(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, said(1, "one "), end(2, "two"))
    dispatcher.verdict()
    dispatcher.answer()
    assert bodies(log_) == [Content], "its packet is not in the log yet"
    dispatcher.verdict()
    dispatcher.answer()
    assert bodies(log_) == [Content, Content, Text, Text, Finished]
    assert [entry.sequence for entry in log_.entries[2:]] == [2, 2, 2, 2]
    assert (log_.text, log_.head.decided) == ("one two", 7)


def test_an_end_that_lets_out_what_another_rule_held_keeps_the_order():
    asked = AskedPolicy("asked", "plugin", "any:thing")
    dispatcher, stream, log_ = opened(RuleSet([asked, PhrasesPolicy("names", ("nightingale",))]))
    feed(dispatcher, stream, said(1, "a night"))
    dispatcher.verdict()
    dispatcher.answer()
    feed(dispatcher, stream, said(2, "inga"), said(3, "l"), end(4))
    assert log_.text == "a "
    dispatcher.verdict()
    dispatcher.answer()
    dispatcher.verdict()
    dispatcher.answer()
    dispatcher.answer()
    assert (log_.text, log_.head.state, log_.head.decided) == ("a nightingal", "finished", 12)


def test_an_error_waits_too(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, said(1, "one"), packet(2, Error("broken", "text")))
    dispatcher.verdict()
    dispatcher.answer()
    dispatcher.answer()
    assert bodies(log_) == [Content, Text, Error]
    assert (log_.text, log_.head.state) == ("one", "failed")


def test_a_hand_over_does_not_wait_and_the_next_dispatcher_asks_again():
    dispatcher, stream, log_ = opened(rules(), continues=True)
    feed(dispatcher, stream, said(1, "one"), packet(2, Error("leaving", retryable=True)))
    assert log_.head.state == "waiting"
    assert log_.text == ""


@pytest.mark.parametrize("finish", [end(2), end(2, " more")])
def test_a_violation_at_the_end_stops_and_the_end_is_logged_after_it(world, finish):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, said(1, "bad"), finish)
    dispatcher.verdict("violation")
    dispatcher.answer()
    dispatcher.answer()
    assert bodies(log_)[-2:] == [StopEntry, Finished]
    assert (log_.text, log_.head.state, log_.head.over, stream.acked) == ("", "stopped", True, 2)
    assert dispatcher.hits == [("asked", "stop")]


def test_a_plugin_that_cannot_be_asked_stops_the_session_with_a_detail_for_operators(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, said(1, "text"))
    dispatcher.verdict("unavailable")
    dispatcher.answer()
    stop = next(entry.body for entry in log_.entries if isinstance(entry.body, StopEntry))
    assert (stop.reason, stop.policy, stop.detail) == ("RiskControl", "asked", "policy_unavailable: broken")
    assert stream.stops == [stop]
    feed(dispatcher, stream, halted(2, stop.stop_id))
    assert (log_.text, log_.head.over) == ("", True)


def test_a_users_stop_while_an_end_waits_lets_nothing_out(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, said(1, "one "), end(2, "two"))
    dispatcher.verdict()
    dispatcher.stop()
    dispatcher.answer()
    assert bodies(log_)[:3] == [Content, StopEntry, Content]
    assert bodies(log_)[-1] == Finished
    assert (log_.text, log_.head.reason, log_.head.over, stream.acked) == ("", "UserCancel", True, 2)
    dispatcher.verdict()
    assert log_.text == ""


def test_a_repeated_append_lets_nothing_out_twice(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, said(1, "one "), said(2, "two"))
    dispatcher.verdict()
    dispatcher.answer(applied=True, told=False)
    dispatcher.verdict()
    feed(dispatcher, stream, said(3, "!"), answered=False)
    dispatcher.answer(applied=True, told=False)
    dispatcher.answer(applied=True, told=False)
    assert log_.text == "one two"


def test_a_cut_stream_does_not_keep_an_end_from_its_verdict(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, said(1, "one"), end(2))
    dispatcher.cut()
    assert not log_.head.over
    dispatcher.verdict()
    dispatcher.answer()
    dispatcher.answer()
    assert (log_.text, log_.head.state) == ("one", "finished")


def test_a_commander_that_is_lost_while_its_end_waits_has_finished(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, said(1, "one"), end(2))
    dispatcher.cut()
    dispatcher.wake("grace")
    assert not log_.head.over
    dispatcher.verdict()
    dispatcher.answer()
    dispatcher.answer()
    assert (log_.text, log_.head.state) == ("one", "finished")


def test_after_a_crash_the_end_comes_again_and_undecided_text_is_asked_about_again(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, said(1, "one "), said(2, "two"), end(3))
    dispatcher.verdict()
    dispatcher.answer()
    restarted, again = Dispatcher(log_, "d2", rules()), Stream()
    restarted.open(again, "c1", 1)
    assert (again.welcome, log_.text) == (2, "one ")
    assert [question.text for _, question in restarted.questions] == ["two"]
    feed(restarted, again, end(3))
    dispatcher.verdict()  # of the one that is gone
    assert not log_.head.over
    restarted.verdict()
    restarted.answer()
    restarted.answer()
    assert (log_.text, log_.head.state, again.acked) == ("one two", "finished", 3)


def lose(dispatcher):
    dispatcher.cut()
    dispatcher.wake("grace")


def break_the_contract(dispatcher):
    dispatcher.carry_out(dispatcher.session.receive(packet(0, Content("x")), 1.0))


@pytest.mark.parametrize(("end_it", "code"), [(lose, "commander_lost"), (break_the_contract, "protocol_error")])
def test_an_end_that_the_dispatcher_makes_waits_for_verdicts_too(world, end_it, code):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, said(1, "one "), said(2, "two"))
    end_it(dispatcher)
    dispatcher.answer()
    assert not log_.head.over
    dispatcher.verdict()
    dispatcher.answer()
    dispatcher.verdict()
    dispatcher.answer()
    assert (log_.text, log_.head.state, log_.head.code, log_.head.over) == ("one two", "failed", code, True)
    assert stream.closed == ("invalid" if end_it is break_the_contract else "")


@pytest.mark.parametrize("end_it", [lose, break_the_contract])
def test_a_violation_before_an_end_that_the_dispatcher_makes_stops(world, end_it):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, said(1, "bad"))
    end_it(dispatcher)
    dispatcher.verdict("violation")
    dispatcher.answer()
    dispatcher.answer()
    assert (log_.text, log_.head.state, log_.head.over) == ("", "stopped", True)


def test_a_commander_that_is_back_before_the_verdict_goes_on(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, said(1, "one "))
    lose(dispatcher)
    again = Stream()
    dispatcher.open(again, "c1", 1)
    dispatcher.verdict()  # of the core that is gone
    dispatcher.verdict()
    feed(dispatcher, again, said(2, "two"), end(3))
    dispatcher.verdict()
    dispatcher.answer()
    dispatcher.answer()
    assert (log_.text, log_.head.state) == ("one two", "finished")


def test_an_older_peer_that_is_gone_while_its_end_waits_has_finished():
    log_ = Log("older")
    dispatcher, stream = Dispatcher(log_, "d1", rules()), Stream()
    dispatcher.open(stream, "c0", 0)
    feed(dispatcher, stream, said(1, "one"), end(2))
    dispatcher.cut()
    dispatcher.verdict()
    dispatcher.answer()
    dispatcher.answer()
    assert (log_.text, log_.head.state) == ("one", "finished")


def test_a_session_that_nobody_takes_fails_at_once(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, said(1, "one"))
    dispatcher.carry_out(dispatcher.session.unserved(1.0))
    dispatcher.answer()
    assert (log_.text, log_.head.code) == ("", "no_commander")


def test_an_observer_holds_nothing_up_and_stops_late():
    dispatcher, stream, log_ = opened(rules(mode="observer", reads=frozenset({"content", "thoughts"})))
    feed(dispatcher, stream, packet(1, Thought("Planning", "a plan")), said(2, "one"))
    assert log_.text == "one"
    dispatcher.verdict()
    dispatcher.verdict("violation")
    dispatcher.answer()
    assert (log_.head.state, log_.text) == ("stopped", "one")
    assert len(stream.stops) == 1


@pytest.mark.parametrize(("action", "hits"), [("stop", []), ("observe", [("asked", "observe")])])
def test_an_observers_verdict_after_the_end_only_counts(action, hits):
    dispatcher, stream, log_ = opened(rules(mode="observer", action=action))
    feed(dispatcher, stream, said(1, "one"), end(2))
    dispatcher.verdict("violation")
    assert (log_.head.state, log_.text) == ("finished", "one")
    assert dispatcher.hits == hits

"""Calls that have to be approved: nothing runs before it, once after it, and wherever the log says (rule 40)."""

import json

import pytest

from dispatcher.core import log
from dispatcher.core.entries import Approval, Call, Decision, Entry, Failed, Started
from dispatcher.policies.rules import PhrasesPolicy, RuleSet
from shared.records import Error, ToolCall, ToolResult
from tests.dispatcher.core.session_world import (
    APPROVAL_SECONDS,
    NO_RULES,
    Dispatcher,
    Log,
    Stream,
    called,
    end,
    halted,
    packet,
    said,
)


def opened(rules=NO_RULES, continues=False):
    log_ = Log()
    dispatcher, stream = Dispatcher(log_, "d1", rules), Stream()
    log_.submit(log.Assign("c1", "d1", continues, 100.0))
    assert dispatcher.open(stream, "c1", 1) is None
    return dispatcher, stream, log_


@pytest.fixture
def world():
    return opened()


def feed(dispatcher, stream, *packets):
    for item in packets:
        stream.up.append(item)
        dispatcher.deliver()
        dispatcher.answer()


def bodies(log_, *kinds):
    return [entry.body for entry in log_.entries if isinstance(entry.body, kinds)]


def statuses(log_):
    return [result.status for result in bodies(log_, ToolResult)]


def test_it_runs_once_it_is_approved(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, called(1, "x", "asked"))
    assert stream.acked == 1
    assert log_.head.calls["x"].waits
    assert not dispatcher.ran
    dispatcher.decide("x")
    assert dispatcher.ran == ["x"]
    assert [type(body) for body in bodies(log_, Call, Approval, Decision, Started)] == [
        Call,
        Approval,
        Decision,
        Started,
    ]
    dispatcher.finish_tool("x")
    assert [result.status for result in stream.results] == ["OK"]
    assert not log_.head.calls


def test_a_denial_is_its_result(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, called(1, "x", "asked"))
    dispatcher.decide("x", "deny")
    dispatcher.decide("x", "approve")
    assert not dispatcher.ran
    assert [(result.call_id, result.status) for result in stream.results] == [("x", "DENIED")]


def test_it_expires(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, called(1, "x", "asked"))
    assert dispatcher.wakes["approval"] == dispatcher.now + APPROVAL_SECONDS
    dispatcher.now += 100
    feed(dispatcher, stream, called(2, "y", "asked"))
    dispatcher.wake("approval")
    assert [(result.call_id, result.status) for result in stream.results] == [("x", "DENIED")]
    dispatcher.decide("y")
    assert dispatcher.ran == ["y"]
    assert "approval" not in dispatcher.wakes


def test_a_deadline_that_comes_too_early_is_set_again(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, called(1, "x", "asked"))
    at = dispatcher.wakes.pop("approval")
    dispatcher.carry_out(dispatcher.session.deadline("approval", at - 1))
    assert dispatcher.wakes["approval"] == at
    assert log_.head.calls["x"].waits


def test_another_tools_call_runs_meanwhile(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, called(1, "x", "asked"), called(2, "y"), said(3, "Meanwhile."))
    assert dispatcher.ran == ["y"]
    assert log_.text == "Meanwhile."


def test_what_a_rule_denies_is_not_asked_about():
    rule = PhrasesPolicy("secrets", ("sesame",), action="redact", reads=frozenset({"arguments"}))
    dispatcher, stream, log_ = opened(RuleSet([rule]))
    feed(dispatcher, stream, packet(1, ToolCall("asked", '{"q": "sesame"}', "x")))
    assert statuses(log_) == ["DENIED"]
    assert not bodies(log_, Approval)


def test_a_call_id_that_was_used_is_not_asked_about(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, called(1, "x", "asked"), called(2, "x", "asked"))
    assert len(bodies(log_, Approval)) == 1
    assert [result.status for result in stream.results] == ["INVALID_ARGUMENTS"]


@pytest.mark.parametrize("moment", ["asked", "approved", "started"])
def test_whoever_finds_it_in_the_log_goes_on(world, moment):
    """Its instance was killed while the call waited, or just after it was approved: nothing had run yet."""
    first, stream, log_ = world
    feed(first, stream, called(1, "x", "asked"))
    decision = log.Settle(Entry(Decision("x", "approve", "operator", log_.head.calls["x"].arguments_sha256), 101.0))
    if moment != "asked":
        log_.submit(decision)
    if moment == "started":
        log_.submit(log.Settle(Entry(Started("x", "asked", "d1"), 102.0)))
    second, again = Dispatcher(log_, "d2"), Stream()
    assert second.open(again, "c1", 1, ["x"]) is None
    if moment == "asked":
        assert not second.ran
        assert "approval" in second.wakes
        second.settle(decision.entry)
    if moment == "started":  # it may have run
        assert not second.ran
        assert [result.status for result in again.results] == ["UNKNOWN_OUTCOME"]
        return
    assert second.ran == ["x"]
    first.carry_out(first.session.logged(log.Applied(log_.head, tuple(log_.entries)), 103.0))
    assert not first.ran
    second.finish_tool("x")
    assert [result.status for result in again.results] == ["OK"]


def test_it_is_started_once_by_two_that_believe_to_have_it(world):
    """A lease ended: the other instance took the session over, and its stream lives."""
    first, stream, log_ = world
    feed(first, stream, called(1, "x", "asked"))
    log_.submit(log.TakeOver(log_.head.epoch, "d1", "d2"))
    second = Dispatcher(log_, "d2")
    session = second.rebuild()
    second.carry_out(session.restored(second.now) + session.await_open(second.now))
    second.decide("x")
    first.carry_out(first.session.logged(log.Applied(log_.head, tuple(log_.entries)), 103.0))
    assert (second.ran, first.ran) == (["x"], [])


def test_a_stop_cancels_it(world):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, called(1, "x", "asked"), called(2, "y", "asked"))
    dispatcher.decide("y")
    dispatcher.stop()
    assert {result.call_id: result.status for result in stream.results} == {"x": "CANCELLED", "y": "CANCELLED"}
    dispatcher.decide("x")
    assert dispatcher.ran == ["y"]
    feed(dispatcher, stream, called(3, "z", "asked"), halted(4, "user-stop"))
    assert statuses(log_) == ["CANCELLED"] * 3
    assert log_.head.complete


def test_a_session_that_was_stopped_elsewhere_has_it_cancelled_by_whoever_finds_it(world):
    first, stream, log_ = world
    feed(first, stream, called(1, "x", "asked"))
    first.session = None  # killed
    first.stop()
    second = Dispatcher(log_, "d2")
    second.carry_out(second.rebuild().restored(second.now))
    assert statuses(log_) == ["CANCELLED"]


@pytest.mark.parametrize("last", [end(2), packet(2, Error("broken"))])
def test_the_end_cancels_it(world, last):
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, called(1, "x", "asked"), called(3 - 1, "y"))
    feed(dispatcher, stream, packet(3, last.payload))
    assert statuses(log_) == ["CANCELLED"]
    assert dispatcher.ran == ["y"]
    assert set(log_.head.calls) == {"y"}  # what runs ends as it does


def test_a_takeover_waits_for_the_decision():
    dispatcher, stream, log_ = opened(continues=True)
    feed(dispatcher, stream, called(1, "x", "asked"))
    dispatcher.cut()
    dispatcher.wake("grace")
    assert log_.head.calls["x"].waits
    dispatcher.decide("x")
    dispatcher.finish_tool("x")
    assert (log_.head.state, dispatcher.given_back) == ("waiting", 1)


def test_nobody_is_asked_about_a_session_that_has_failed(world):
    """Its agent starts anew, so nobody takes it over: an approval would run a tool for nobody."""
    dispatcher, stream, log_ = world
    feed(dispatcher, stream, called(1, "x", "asked"))
    dispatcher.cut()
    dispatcher.wake("grace")
    dispatcher.answer()
    assert statuses(log_) == ["CANCELLED"]
    assert [failed.code for failed in bodies(log_, Failed)] == ["commander_lost"]
    # Not the other way round: its Commander might come back in between, to a call that was cancelled for no reason.
    assert [type(entry.body) for entry in log_.entries][-2:] == [Failed, ToolResult]


def test_what_an_agent_reads_of_a_call_that_was_cancelled(world):
    dispatcher, stream, _ = world
    feed(dispatcher, stream, called(1, "x", "asked"))
    dispatcher.stop()
    assert json.loads(stream.results[0].result_json) == {
        "error": {"code": "cancelled", "message": "The session was over before the tool ran."}
    }

"""What policies do to a session's log, beside stopping it in content: redact, deny, observe; and after a restart."""

import pytest

from dispatcher.core.entries import Call, StopEntry
from dispatcher.core.guard import Guard
from dispatcher.policies.ahead import at_once
from dispatcher.policies.budget import Limit
from dispatcher.policies.questions import AskedPolicy
from dispatcher.policies.rules import BudgetPolicy, PhrasesPolicy, RuleSet
from shared.records import Content, Thought, ToolCall, ToolResult
from tests.dispatcher.core.session_world import Dispatcher, Stream, end, packet, said
from tests.dispatcher.core.test_session import feed, opened

EVERYWHERE = frozenset({"content", "thoughts", "arguments", "results"})


def rules(action, *phrases, reads=EVERYWHERE):
    return RuleSet([PhrasesPolicy("names", phrases or ("nightingale",), reads, action=action)])


def test_redacted_content_goes_on_in_its_log():
    dispatcher, stream, log_ = opened(rules("redact"))
    feed(dispatcher, stream, said(1, "a night"), said(2, "ingale sings, night"), end(3))
    assert log_.text == "a [redacted] sings, night"
    assert "".join(e.body.text for e in log_.entries if isinstance(e.body, Content)) == "a nightingale sings, night"
    assert (log_.head.state, log_.head.decided) == ("finished", 26)
    assert dispatcher.hits == [("names", "redact")]
    assert [e.redacted_by for e in log_.entries if e.released] == [(), ("names",), ()]


def test_redaction_goes_on_after_a_restart_in_the_middle_of_a_match():
    dispatcher, stream, log_ = opened(rules("redact", "nightingale", "gales"))
    feed(dispatcher, stream, said(1, "a nightingale"))
    assert (log_.text, log_.head.decided) == ("a [redacted]", 9)
    restarted, again = Dispatcher(log_, "d2", rules("redact", "nightingale", "gales")), Stream()
    restarted.open(again, "c1", 1)
    assert restarted.session.held == 4
    feed(restarted, again, said(2, "s sing"), end(3))
    assert log_.text == "a [redacted] sing"
    assert restarted.hits == [], "it was counted when it was first read"


def test_a_denied_call_is_answered_and_not_run_and_the_session_goes_on():
    dispatcher, stream, log_ = opened(rules("redact"))
    feed(dispatcher, stream, packet(1, ToolCall("t", '{"q": "\\u006eightingale"}', "a")), answered=False)
    assert [type(e.body) for e in dispatcher.flying.entries] == [Call, ToolResult], "one append"
    dispatcher.answer()
    assert dispatcher.ran == []
    assert [(r.call_id, r.tool_name, r.status) for r in stream.results] == [("a", "t", "DENIED")]
    assert log_.head.calls == {}
    assert dispatcher.hits == [("names", "redact")]
    feed(dispatcher, stream, packet(2, ToolCall("t", "{}", "b")), end(3, "done"))
    assert dispatcher.ran == ["b"]
    assert (log_.head.state, log_.text) == ("finished", "done")


def test_a_denied_call_stays_so_after_a_restart():
    dispatcher, stream, log_ = opened(rules("redact"))
    feed(dispatcher, stream, packet(1, ToolCall("t", '"nightingale"', "a")), answered=False)
    log_.submit(dispatcher.flying)  # the answer is lost
    again = Stream()
    dispatcher.open(again, "c1", 1, awaiting=("a",))
    assert dispatcher.ran == []
    assert [r.status for r in again.results] == ["DENIED"]
    assert not log_.head.final


def test_a_call_id_that_was_used_is_refused_first():
    dispatcher, stream, log_ = opened(rules("redact"))
    feed(dispatcher, stream, packet(1, ToolCall("t", "{}", "a")), packet(2, ToolCall("t", '"nightingale"', "a")))
    assert [r.status for r in stream.results] == ["INVALID_ARGUMENTS"]
    dispatcher.finish_tool("a")
    assert [r.status for r in stream.results] == ["INVALID_ARGUMENTS", "OK"]


def test_a_denied_result_is_so_in_the_log_before_the_commander_sees_it():
    dispatcher, stream, log_ = opened(rules("redact"))
    feed(dispatcher, stream, packet(1, ToolCall("t", "{}", "a")))
    dispatcher.finish_tool("a", result_json='{"n": "\\u006eightingale"}')
    (result,) = stream.results
    assert result.status == "DENIED"
    assert [e.body for e in log_.entries if isinstance(e.body, ToolResult)] == [result]
    assert "nightingale" not in result.result_json
    assert not log_.head.final


def test_a_result_that_stops_is_not_seen_by_the_commander():
    dispatcher, stream, log_ = opened(rules("stop"))
    feed(dispatcher, stream, packet(1, ToolCall("t", "{}", "a")))
    dispatcher.finish_tool("a", result_json='["nightingale"]')
    assert (log_.head.state, log_.head.reason) == ("stopped", "PolicyViolation")
    assert [stop.policy for stop in stream.stops] == ["names"]
    assert {result.status for result in stream.results} <= {"DENIED", "CANCELLED"}
    assert "nightingale" not in repr(log_.entries)
    assert dispatcher.hits == [("names", "stop")]


def test_observing_changes_nothing():
    dispatcher, stream, log_ = opened(rules("observe"))
    call = ToolCall("t", '"nightingale"', "a")
    feed(dispatcher, stream, said(1, "a nightingale"), packet(2, Thought("Planning", "nightingale")), packet(3, call))
    dispatcher.finish_tool("a", result_json='"nightingale"')
    assert dispatcher.ran == ["a"]
    assert [r.status for r in stream.results] == ["OK"]
    feed(dispatcher, stream, end(4))
    assert log_.text == "a nightingale"
    assert dispatcher.hits == [("names", "observe")] * 4


@pytest.mark.parametrize(("action", "stopped"), [("stop", True), ("redact", False), ("observe", False)])
def test_todays_rules_stop_what_was_said_under_yesterdays(action, stopped):
    dispatcher, stream, log_ = opened(RuleSet([]))
    feed(dispatcher, stream, said(1, "a nightingale"), packet(2, ToolCall("t", '"nightingale"', "a")))
    dispatcher.finish_tool("a", result_json='"nightingale"')
    restarted = Dispatcher(log_, "d2", rules(action))
    restarted.open(Stream(), "c1", 1)
    assert log_.head.final == stopped
    assert log_.text == "a nightingale"


def test_after_a_stop_nothing_is_read_or_redacted():
    dispatcher, stream, log_ = opened(rules("redact"))
    dispatcher.stop()
    feed(dispatcher, stream, said(1, "nightingale"), packet(2, ToolCall("t", '"nightingale"', "a")))
    assert log_.text == ""
    assert len([e for e in log_.entries if isinstance(e.body, StopEntry)]) == 1
    assert [r.status for r in stream.results] == ["CANCELLED"]


# ---- changed while the session runs


def changed(dispatcher, log_, rules_):
    """As the runner does: the log, and what is on its way there."""
    entries = [*log_.entries, *(dispatcher.flying.entries if dispatcher.flying else ()), *dispatcher.pending]
    guard = Guard(rules_.gate(0.0), 0)
    found = at_once(guard.all_again(entries))
    dispatcher.carry_out(dispatcher.session.take_rules(guard, found, dispatcher.now))


def test_running_sessions_take_changed_rules_with_nothing_lost_or_shown_twice():
    dispatcher, stream, log_ = opened(rules("stop"))
    feed(dispatcher, stream, said(1, "a night"))
    feed(dispatcher, stream, said(2, "in"), said(3, "ga"), answered=False)
    assert dispatcher.session.held == 9
    changed(dispatcher, log_, rules("redact", "gale", "day"))
    assert dispatcher.session.held == 9, "it goes out with what comes next"
    dispatcher.answer()
    feed(dispatcher, stream, said(4, "le, a day"), end(5))
    dispatcher.answer()
    assert log_.text == "a nightin[redacted], a [redacted]"


def test_what_a_running_session_has_said_stops_it_under_changed_rules():
    dispatcher, stream, log_ = opened(RuleSet([]))
    feed(dispatcher, stream, said(1, "a night"))
    feed(dispatcher, stream, said(2, "ingale"), answered=False)
    changed(dispatcher, log_, rules("stop"))
    dispatcher.answer()
    assert (log_.head.state, log_.head.reason) == ("stopped", "PolicyViolation")
    assert [stop.policy for stop in stream.stops] == ["names"]


def test_time_limits_change_too():
    dispatcher, stream, log_ = opened(RuleSet([]))
    changed(dispatcher, log_, RuleSet([BudgetPolicy("limits", (Limit("max_seconds", 500, "limits", "Timeout"),))]))
    assert dispatcher.wakes["policy"] == 500.0


def test_a_stopped_session_keeps_its_rules():
    dispatcher, stream, log_ = opened(RuleSet([]))
    feed(dispatcher, stream, said(1, "nightingale"))
    dispatcher.stop()
    changed(dispatcher, log_, rules("stop"))
    assert dispatcher.hits == []


def test_a_verdict_that_the_old_rules_asked_for_decides_nothing_under_the_new():
    asking = RuleSet([AskedPolicy("asked", "plugin", "any:thing")])
    dispatcher, stream, log_ = opened(asking)
    feed(dispatcher, stream, said(1, "one "))
    changed(dispatcher, log_, asking)
    feed(dispatcher, stream, said(2, "two"))
    dispatcher.verdict()
    dispatcher.answer()
    assert log_.text == ""
    dispatcher.verdict()
    dispatcher.answer()
    assert log_.text == "one "

"""An answer that ends with calls of the client's tools: one entry of the log, which policies have read before."""

import json

import pytest
from msgspec.structs import replace

from dispatcher.core import log
from dispatcher.core.entries import Entry, Failed, Finished, StopEntry, Text, as_event
from dispatcher.policies.phrases import PhraseSet, PhraseStream
from dispatcher.policies.questions import AskedPolicy
from dispatcher.policies.rules import PhrasesPolicy, RuleSet
from dispatcher.policies.tool_rules import ToolSelector, ToolsPolicy
from shared.records import MAX_ARGUMENTS_BYTES, MAX_CLIENT_CALLS, ClientCall, Content, Tool
from tests.dispatcher.core.session_world import NO_RULES, Dispatcher, Log, Stream, packet, said
from tests.dispatcher.core.test_session import feed

TOOLS = (Tool("weather", "", "{}", client=True), Tool("mail", "", "{}", client=True))


def opened(rules=NO_RULES, tools=TOOLS):
    log_ = Log()
    log_.record = replace(log_.record, request=replace(log_.record.request, tools=tools))
    dispatcher, stream = Dispatcher(log_, "d1", rules), Stream()
    log_.submit(log.Assign("c1", "d1", False, 100.0))
    dispatcher.open(stream, "c1", 1)
    return dispatcher, stream, log_


def call(call_id="a", arguments='{"city": "Oslo"}', name="weather"):
    return ClientCall(call_id, name, arguments)


def ending(sequence, *calls, reason="tool_calls", text=""):
    return packet(sequence, Content(text, True, reason, None, calls))


def phrases(action, *more):
    return RuleSet([PhrasesPolicy("names", ("nightingale",), frozenset({"arguments"}), action=action), *more])


def test_the_end_and_its_calls_are_one_entry():
    dispatcher, stream, log_ = opened()
    feed(dispatcher, stream, said(1, "I look. "), ending(2, call("a"), call("b", name="mail")))
    assert log_.entries[-1].body == Finished("tool_calls", None, (call("a"), call("b", name="mail")))
    assert (log_.head.state, log_.head.over, log_.text, stream.acked) == ("finished", True, "I look. ", 2)


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (ending(1, call(name="other")), "not one of the client's"),
        (ending(1, call("a"), call("a")), "one id twice"),
        (ending(1, call("")), "no id"),
        (ending(1), "none"),
        (ending(1, call(), reason="stop"), "another reason"),
        (ending(1, *(call(str(n)) for n in range(MAX_CLIENT_CALLS + 1))), "too many"),
        (ending(1, call(arguments='"' + "x" * MAX_ARGUMENTS_BYTES + '"')), "too large"),
        (ending(1, *(call(str(n), '"' + "x" * 60_000 + '"') for n in range(5))), "too large together"),
        (ending(1, call("i" * 257)), "a long id"),
    ],
)
def test_calls_that_are_none_fail_the_session(end, why):
    dispatcher, stream, log_ = opened()
    feed(dispatcher, stream, end)
    assert [entry.body.code for entry in log_.entries if isinstance(entry.body, Failed)] == ["protocol_error"], why
    assert (stream.closed, log_.head.state) == ("invalid", "failed")
    assert not any(isinstance(entry.body, Finished) for entry in log_.entries)


def test_calls_are_read_ahead_a_slice_at_a_time_and_each_once(monkeypatch):
    dispatcher, stream, log_ = opened(phrases("redact"))
    long = json.dumps("night " * 5000)
    end = ending(1, call("a", long), call("b", long), call("c", '"a night"'), call("d", '"nightingale"'))
    assert len([*dispatcher.session.read_ahead(end)]) >= 2 * len(long) // PhraseSet.slice
    monkeypatch.setattr(PhraseStream, "feed", None)
    feed(dispatcher, stream, end)
    (entry,) = (entry for entry in log_.entries if isinstance(entry.body, Finished))
    assert entry.body == Finished("content_filter", None, end.payload.client_calls[:3])


def test_a_session_without_tools_of_the_clients_ends_with_no_calls():
    dispatcher, stream, log_ = opened(tools=())
    feed(dispatcher, stream, ending(1, call()))
    assert (stream.closed, log_.head.state) == ("invalid", "failed")


SPELLED = [
    json.dumps({"q": "a nightingale"}),
    '{"q": "a n\\u0069ghtingale"}',
    '{"deep": [{"nightingale": 1}]}',
    '{"q": "a n\\u0069ghtingale',  # no JSON: a lenient client may read it all the same
    "nightingale",
]


@pytest.mark.parametrize("arguments", SPELLED)
def test_a_stop_comes_before_the_calls(arguments):
    dispatcher, stream, log_ = opened(phrases("stop"))
    feed(dispatcher, stream, ending(1, call("a"), call("b", arguments)))
    assert [type(entry.body) for entry in log_.entries[1:]] == [StopEntry, Finished]
    assert log_.head.state == "stopped"


@pytest.mark.parametrize("arguments", SPELLED)
def test_a_call_that_is_denied_is_left_out(arguments):
    dispatcher, stream, log_ = opened(phrases("redact"))
    feed(dispatcher, stream, ending(1, call("a"), call("b", arguments)))
    assert log_.entries[-1].body == Finished("content_filter", None, (call("a"),))
    assert log_.head.state == "finished"


def test_a_policy_on_tools_reads_the_clients_too():
    denied = ToolsPolicy("no mail", deny=(ToolSelector("mail"),), action="redact")
    dispatcher, stream, log_ = opened(RuleSet([denied]))
    feed(dispatcher, stream, ending(1, call("a"), call("b", name="mail")))
    assert log_.entries[-1].body == Finished("content_filter", None, (call("a"),))


def test_observers_only_count():
    dispatcher, stream, log_ = opened(phrases("observe"))
    feed(dispatcher, stream, ending(1, call("a", "nightingale")))
    assert log_.entries[-1].body == Finished("tool_calls", None, (call("a", "nightingale"),))
    assert dispatcher.hits == [("names", "observe")]


ASKED = RuleSet([AskedPolicy("asked", "plugin", "any:thing", reads=frozenset({"arguments"}))])


def test_calls_wait_for_the_policies_that_are_asked():
    dispatcher, stream, log_ = opened(ASKED)
    feed(dispatcher, stream, said(1, "I look. "), ending(2, call("a"), call("b")))
    assert dispatcher.asked_calls == [(call("a"), call("b"))]
    assert (log_.head.over, log_.text) == (False, "I look. ")
    dispatcher.carry_out(dispatcher.session.calls_read({"b"}, dispatcher.now))
    dispatcher.answer()
    assert log_.entries[-1].body == Finished("content_filter", None, (call("a"),))
    assert dispatcher.session.calls_read({"a"}, dispatcher.now) == [], "once"


def test_a_stop_meanwhile_lets_the_end_go_behind_it():
    dispatcher, stream, log_ = opened(ASKED)
    feed(dispatcher, stream, ending(1, call("a")))
    dispatcher.stop()
    dispatcher.answer()
    assert [type(entry.body) for entry in log_.entries[1:]] == [StopEntry, Finished]
    assert log_.head.state == "stopped"
    assert dispatcher.session.calls_read(set(), dispatcher.now) == []


def test_nobody_is_asked_about_calls_after_a_stop():
    dispatcher, stream, log_ = opened(ASKED)
    dispatcher.stop()
    feed(dispatcher, stream, ending(1, call("a")))
    assert dispatcher.asked_calls == []
    assert (log_.head.state, log_.head.over) == ("stopped", True)


def test_the_end_waits_for_verdicts_on_its_words_and_on_its_calls():
    both = RuleSet([AskedPolicy("asked", "plugin", "any:thing", reads=frozenset({"arguments", "content"}))])
    dispatcher, stream, log_ = opened(both)
    feed(dispatcher, stream, ending(1, call("a"), text="I look."))
    dispatcher.carry_out(dispatcher.session.calls_read(set(), dispatcher.now))
    assert log_.head.over is False
    dispatcher.verdict()
    dispatcher.answer()
    assert (log_.head.state, log_.text) == ("finished", "I look.")
    assert [type(entry.body) for entry in log_.entries[1:]] == [Content, Text, Finished]


def test_words_wait_for_no_verdict_on_the_calls_behind_them():
    both = RuleSet([AskedPolicy("asked", "plugin", "any:thing", reads=frozenset({"arguments", "content"}))])
    dispatcher, stream, log_ = opened(both)
    feed(dispatcher, stream, said(1, "I look."), ending(2, call("a")))
    dispatcher.verdict()
    dispatcher.answer()
    assert (log_.text, log_.head.over) == ("I look.", False)
    dispatcher.carry_out(dispatcher.session.calls_read(set(), dispatcher.now))
    dispatcher.answer()
    assert (log_.text, log_.head.state) == ("I look.", "finished")


def test_a_commander_that_opens_again_sends_the_end_again():
    dispatcher, stream, log_ = opened(ASKED)
    feed(dispatcher, stream, ending(1, call("a")))
    again = Stream()
    dispatcher.open(again, "c1", 1)
    feed(dispatcher, again, ending(1, call("a")))
    dispatcher.carry_out(dispatcher.session.calls_read(set(), dispatcher.now))
    dispatcher.answer()
    assert [entry.body for entry in log_.entries[1:]] == [Finished("tool_calls", None, (call("a"),))]


def test_operators_get_the_calls_by_name():
    kind, fields = as_event(Entry(Finished("tool_calls", None, (call("a"),)), 100.0))
    assert (kind, fields["calls"]) == (
        "finished",
        [{"call_id": "a", "name": "weather", "arguments_json": '{"city": "Oslo"}'}],
    )

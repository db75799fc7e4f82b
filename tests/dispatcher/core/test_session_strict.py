"""Rule 41: an answer that has to fit, to the letter, or has failed."""

import msgspec
import pytest

from dispatcher.core import log, strict
from dispatcher.core.entries import Failed, Finished, StopEntry, Text
from dispatcher.policies.questions import AskedPolicy
from dispatcher.policies.rules import PhrasesPolicy, RuleSet
from shared.records import ClientCall, Content, Tool
from tests.dispatcher.core.session_world import NO_RULES, Dispatcher, Log, Stream, end, packet, said
from tests.dispatcher.core.test_session import feed


class Wanted:
    """That text fits, and calls with these arguments. looked: at which texts."""

    def __init__(self, text="{}", arguments="{}"):
        self.text, self.arguments, self.looked = text, arguments, []

    def __call__(self, text, calls):
        self.looked.append(text)
        if text not in (None, self.text):
            return "the answer"
        return "" if all(call.arguments_json == self.arguments for call in calls) else "the arguments"


def opened(misfit, rules=NO_RULES):
    dispatcher, stream = Dispatcher(Log(), "d1", rules), Stream()
    request = msgspec.structs.replace(dispatcher.log.record.request, tools=(Tool("f", "", "{}", client=True),))
    dispatcher.log.record = msgspec.structs.replace(dispatcher.log.record, request=request)
    dispatcher.misfit = misfit
    dispatcher.log.submit(log.Assign("c1", "d1", False, 100.0))
    dispatcher.open(stream, "c1", 1)
    return dispatcher, stream, dispatcher.log


def bodies(log_):
    return [entry.body for entry in log_.entries[1:] if not isinstance(entry.body, Content)]


def test_what_fits_is_finished():
    dispatcher, stream, log_ = opened(Wanted('{"a": 1}'))
    feed(dispatcher, stream, said(1, '{"a"'), end(2, ": 1}"))
    assert (bodies(log_), log_.head.state) == ([Finished()], "finished")


def test_what_does_not_fit_has_failed_before_its_end():
    dispatcher, stream, log_ = opened(Wanted())
    feed(dispatcher, stream, said(1, "I would "), end(2, "rather not."))
    assert bodies(log_) == [Failed("invalid_output", "the answer"), Finished()]
    assert (log_.head.state, log_.head.code, log_.head.over) == ("failed", "invalid_output", True)
    assert (log_.text, stream.acked) == ("I would rather not.", 2)


@pytest.mark.parametrize(("arguments", "state"), [("{}", "finished"), ("[]", "failed")])
def test_calls_and_not_the_words_before_them(arguments, state):
    dispatcher, stream, log_ = opened(Wanted())
    calls = (ClientCall("a", "f", "{}"), ClientCall("b", "f", arguments))
    feed(dispatcher, stream, said(1, "I look."), packet(2, Content("", True, "tool_calls", None, calls)))
    assert log_.head.state == state


def test_what_is_looked_at_is_what_was_let_out():
    """Also what is held until the end, and what comes with a verdict after it."""
    redacting = PhrasesPolicy("names", ("nightingale",), action="redact", replacement="x")
    dispatcher, stream, log_ = opened(Wanted("a x in"), RuleSet([redacting]))
    feed(dispatcher, stream, said(1, "a nightingale"), end(2, " in"))
    assert log_.head.state == "finished"
    wanted = Wanted("one two")
    dispatcher, stream, log_ = opened(wanted, RuleSet([AskedPolicy("asked", "plugin", "any:thing")]))
    feed(dispatcher, stream, said(1, "one "), end(2, "two"))
    assert wanted.looked == []
    for _ in range(2):
        dispatcher.verdict()
        dispatcher.answer()
    assert (wanted.looked, log_.head.state) == (["one two"], "finished")
    assert [type(body) for body in bodies(log_)] == [Text, Text, Finished]


def test_whoever_takes_it_up_looks_at_the_whole_answer():
    wanted = Wanted("one two")
    dispatcher, stream, log_ = opened(wanted)
    feed(dispatcher, stream, said(1, "one "))
    again = Dispatcher(log_, "d1")
    again.misfit = wanted
    again.open(Stream(), "c1", 1)
    again.stream.up.append(end(2, "two"))
    again.deliver()
    again.answer()
    assert (wanted.looked, log_.head.state) == (["one two"], "finished")


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_an_answer_that_was_cut_is_not_looked_at(reason):
    wanted = Wanted()
    dispatcher, stream, log_ = opened(wanted)
    feed(dispatcher, stream, packet(1, Content("half", True, reason)))
    assert (wanted.looked, bodies(log_)) == ([], [Finished(reason)])


def test_nothing_is_looked_at_after_a_stop():
    wanted = Wanted()
    dispatcher, stream, log_ = opened(wanted, RuleSet([PhrasesPolicy("names", ("nightingale",))]))
    feed(dispatcher, stream, end(1, "a nightingale"))
    assert wanted.looked == []
    assert [type(body) for body in bodies(log_)] == [StopEntry, Finished]


def test_a_very_long_answer_is_not_kept_and_does_not_fit(monkeypatch):
    monkeypatch.setattr(strict, "MAX_STRICT", 10)
    wanted = Wanted("x" * 12)
    dispatcher, stream, log_ = opened(wanted)
    feed(dispatcher, stream, said(1, "x" * 6), said(2, "x" * 6), said(3, "x" * 6), end(4))
    assert (wanted.looked, log_.head.code) == ([], "invalid_output")

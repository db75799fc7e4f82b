"""Policies that are asked: what waits, what goes on, what is asked next, and what follows from a verdict."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.policies import questions
from dispatcher.policies.gate import Gate
from dispatcher.policies.outcomes import Hit, Reading, Release, Violation
from dispatcher.policies.questions import AskedPolicy, BacklogError, Question, Verdict, reading_of
from dispatcher.policies.rules import PatternsPolicy, PhrasesPolicy, Policy, RuleSet
from tests.dispatcher.policies.strategies import splits

CONTENT = frozenset({"content"})
PASS, VIOLATION = Verdict("pass"), Verdict("violation")
BROKEN = Verdict("unavailable", why="it hangs")


def policy(**more: Any) -> AskedPolicy:
    return AskedPolicy(**{"name": "asked", "kind": "plugin", "target": "any:thing", "reads": CONTENT, **more})


def gate(*policies: Policy) -> Gate:
    gate = RuleSet(policies).gate(0.0)
    gate.resume(0)
    return gate


def the_question(guarded: Gate) -> Question:
    (question,) = guarded.questions()
    return question


def replaced(text: str) -> Verdict:
    return Verdict("replace", (text,))


# ---- gates


def test_text_waits_for_its_verdict_and_only_its_own() -> None:
    guarded = gate(policy())
    assert guarded.content("one ", 1.0) == Release("", 0, None)
    first = the_question(guarded)
    assert (first.text, first.channel, first.number, first.context) == ("one ", "content", 1, "")
    assert guarded.content("two ", 1.0).text == guarded.content("three", 1.0).text == ""
    assert guarded.questions() == [], "one is under way"
    assert guarded.held == 13
    assert guarded.answered(first, PASS, 1.0) == Release("one ", 4, None)
    second = the_question(guarded)
    assert (second.text, second.number, second.context) == ("two three", 2, "one ")
    assert guarded.end(1.0) == Release("", 4, None)
    assert guarded.waiting
    assert guarded.answered(second, PASS, 1.0) == Release("two three", 13, None)
    assert guarded.questions() == []
    assert gate(policy()).waiting is False


def test_a_violation_stops_before_the_text_that_was_asked_about() -> None:
    guarded = gate(policy(reason="RiskControl"))
    guarded.content("good ", 1.0)
    guarded.answered(the_question(guarded), PASS, 1.0)
    guarded.content("bad", 1.0)
    question = the_question(guarded)
    guarded.content(" more", 1.0)
    violation = Violation("asked", "RiskControl", "verdict on content")
    assert guarded.answered(question, VIOLATION, 1.0) == Release("", 5, violation)
    assert not guarded.waiting
    assert guarded.questions() == []


def test_a_violation_is_redacted_where_the_policy_says_so() -> None:
    guarded = gate(policy(action="redact"))
    for text, verdict in (("good ", PASS), ("bad ", VIOLATION), ("good", PASS)):
        guarded.content(text, 1.0)
        release = guarded.answered(the_question(guarded), verdict, 1.0)
        assert release.hits == ((Hit("asked", "redact"),) if verdict is VIOLATION else ())
        assert release.text == ("[redacted]" if verdict is VIOLATION else text)


@pytest.mark.parametrize(
    ("given", "shown", "out"),
    [
        ("I am Ann.", "I am <X>.", "I am <X>."),
        ("I am Ann.", "I am Ann.", "I am Ann."),
        ("Ann and Bob!", "<X> and <Y>!", "<X> and <Y>!"),
        ("I am Ann.", "", "[redacted]"),
        ("I am Ann.", "I am .", "I am [redacted]."),  # something has to stand between what is left
        ("Ann Ann", "Ann", "Ann[redacted]"),
        ("ab", "aXb", "aXb"),
        ("ab", "abX", "abX"),
        ("ab", "Xab", "Xab"),
    ],
)
def test_what_a_verdict_gives_instead_is_shown(given: str, shown: str, out: str) -> None:
    for action in ("stop", "redact"):
        guarded = gate(policy(action=action))
        guarded.content(given, 1.0)
        assert guarded.answered(the_question(guarded), replaced(shown), 1.0).text == out


def test_what_a_verdict_gives_instead_hides_nothing_that_another_rule_is_about() -> None:
    words = PhrasesPolicy("words", ("secret",), action="redact", replacement="#")
    for order in ((policy(), words), (words, policy())):
        guarded = gate(*order)
        guarded.content("Ann has a secret from Bob, sec", 1.0)
        question = the_question(guarded)
        release = guarded.answered(question, replaced("<X> has one secret from Bob, sec"), 1.0)
        assert release.text == "<X> has one # from Bob, "
        assert guarded.content("ond", 1.0).text == "sec"
        assert guarded.answered(the_question(guarded), PASS, 1.0).text == "ond"


def test_where_both_are_about_the_same_stretch_nothing_of_it_is_shown() -> None:
    words = PhrasesPolicy("words", ("secret",), action="redact", replacement="#")
    for order in ((policy(), words), (words, policy())):
        guarded = gate(*order)
        guarded.content("Ann: secret!", 1.0)
        assert guarded.answered(the_question(guarded), replaced("<secrets>!"), 1.0).text == "[redacted]!"


def test_a_text_instead_waits_until_all_that_it_stands_for_is_certain() -> None:
    guarded = gate(policy(), PhrasesPolicy("words", ("Bob!",)))
    guarded.content("Ann, Bob", 1.0)
    release = guarded.answered(the_question(guarded), replaced("<X>, <Y>"), 1.0)
    assert release.text == "<X>, ", "Bob may still become Bob!"
    assert guarded.content("by", 1.0).text == "<Y>"
    assert guarded.answered(the_question(guarded), PASS, 1.0).text == "by"


def test_other_rules_stop_without_waiting() -> None:
    guarded = gate(policy(), PhrasesPolicy("words", ("bad",)))
    guarded.content("some ", 1.0)
    question = the_question(guarded)
    release = guarded.content("bad", 1.0)
    assert (release.text, release.violation and release.violation.policy) == ("", "words")
    assert guarded.answered(question, PASS, 1.0).text == ""


@pytest.mark.parametrize(("on_failure", "text"), [("stop", ""), ("release", "text")])
def test_no_answer_fails_closed_unless_the_operator_says_otherwise(on_failure: Any, text: str) -> None:
    guarded = gate(policy(on_failure=on_failure))
    guarded.content("text", 1.0)
    release = guarded.answered(the_question(guarded), BROKEN, 1.0)
    violation = Violation("asked", "RiskControl", "policy_unavailable: it hangs")
    assert (release.text, release.violation) == (text, None if text else violation)


def test_several_gates_each_have_their_say() -> None:
    first, second = policy(), policy(action="redact", target="other:thing")
    guarded = gate(first, second)
    guarded.content("text", 1.0)
    one, two = guarded.questions()
    assert guarded.answered(two, VIOLATION, 1.0).text == ""
    assert guarded.answered(one, PASS, 1.0).text == "[redacted]"


def test_a_question_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "MAX_QUESTION", 5)
    monkeypatch.setattr(questions, "MAX_BACKLOG", 12)
    guarded = gate(policy())
    guarded.content("123456789012", 1.0)
    out = ""
    for text in ("12345", "67890", "12"):
        question = the_question(guarded)
        assert question.text == text
        out += guarded.answered(question, PASS, 1.0).text
    assert out == "123456789012"
    with pytest.raises(BacklogError):
        guarded.content("1234567890123", 1.0)


def test_a_verdict_that_nobody_waits_for_changes_nothing() -> None:
    guarded = gate(policy())
    guarded.content("text", 1.0)
    question = the_question(guarded)
    guarded.answered(question, PASS, 1.0)
    guarded.content("more", 1.0)
    assert guarded.answered(question, VIOLATION, 1.0) == Release("", 4, None)


def test_with_an_overlap_the_end_of_a_text_is_asked_about_again() -> None:
    guarded = gate(policy(overlap=3))
    guarded.content("abcde", 1.0)
    assert guarded.answered(the_question(guarded), PASS, 1.0).text == "ab"
    assert guarded.questions() == [], "nothing has come since"
    guarded.content("fg", 1.0)
    question = the_question(guarded)
    assert question.text == "cdefg"
    assert guarded.answered(question, PASS, 1.0).text == "cd"
    assert guarded.end(1.0).text == "efg", "it has been asked about"


# ---- observers


def test_an_observer_lets_text_go_on_and_stops_late() -> None:
    guarded = gate(policy(mode="observer"))
    assert guarded.content("one ", 1.0).text == "one "
    assert not guarded.waiting
    question = the_question(guarded)
    assert guarded.content("two", 1.0).text == "two"
    release = guarded.answered(question, VIOLATION, 1.0)
    assert (release.text, release.decided) == ("", 7)
    assert release.violation == Violation("asked", "PolicyViolation", "verdict on content")


def test_observe_only_counts() -> None:
    guarded = gate(policy(action="observe"))
    assert guarded.content("one ", 1.0).text == "one "
    assert guarded.answered(the_question(guarded), VIOLATION, 1.0) == Release("", 4, None, (Hit("asked", "observe"),))


def test_thoughts_go_on_and_stop_late() -> None:
    guarded = gate(policy(reads=frozenset({"thoughts"})))
    assert guarded.thought("Planning", "a plan", 1.0) == Reading()
    question = the_question(guarded)
    assert (question.channel, question.text) == ("thoughts", "a plan")
    assert not guarded.waiting
    assert guarded.answered(question, VIOLATION, 1.0).violation


# ---- whole texts


@pytest.mark.parametrize(
    ("more", "verdict", "reading"),
    [
        ({}, PASS, Reading()),
        ({}, VIOLATION, Reading(Violation("asked", "PolicyViolation", "verdict on arguments"))),
        ({"action": "redact"}, VIOLATION, Reading(None, "asked", (Hit("asked", "redact"),))),
        ({"action": "observe"}, VIOLATION, Reading(hits=(Hit("asked", "observe"),))),
        ({}, replaced("other"), Reading(None, "asked", (Hit("asked", "redact"),))),
        ({}, replaced("text"), Reading()),
        ({}, BROKEN, Reading(Violation("asked", "RiskControl", "policy_unavailable: it hangs"))),
        ({"action": "observe"}, BROKEN, Reading(Violation("asked", "RiskControl", "policy_unavailable: it hangs"))),
        ({"on_failure": "release"}, BROKEN, Reading()),
    ],
)
def test_what_a_verdict_on_a_whole_text_means(more: Any, verdict: Verdict, reading: Reading) -> None:
    assert reading_of(Question(policy(**more), 1, "arguments", ("text",)), verdict) == reading


# ---- after a restart


def test_undecided_text_is_asked_about_again() -> None:
    rules = RuleSet([policy()])
    resumed = rules.gate(0.0)
    resumed.content("one two", 1.0)
    resumed.resume(4)
    question = the_question(resumed)
    assert (question.text, question.context, resumed.held) == ("two", "one ", 3)
    assert resumed.answered(question, PASS, 1.0) == Release("two", 7, None)
    resumed = rules.gate(0.0)
    resumed.content("one two", 1.0)
    resumed.resume(7)
    assert resumed.questions() == []


def test_an_observer_is_asked_about_what_came_last() -> None:
    resumed = RuleSet([policy(mode="observer", reads=frozenset({"content", "thoughts"}))]).gate(0.0)
    resumed.content("x" * 5000 + "y", 1.0)
    resumed.thought("Planning", "a plan", 1.0)
    resumed.resume(5001)
    said, thought = resumed.questions()
    assert said.text == "x" * 999 + "y"
    assert thought.text == "a plan"


# ---- any text, any split, verdicts at any time


def masked(text: str) -> str:
    return text.replace("12", "<X>")


sentences = st.lists(st.sampled_from(["12", "ab", "b", ","]), max_size=12).map(" ".join)


@given(sentences, st.integers(1, 4), st.data())
def test_what_is_shown_is_what_the_plugin_lets_through(text: str, overlap: int, data: st.DataObject) -> None:
    """A plugin that masks what is two characters long, asked with an overlap, against the same done to the whole."""
    guarded = gate(policy(overlap=overlap))
    pieces: list[str | None] = [*data.draw(splits(text)), None]
    waiting: list[Question] = []
    shown = ""
    while pieces or waiting:
        if pieces and (not waiting or data.draw(st.booleans())):
            piece = pieces.pop(0)
            release = guarded.end(1.0) if piece is None else guarded.content(piece, 1.0)
        else:
            question = waiting.pop()
            release = guarded.answered(question, replaced(masked(question.text)), 1.0)
        shown += release.text
        waiting += guarded.questions()
    assert not guarded.waiting
    # Where two touch, they are one run, which shows once that something is missing.
    assert re.sub(r"(<X>|\[redacted\])+", "#", shown) == re.sub(r"(<X>)+", "#", masked(text))


@given(st.text("ab", max_size=20), st.sampled_from(["stop", "redact"]), st.data())
def test_undecided_text_never_gets_out_with_other_rules_beside(text: str, action: Any, data: st.DataObject) -> None:
    pattern = PatternsPolicy("pattern", ("aba",), action=action)
    guarded = gate(pattern, policy(), policy(mode="observer", target="other:thing"))
    approved, shown = 0, ""
    for piece in data.draw(splits(text)):
        release = guarded.content(piece, 1.0)
        assert release.decided <= approved
        shown += release.text
        for question in guarded.questions():
            if question.policy.mode == "gate" and data.draw(st.booleans()):
                approved += len(question.text)
                shown += guarded.answered(question, PASS, 1.0).text
                assert guarded.held >= 0
    assert "aba" not in shown

from typing import Any

import pytest

from dispatcher.policies.ahead import at_once
from dispatcher.policies.automaton import Automaton
from dispatcher.policies.budget import Limit, Quantity
from dispatcher.policies.gate import MAX_STEPS, Gate
from dispatcher.policies.matches import CHANNELS, Action, Channel
from dispatcher.policies.outcomes import Hit, Reading, Release, Violation
from dispatcher.policies.rules import BudgetPolicy, PatternsPolicy, PhrasesPolicy, Policy, RuleSet


def gate(*policies: Policy) -> Gate:
    gate = RuleSet(policies).gate(100.0)
    gate.resume(0)
    return gate


def phrases(
    *texts: str,
    name: str = "names",
    reads: tuple[Channel, ...] = ("content", "arguments"),
    action: Action = "stop",
    replacement: str = "[redacted]",
) -> PhrasesPolicy:
    return PhrasesPolicy(name, texts, frozenset(reads), action=action, replacement=replacement)


def shown(guarded: Gate, text: str, size: int) -> str:
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    return "".join(guarded.content(piece, 101.0).text for piece in pieces) + guarded.end(101.0).text


def budget(quantity: Quantity, value: float, name: str = "limits", reason: str = "PolicyViolation") -> BudgetPolicy:
    return BudgetPolicy(name, (Limit(quantity, value, name, reason),))


def test_without_rules_everything_passes_at_once() -> None:
    free = gate()
    assert free.content("anything", 101.0) == Release("anything", 8, None)
    assert free.thought("Planning", "anything", 101.0) == Reading()
    assert free.arguments("search", "anything", 101.0) == Reading()
    assert free.result('"anything"', 101.0) == Reading()
    assert free.deadline is None
    assert free.overdue(1e9) is None
    assert free.end(101.0) == Release("", 8, None)


def test_what_stands_before_a_match_gets_out_and_nothing_after() -> None:
    guarded = gate(phrases("Project Nightingale"))
    assert guarded.content("It is Proj", 101.0) == Release("It is ", 6, None)
    assert guarded.held == 4
    violation = Violation("names", "PolicyViolation", "phrase 1 in content")
    assert guarded.content("ect Nightingale, said", 101.0) == Release("", 6, violation)
    assert guarded.held == 0
    assert guarded.content(" she", 101.0) == Release("", 6, violation)
    assert guarded.end(101.0) == Release("", 6, violation)
    assert guarded.thought("Planning", "x", 101.0) == Reading(violation)


def test_held_text_gets_out_with_what_follows_or_at_the_end() -> None:
    guarded = gate(phrases("nightingale"))
    assert guarded.content("night", 101.0) == Release("", 0, None)
    assert guarded.content("fall", 101.0) == Release("nightfall", 9, None)
    assert guarded.content(" night", 101.0) == Release(" ", 10, None)
    assert guarded.end(101.0) == Release("night", 15, None)


def test_the_end_decides_what_was_pending() -> None:
    guarded = gate(phrases("가"))
    assert guarded.content("나\u1100\u1161", 101.0) == Release("나", 1, None)
    assert guarded.end(101.0) == Release("", 1, Violation("names", "PolicyViolation", "phrase 1 in content"))


def test_the_order_of_policies_changes_nothing() -> None:
    first, second = phrases("hot dog", name="b"), phrases("dog", name="a")
    for policies in ((first, second), (second, first)):
        assert gate(*policies).content("a hot dog", 101.0) == Release(
            "a ", 2, Violation("b", "PolicyViolation", "phrase 1 in content")
        )
    same, again = phrases("cat", "dog", name="b"), phrases("DOG", name="a")
    for policies in ((same, again), (again, same)):
        assert gate(*policies).content("a dog", 101.0).violation == Violation(
            "a", "PolicyViolation", "phrase 1 in content"
        )


def test_what_another_phrase_could_still_match_through_stays_in() -> None:
    for pieces in (["see the dog house"], list("see the dog house")):
        guarded = gate(phrases("the dog house", "dog"))
        assert "".join(guarded.content(piece, 101.0).text for piece in pieces) == "see "


# ---- redact and observe


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_what_is_redacted_is_replaced_and_the_rest_flows(size: int) -> None:
    guarded = gate(phrases("Nightingale", "hot dog", action="redact"))
    text = "On NIGHT\u200bINGALE: a hot dogma, nightly."
    assert shown(guarded, text, size) == "On [redacted]: a [redacted]ma, nightly."
    assert guarded.end(101.0).decided == len(text)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_each_maximal_run_has_one_replacement_that_of_the_match_that_begins_it(size: int) -> None:
    first, second = (
        phrases("abc", "ab", name="a", action="redact", replacement="<A>"),
        phrases("cde", "xy", name="b", action="redact", replacement="<B>"),
    )
    for policies in ((first, second), (second, first)):
        assert shown(gate(*policies), "abcde abxy xyab abab!", size) == "<A> <A> <B> <A>!"


def test_a_run_goes_on_over_packets_without_being_held() -> None:
    guarded = gate(phrases("ab", action="redact"))
    releases = [guarded.content(piece, 101.0) for piece in ("ab", "ab", "a", "b", "c")]
    assert [(release.text, release.decided) for release in releases] == [
        ("[redacted]", 2),
        ("", 4),
        ("", 4),
        ("", 6),
        ("c", 7),
    ]


@pytest.mark.parametrize("size", [1, 4, 100])
def test_redaction_hides_nothing_from_other_rules(size: int) -> None:
    redact, stop = phrases("hot dog", name="r", action="redact"), phrases("dog house", name="s")
    for policies in ((redact, stop), (stop, redact)):
        assert shown(gate(*policies), "a hot dog house, a dog", size) == "a [redacted]"
        assert shown(gate(*policies), "a hot dog hut", size) == "a [redacted] hut"


@pytest.mark.parametrize("size", [1, 3, 100])
def test_observing_holds_nothing_and_counts_each_match_once(size: int) -> None:
    guarded = gate(phrases("dog", "hot dog", "aa", name="o", action="observe"))
    text = "hot dog, dogdog, aaaa"
    times = 0
    for at in range(0, len(text), size):
        release = guarded.content(text[at : at + size], 101.0)
        assert release.text == text[at : at + size]
        times += sum(hit.times for hit in release.hits)
        assert {(hit.policy, hit.action) for hit in release.hits} <= {("o", "observe")}
    assert times == 4  # of those that overlap, one


def test_who_redacted_is_told_with_what_is_let_out() -> None:
    """Not with what was found: that may have to wait for another rule."""
    guarded = gate(phrases("dog", name="r", action="redact"), phrases("dog house", name="s"))
    assert guarded.content("a dog", 101.0) == Release("a ", 2, None, (Hit("r", "redact"),))
    assert guarded.content(" hut ", 101.0) == Release("[redacted] hut ", 10, None, (), ("r",))
    assert guarded.content("is it", 101.0) == Release("is it", 15, None)


def test_redactions_are_counted_too() -> None:
    guarded = gate(phrases("dog", name="r", action="redact"), phrases("cat", name="s"))
    assert guarded.content("dog dog cat dog", 101.0).hits == (Hit("r", "redact", 2),)


def test_however_many_matches_a_text_has_they_are_told_as_one() -> None:
    guarded = gate(phrases("a", name="r", action="redact", reads=("content", "results")))
    text = "a" * 10_000
    assert at_once(guarded.read_ahead("content", text)) is None
    hits = (Hit("r", "redact", len(text)),)
    assert guarded.content(text, 101.0) == Release("[redacted]", len(text), None, hits, ("r",))
    assert guarded.result(f'["{text}"]', 101.0) == Reading(None, "r", hits)
    assert guarded.content("a b", 101.0) == Release(" b", len(text) + 3, None, (Hit("r", "redact"),), ("r",))


def test_redact_in_arguments_and_results_denies() -> None:
    guarded = gate(phrases("dog", action="redact", reads=("arguments", "results", "thoughts")))
    hits = (Hit("names", "redact"),)
    assert guarded.arguments("search", '{"q": "a dog"}', 101.0) == Reading(None, "names", hits)
    assert guarded.result('["a dog"]', 101.0) == Reading(None, "names", hits)
    assert guarded.result('["a d", "og"]', 101.0) == Reading()
    assert guarded.thought("Planning", "a dog", 101.0) == Reading(hits=(Hit("names", "observe"),))


def test_stop_in_results_stops() -> None:
    guarded = gate(phrases("dog", reads=("results",)))
    violation = Violation("names", "PolicyViolation", "phrase 1 in results")
    assert guarded.result('{"a dog": 1}', 101.0) == Reading(violation)
    assert guarded.content("x", 101.0).violation == violation


def test_a_prompt_is_read_message_by_message() -> None:
    rules = RuleSet([phrases("dog", reads=("prompt",)), phrases("cat", name="r", reads=("prompt",), action="redact")])
    assert rules.prompt(["a do", "g"]) == Reading()
    assert rules.prompt(["x", "a DOG"]) == Reading(Violation("names", "PolicyViolation", "phrase 1 in prompt"))
    assert rules.prompt(["a cat"]) == Reading(None, "r", (Hit("r", "redact"),))
    assert rules.prompt(["a cat", "cat, cat"]).hits == (Hit("r", "redact", 3),)
    assert RuleSet([phrases("dog")]).prompt(["a dog"]) == Reading()


# ---- patterns, alone and with phrases


def patterns(*expressions: str, name: str = "numbers", **more: Any) -> PatternsPolicy:
    return PatternsPolicy(name, expressions, **more)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_rules_of_several_kinds_stop_and_redact_together(size: int) -> None:
    policies: list[Policy] = [
        patterns(r"\d{3,4}", action="redact", replacement="<n>"),
        patterns(r"night \d", name="s"),
        phrases("room", action="redact", name="r"),
        phrases("day"),
    ]
    for order in (policies, policies[::-1]):
        text = "room1234 or 12, nights 555"
        assert shown(gate(*order), text, size) == "[redacted] or 12, nights <n>"
        guarded = gate(*order)
        assert shown(guarded, "in 123 night 1234 day", size) == "in <n> "
        assert guarded.overdue(1.0) == Violation("s", "PolicyViolation", "pattern 1 in content")
        assert shown(gate(*order), "in 1 day 12345 night 1", size) == "in 1 "


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_what_one_rule_has_completed_stays_in_while_another_is_undecided(size: int) -> None:
    redact, stop = patterns(r"\d{3}", action="redact"), phrases("123 go!")
    for order in ((redact, stop), (stop, redact)):
        assert shown(gate(*order), "a 123 go! b", size) == "a "
        assert shown(gate(*order), "a 123 go b", size) == "a [redacted] go b"
        guarded = gate(*order)
        assert "".join(guarded.content(piece, 101.0).text for piece in ("a 1", "23 g")) == "a "


def test_observed_patterns_hold_nothing_and_count_each_match_once() -> None:
    guarded = gate(patterns(r"\d+", r"a.*z", action="observe"))
    assert guarded.content("a 12", 101.0) == Release("a 12", 4, None, (Hit("numbers", "observe"),))
    assert guarded.content("345, 6", 101.0) == Release("345, 6", 10, None, (Hit("numbers", "observe"),))


def test_beyond_the_cap_the_session_stops_or_goes_on_as_its_operator_chose() -> None:
    guarded = gate(patterns("a[^b]*b", cap=5))
    violation = Violation("numbers", "PolicyViolation", "pattern 1, undecided after 5 characters, in content")
    assert guarded.content("x acdefghij", 101.0) == Release("x ", 2, violation)
    assert shown(gate(patterns("a[^b]*b", cap=5, beyond_cap="release")), "x acdefghij", 3) == "x acdefghij"
    assert gate(patterns("a[^b]*b", cap=5)).arguments("t", '["acdefghij"]', 101.0) == Reading()
    unheard = gate(patterns("a[^b]*b", cap=5, reads=frozenset({"thoughts"})))
    assert unheard.thought("Planning", "acdefghij", 101.0) == Reading()


def test_patterns_read_every_channel() -> None:
    everywhere: frozenset[Channel] = frozenset({"thoughts", "arguments", "results", "prompt"})
    rules = RuleSet([patterns(r"\d{4}$", reads=everywhere)])
    assert rules.gate(100.0).arguments("t", '{"n": 1234}', 101.0).violation
    assert rules.gate(100.0).result('["1234"]', 101.0).violation
    assert rules.prompt(["x 1234"]).violation
    assert not rules.prompt(["1234 x"]).violation
    guarded = rules.gate(100.0)
    assert not guarded.thought("Planning", "12", 101.0).violation
    assert not guarded.thought("Planning", "34", 101.0).violation, "it may go on"
    assert guarded.thought("Planning", "\n", 101.0).violation


# ---- budgets


@pytest.mark.parametrize("size", [1, 3, 10, 25])
def test_exactly_the_permitted_characters_get_out(size: int) -> None:
    limited = gate(budget("max_characters", 10))
    text = "abcdefghijklmnopqrstuvwxy"
    releases = [limited.content(text[i : i + size], 101.0) for i in range(0, len(text), size)]
    assert "".join(release.text for release in releases) == text[:10]
    assert releases[-1].decided == 10
    assert releases[-1].violation == Violation("limits", "PolicyViolation", "max_characters = 10 exceeded")


def test_a_text_of_the_permitted_length_is_none_too_long() -> None:
    limited = gate(budget("max_characters", 10))
    assert limited.content("abcdefghij", 101.0) == Release("abcdefghij", 10, None)
    assert limited.end(101.0).violation is None


def test_a_phrase_that_the_limit_cuts_in_two_gets_out_on_neither_side() -> None:
    limited = gate(budget("max_characters", 10), phrases("secret"))
    assert limited.content("It is a secret", 101.0).text == "It is a "


def test_a_phrase_before_the_limit_is_what_counts() -> None:
    limited = gate(budget("max_characters", 10), phrases("cd"))
    release = limited.content("abcdefghijklm", 101.0)
    assert (release.text, release.violation) == ("ab", Violation("names", "PolicyViolation", "phrase 1 in content"))


def test_time_runs_out_by_the_clock_and_by_what_comes_late() -> None:
    violation = Violation("limits", "Timeout", "max_seconds = 2.5 exceeded")
    limited = gate(budget("max_seconds", 2.5, reason="Timeout"), phrases("secret"))
    assert limited.deadline == 102.5
    assert limited.content("a sec", 102.4) == Release("a ", 2, None)
    assert limited.overdue(102.4) is None
    assert limited.overdue(102.5) == violation
    assert not limited.deadline
    assert limited.end(102.6) == Release("", 2, violation)
    assert gate(budget("max_seconds", 2.5, reason="Timeout")).content("late", 103.0) == Release("", 0, violation)
    assert gate(budget("max_seconds", 2.5, reason="Timeout")).thought("Planning", "late", 103.0) == Reading(violation)
    assert gate(budget("max_seconds", 2.5, reason="Timeout")).arguments("search", "{}", 103.0) == Reading(violation)
    assert gate(budget("max_seconds", 2.5, reason="Timeout")).result("{}", 103.0) == Reading(violation)


def test_thoughts_and_tool_calls_are_counted() -> None:
    limited = gate(budget("max_thought_characters", 5))
    assert limited.thought("Planning", "abc", 101.0).violation is None
    assert limited.thought("Checking", "de", 101.0).violation is None
    detail = "max_thought_characters = 5 exceeded"
    assert limited.thought("Planning", "f", 101.0) == Reading(Violation("limits", "PolicyViolation", detail))
    limited = gate(budget("max_tool_calls", 1))
    assert limited.arguments("search", "{}", 101.0).violation is None
    detail = "max_tool_calls = 1 exceeded"
    assert limited.arguments("search", "{}", 101.0) == Reading(Violation("limits", "PolicyViolation", detail))


def test_of_several_limits_the_strictest_counts() -> None:
    loose, strict = budget("max_characters", 10, name="loose"), budget("max_characters", 5, name="strict")
    for policies in ((loose, strict), (strict, loose)):
        release = gate(*policies).content("abcdefghijk", 101.0)
        assert release.text == "abcde"
        assert release.violation is not None
        assert release.violation.policy == "strict"


# ---- thoughts and arguments


def test_thoughts_are_read_across_deltas_each_step_for_itself() -> None:
    guarded = gate(phrases("nightingale", reads=("thoughts",)))
    assert guarded.thought("Planning", "night", 101.0).violation is None
    assert guarded.thought("Checking", "ingale", 101.0).violation is None
    assert guarded.content("nightingale", 101.0).text == "nightingale"
    violation = guarded.thought("Planning", "ingale", 101.0).violation
    assert violation == Violation("names", "PolicyViolation", "phrase 1 in thoughts")
    assert guarded.content("anything", 101.0) == Release("", 11, violation)


def test_a_bounded_number_of_steps_is_followed() -> None:
    guarded = gate(phrases("ab", reads=("thoughts",)))
    for step in range(MAX_STEPS + 1):
        assert guarded.thought(f"step {step}", "a", 101.0).violation is None
    assert guarded.thought("step 0", "b", 101.0).violation is None
    assert guarded.thought(f"step {MAX_STEPS}", "b", 101.0).violation is not None


@pytest.mark.parametrize(
    "arguments",
    [
        '{"q": "about Nightingale"}',
        '{"q": "about \\u004eightingale"}',
        '{"NIGHTINGALE": 1}',
        '{"q": [1, {"x": ["night\\u200bingale"]}]}',
        '{"q": "nightingale", "q": "repeated"}',
        '"nightingale"',
        "not JSON: nightingale",
        '{"q": "nightingale"',
        "[" * 5000 + '"nightingale"' + "]" * 5000,
    ],
)
def test_arguments_are_read_whole_as_decoded_strings(arguments: str) -> None:
    guarded = gate(phrases("nightingale"))
    violation = Violation("names", "PolicyViolation", "phrase 1 in arguments")
    assert guarded.arguments("search", arguments, 101.0) == Reading(violation)


@pytest.mark.parametrize("arguments", ["{}", "", '["night", "ingale"]', '{"night": "ingale"}', '{"q": "night"}'])
def test_strings_of_arguments_are_read_each_for_itself(arguments: str) -> None:
    assert gate(phrases("nightingale")).arguments("search", arguments, 101.0) == Reading()


def test_numbers_in_arguments_are_read_as_they_are_written() -> None:
    guarded = gate(phrases("4111111111111111", "1.50"))
    assert guarded.arguments("pay", '{"price": 1.5}', 101.0).violation is None
    assert guarded.arguments("pay", '{"card": 4111111111111111}', 101.0).violation is not None
    assert gate(phrases("1.50")).arguments("pay", '{"price": 1.50}', 101.0).violation is not None


# ---- after a restart


def test_after_a_restart_the_held_text_is_held_again() -> None:
    guarded = gate(phrases("nightingale"))
    guarded.content("a night", 101.0)
    resumed = RuleSet([phrases("nightingale")]).gate(100.0)
    resumed.content("a night", 101.0)
    resumed.resume(2)
    assert resumed.held == 5
    assert resumed.content("s", 102.0) == Release("nights", 8, None)


def test_text_that_other_rules_held_goes_out_with_what_comes_next() -> None:
    resumed = RuleSet([]).gate(100.0)
    resumed.content("a night", 101.0)
    resumed.resume(2)
    assert resumed.held == 5
    assert resumed.thought("Planning", "x", 102.0).violation is None
    assert resumed.content("s", 102.0) == Release("nights", 8, None)


def test_what_is_out_is_out() -> None:
    resumed = RuleSet([phrases("a nightmare")]).gate(100.0)
    resumed.content("a night", 101.0)
    resumed.resume(7)
    assert resumed.held == 0
    assert resumed.content("ma", 102.0) == Release("", 7, None)
    assert resumed.content("re!", 102.0) == Release("", 7, resumed.overdue(102.0))
    assert resumed.overdue(102.0) is not None


def test_counts_and_the_start_come_from_the_log() -> None:
    resumed = RuleSet([budget("max_characters", 10), budget("max_tool_calls", 1)]).gate(100.0)
    resumed.content("abcdefgh", 101.0)
    resumed.arguments("search", "{}", 101.0)
    resumed.resume(8)
    assert resumed.content("ijklm", 500.0).text == "ij"
    resumed = RuleSet([budget("max_tool_calls", 1)]).gate(100.0)
    resumed.arguments("search", "{}", 101.0)
    resumed.resume(0)
    assert resumed.arguments("search", "{}", 102.0).violation is not None


@pytest.mark.parametrize("read", [3, 5, 6, 8])
def test_after_a_restart_what_was_redacted_stays_so(read: int) -> None:
    rules = RuleSet([phrases("abcd", "cdef", action="redact")])
    text = "x abcdef y"
    before = rules.gate(100.0)
    before.resume(0)
    release = before.content(text[:read], 101.0)
    resumed = rules.gate(100.0)
    resumed.content(text[:read], 101.0)
    resumed.resume(release.decided)
    assert resumed.held == before.held
    assert release.text + resumed.content(text[read:], 102.0).text == "x [redacted] y"


def test_new_rules_stop_a_session_whose_log_breaks_them() -> None:
    resumed = RuleSet([phrases("secret")]).gate(100.0)
    assert resumed.content("a secret, and more", 101.0).violation is not None
    resumed.resume(18)
    assert resumed.content("more", 102.0) == Release("", 18, resumed.overdue(102.0))


def test_phrases_are_compiled_once_for_all_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Automaton] = []

    def compiling(folded: list[str], words: bool, exact: bool) -> Automaton:
        compiled.append(Automaton(folded, words, exact))
        return compiled[-1]

    monkeypatch.setattr("dispatcher.policies.rules.Automaton", compiling)
    RuleSet([phrases("secret", reads=CHANNELS)])
    assert len(compiled) == 1

"""The proof: no banned character gets out, no clean one is lost, nothing waits longer than the rule needs."""

from unicodedata import combining

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.policies.gate import Gate
from dispatcher.policies.rules import PhrasesPolicy, RuleSet
from tests.dispatcher.policies import oracle
from tests.dispatcher.policies.strategies import cases, phrase_lists, splits, texts


def rule_set(phrases: list[str]) -> RuleSet:
    """Each phrase a policy of its own, so that they have to be composed."""
    return RuleSet([PhrasesPolicy(f"policy {phrase!r}", (phrase,)) for phrase in phrases])


def run(gate: Gate, pieces: list[str]) -> tuple[str, bool]:
    """What a user sees of the text, and whether it was stopped."""
    shown = ""
    for piece in pieces:
        release = gate.content(piece, 1.0)
        shown += release.text
        if release.violation:
            return shown, True
    release = gate.end(1.0)
    return shown + release.text, release.violation is not None


@given(cases())
def test_what_is_shown_is_what_the_oracle_allows_whatever_the_split(case: tuple[list[str], list[str]]) -> None:
    phrases, pieces = case
    text = "".join(pieces)
    expected = oracle.outcome(text, phrases)
    gate = rule_set(phrases).gate(0.0)
    assert run(gate, pieces) == (text[: expected.shown], expected.stopped is not None)
    assert gate.held == 0


@given(cases())
def test_the_stop_comes_with_the_packet_that_completes_the_match(case: tuple[list[str], list[str]]) -> None:
    phrases, pieces = case
    stopped = oracle.outcome("".join(pieces), phrases).stopped
    gate = rule_set(phrases).gate(0.0)
    read = 0
    for piece in pieces:
        read += len(piece)
        fired = gate.content(piece, 1.0).violation is not None
        text = "".join(pieces)[:read]
        # A match that only the end decides stops there, not before.
        certain = stopped is not None and read >= stopped and oracle.matches(text[:stopped], phrases, over=False)
        assert fired == bool(certain)


@given(cases())
def test_only_what_can_still_become_a_match_is_held(case: tuple[list[str], list[str]]) -> None:
    phrases, pieces = case
    gate = rule_set(phrases).gate(0.0)
    read = ""
    for piece in pieces:
        read += piece
        if gate.content(piece, 1.0).violation:
            return
        needed = len(read) - oracle.held_from(read, phrases)
        assert gate.held >= needed
        # What a phrase begins with, if that is a mark, is held in every run of marks until the run is decided.
        if not any(combining(oracle.string(phrase)[0]) for phrase in phrases):
            assert gate.held == needed


@given(cases(), st.data())
def test_a_restart_in_the_middle_changes_nothing(case: tuple[list[str], list[str]], data: st.DataObject) -> None:
    phrases, pieces = case
    rules = rule_set(phrases)
    expected = run(rules.gate(0.0), pieces)
    gate, shown, read = rules.gate(0.0), "", 0
    restarts = data.draw(st.sets(st.integers(0, len(pieces))))
    stopped = False
    for number, piece in enumerate([*pieces, None]):
        if number in restarts:
            gate = rules.gate(0.0)
            for logged in pieces[:number]:
                gate.content(logged, 1.0)
            gate.resume(len(shown))
            assert gate.held == read - len(shown)
        release = gate.end(1.0) if piece is None else gate.content(piece, 1.0)
        shown, read = shown + release.text, read + len(piece or "")
        stopped = release.violation is not None
        assert release.decided == len(shown)
        if stopped:
            break
    assert (shown, stopped) == expected


@given(phrase_lists(), phrase_lists(), st.data())
def test_with_other_rules_after_a_restart_nothing_comes_twice_or_is_lost(
    before: list[str], after: list[str], data: st.DataObject
) -> None:
    text = data.draw(texts(before + after))
    pieces = data.draw(splits(text))
    restart = data.draw(st.integers(0, len(pieces)))
    gate, shown = rule_set(before).gate(0.0), ""
    for piece in pieces[:restart]:
        release = gate.content(piece, 1.0)
        shown += release.text
        if release.violation:
            return
    gate = rule_set(after).gate(0.0)
    stopped = any(gate.content(piece, 1.0).violation for piece in pieces[:restart])
    gate.resume(len(shown))
    allowed = oracle.outcome(text, after)
    if stopped:
        assert gate.end(1.0).text == ""
    else:
        rest, _ = run(gate, pieces[restart:])
        assert shown + rest == text[: max(len(shown), allowed.shown)]


@given(cases())
def test_thoughts_and_arguments_stop_too(case: tuple[list[str], list[str]]) -> None:
    phrases, pieces = case
    policy = PhrasesPolicy("p", tuple(phrases), frozenset({"thoughts", "arguments"}))
    text = "".join(pieces)
    gate = RuleSet([policy]).gate(0.0)
    thought = any(gate.thought("Planning", piece, 1.0) for piece in pieces)
    assert thought == any(oracle.matches(text[:end], phrases, over=False) for end in range(len(text) + 1))
    called = RuleSet([policy]).gate(0.0).arguments("search", f'{{"q": ["{escaped(text)}"]}}', 1.0)
    assert bool(called) == (oracle.outcome(text, phrases).stopped is not None)


def escaped(text: str) -> str:
    """As JSON escapes: nothing of the text stands there as it is."""
    data = text.encode("utf-16-be")
    return "".join(f"\\u{data[i]:02x}{data[i + 1]:02x}" for i in range(0, len(data), 2))

"""The proof: no banned character gets out, no clean one is lost, nothing waits longer than the rules need.

Every phrase is a policy of its own, of any action, so that they have to be composed. All of it holds for few phrases,
and for so many that the automaton has no states for what is one phrase's alone. `make test-faults` tries more than
50,000 examples.
"""

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.policies import automaton
from dispatcher.policies.gate import Gate
from dispatcher.policies.matches import Channel
from dispatcher.policies.rules import PhrasesPolicy, RuleSet
from tests.dispatcher.policies import oracle
from tests.dispatcher.policies.oracle import Wanted
from tests.dispatcher.policies.strategies import cases, splits, texts, wanted_lists

MORE = {"long": 100, "thorough": 500}.get(os.environ.get("HYPOTHESIS_PROFILE", ""), 1)


def proof(examples: int) -> settings:
    """So many examples, half of them of each size; a hundred times as many in `make test-faults`: 55,000 together."""
    return settings(max_examples=examples * MORE // 2)


@pytest.fixture(autouse=True, scope="module", params=[automaton.SMALL, 1], ids=["few", "many"])
def size(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(automaton, "SMALL", request.param)
        yield


def rule_set(wanted: list[Wanted], reads: tuple[Channel, ...] = ("content",)) -> RuleSet:
    policies: list[Any] = [
        PhrasesPolicy(
            str(number),
            (each.phrase,),
            frozenset(reads),
            action=each.action,  # type: ignore[arg-type]
            words=each.words,
            accents="exact" if each.exact else "any",
        )
        for number, each in enumerate(wanted)
    ]
    return RuleSet(policies)


class Seen(NamedTuple):
    shown: str
    stopped: bool
    hits: dict[str, int]
    decided: int


def run(gate: Gate, pieces: list[str]) -> Seen:
    """What a user sees of the text, and what else came of it."""
    shown, hits, decided = "", Counter[str](), 0
    gate.resume(0)
    for piece in [*pieces, None]:
        release = gate.end(1.0) if piece is None else gate.content(piece, 1.0)
        shown, decided = shown + release.text, release.decided
        hits.update({hit.policy: hit.times for hit in release.hits})
        if release.violation:
            return Seen(shown, True, hits, decided)
    return Seen(shown, False, hits, decided)


def expected(wanted: list[Wanted], text: str) -> Seen:
    outcome = oracle.outcome(text, wanted)
    hits = Counter({str(number): count for number, count in outcome.hits.items() if count})
    return Seen(outcome.shown, outcome.stopped is not None, hits, outcome.decided)


@proof(200)
@given(cases())
def test_what_is_shown_and_counted_is_what_the_oracle_allows_whatever_the_split(
    case: tuple[list[Wanted], list[str]],
) -> None:
    wanted, pieces = case
    gate = rule_set(wanted).gate(0.0)
    assert run(gate, pieces) == expected(wanted, "".join(pieces))
    assert gate.held == 0


@proof(50)
@given(cases(), st.randoms())
def test_the_order_of_policies_changes_nothing(case: tuple[list[Wanted], list[str]], random: Any) -> None:
    wanted, pieces = case
    before = run(rule_set(wanted).gate(0.0), pieces)
    policies = list(rule_set(wanted).policies)
    random.shuffle(policies)
    assert run(RuleSet(policies).gate(0.0), pieces) == before


@proof(50)
@given(cases())
def test_the_stop_comes_with_the_packet_that_completes_the_match(case: tuple[list[Wanted], list[str]]) -> None:
    wanted, pieces = case
    text = "".join(pieces)
    known = oracle.completed(text, [each for each in wanted if each.action == "stop"])
    gate = rule_set(wanted).gate(0.0)
    read = 0
    for piece in pieces:
        read += len(piece)
        # A match that only the end decides stops there, not before.
        assert (gate.content(piece, 1.0).violation is not None) == bool(known[read])


@proof(50)
@given(cases())
def test_only_what_can_still_become_a_match_is_held(case: tuple[list[Wanted], list[str]]) -> None:
    wanted, pieces = case
    gate = rule_set(wanted).gate(0.0)
    gate.resume(0)
    read = ""
    for piece in pieces:
        read += piece
        if gate.content(piece, 1.0).violation:
            return
        assert gate.held == len(read) - oracle.held_from(read, wanted)


@proof(100)
@given(cases(), st.data())
def test_a_restart_in_the_middle_changes_nothing(case: tuple[list[Wanted], list[str]], data: st.DataObject) -> None:
    wanted, pieces = case
    rules = rule_set(wanted)
    before = run(rules.gate(0.0), pieces)
    gate, shown, read, decided = rules.gate(0.0), "", 0, 0
    gate.resume(0)
    restarts = data.draw(st.sets(st.integers(0, len(pieces))))
    hits = Counter[str]()
    stopped = False
    for number, piece in enumerate([*pieces, None]):
        if number in restarts:
            gate = rules.gate(0.0)
            for logged in pieces[:number]:
                gate.content(logged, 1.0)
            gate.resume(decided)
            assert gate.held == read - decided
        release = gate.end(1.0) if piece is None else gate.content(piece, 1.0)
        shown, read, decided = shown + release.text, read + len(piece or ""), release.decided
        hits.update({hit.policy: hit.times for hit in release.hits})
        stopped = release.violation is not None
        if stopped:
            break
    assert Seen(shown, stopped, hits, decided) == before


@proof(50)
@given(wanted_lists(), wanted_lists(("stop", "observe")), st.data())
def test_with_other_rules_after_a_restart_nothing_comes_twice_or_is_lost(
    before: list[Wanted], after: list[Wanted], data: st.DataObject
) -> None:
    text = data.draw(texts([each.phrase for each in before + after]))
    pieces = data.draw(splits(text))
    restart = data.draw(st.integers(0, len(pieces)))
    gate, decided = rule_set(before).gate(0.0), 0
    gate.resume(0)
    for piece in pieces[:restart]:
        release = gate.content(piece, 1.0)
        decided = release.decided
        if release.violation:
            return
    gate = rule_set(after).gate(0.0)
    stopped = any(gate.content(piece, 1.0).violation for piece in pieces[:restart])
    gate.resume(decided)
    rest = ""
    for last in [*pieces[restart:], None]:
        release = gate.end(1.0) if last is None else gate.content(last, 1.0)
        rest += release.text
        if release.violation:
            break
    allowed = 0 if stopped else oracle.outcome(text, after).decided
    assert rest == text[decided : max(decided, allowed)]


@proof(50)
@given(cases())
def test_thoughts_arguments_prompts_and_results_are_read_too(case: tuple[list[Wanted], list[str]]) -> None:
    wanted, pieces = case
    text = "".join(pieces)
    rules = rule_set(wanted, ("thoughts", "arguments", "prompt", "results"))
    gate = rules.gate(0.0)
    stops = [each for each in wanted if each.action == "stop"]
    thought = any(gate.thought("Planning", piece, 1.0).violation for piece in pieces)
    assert thought == any(oracle.matches(text[:end], stops, over=False) for end in range(len(text) + 1))

    outcome = oracle.outcome(text, wanted)
    redacted = any(count and wanted[number].action == "redact" for number, count in outcome.hits.items())
    json = f'{{"q": ["{escaped(text)}"]}}'
    for reading in (
        rules.gate(0.0).arguments("search", json, 1.0),
        rules.gate(0.0).result(json, 1.0),
        rules.prompt([text]),
    ):
        assert bool(reading.violation) == (outcome.stopped is not None)
        if not reading.violation:
            assert bool(reading.denied) == redacted
            assert {hit.policy: hit.times for hit in reading.hits} == {
                str(number): count for number, count in outcome.hits.items() if count
            }


def escaped(text: str) -> str:
    """As JSON escapes: nothing of the text stands there as it is."""
    data = text.encode("utf-16-be")
    return "".join(f"\\u{data[i]:02x}{data[i + 1]:02x}" for i in range(0, len(data), 2))

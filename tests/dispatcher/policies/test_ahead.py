from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from dispatcher.policies.ahead import MAX_MATCHES, Slices, at_once
from dispatcher.policies.budget import Limit
from dispatcher.policies.gate import Gate
from dispatcher.policies.matches import CHANNELS, Channel, Match
from dispatcher.policies.outcomes import Reading, Release
from dispatcher.policies.patterns import MAX_SLICE
from dispatcher.policies.phrases import PhraseSet, PhraseStream
from dispatcher.policies.presets import PRESETS
from dispatcher.policies.repeats import Repeats
from dispatcher.policies.rules import BudgetPolicy, PatternsPolicy, PhrasesPolicy, Policy, RuleSet
from tests.dispatcher.policies.test_phrases import rule

READS = frozenset(CHANNELS)
POLICIES: list[list[Policy]] = [
    [PhrasesPolicy("stops", ("abba", "é b"), READS)],
    [
        PhrasesPolicy("redacts", ("ab", "ba", "a cc"), READS, action="redact"),
        PatternsPolicy("x", ("a{3}b",), reads=READS),
    ],
    [
        PhrasesPolicy("observes", ("a",), READS, action="observe", words=True),
        BudgetPolicy("limits", (Limit("max_characters", 30, "limits", "Timeout"),), Repeats(2, 3, rule(0))),
    ],
    [PatternsPolicy("holds", ("b.*c",), cap=5, reads=READS), PhrasesPolicy("redacts", ("bb",), action="redact")],
]

KINDS: list[Channel] = ["content", "thoughts", "arguments", "results"]
How = Literal["whole", "in part", "not"]


def ahead_of(gate: Gate, channel: Channel, text: str) -> Slices[None]:
    return gate.read_ahead(channel, text if channel in ("content", "thoughts") else f'["{text}"]', step_name="Planning")


def taken(gate: Gate, channel: Channel, text: str, step_name: str = "Planning") -> Release | Reading:
    match channel:
        case "content":
            return gate.content(text, 1.0)
        case "thoughts":
            return gate.thought(step_name, text, 1.0)
        case "arguments":
            return gate.arguments("search", f'["{text}"]', 1.0)
        case _:
            return gate.result(f'["{text}"]', 1.0)


class Coming(NamedTuple):
    """A text that is taken in, and how it was read ahead. meanwhile: where the same text is taken in before it."""

    channel: Channel
    text: str
    how: How
    meanwhile: Channel | None
    resumed: bool  # what was read in part is read to its end after that


COMING = st.builds(
    Coming,
    st.sampled_from(KINDS),
    st.text("ab éc\n", max_size=12),
    st.sampled_from(get_args(How)),
    st.sampled_from([None, *KINDS]),
    st.booleans(),
)


PLAIN = [Coming("thoughts", text, "not", "thoughts", False) for text in "ab"]


@given(st.sampled_from(POLICIES), st.lists(COMING, max_size=6), st.integers(1, 4))
@example(POLICIES[3], [Coming("thoughts", "bb", "whole", "content", False)], 4)  # the rules are others there
@example(POLICIES[3], [Coming("arguments", "bb", "whole", "results", False)], 4)
@example(POLICIES[0], [Coming("content", "ab", "in part", "content", True)], 1)  # the stream has gone on
@example(POLICIES[1], [Coming("thoughts", "a", "whole", "thoughts", False), *PLAIN], 4)  # each step has its own stream
@example(POLICIES[1], [Coming("content", text, "whole", None, False) for text in ("a ", " ", "c", "c")], 4)  # wide
@example(POLICIES[1], [Coming("content", "ab", "in part", None, False)], 16)  # what was found counts no less
def test_reading_ahead_changes_nothing_whatever_comes_of_it(
    policies: list[Policy], coming: list[Coming], size: int
) -> None:
    """Also where it is broken off, or something else is taken in meanwhile."""
    plain, ahead = RuleSet(policies).gate(0.0), RuleSet(policies).gate(0.0)
    plain.resume(0)
    ahead.resume(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PhraseSet, "slice", size)
        for each in coming:
            slices = ahead_of(ahead, each.channel, each.text)
            if each.how == "whole":
                at_once(slices)
            elif each.how == "in part":
                next(slices, None)
            if each.meanwhile:
                other = each.meanwhile, each.text, "Searching"
                assert taken(plain, *other) == taken(ahead, *other)
            if each.how == "in part" and each.resumed:
                at_once(slices)
            assert taken(plain, each.channel, each.text) == taken(ahead, each.channel, each.text)
            assert plain.held == ahead.held
    assert plain.end(1.0) == ahead.end(1.0)


@pytest.mark.parametrize("channel", KINDS)
def test_a_large_text_is_read_a_slice_at_a_time_and_once(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    feed = PhraseStream.feed

    def counted(stream: PhraseStream, text: str) -> Sequence[Match]:
        read.append(len(text))
        return feed(stream, text)

    monkeypatch.setattr(PhraseStream, "feed", counted)
    gate = RuleSet([PhrasesPolicy("names", ("Nightingale",), READS)]).gate(0.0)
    gate.resume(0)
    text = "night " * 10_000 + "ingale"
    for turns, _ in enumerate(ahead_of(gate, channel, text), 1):
        assert len(read) == turns
    assert not taken(gate, channel, text).violation
    assert max(read) == PhraseSet.slice
    assert sum(read) == len(text)


def test_what_is_slower_is_read_in_smaller_slices() -> None:
    def slices(*policies: Policy) -> int:
        return len([*RuleSet(policies).in_slices("prompt", ["a" * 1024, "b"])])

    phrases, patterns = PhrasesPolicy("names", ("x",), READS), PatternsPolicy("numbers", (r"\d",), reads=READS)
    assert slices(phrases) - 1024 / PhraseSet.slice in range(1, 5)  # the first ones are smaller
    assert slices(phrases, patterns) - 1024 / MAX_SLICE in range(1, 5)
    costly = replace(patterns, patterns=("a.{0,80}b",) * 8, places=8 * 161)
    assert slices(costly) > slices(patterns) * 5
    assert slices(replace(costly, places=None)) > slices(patterns) * 7
    assert slices(PatternsPolicy("all", presets=tuple(PRESETS), reads=READS)) < slices(patterns) * 2


def test_the_more_is_found_the_smaller_are_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nobody's turn is long, whatever the text."""
    found: list[int] = []
    feed = PhraseStream.feed

    def counted(stream: PhraseStream, text: str) -> Sequence[Match]:
        matches = feed(stream, text)
        found.append(len(matches))
        return matches

    monkeypatch.setattr(PhraseStream, "feed", counted)
    phrases = tuple("a" * length for length in range(1, 41))
    rules = RuleSet([PhrasesPolicy("redacts", phrases, READS, action="redact")])
    slices = len([*rules.in_slices("prompt", ["a" * 1000 + "b" * 10_000])])
    assert sum(found) == sum(min(length, 40) for length in range(1, 1001))
    assert max(found[3:]) <= MAX_MATCHES
    assert slices < 1000 * 40 / MAX_MATCHES + 10_000 / PhraseSet.slice + 50


def test_nothing_is_read_behind_what_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PhraseSet, "slice", 8)
    rules = RuleSet([PhrasesPolicy("stops", ("x",), READS)])
    assert len([*rules.in_slices("prompt", ["x" + "a" * 1000])]) == 0
    assert rules.prompt(["x" + "a" * 1000]).violation

import time

import pytest

from dispatcher.policies.automaton import Automaton
from dispatcher.policies.folding import fold
from dispatcher.policies.phrases import Match, PhraseStream


def stream(*phrases: str) -> PhraseStream:
    return PhraseStream(Automaton([fold(phrase) for phrase in phrases]))


def found(text: str, *phrases: str) -> Match | None:
    """The match, if the text ends with what completes it."""
    reader = stream(*phrases)
    assert all(reader.feed(character) is None for character in text[:-1])
    return reader.feed(text[-1])


@pytest.mark.parametrize(
    ("phrase", "text", "start"),
    [
        ("Nightingale", "a nightingale", 2),
        ("夜莺计划", "关于夜莺计划", 2),
        ("café", "un cafe\u0301", 3),
        ("café", "un cafe\u0323\u0301", 3),  # canonically: café with another mark after it
        ("cafe", "un café", 3),
        ("ice", "of\ufb01ce", 2),  # the ligature as a whole belongs to it
        ("straß", "strasſ", 0),
        ("bad", "\u200bb\u200da\u00add", 1),
        ("\u0301b", "a\u0301\u0323b", 1),
        ("\u0323\u0301b", "a\u0301\u0323b", 1),  # canonical order is not raw order
        ("보", "바보", 1),
        ("바보", "바\u1107\u1169\u200b바", 0),
        ("각", "가\u11a8", 0),
        ("b", "a\u0301b", 2),
        ("he", "she", 1),
    ],
)
def test_a_match_is_complete_at_once_and_begins_where_its_first_character_stands(
    phrase: str, text: str, start: int
) -> None:
    assert found(text, phrase) == Match(start, (0,))


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("가", "각"),
        ("가", "\u1100\u1161\u11a8"),
        ("나이팅게일", "나이팅게임"),
        ("café", "cafe"),
        ("é", "e\u0300\u0301"),
        ("ab", "a\u0301b"),
        ("project x", "projectx"),
        ("ı", "i"),
    ],
)
def test_a_near_miss_is_none(phrase: str, text: str) -> None:
    reader = stream(phrase)
    assert reader.feed(text) is None
    assert reader.end() is None


@pytest.mark.parametrize(
    ("phrase", "text", "held"),
    [
        ("Nightingale", "a night", 5),
        ("Nightingale", "a nights", 0),
        ("Nightingale", "a n", 1),
        ("abcd", "xabcab", 2),
        ("ice", "of\ufb01", 1),
        ("bad", "b\u200b\u200b", 3),
        ("café!", "cafe", 4),
        ("cafe!", "café", 0),  # a mark after e: no longer the beginning of the phrase
        ("café!", "cafe\u0323", 0),
        ("cafe\u0323\u0301!", "cafe\u0301", 5),  # a mark below may still come
        ("a\u0323\u0301", "a\u0301\u0301", 3),  # the second one would be after the phrase
        ("abc", "\u1112\u1161", 0),
        ("한국", "\u1112\u1161", 2),
        ("한국", "\u1112\u1162", 0),
        ("가\u0301", "나", 0),
    ],
)
def test_held_is_what_can_still_become_a_match(phrase: str, text: str, held: int) -> None:
    reader = stream(phrase)
    assert reader.feed(text) is None
    assert reader.length - reader.hold() == held


def test_a_syllable_in_jamo_waits_for_the_next_of_them() -> None:
    reader = stream("가")
    assert reader.feed("\u1100\u1161") is None
    assert reader.hold() == 0
    assert reader.feed("!") == Match(0, (0,))
    reader = stream("가")
    assert reader.feed("\u1100\u1161") is None
    assert reader.end() == Match(0, (0,))


def test_the_first_code_point_that_completes_a_match_decides() -> None:
    assert stream("cd", "abcdef").feed("abcdef") == Match(2, (0,))
    assert stream("dog", "hot dog").feed("a hot dog") == Match(2, (1,))
    assert stream("fi", "xfi").feed("x\ufb01") == Match(0, (1,))


def test_the_same_phrase_in_two_guises_names_both() -> None:
    assert stream("Straße", "STRASSE").feed("strasse") == Match(0, (0, 1))


def test_ten_thousand_phrases_load_within_a_second() -> None:
    phrases = [f"{number * 7919 % 10_000:04} operation {number * 104_729 % 1_000_003}" for number in range(10_000)]
    began = time.process_time()
    automaton = Automaton([fold(phrase) for phrase in phrases])
    assert time.process_time() - began < 1
    assert PhraseStream(automaton).feed("x" + phrases[-1]) == Match(1, (9_999,))


def test_text_made_up_to_fill_memory_with_short_cuts_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.policies.automaton.MAX_SHORT_CUTS", 100)
    automaton = Automaton(["aaaaaaab"])
    reader = PhraseStream(automaton)
    text = "".join("aaa" + chr(code) for code in range(0x4E00, 0x5000))
    assert reader.feed(text) is None
    third = automaton.root["a"]["a"]["a"]
    assert len(automaton.root) + len(third) == 1 + 1 + 100
    assert reader.feed("aaaaaaab") == Match(len(text), (0,))

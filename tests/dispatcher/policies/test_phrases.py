from itertools import product

import pytest

from dispatcher.policies.automaton import MAX_DENSE, SMALL, Automaton
from dispatcher.policies.folding import fold
from dispatcher.policies.matches import Action, Match
from dispatcher.policies.matches import Rule as RuleOf
from dispatcher.policies.phrases import PhraseSet, PhraseStream


def rule(number: int, action: Action = "stop") -> RuleOf:
    return RuleOf("names", action, f"phrase {number}")


def stream(*phrases: str, action: Action = "stop", words: bool = False, exact: bool = False) -> PhraseStream:
    rules = tuple(rule(number, action) for number in range(len(phrases)))
    return PhraseSet(Automaton([fold(phrase) for phrase in phrases], words, exact), rules).stream()


def found(text: str, *phrases: str) -> list[Match]:
    """The matches, if the text ends with what completes them."""
    reader = stream(*phrases)
    assert not any(reader.feed(character) for character in text[:-1])
    return [*reader.feed(text[-1])]


def all_of(reader: PhraseStream, text: str) -> list[tuple[int, int]]:
    return [(match.start, match.end) for match in [*reader.feed(text), *reader.end()]]


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
        ("resume", "my r\u0301e\u0301sume", 3),
        ("resume", "my r\u0344e\u0344sume", 3),  # one code point that is two marks
        ("lodz øre", "in Łódź Ǿ\u0323re", 3),
        ("café au", "un caf\u0323e\u0323\u0301 au", 3),
        ("istanbul", "in İSTANBUL", 3),
        ("don't tell", "I don\u2019t tell", 2),
        ("project-x", "a project\u2010x", 2),
        ("project x", "a project\r\n\t x", 2),
        (" x", "a \n\xa0x", 1),
        ("night", "n\0i\x9fg\ufffbht", 0),
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
    (match,) = found(text, phrase)
    assert match.start == start


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("가", "각"),
        ("가", "\u1100\u1161\u11a8"),
        ("나이팅게일", "나이팅게임"),
        ("café", "cafe"),
        ("é", "e\u0300\u0301"),
        ("résumé", "résume"),
        ("Łódź", "lódź"),
        ("ハハ", "パパ"),  # a voiced kana is another letter
        ("มา", "ม่า"),  # and so is one with a tone mark
        ("project x", "projectx"),
        ("ı", "i"),
    ],
)
def test_a_near_miss_is_none(phrase: str, text: str) -> None:
    assert all_of(stream(phrase), text) == []


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
        ("cafe!", "café", 4),
        ("cafés", "café", 4),
        ("résumé", "resum", 0),
        ("ハ!", "パ", 0),  # a mark that is no accent: no longer the beginning of the phrase
        ("café!", "cafe\u0323", 5),
        ("project x", "a project \n\n", 10),
        ("x ", "x", 1),
        ("cafe\u0323\u0301!", "cafe\u0301", 5),  # a mark below may still come
        ("a\u0323\u0301", "a\u0301\u0301", 3),  # the second one would be after the phrase
        ("abc", "\u1112\u1161", 0),
        ("한국", "\u1112\u1161", 2),
        ("한국", "\u1112\u1162", 0),
        ("가\u0301", "나", 0),
        ("\u1161b", "\u1161\u1100", 0),  # the consonant is no b, whatever becomes of it
    ],
)
def test_held_is_what_can_still_become_a_match(phrase: str, text: str, held: int) -> None:
    reader = stream(phrase)
    assert not reader.feed(text)
    assert reader.length - reader.hold() == held


def test_accents_may_count_exactly() -> None:
    for phrase, text, spans in (
        ("resume", "résumé resume resumé", [(7, 13), (14, 20)]),  # a mark after a phrase hides it nowhere
        ("résumé", "résumé re\u0301\u0323sumé resume", [(0, 6)]),
        ("blø", "bló blø blo", [(4, 7)]),
        ("e\u0323\u0301s", "e\u0301\u0323s", [(0, 4)]),  # canonical order is not raw order
    ):
        assert all_of(stream(phrase, action="redact", exact=True), text) == spans
    reader = stream("cafe!", exact=True)
    assert not reader.feed("café")
    assert reader.hold() == reader.length


def test_white_space_that_a_phrase_ends_with_is_its_own_to_the_end() -> None:
    for size in (1, 2, 20):
        reader = stream("x ", action="redact")
        text = "ax \0\u200b\n y"
        matches = [match for at in range(0, len(text), size) for match in reader.feed(text[at : at + size])]
        assert matches[0] == Match(1, 3, rule(0, "redact"))
        assert {match.start for match in matches} == {1}
        assert max(match.end for match in matches) == 7


def test_white_space_is_one_symbol_whatever_the_split() -> None:
    reader = stream("a b")
    assert not reader.feed("a ")
    assert not reader.feed(" ")
    assert reader.hold() == 0
    assert reader.feed(" b") == [Match(0, 5, rule(0))]


def test_a_jamo_after_white_space_is_none_of_it() -> None:
    assert all_of(stream(" ", action="redact"), " \u1100") == [(0, 1)]


def test_a_syllable_in_jamo_waits_for_the_next_of_them() -> None:
    reader = stream("가")
    assert not reader.feed("\u1100\u1161")
    assert reader.hold() == 0
    assert reader.feed("!") == [Match(0, 2, rule(0))]
    reader = stream("가")
    assert not reader.feed("\u1100\u1161")
    assert reader.end() == [Match(0, 2, rule(0))]


def test_the_first_code_point_that_completes_a_match_decides() -> None:
    reader = stream("cd", "abcdef")
    assert reader.feed("abcdef") == [Match(2, 4, rule(0))]
    assert not reader.feed("ef")
    assert reader.length == 4
    assert stream("dog", "hot dog").feed("a hot dog") == [Match(2, 9, rule(1)), Match(6, 9, rule(0))]
    assert stream("fi", "xfi").feed("x\ufb01") == [Match(0, 2, rule(1)), Match(1, 2, rule(0))]


def test_the_same_phrase_in_two_guises_names_both() -> None:
    assert stream("Straße", "STRASSE").feed("strasse") == [Match(0, 7, rule(0)), Match(0, 7, rule(1))]


def test_what_does_not_stop_is_found_again_and_again() -> None:
    for size in (1, 3, 20):
        reader = stream("aba", "ab", "d", action="redact")
        text = "xababa, a d"
        matches = [match for at in range(0, len(text), size) for match in reader.feed(text[at : at + size])]
        assert [(match.start, match.end) for match in matches] == [(1, 3), (1, 4), (3, 5), (3, 6), (10, 11)]
        assert reader.length == 11


# ---- whole words


@pytest.mark.parametrize(
    ("phrase", "text", "spans"),
    [
        ("cat", "cat", [(0, 3)]),
        ("cat", "a cat, a Cat; concat cats scatter", [(2, 5), (9, 12)]),
        ("cat", "_cat cat9 9cat", []),
        ("cat", "cat\u0301 cat\u0301s", [(0, 3)]),  # a mark does not part a word
        ("cat", "x\u0301cat e\u200bcat", []),
        ("cat", "ca\u200bt!", [(0, 4)]),
        ("C++", "C++ C++11 ObjC++ C+++", [(0, 3), (4, 7), (17, 20)]),  # a sign is no part of a word
        ("café", "cafe\u0301 cafés cafe\u0301\u0323", [(0, 5), (12, 17)]),
        ("가", "가 각 가나 나가 ᄀ\u1161!", [(0, 1), (10, 12)]),
        ("夜莺", "关于夜莺计划", [(2, 4)]),  # written without spaces
        ("कम", "कम कमी कमीज कम।", [(0, 2), (12, 14)]),  # a vowel's sign is a part of the word
        ("की", "की कीमत की", [(0, 2), (8, 10)]),
        ("ice", "o\ufb01ce \ufb01ce ice", [(9, 12)]),
        ("s", "\u00df s \u00dfs", [(2, 3)]),  # one letter that folds to two
        ("new york", "anew york, new yorker, new york", [(23, 31)]),
    ],
)
def test_whole_words_only(phrase: str, text: str, spans: list[tuple[int, int]]) -> None:
    assert all_of(stream(phrase, action="redact", words=True), text) == spans


@pytest.mark.parametrize(
    ("text", "held"),
    [("a night", 5), ("a midnight", 0), ("nightingale", 11), ("nightingales", 0), ("nightingale\u0301", 12)],
)
def test_a_word_is_held_until_its_end_is_known(text: str, held: int) -> None:
    reader = stream("nightingale", words=True)
    assert not reader.feed(text)
    assert reader.length - reader.hold() == held


@pytest.mark.parametrize("count", [10_000, 100_000])
def test_the_size_of_an_automaton_depends_on_how_many_phrases_there_are(count: int) -> None:
    """Of 100 symbols each; load times and costs are measured by `make bench`."""
    ends = [f"{number * 7919 % count:05} operation {number * 104_729 % 1_000_003}" for number in range(count)]
    phrases = [f"{end:x<100}" for end in ends]
    automaton = Automaton(phrases)
    states = len(automaton.fail)
    assert states < SMALL + 2.3 * count
    assert sum(len(column) for column in automaton.columns.values()) <= MAX_DENSE
    reader = PhraseSet(automaton, tuple(map(rule, range(count)))).stream()
    assert reader.feed("x" + phrases[-1][:-1]) == ()
    assert reader.length - reader.hold() == 99
    assert reader.feed("x") == [Match(1, 101, rule(count - 1))]


@pytest.mark.parametrize("size", [1, 2, 3, 20])
def test_what_is_one_phrases_alone_begins_behind_what_others_go_on_from(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with more than SMALL phrases: the automaton knows of "bcd" no more than "b"."""
    monkeypatch.setattr("dispatcher.policies.automaton.SMALL", 1)
    reader, text = stream("abx", "aby", "bcd"), "abcab bcd"
    assert [each for at in range(0, len(text), size) for each in reader.feed(text[at : at + size])] == [
        Match(6, 9, rule(2))
    ]
    assert stream("abx", "aby", "bcd").feed("abcd") == [Match(1, 4, rule(2))]


@pytest.mark.parametrize("size", [1, 2, 3, 20])
def test_what_is_alone_from_a_state_and_from_its_suffix_is_looked_for_both(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatcher.policies.automaton.SMALL", 1)
    reader, text = stream("xyc", "xz", "yd", action="redact"), "xyd xyc xye xyx yd"
    matches = [match for at in range(0, len(text), size) for match in reader.feed(text[at : at + size])]
    assert [(match.start, match.end) for match in matches] == [(1, 3), (4, 7), (16, 18)]


def test_text_made_up_to_fill_memory_with_short_cuts_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.policies.automaton.MAX_DENSE", 0)
    monkeypatch.setattr("dispatcher.policies.automaton.MAX_SHORT_CUTS", 5)
    monkeypatch.setattr("dispatcher.policies.automaton.MAX_STRANGE", 100)
    automaton = Automaton(["aaaaaaab", "aaaaaaac"])
    reader = PhraseSet(automaton, (rule(0), rule(1))).stream()
    text = "".join("aaa" + chr(code) for code in range(0x4E00, 0x5000))
    text += "-".join(map("".join, product("abc", repeat=4)))
    assert not reader.feed(text)
    assert len(automaton.columns) == 100
    assert sum(len(automaton.columns[symbol]) for symbol in "abc") == 9 + 2 + 5
    assert reader.feed("-aaaaaaab") == [Match(len(text) + 1, len(text) + 9, rule(0))]


def test_a_match_ends_with_its_last_mark_not_with_that_of_the_run() -> None:
    assert all_of(stream("e\u0301", action="redact"), "e\u0301\u0323\u0301") == [(0, 2)]
    assert all_of(stream("e\u0323\u0301", action="redact"), "e\u0301\u0323\u0301") == [(0, 3)]

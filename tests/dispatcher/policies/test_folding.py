from unicodedata import category, combining, normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.policies import folding
from dispatcher.policies.folding import MAX_MARKS, Pending, fold, fold_character, is_ignorable, is_plain
from tests.dispatcher.policies import oracle
from tests.dispatcher.policies.strategies import ALPHABET

# Every assigned character, and what is ignored without being assigned; ideographs all fold alike.
CODES = (*range(0xD800), *range(0xE000, 0x20000), *range(0x2F800, 0x2FA20), *range(0xE0000, 0xE2000))
ALL = [chr(code) for code in CODES]


@pytest.mark.parametrize(
    ("text", "alike"),
    [
        ("STRASSE", "straße"),
        ("ﬁnal", "Final"),
        ("Ｎｉｇｈｔ", "night"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("İ", "i\u0307"),
        ("é", "e\u0301"),
        ("e\u0301\u0323", "e\u0323\u0301"),
        ("night\u200bing\u00adale", "nightingale"),
        ("\u1112\u1161\u11ab", "한"),
        ("하\u11ab", "한"),
        ("ㄱㅏ", "가"),
        ("ﾊﾞ", "バ"),
        ("㎏", "kg"),
        ("a\u034f\u0323", "ạ"),
    ],
)
def test_look_alikes_are_equal(text: str, alike: str) -> None:
    assert fold(text) == fold(alike)


@pytest.mark.parametrize(("text", "other"), [("가", "각"), ("é", "e"), ("e\u0300\u0301", "e\u0301\u0300"), ("ı", "i")])
def test_what_is_not_alike_stays_different(text: str, other: str) -> None:
    assert fold(text) != fold(other)


def test_ignorable_characters_are_those_of_the_unicode_character_database() -> None:
    # The derivation in DerivedCoreProperties.txt: format characters but for visible ones, and Other_Default_Ignorable.
    visible = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
    visible |= {*range(0xFFF9, 0xFFFC), *range(0x13430, 0x13440)}
    expected = {ord(character) for character in ALL if category(character) == "Cf"} - visible
    expected |= {0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2065, 0x3164, 0xFFA0}
    expected |= {*range(0xFE00, 0xFE10), *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000)}
    assert {ord(character) for character in ALL if is_ignorable(character)} == expected


def test_the_plain_fold_to_their_casefold_whatever_stands_beside_them() -> None:
    plain = [character for character in ALL if is_plain(character)]
    assert len(plain) > 40_000
    for character in plain:
        assert fold_character.__wrapped__(character) == character.casefold()
        assert len(character.casefold()) == 1
        pending = Pending()
        assert pending.push(character.casefold(), 0) == [(character.casefold(), 0, 1)]


def test_folding_is_stable() -> None:
    for character in ALL:
        folded = fold(character)
        assert fold(folded) == folded, hex(ord(character))


@given(st.text(st.one_of(st.sampled_from(ALPHABET), st.characters(exclude_categories=["Cs"]))))
def test_canonically_equivalent_texts_fold_alike(text: str) -> None:
    # But for the iota subscript, which casefolds to a letter: only marks written after it stand elsewhere.
    text = normalize("NFD", text)
    assert fold(normalize("NFC", text)) == fold(text)


@given(st.text(st.sampled_from(ALPHABET)))
def test_it_agrees_with_the_oracle(text: str) -> None:
    assert fold(text) == oracle.string(text)


@given(st.text(st.sampled_from(ALPHABET)), st.text(st.sampled_from(ALPHABET)))
def test_what_is_decided_stays(text: str, more: str) -> None:
    def decided(text: str) -> list[folding.Placed]:
        pending = Pending()
        return [
            placed
            for index, character in enumerate(text)
            for symbol in fold_character(character)
            for placed in pending.push(symbol, index)
        ]

    before = decided(text)
    assert decided(text + more)[: len(before)] == before


def test_a_run_of_marks_is_cut_so_that_it_costs_linear_time() -> None:
    marks = "\u0301" * MAX_MARKS + "\u0323"
    assert fold("a" + marks) == "a" + marks
    assert fold("a" + marks[1:]) == "a\u0323" + marks[1:-1]
    assert combining("\u0323") < combining("\u0301")

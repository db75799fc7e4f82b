from unicodedata import category, combining, normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.policies.folding import fold, fold_character, fold_plain, is_ignorable, plain_end, white_end
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
        ("ŁØĐĦ ǿ", "l\u0335o\u0338d\u0335h\u0335 o\u0338\u0301"),
        ("e\u0301\u0323", "e\u0323\u0301"),
        ("night\u200bing\u00adale", "nightingale"),
        ("\u1112\u1161\u11ab", "한"),
        ("하\u11ab", "한"),
        ("ㄱㅏ", "가"),
        ("ﾊﾞ", "バ"),
        ("㎏", "kg"),
        ("a\u034f\u0323", "ạ"),
        ("a\x00b\x1b\x7f\x9fc\ufff9\ufffa\ufffb", "abc"),
        ("\ta\n \u3000b\x85\u2028\xa0", " a b "),
        ("x\u2010y\u2011z\u2014\u2212\uff0d\ufe58\u207b", "x-y-z-----"),
        ("don\u2019t don\u2018t don\xb4t don\u02bct don\uff07t \u0149", "don't don't don't don't don't 'n"),
        ("\u201cno\u201d \u2033", "\"no\" ''"),
    ],
)
def test_look_alikes_are_equal(text: str, alike: str) -> None:
    assert fold(text) == fold(alike)


@pytest.mark.parametrize(
    ("text", "other"),
    [("가", "각"), ("é", "e"), ("e\u0300\u0301", "e\u0301\u0300"), ("ı", "i"), ("ł", "l"), ("a b", "ab")],
)
def test_what_is_not_alike_stays_different(text: str, other: str) -> None:
    assert fold(text) != fold(other)


def test_ignorable_characters_are_those_of_the_unicode_character_database_and_controls() -> None:
    # The derivation in DerivedCoreProperties.txt: format characters but for visible ones, and Other_Default_Ignorable.
    visible = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD, *range(0x13430, 0x13440)}
    expected = {ord(character) for character in ALL if category(character) == "Cf"} - visible
    expected |= {0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2065, 0x3164, 0xFFA0}
    expected |= {*range(0xFE00, 0xFE10), *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000)}
    assert {ord(character) for character in ALL if is_ignorable(character)} == expected
    expected |= {ord(character) for character in ALL if category(character) == "Cc"} - {*range(9, 14), 0x85}
    assert {ord(character) for character in ALL if not fold_character(character)} >= expected


def test_white_space_is_that_of_the_unicode_character_database() -> None:
    # White_Space, from PropList.txt.
    expected = {*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}
    assert {ord(character) for character in ALL if fold_character(character) == " "} == expected
    assert all(white_end(f"a{chr(code)}\t b", 1) == 4 for code in expected)


def test_dashes_of_one_stroke_are_hyphens() -> None:
    others = set("\u1400\u2e17\u2e1a\u2e40\u2e5d\u301c\u3030\u30a0")  # of two strokes, waved, dotted
    assert {character for character in ALL if category(character) == "Pd" and fold(character) != "-"} == others


def test_the_plain_fold_to_their_casefold_whatever_stands_beside_them() -> None:
    plain = [character for character in ALL if plain_end(character, 0)]
    assert len(plain) > 40_000
    for character in plain:
        assert fold_character.__wrapped__(character) == character.casefold()
        assert len(character.casefold()) == 1
        assert fold(f"x{character}x") == f"x{character.casefold()}x"
        assert fold(f"\u1100{character}") == f"\u1100{character.casefold()}"
        assert fold(f"가{character}") == f"가{character.casefold()}"
    assert (plain_end("가나", 0), plain_end("각가", 0), plain_end("가\u11a8", 0)) == (1, 1, 0)


def test_the_accented_fold_to_a_letter_and_accents() -> None:
    accented = [
        character for character in ALL if plain_end(character, 0, accented=True) and not plain_end(character, 0)
    ]
    assert len(accented) > 500
    for character in accented:
        letter, *marks = [*fold(character)]
        assert (fold_plain(character), combining(letter)) == (letter, 0), hex(ord(character))
        assert marks
        assert all(map(combining, marks))


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

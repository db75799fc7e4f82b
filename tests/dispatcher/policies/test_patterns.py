"""Regular expressions in a stream. The oracle is `re` itself, asked at every place of the whole text."""

import itertools
import random
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dispatcher.policies.expressions import Program, UnusableExpressionError
from dispatcher.policies.machine import ITEMS_IN_ROOM, Machine, Pattern, TooComplexError
from dispatcher.policies.matches import Action, Match, Rule
from dispatcher.policies.patterns import PatternSet, PatternStream
from dispatcher.policies.rules import PatternsPolicy, RuleSet
from tests.dispatcher.policies.strategies import splits

BEYOND = Rule("names", "stop", "beyond")


def rule(number: int = 1, action: Action = "redact") -> Rule:
    return Rule("names", action, f"pattern {number}")


def stream(*expressions: str, action: Action = "redact", cap: int | None = None, stops: bool = False) -> PatternStream:
    beyond = BEYOND if stops else None
    return PatternSet(
        [Pattern(each, rule(number, action), cap, beyond) for number, each in enumerate(expressions, 1)]
    ).stream()


def read(reader: PatternStream, text: str, size: int = 1) -> list[Match]:
    found = [match for at in range(0, len(text), size) for match in reader.feed(text[at : at + size])]
    return [*found, *reader.end()]


def covered(found: list[Match]) -> set[int]:
    return {index for match in found for index in range(match.start, match.end)}


def marked(text: str, found: list[Match]) -> str:
    return "".join("#" if index in covered(found) else character for index, character in enumerate(text))


@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize(
    ("expression", "text", "shown"),
    [
        (r"\d{4}", "in 2024, 12345", "in ####, #####"),  # every match counts, also one within another
        (r"sk-[a-z0-9]{3,}", "sk-ab sk-abc0!", "sk-ab #######!"),
        (r"<.*?>", "<a> b <c>", "### b ###"),
        (r"<.*>", "<a> b <c> d", "######### d"),
        (r"ab|abc", "abcd", "##cd"),  # as `re` has it: the first that fits
        (r"abc|ab", "abcd abd", "###d ##d"),
        (r"\bcat\b", "cat concat cat's", "### concat ###'s"),
        (r"(?<!\d)\d{3}(?!\d)", "1234 123, 12", "1234 ###, 12"),
        (r"(?<=\$)\d+", "$12 12", "$## 12"),
        (r"(?i)straße", "STRASSE Straße", "STRASSE ######"),
        (r"^a", "aa\na", "#a\na"),
        (r"(?m)^a", "aa\na", "#a\n#"),
        (r"a$", "aa\na", "a#\n#"),
        (r"a\Z", "aa\na", "aa\n#"),
        (r"[A-Z]{2}", "ab AB ＡＢ", "ab ## ##"),
        (r"pass(word)?", "pass passwo password", "#### ####wo ########"),
        (r"(?s)a.b", "a\nb", "###"),
        (r"a.b", "a\nb", "a\nb"),
        (r"(?:a|b)*c", "abxabc c", "abx### #"),
        (r"[^\W\d_]+!", "é1ü!", "é1##"),
        (r"x(?=\s|$)", "xx x,x", "x# x,#"),
        (r"a(?!b)", "ab ac a", "ab #c #"),
        (r"(a*)*b", "aaaab", "#####"),
    ],
)
def test_what_an_expression_matches(expression: str, text: str, shown: str, size: int) -> None:
    assert marked(text, read(stream(expression), text, size)) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("12\u200b34", "#####"),
        ("\u200b1234\u200b", "\u200b####\u200b"),
        ("１２３４", "####"),
        ("1\u00ad2３\u2060\u20604!", "#######!"),
        ("١٢٣٤", "####"),  # a digit is a digit in every script
        ("123\u20604\u2060 5", "#####\u2060 5"),
    ],
)
def test_ignorable_characters_and_width_hide_nothing(text: str, shown: str) -> None:
    for size in (1, 2, 100):
        assert marked(text, read(stream(r"\d{4}"), text, size)) == shown


@pytest.mark.parametrize(
    ("expression", "text", "held"),
    [
        (r"sk-\w{5}", "a sk-12", 5),
        (r"sk-\w{5}", "a sk 12", 0),
        (r"\d+", "a 12", 0),  # so far it is decided, whatever follows
        (r"\d+!", "a 12", 2),
        (r"\bcat\b", "concat", 0),
        (r"\bcat\b", "a cat", 3),
        (r"\bcat\b", "a cats", 0),
        (r"a(?!b)", "xa", 1),
        (r"ab?c", "xaab\u200b", 3),
        (r"(?i)hello world", "say HELLO W", 7),
        (r"\w+", "a b\u00ad", 1),  # invisible: within the match, if it goes on
        (r"\w+", "a b\u00ad ", 0),
        (r"a(?:bc)?", "a\u00adb", 2),
        (r"\d+!", "a 1\ufff92", 3),
        (r"\d+\x1b!", "é 1\x1b", 2),  # a control character is seen, whatever stands beside it
        (r"\d+!", "é 1\x1b", 0),
    ],
)
def test_held_is_what_can_still_become_a_match(expression: str, text: str, held: int) -> None:
    for size in (1, 3, 100):
        reader = stream(expression)
        for at in range(0, len(text), size):
            reader.feed(text[at : at + size])
        assert reader.length - reader.hold() == held


def test_a_match_that_stops_ends_the_reading_at_the_first_character_that_completes_one() -> None:
    for size in (1, 2, 100):
        reader = stream(r"b+c", r"cd", r"\d\b", action="stop")
        assert read(reader, "abbcd", size)[0] == Match(1, 4, rule(1, "stop"))
        assert reader.length == 4
        reader = stream(r"\d\b", action="stop")
        assert read(reader, "12, 3", size) == [Match(1, 2, rule(1, "stop"))]
        assert reader.length == 3, "the comma shows that no digit follows"


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("[", "does not compile: unterminated character set at position 0"),
        ("a*", "can match nothing at all"),
        ("^|a", "can match nothing at all"),
        (r"(a)\1", "has a back-reference, which cannot be decided while the text comes"),
        (r"(a)?(?(1)b|c)", "has a condition on a group, which"),
        ("(?>a)", "has an atomic group, which"),
        ("a++", "has a possessive quantifier, which"),
        ("a(?!bc)", "looks at more than one character beside a match, which"),
        ("(?<=ab)c", "looks at more than one character beside a match, which"),
        ("(?:x{200}){200}", "is too large: its repeats expand to more than 10000 parts"),
        ("(" * 2000 + "a" + ")" * 2000, "does not compile: "),
    ],
)
def test_what_cannot_be_used_says_why(expression: str, reason: str) -> None:
    with pytest.raises(UnusableExpressionError) as raised:
        Machine([Pattern(expression, rule())])
    assert str(raised.value).startswith(reason)


def test_alternatives_that_end_alike_share_their_ends() -> None:
    expression = "|".join(rf"{letter}-\d{{400}}(?:[_-]*\d)*\b" for letter in "abcdefgh")
    program = Program()
    program.add(expression)
    assert len(program.nodes) < 450
    text = f"a-{'1' * 400} b-{'2' * 399} h-{'3' * 400}_4"
    assert covered(read(stream(expression), text)) == found_by_re(expression, text)


# ---- caps


def test_what_is_undecided_beyond_the_cap_stops() -> None:
    for size in (1, 3, 7, 100):
        reader = stream("a[^b]*b", cap=5, stops=True)
        assert read(reader, "xacd\u200bef", size) == []
        assert read(reader, "g and on", size) == [Match(1, 8, BEYOND)]
        assert reader.length == 8
        reader = stream("a[^b]*b", cap=5, stops=True)
        assert read(reader, "acdefb acdeb", size) == [Match(0, 6, rule()), Match(7, 12, rule())]


def test_what_is_undecided_beyond_the_cap_is_released() -> None:
    for size in (1, 3, 7, 100):
        reader = stream("a[^b]*b", cap=5)
        for at in range(0, 20, size):
            reader.feed(("ac" + "x" * 18)[at : at + size])
        assert reader.length - reader.hold() == 5
        assert read(reader, "xb", size) == [Match(0, 22, rule())], "what is held still goes"


def test_what_is_decided_does_not_count_to_the_cap() -> None:
    reader = stream(r"\d+", cap=3, stops=True)
    assert marked("1234567 8", read(reader, "1234567 8")) == "####### #"
    reader = stream(r"\d+(,\d+)*", cap=3, stops=True)
    assert marked("1234,567,", read(reader, "1234,567,")) == "########,"


# ---- bounded time


@pytest.mark.parametrize("expression", [r"(a+)+$", r"(a|a)*b", r"(a|aa)+\Z!", r"(.*)*x", r"(\w+\s?)+#"])
def test_what_makes_other_engines_backtrack_without_end_does_not_here(expression: str) -> None:
    reader = stream(expression)
    found = read(reader, "a" * 5000 + "!", 50)
    assert covered(found) == set()


def test_steps_are_remembered_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.policies.machine.MAX_STEPS", 10)
    monkeypatch.setattr("dispatcher.policies.machine.MAX_SHORT_CUTS", 10)
    text = "".join(f"a{chr(code)}b" for code in range(0x4E00, 0x4E40))
    assert covered(read(stream("[a-c]+.{3}b"), text)) == covered(read(stream("[a-c]+.{3}b"), text, 1000))


def test_no_more_is_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.policies.machine.MAX_STEPS", 100)
    patterns = PatternSet([Pattern("a.{0,300}b", rule())])
    read(patterns.stream(), "".join(random.Random(1).choices("ab", k=600)))
    waiting, kept = [patterns.machine.start, *patterns.machine.known.values()], {}
    while waiting:
        configuration = waiting.pop()
        if id(configuration) not in kept:
            kept[id(configuration)] = len(configuration.begun)
            waiting += [step.to for step in (*configuration.steps.values(), *configuration.values())]
    assert sum(kept.values()) < 100 * ITEMS_IN_ROOM + 2 * 300, "the last of them may be one too many"


def test_more_possibilities_than_can_be_followed_are_refused_while_reading() -> None:
    reader = stream("(?:a.{0,60}){0,60}b")
    with pytest.raises(TooComplexError):
        read(reader, "a" * 3000)


# ---- what `re` finds at every place

LETTERS = "abc \n"
INVISIBLE = "\u00ad\u200d"
PROBES = ["", *("".join(letters) for length in (1, 2, 3) for letters in itertools.product("abc ", repeat=length))]

atoms = st.sampled_from(["a", "b", "c", " ", ".", "[ab]", "[^a]", r"\w", r"\s", "(?i:A)", "(?s:.)"])
before = st.sampled_from(["", r"\b", r"\B", "^", "(?m:^)", "(?<!a)", "(?<=b)"])
after = st.sampled_from(["", r"\b", r"\B", "(?m:$)", r"\Z", "(?!b)", r"(?=a|\Z)", r"(?!\w)"])
quantifiers = st.sampled_from(["?", "*", "+", "{2}", "{1,2}", "??", "*?", "+?", "{1,2}?"])


def combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join).map("(?:{})".format),
        st.tuples(inner, quantifiers).map(lambda parts: f"(?:{parts[0]}){parts[1]}"),
    )


def anchored(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return combined(inner) | st.tuples(before, inner).map("".join) | st.tuples(inner, after).map("".join)


plain = st.recursive(atoms, combined, max_leaves=5)
expressions = st.recursive(atoms, anchored, max_leaves=5)
texts = st.text(LETTERS, max_size=10)


def found_by_re(expression: str, text: str) -> set[int]:
    """The union of what it matches from every place."""
    compiled = re.compile(expression)
    matches = [compiled.match(text, start) for start in range(len(text))]
    return {index for match in matches if match for index in range(*match.span())}


def usable(expression: str) -> str:
    try:
        Machine([Pattern(expression, rule())])
    except UnusableExpressionError:
        assume(False)
    return expression


@given(st.lists(expressions, min_size=1, max_size=3), texts, st.data())
def test_what_is_found_is_what_re_finds_whatever_the_split(several: list[str], text: str, data: st.DataObject) -> None:
    reader = stream(*map(usable, several))
    found = [match for piece in data.draw(splits(text)) for match in reader.feed(piece)] + [*reader.end()]
    for number, expression in enumerate(several, 1):
        assert covered([match for match in found if match.rule == rule(number)]) == found_by_re(expression, text)


@given(before, plain, after, texts, st.data())
def test_held_is_what_some_continuation_decides_otherwise_than_another(
    before: str, plain: str, after: str, text: str, data: st.DataObject
) -> None:
    expression = usable(before + plain + after)
    reader = stream(expression)
    for piece in data.draw(splits(text)):
        reader.feed(piece)
    fates = [found_by_re(expression, text + probe) for probe in PROBES]
    undecided = [index for index in range(len(text)) if len({index in fate for fate in fates}) > 1]
    assert reader.hold() <= min(undecided, default=len(text))
    if reader.hold() < min(undecided, default=len(text)):  # it may take more than the probes to become a match
        longer = map("".join, itertools.product(PROBES, PROBES[1:], PROBES[1:]))  # "(?: aaa){2}" takes seven
        assert any(reader.hold() in found_by_re(expression, text + probe) for probe in longer)


@given(before, plain, texts, st.data())
def test_a_stop_comes_with_the_character_that_completes_the_first_match(
    before: str, plain: str, text: str, data: st.DataObject
) -> None:
    expression = usable(before + plain)
    reader = stream(expression, action="stop")
    found = [match for piece in data.draw(splits(text)) for match in reader.feed(piece)]
    matched = [length for length in range(len(text) + 1) if found_by_re(expression, text[:length])]
    assert bool(found) == bool(matched)
    if found:
        assert reader.length == matched[0]
        assert min(match.start for match in found) == min(found_by_re(expression, text[: matched[0]]))


@given(expressions, texts, st.data())
def test_nothing_stops_that_might_still_be_no_match(expression: str, text: str, data: st.DataObject) -> None:
    reader = stream(usable(expression), action="stop")
    found = [match for piece in data.draw(splits(text)) for match in reader.feed(piece)]
    if found:
        assert all(found_by_re(expression, text[: reader.length] + probe) for probe in PROBES)
    else:
        assert bool(reader.end()) == bool(found_by_re(expression, text))


@given(st.lists(expressions, min_size=1, max_size=2), st.text(LETTERS + INVISIBLE, max_size=12), st.data())
def test_what_users_see_does_not_depend_on_the_split(several: list[str], text: str, data: st.DataObject) -> None:
    seen = [index for index, character in enumerate(text) if character not in INVISIBLE]
    hidden: set[int] = set()
    for expression in map(usable, several):
        compiled = re.compile(expression)
        for at in range(len(seen)):
            if match := compiled.match("".join(text[index] for index in seen), at):
                hidden.update(range(seen[match.start()], seen[match.end() - 1] + 1))
    gate = RuleSet([PatternsPolicy("p", tuple(several), action="redact", replacement="#")]).gate(0.0)
    gate.resume(0)
    shown = "".join(gate.content(piece, 1.0).text for piece in data.draw(splits(text))) + gate.end(1.0).text
    expected = "".join("\0" if index in hidden else character for index, character in enumerate(text))
    assert shown == re.sub("\0+", "#", expected)

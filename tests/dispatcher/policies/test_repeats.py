import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.policies.matches import Match, Rule
from dispatcher.policies.outcomes import Violation
from dispatcher.policies.repeats import MAX_BLOCK, STRIDE, Repeats, RepeatStream
from dispatcher.policies.rules import BudgetPolicy, RuleSet
from tests.dispatcher.policies.strategies import splits

RULE = Rule("limits", "stop", "max_repeats exceeded")


def stopped(text: str, most: int = 3, length: int = 10, size: int = 1000) -> int | None:
    """After so many characters; None: never."""
    stream = RepeatStream(Repeats(most, length, RULE))
    for at in range(0, len(text), size):
        if found := stream.feed(text[at : at + size]):
            assert found == [Match(stream.length, stream.length, RULE)]
            return stream.length
    assert stream.end() == ()
    assert stream.hold() == stream.length == len(text)
    return None


SENTENCE = "I am sorry, I cannot say that. "  # 31 characters


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    ("text", "after"),
    [
        (SENTENCE * 3 + "But now.", None),
        (SENTENCE * 10, 128),  # four times are 124
        ("0123456789" + SENTENCE * 10, 160),
        ("-" * 39 + "|" + "-" * 39, None),  # four blocks of 10 are 40
        ("-" * 100, 64),
        ("ab " * 100, 64),
        ("".join(f"{number}. one more line\n" for number in range(50)), None),
        ("x" * MAX_BLOCK, 64),
    ],
)
def test_a_block_may_come_so_often(text: str, after: int | None, size: int) -> None:
    assert stopped(text, size=size) == after


def test_a_long_block_that_holds_the_same_words_twice() -> None:
    block = "".join(f"{number} the same old words again, and " for number in range(40))
    assert MAX_BLOCK > len(block) > 1000
    assert stopped(block * 4 + block[:STRIDE]) == -(-len(block) * 4 // STRIDE) * STRIDE
    assert stopped(block * 3 + block[:-STRIDE]) is None


def test_blocks_longer_than_the_longest_are_not_looked_for() -> None:
    block = "".join(f"{number:04}" for number in range(MAX_BLOCK // 4 + 1))
    assert stopped(block * 10) is None


def exceeded(text: str, most: int, length: int) -> int | None:
    """Naively: by every block of every length."""
    for end in range(0, len(text) + 1, STRIDE):
        for block in range(length, end // (most + 1) + 1):
            if text[:end].endswith(text[end - block : end] * (most + 1)):
                return end
    return None


@given(st.text("ab", max_size=20), st.text("ab", min_size=1, max_size=40), st.integers(1, 8), st.data())
def test_loops_are_found_whatever_the_split(before: str, block: str, times: int, data: st.DataObject) -> None:
    text = before + block * times + "c"
    stream = RepeatStream(Repeats(2, 12, RULE))
    after = next((stream.length for piece in data.draw(splits(text)) if stream.feed(piece)), None)
    assert after == exceeded(text, 2, 12)


def test_content_and_each_thinking_step_are_watched() -> None:
    rules = RuleSet([BudgetPolicy("limits", (), Repeats(3, 10, RULE))])
    gate = rules.gate(0.0)
    release = gate.content(SENTENCE * 10, 1.0)
    assert release.text == (SENTENCE * 10)[:128]
    assert release.violation == Violation("limits", "PolicyViolation", "max_repeats exceeded in content")
    gate = rules.gate(0.0)
    for _ in range(3):
        assert not gate.thought("Planning", SENTENCE, 1.0).violation
        assert not gate.thought("Checking", SENTENCE, 1.0).violation
    assert gate.thought("Planning", SENTENCE + SENTENCE[:4], 1.0).violation


def test_after_a_restart_it_is_counted_on() -> None:
    rules = RuleSet([BudgetPolicy("limits", (), Repeats(3, 10, RULE))])
    gate = rules.gate(0.0)
    gate.content(SENTENCE * 3, 1.0)
    gate.resume(93)
    assert gate.content(SENTENCE + SENTENCE[:4], 1.0).violation

"""Thinking in tags, however the text is split."""

import re

from hypothesis import given
from hypothesis import strategies as st

from commander.backends.texts import ThinkTags

TEXTS = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<thought>", "</thought>", "<thi", "nk>", "</", "<", " ", "\n", "a", "</thinking>"]
    )
).map("".join)


_BEGINNING = re.compile(r"\s*<(think|thinking|thought|/think)>")


def split(*parts: str) -> tuple[str, str]:
    """Words and thoughts."""
    tags = ThinkTags()
    pieces = [piece for part in parts for piece in tags.add(part)] + tags.end()
    return "".join(text for text, thought in pieces if not thought), "".join(
        text for text, thought in pieces if thought
    )


def expected(text: str) -> tuple[str, str]:
    """As the rule says it, of a whole text."""
    thoughts, begun = "", _BEGINNING.match(text)
    if begun is None:
        return text, ""
    while begun is not None:
        text, end = text[begun.end() :], ">"
        if begun[1] != "/think":
            thought, end, text = text.partition(f"</{begun[1]}>")
            thoughts += thought
        begun = _BEGINNING.match(text) if end else None
    return text.lstrip(), thoughts


@given(TEXTS, st.data())
def test_words_and_thoughts_are_the_same_however_they_are_split(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    parts = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert split(*parts) == expected(text)


def test_only_what_may_become_a_tag_is_held_back() -> None:
    tags = ThinkTags()
    assert [[piece.text for piece in tags.add(part)] for part in ("\n<th", "e", "<think>")] == [
        [],
        ["\n<the"],
        ["<think>"],
    ]
    tags = ThinkTags()
    pieces = [[piece.text for piece in tags.add(part)] for part in ("<think>a", "b</", "c</think", ">d")]
    assert pieces == [["a"], ["b"], ["</c"], ["", "d"]]

"""Server-sent events, however their bytes are split."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commander.backends.errors import ProviderError
from commander.backends.sse import MAX_EVENT_BYTES, Decoder, Event

# None is a chunk by itself (below).
LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n{"), max_size=6)
EVENTS = st.lists(st.tuples(LINES, st.lists(LINES, min_size=1, max_size=3)), max_size=4)


def decoded(*parts: bytes) -> list[Event]:
    decoder = Decoder()
    return [event for part in parts for event in decoder.feed(part)] + list(decoder.end())


@given(EVENTS, st.sampled_from(["\n", "\r", "\r\n"]), st.sampled_from(["", "\ufeff"]), st.data())
def test_events_are_the_same_however_they_are_split(
    sent: list[tuple[str, list[str]]], line_end: str, mark: str, data: st.DataObject
) -> None:
    blocks = [
        [f"event: {name}", *(f"data: {line}" for line in lines), ": a comment", "id: 7", ""] for name, lines in sent
    ]
    whole = (mark + "".join(line + line_end for block in blocks for line in block)).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    parts = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert decoded(*parts) == [Event(name, "\n".join(lines)) for name, lines in sent]


def test_nothing_between_the_two_of_a_line_end() -> None:
    assert decoded(b"data: a\r", b"", b"\ndata: b\r\n\r\n") == [Event("", "a\nb")]


def test_chunks_that_no_blank_line_parts() -> None:
    """As each comes, not at the end."""
    decoder = Decoder()
    first = list(decoder.feed(b'data: {"a": 1}\ndata: {"a": 2}\n'))
    assert first == [Event("", '{"a": 1}')]
    second = list(decoder.feed(b"event: error\ndata: {}\ndata: [DONE]\n"))
    assert second == [Event("", '{"a": 2}'), Event("error", "{}")]
    assert list(decoder.end()) == [Event("", "[DONE]")]


def test_json_over_several_lines_is_one_event() -> None:
    assert decoded(b'data: {\ndata: "a": {}\ndata: }\n\n') == [Event("", '{\n"a": {}\n}')]


@given(st.lists(st.binary(max_size=8)))
def test_no_bytes_raise(parts: list[bytes]) -> None:
    assert decoded(*parts) == decoded(b"".join(parts))


@pytest.mark.parametrize("parts", [[b"data: " + b"x" * MAX_EVENT_BYTES], [b"data: " + b"x" * 1000 + b"\n"] * 1100])
def test_an_event_is_bounded(parts: list[bytes]) -> None:
    with pytest.raises(ProviderError, match="limit"):
        decoded(*parts)


def test_many_small_events_are_not() -> None:
    assert len(decoded(*([b"data: " + b"x" * 1000 + b"\n\n"] * 1100))) == 1100


def test_a_long_line_in_many_parts_is_looked_through_once() -> None:
    """Looked through again with each part, this line of 500,000 would take minutes."""
    assert decoded(b"data: ", *[b"x"] * 500_000, b"\n\n") == [Event("", "x" * 500_000)]

"""What goes on of a request's tracestate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.spans import LONG_MEMBER, MAX_MEMBERS, MAX_TRACESTATE, read_tracestate, trace_context

KEYS = st.from_regex(r"[a-z][a-z0-9_\-*/]{0,4}|[a-z0-9]{1,3}@[a-z]{1,3}", fullmatch=True)
VALUES = st.tuples(st.integers(0, 200), st.sampled_from("a ;:Z9")).map(lambda drawn: drawn[0] * drawn[1] + "v")
STATES = st.dictionaries(KEYS, VALUES, max_size=MAX_MEMBERS).map(lambda given: [f"{k}={v}" for k, v in given.items()])


@given(STATES, st.integers(0, MAX_MEMBERS))
def test_members_go_on_in_their_order_as_far_as_there_is_room(members: list[str], cut: int) -> None:
    state = read_tracestate([", ".join(members[:cut]), "\t,".join(members[cut:])])
    kept = state.split(",") if state else []
    assert kept == [member for member in members if member in kept]
    assert len(state) <= MAX_TRACESTATE
    assert read_tracestate([state]) == state
    left = [member for member in members if member not in kept]
    if left:
        assert len(",".join(members)) > MAX_TRACESTATE
        assert min(map(len, left)) > LONG_MEMBER or max(map(len, kept), default=0) <= LONG_MEMBER, "long ones go first"


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    state = read_tracestate([text])
    assert len(state) <= MAX_TRACESTATE
    assert state.isascii()


@pytest.mark.parametrize(
    "given",
    [
        "a",
        "a=",
        "=1",
        "A=1",
        "a=1=2",
        "a=\x01",
        "a=é",
        "a=1,a=2",
        "1=2",
        "a@=1",
        f"{'a' * 257}=1",
        f"a={'1' * 257}",
        ",".join(f"k{n}=1" for n in range(MAX_MEMBERS + 1)),
    ],
)
def test_a_malformed_one_is_dropped_whole(given: str) -> None:
    assert read_tracestate([given]) == read_tracestate(["good=1", given]) == ""


def test_a_trace_of_its_own_has_no_state() -> None:
    assert trace_context("00-none", "s", "a=1").state == ""

"""Every (state, packet kind) pair of the table."""

import pytest

from shared.conversation import DOWNSTREAM, TABLE, UPSTREAM, State, Violation, kind_of, next_state
from shared.records import Content, Error, Open, Stopped, Thought, ToolCall, Unknown

PAIRS = [(state, kind) for state in State for kind in (*UPSTREAM, *DOWNSTREAM)]


@pytest.mark.parametrize(("state", "kind"), PAIRS)
def test_every_pair_has_a_next_state_or_is_a_violation_with_a_code(state, kind):
    if (state, kind) in TABLE:
        assert next_state(state, kind) is TABLE[state, kind]
    else:
        with pytest.raises(Violation) as violation:
            next_state(state, kind)
        assert violation.value.code == ("ended" if state in (State.ENDED, State.GIVEN) else "unknown_session")


def test_a_session_can_be_opened_again_and_closed_from_everywhere():
    assert {next_state(state, "open") for state in State} == {State.OPENING}
    assert {next_state(state, "closed") for state in State} == {State.IDLE}


def test_nothing_is_said_before_welcome_or_after_an_end():
    for state in (State.IDLE, State.OPENING, State.ENDED, State.GIVEN):
        for kind in ("say", "end", "give", "stopped"):
            assert (state, kind) not in TABLE


def test_every_state_is_reached_from_idle():
    reached, border = {State.IDLE}, [State.IDLE]
    while border:
        state = border.pop()
        for (origin, _), target in TABLE.items():
            if origin is state and target not in reached:
                reached.add(target)
                border.append(target)
    assert reached == set(State)


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (Thought("", ""), "say"),
        (Content("x"), "say"),
        (Content("", is_finish=True), "end"),
        (ToolCall("t", "{}"), "say"),
        (Unknown(), "say"),
        (Error("x"), "end"),
        (Error("x", retryable=True), "give"),
        (Stopped("s"), "stopped"),
        (Open("c"), "open"),
    ],
)
def test_kinds(payload, kind):
    assert kind_of(payload) == kind

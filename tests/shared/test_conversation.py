"""Every (phase, packet kind) pair of the table."""

from typing import get_args

import pytest

from shared import records
from shared.conversation import (
    DOWNSTREAM,
    TABLE,
    UPSTREAM,
    Kind,
    Phase,
    ProtocolError,
    kind_of,
    kind_of_signal,
    next_phase,
)
from shared.records import Content, Error, Open, Stopped, Thought, ToolCall, Unknown

PAIRS = [(phase, kind) for phase in Phase for kind in get_args(Kind)]


@pytest.mark.parametrize(("phase", "kind"), PAIRS)
def test_every_pair_has_a_next_phase_or_is_an_error_with_a_code(phase, kind):
    if (phase, kind) in TABLE:
        assert next_phase(phase, kind) is TABLE[phase, kind]
    else:
        with pytest.raises(ProtocolError) as error:
            next_phase(phase, kind)
        assert error.value.code == ("ended" if phase in (Phase.ENDED, Phase.GIVEN) else "unknown_session")


def test_each_kind_is_of_one_direction_or_silence():
    assert sorted([*UPSTREAM, *DOWNSTREAM, "lost"]) == sorted(get_args(Kind))


def test_a_session_can_be_opened_again_closed_and_lost_from_everywhere():
    assert {next_phase(phase, "open") for phase in Phase} == {Phase.OPENING}
    assert {next_phase(phase, "closed") for phase in Phase} == {Phase.IDLE}
    assert {next_phase(phase, "lost") for phase in Phase} == {Phase.IDLE}


def test_nothing_is_said_before_welcome_or_after_an_end():
    for phase in (Phase.IDLE, Phase.OPENING, Phase.ENDED, Phase.GIVEN):
        for kind in ("say", "end", "give", "stopped"):
            assert (phase, kind) not in TABLE


def test_every_phase_is_reached_from_idle():
    reached, border = {Phase.IDLE}, [Phase.IDLE]
    while border:
        phase = border.pop()
        for (origin, _), target in TABLE.items():
            if origin is phase and target not in reached:
                reached.add(target)
                border.append(target)
    assert reached == set(Phase)


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


SIGNALS: list[tuple[records.DownstreamSignal, Kind | None]] = [
    (records.Welcome(0, 1, 1), "welcome"),
    (records.Ack(1), "ack"),
    (records.ToolResult("t", "{}"), "tool_result"),
    (records.Stop("UserCancel"), "stop"),
    (records.Closed("gap"), "closed"),
    (records.Assignment("s", 1, "a"), None),
    (records.Drain(""), None),
    (records.Unknown(), None),
]


def test_kinds_of_signals():
    assert {type(signal) for signal, _ in SIGNALS} == set(get_args(records.DownstreamSignal))
    assert [kind_of_signal(signal) for signal, _ in SIGNALS] == [kind for _, kind in SIGNALS]

"""What counts as left over."""

from collections import Counter

from tests.faults.quiet import LEFT_BY_GRPC, SLACK_DESCRIPTORS, Holding, beyond

IDLE = Holding(10, Counter({"Stream._read": 1, LEFT_BY_GRPC: 1}), Counter({"LogReader": 1}))


def test_what_is_held_beyond_what_an_idle_program_holds_is_named() -> None:
    now = Holding(11 + SLACK_DESCRIPTORS, Counter({"Stream._read": 2, "_serve": 1}), Counter({"LogReader": 2}))
    assert beyond("Commanders", IDLE, IDLE, 1) == []
    assert beyond("Commanders", now, IDLE, 1) == [
        "Commanders hold 2 LogReader",
        "Commanders have 2 tasks Stream._read, 1 when idle",
        "Commanders have 1 tasks _serve, 0 when idle",
        "Commanders have 15 descriptors open, 10 when idle",
    ]
    assert len(beyond("Commanders", now, IDLE, 2)) == 3, "descriptors are of two programs"


def test_a_task_of_grpcs_is_no_stream_of_ours() -> None:
    assert beyond("Commanders", Holding(10, Counter({"Stream._read": 1, LEFT_BY_GRPC: 2})), IDLE, 1) == []

"""The schedule: the same for the same seed, and everything comes up."""

from typing import get_args

import pytest

from tests.faults.schedule import KINDS, TopologyName, schedule

TOPOLOGIES = get_args(TopologyName)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_seed_decides_all(topology: TopologyName) -> None:
    assert schedule(topology, 7, 50) == schedule(topology, 7, 50)
    assert schedule(topology, 7, 50) != schedule(topology, 8, 50)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_kind_comes_up_within_its_times(topology: TopologyName) -> None:
    faults = schedule(topology, 7, 200)
    assert [fault.number for fault in faults] == list(range(1, 201))
    assert {fault.kind for fault in faults} == KINDS[topology].keys()
    for fault in faults:
        low, high = KINDS[topology][fault.kind].seconds
        assert low <= fault.seconds <= high
        assert all(0 <= fault.of(count) < count for count in (1, 3, 8))


def test_a_short_run_has_as_many_as_it_was_asked_for() -> None:
    assert len(schedule("sqlite", 7, 3)) == 3

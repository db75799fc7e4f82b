"""The session rules, searched: whatever happens in whatever order, no promise breaks, and an end can be reached."""

import pytest

from tests.model.commanders import scripted
from tests.model.scenarios import LOG, WHOLE, Scenario
from tests.model.search import search

SECONDS = 600  # for one search; the largest take about 10


def each(scenarios: dict[str, Scenario]) -> list[object]:
    slow = (pytest.mark.faults, pytest.mark.timeout(SECONDS))
    return [pytest.param(of, id=name, marks=slow if of.slow else ()) for name, of in scenarios.items()]


@pytest.mark.parametrize("scenario", each(LOG))
def test_the_log_keeps_its_promises_to_careless_dispatchers(scenario: Scenario) -> None:
    found = search(scenario.careless())
    assert not found.broken, str(found)
    print(found)


@pytest.mark.parametrize("scenario", each(WHOLE))
def test_the_cores_keep_their_promises_together(scenario: Scenario) -> None:
    with scripted():
        found = search(scenario.whole())
    assert not found.broken, str(found)
    print(found)

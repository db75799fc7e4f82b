"""What rules take is measured, wherever it was spent. Here each look at the clock is a second after the one before."""

import asyncio
import itertools

import pytest
from prometheus_client import CollectorRegistry

from dispatcher.metrics import Metrics
from dispatcher.policies.matches import CHANNELS
from dispatcher.policies.phrases import PhraseSet
from dispatcher.policies.rules import PhrasesPolicy, RuleSet
from dispatcher.policing import timed
from dispatcher.policing.timed import PolicyClock
from shared import turns

SLICES = 3
TEXT = "a" * 7 * (PhraseSet.slice // 8)  # the first slices are an eighth, a quarter, a half


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def policy_clock(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> PolicyClock:
    monkeypatch.setattr(timed, "perf_counter", itertools.count().__next__)
    metrics = Metrics(registry)
    metrics.know(policies=["names"])
    return PolicyClock(RuleSet([PhrasesPolicy("names", ("x",), frozenset(CHANNELS))]), metrics)


def taken(registry: CollectorRegistry) -> list[float | None]:
    """Pieces of text, and seconds."""
    labels = {"policy": "names"}
    return [registry.get_sample_value(f"dispatcher_policy_seconds_{each}", labels) for each in ("count", "sum")]


def test_what_reading_ahead_took_counts_with_what_is_taken_in_next(
    policy_clock: PolicyClock, registry: CollectorRegistry
) -> None:
    gate = policy_clock.gate(0.0)
    gate.resume(0)
    assert len([*gate.read_ahead("content", TEXT)]) == SLICES
    assert taken(registry) == [0, 0]
    gate.content(TEXT, 1.0)
    assert taken(registry) == [1, SLICES + 1 + 1]  # its slices, the look whether there is one more, and taking it in
    gate.content("a", 1.0)
    assert taken(registry) == [2, SLICES + 3]


async def test_a_prompt_counts_once_and_gives_way(
    policy_clock: PolicyClock, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.0)
    other = asyncio.create_task(asyncio.sleep(0))
    await policy_clock.whole("prompt", lambda: [TEXT])
    assert other.done()
    assert taken(registry) == [1, SLICES + 1]

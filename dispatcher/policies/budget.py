"""Limits on one session. Counts and the start come from the log, which is fed through after a restart."""

from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec

Quantity: TypeAlias = Literal["max_seconds", "max_characters", "max_thought_characters", "max_tool_calls"]


class Limit(msgspec.Struct, frozen=True):
    """value: seconds, raw characters or calls; what goes beyond it is a violation."""

    quantity: Quantity
    value: float
    policy: str
    reason: str

    @property
    def detail(self) -> str:
        return f"{self.quantity} = {self.value} exceeded"


class Budget(msgspec.Struct, frozen=True):
    """The strictest limit of each quantity; None: no limit."""

    max_seconds: Limit | None = None
    max_characters: Limit | None = None
    max_thought_characters: Limit | None = None
    max_tool_calls: Limit | None = None


def strictest(limits: Iterable[Limit]) -> Budget:
    chosen: dict[str, Limit] = {}
    for limit in sorted(limits, key=lambda limit: (limit.value, limit.policy)):
        chosen.setdefault(limit.quantity, limit)
    return Budget(**chosen)

"""Tools and toolsets that follow a script."""

import asyncio
from collections.abc import Sequence
from typing import Any

from dispatcher.tools.context import Context
from dispatcher.tools.ports import Offer, Spec, Tool

OBJECT = {"type": "object"}


def spec(name: str, **fields: Any) -> Spec:
    return Spec(name, fields.pop("description", ""), fields.pop("schema", OBJECT), fields.pop("kind", "fake"), **fields)


class FakeTool:
    """Each call ends with the next of `outcomes`: an exception is raised, an event awaited before "true" is the result.
    The last one stays.
    """

    def __init__(self, of: Spec, *outcomes: str | Exception | asyncio.Event) -> None:
        self.spec = of
        self.outcomes = [*(outcomes or ("true",))]
        self.calls: list[Context] = []
        self.running = self.most_running = 0
        self.cancelled = 0

    async def call(self, arguments: dict[str, Any], context: Context) -> str:
        self.calls.append(context)
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        try:
            if isinstance(outcome, Exception):
                raise outcome
            if isinstance(outcome, str):
                return outcome
            await outcome.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return "true"


class FakeToolset:
    """Each run offers the next of `offers`, or raises it, and ends when it is lost."""

    def __init__(self, name: str, *offers: Sequence[Tool] | Exception) -> None:
        self.name = name
        self.offers = [*offers]
        self.offer: Offer
        self.lost = asyncio.Event()
        self.runs = 0
        self.closed = 0

    async def run(self, offer: Offer) -> None:
        self.runs += 1
        self.offer = offer
        given = self.offers.pop(0) if len(self.offers) > 1 else self.offers[0]
        if isinstance(given, Exception):
            raise given
        offer(given)
        try:
            await self.lost.wait()
            self.lost.clear()
        finally:
            self.closed += 1

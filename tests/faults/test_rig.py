"""The whole rig finds planted bugs: with real processes, readers that are wrong and a stream that nobody closes."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import httpx2
import pytest

from tests.faults import quiet
from tests.faults.cluster import cluster
from tests.faults.proxy import Proxy
from tests.faults.reader import Event, Reader, events
from tests.faults.rig import run

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


class Forgetful(Reader):
    """Drops the fifth piece of text that it gets."""

    pieces = 0

    def take(self, event: Event) -> None:
        self.pieces += event.name == "content"
        if event.name != "content" or self.pieces != 5:
            super().take(event)


class Repeating(Reader):
    """Asks for the last event again, as a client that loses count does."""

    def take(self, event: Event) -> None:
        before = self.last_id
        super().take(event)
        if event.name == "content":
            self.last_id = before


async def test_readers_that_lose_or_double_an_event_are_found(tmp_path: Path) -> None:
    wrong = itertools.cycle((Forgetful, Repeating))

    def make(session_id: str, replicas: Sequence[Proxy], chance: random.Random) -> Reader:
        return next(wrong)(session_id, replicas, chance)

    report = await run("sqlite", 1, 1, tmp_path, make)
    assert report.outcomes
    for number in (0, 1):
        assert [text for text in report.violations if f"reader {number} has another text" in text], report.failure()


async def test_a_stream_that_nobody_closes_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with cluster("sqlite", tmp_path) as rig:
        idle = await quiet.baseline(rig)
        monkeypatch.setattr(quiet, "QUIET_SECONDS", 0.0)  # from now on a look is a single one
        assert await quiet.leaks(rig, idle) == []
        async with httpx2.AsyncClient(trust_env=False) as http:
            key = {"Idempotency-Key": "a session that waits"}
            body = {"agent": "nobody", "prompt": "go"}
            created = await http.post(f"{rig.users(0)}/v1/sessions", json=body, headers=key)
        stream = events(rig.readers[0].port, created.json()["events"], "0")
        waiting = asyncio.ensure_future(anext(stream))
        missing = {"LogReader", "dispatcher_event_streams", 'dispatcher_sessions{state="waiting"}'}
        async with asyncio.timeout(20):
            while missing:
                found = await quiet.leaks(rig, idle)
                missing = {each for each in missing if not any(each in text for text in found)}
        waiting.cancel()

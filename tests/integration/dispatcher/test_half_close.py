"""What a peer is told that half-closes at once, before the log has what it sent."""

from collections.abc import AsyncIterator

import pytest

from shared.records import MAX_TEXT_BYTES, Ack, Content, Upstream
from tests.integration.dispatcher.peer import World, serving, until


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with serving() as world:
        yield world


async def test_an_older_peer_learns_why_its_session_was_refused(world: World) -> None:
    peer = world.stream()
    await peer.send(Upstream("older", Content("a")))
    await peer.next(Ack)
    trouble = world.trouble()
    trouble.away = True
    await peer.send(Upstream("", Content("x" * (MAX_TEXT_BYTES + 1), True)))
    await peer.half_close()
    await until(lambda: trouble.asked > 2, "the end is not stored yet, and the half-close was read")
    trouble.away = False
    assert (await peer.status()).name == "INVALID_ARGUMENT"
    assert await world.state("older") == "failed protocol_error"

from collections.abc import AsyncIterator

import pytest

from tests.commander.fake_dispatcher import FakeDispatcher


@pytest.fixture
async def dispatcher() -> AsyncIterator[FakeDispatcher]:
    async with FakeDispatcher().serving() as fake:
        yield fake


@pytest.fixture
async def older() -> AsyncIterator[FakeDispatcher]:
    """An older Dispatcher: no metadata, no Welcome, no Ack."""
    async with FakeDispatcher(metadata=None).serving() as fake:
        yield fake

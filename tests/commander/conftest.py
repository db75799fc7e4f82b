import os
from collections.abc import AsyncIterator

import pytest

from tests import programs
from tests.commander.fake_dispatcher import FakeDispatcher


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process's environment has none of the pair."""
    for name in os.environ.keys() - programs.environment({}).keys():
        monkeypatch.delenv(name)


@pytest.fixture
async def dispatcher() -> AsyncIterator[FakeDispatcher]:
    async with FakeDispatcher().serving() as fake:
        yield fake


@pytest.fixture
async def older() -> AsyncIterator[FakeDispatcher]:
    """An older Dispatcher: no metadata, no Welcome, no Ack."""
    async with FakeDispatcher(metadata=None).serving() as fake:
        yield fake

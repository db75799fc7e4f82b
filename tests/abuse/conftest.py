"""One house for all attacks that need nothing of their own."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.abuse.house import House, Seen, house, nothing


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with house(tmp_path_factory.mktemp("house")) as made:
        await made.beside(nothing)  # what is opened once is open
        await made.settle()
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def when_quiet(one_house: House) -> Seen:
    return await one_house.beside(nothing)

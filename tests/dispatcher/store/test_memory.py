"""What the store in memory does that no other shows."""

import pytest
from msgspec.structs import replace

from dispatcher.core.log import Settle
from dispatcher.core.tenant_limits import TenantLimit
from dispatcher.store.memory import MemoryStore
from tests.contracts.sessions import stop, waiting


@pytest.mark.parametrize(("limit", "kept"), [(TenantLimit("*", 1), 1), (TenantLimit("*", 1, 100), 6)])
async def test_of_what_has_ended_only_what_still_counts_is_looked_at(limit: TenantLimit, kept: int) -> None:
    store = MemoryStore()
    for number in range(6):
        record = waiting(f"s{number}", 100.0 + number)
        await store.create(replace(record, request=replace(record.request, tenant="acme")), limit=limit)
        await store.submit(record.session_id, Settle(stop()))
    assert len(store._begun["acme"]) == kept

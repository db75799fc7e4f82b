"""Limits of tenants, over every store: exact, whoever asks at once, over all instances that share it."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dispatcher.core.log import Record, Settle
from dispatcher.core.tenant_limits import (
    MAX_TOKENS,
    OCCUPIED_RETRY_SECONDS,
    OverLimit,
    TenantLimit,
    check,
    check_tokens,
    tokens_of,
)
from dispatcher.store.factory import open_store
from dispatcher.store.ports import Created, IdempotencyKey, Store
from dispatcher.store.redis import admissions
from dispatcher.store.redis.keys import tenant_keys
from dispatcher.store.redis.replicas import heads
from shared.records import Usage
from tests.contracts.sessions import acquire, append, assign, finished, head_of, stop, waiting
from tests.redis_servers import RedisServer

AT_ONCE = TenantLimit("*", sessions_at_once=3)
PER_MINUTE = TenantLimit("*", sessions_per_minute=3)


@pytest.fixture(params=["memory", "sqlite", "redis", "cluster"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[list[Store]]:
    """Three instances, where a store may have several."""
    if request.param in ("redis", "cluster"):
        server = request.getfixturevalue(request.param)
        address = (server[0] if isinstance(server, list) else server).address
        opened = [await open_store(f"redis://{address}") for _ in range(3)]
    else:
        url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/sessions.db"
        opened = [await open_store(url)]
    yield opened
    for store in opened:
        await store.close()


def of(tenant: str, name: str) -> Record:
    """It begins now: a store may have a clock of its own."""
    record = waiting(name, time.time())
    return replace(record, request=replace(record.request, tenant=tenant))


async def begun(stores: Sequence[Store], names: Sequence[str], limit: TenantLimit, tenant: str = "acme") -> list[str]:
    """Those that are let in, of all that ask at once, at the instances in turn."""
    asked = [stores[n % len(stores)].create(of(tenant, name), limit=limit) for n, name in enumerate(names)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(answer, Created | OverLimit) for answer in answers), answers
    return [name for name, answer in zip(names, answers, strict=True) if isinstance(answer, Created)]


async def refused(store: Store, limit: TenantLimit, tenant: str = "acme") -> OverLimit:
    with pytest.raises(OverLimit) as caught:
        await store.create(of(tenant, "one more"), limit=limit)
    assert await store.load("one more") is None
    return caught.value


@pytest.mark.parametrize("limit", [AT_ONCE, PER_MINUTE], ids=["at_once", "per_minute"])
async def test_no_more_are_let_in_than_may(stores: list[Store], limit: TenantLimit) -> None:
    assert len(await begun(stores, [f"s{n}" for n in range(12)], limit)) == 3
    over = await refused(stores[-1], limit)
    if limit is AT_ONCE:
        assert (over.code, over.retry_after) == ("too_many_sessions", OCCUPIED_RETRY_SECONDS)
    else:
        assert over.code == "rate_limit_exceeded"
        assert 1 <= over.retry_after <= 60
    assert len(await begun(stores, [f"o{n}" for n in range(6)], limit, "other")) == 3


async def test_each_that_ends_makes_room_for_one(stores: list[Store]) -> None:
    """However it ends; at once, wherever it ended."""
    first, last = stores[0], stores[-1]
    assert await begun(stores, ["s1", "s2", "s3"], AT_ONCE) == ["s1", "s2", "s3"]
    await first.submit("s1", Settle(stop()))
    assert len(await begun([last], ["s4", "s5"], AT_ONCE)) == 1
    head_of(await first.submit("s2", assign()))
    await refused(last, AT_ONCE)
    epoch = head_of(await first.submit("s2", acquire())).epoch
    head_of(await first.submit("s2", append(epoch, finished(1))))
    await first.delete("s2")
    assert len(await begun([last], ["s6", "s7"], AT_ONCE)) == 1


async def test_all_that_ended_make_room_at_once(stores: list[Store]) -> None:
    """For those who ask at the same time, at one instance."""
    assert await begun(stores, ["s1", "s2", "s3"], AT_ONCE) == ["s1", "s2", "s3"]
    for name in ("s1", "s2"):
        await stores[0].submit(name, Settle(stop()))
    assert len(await begun([stores[-1]], [f"n{n}" for n in range(6)], AT_ONCE)) == 2


async def test_what_ended_counts_for_its_minute(stores: list[Store]) -> None:
    assert await begun(stores, ["s1", "s2", "s3"], PER_MINUTE) == ["s1", "s2", "s3"]
    await stores[0].submit("s1", Settle(stop()))
    await stores[0].delete("s1")
    await refused(stores[-1], PER_MINUTE)


async def test_a_refusal_takes_nothing(stores: list[Store]) -> None:
    """Neither limit counts what the other refused."""
    both = TenantLimit("*", 1, 3)
    await begun(stores, ["s1"], both)
    for store in stores:
        assert (await refused(store, both)).code == "too_many_sessions"
    await stores[0].submit("s1", Settle(stop()))
    await begun(stores, ["s2"], both)
    await stores[0].submit("s2", Settle(stop()))
    assert await begun(stores, ["s3"], both) == ["s3"]
    assert (await refused(stores[0], both)).code == "rate_limit_exceeded"


async def test_a_key_answers_with_its_session_though_the_limit_is_reached(stores: list[Store]) -> None:
    one = TenantLimit("*", 1, 1)
    key = IdempotencyKey("0123456789abcdef", b"body", time.time() + 1000)
    made = await asyncio.gather(*(store.create(of("acme", "s"), key, one) for store in stores for _ in range(3)))
    assert [created.fresh for created in made].count(True) == 1
    other = IdempotencyKey("another key of it", b"body", time.time() + 1000)
    for _ in range(2):  # a key that was refused is not spent
        with pytest.raises(OverLimit):
            await stores[-1].create(of("acme", "s2"), other, one)
    await stores[0].submit("s", Settle(stop()))
    assert (await stores[0].create(of("acme", "s2"), other, TenantLimit("*", 1))).fresh


async def test_what_began_without_a_limit_does_not_count(stores: list[Store]) -> None:
    await stores[0].create(of("acme", "s0"))
    assert len(await begun(stores, ["s1", "s2", "s3", "s4"], AT_ONCE)) == 3


async def test_tokens_are_counted_once(stores: list[Store]) -> None:
    """Whoever counts them, at whichever instance, and for one day each."""
    first, last = stores[0], stores[-1]
    quota = TenantLimit("*", tokens_per_day=100)
    assert await begun(stores, ["s1", "s2"], quota) == ["s1", "s2"]
    await first.create(of("acme", "free"))
    for name in ("s1", "free"):
        await first.submit(name, Settle(stop()))
    metered = {record.session_id: record for record in await last.metered("acme")}
    assert {name: record.head.state for name, record in metered.items()} == {"s1": "stopped", "s2": "waiting"}
    assert not any(record.request.messages for record in metered.values())
    for tokens in (60, 70):
        await asyncio.gather(*(store.settle(metered["s1"], tokens, 20_000) for store in stores))
    spent = await first.settled("acme", 20_000)
    assert spent in (60, 70)
    free = await first.load("free")
    assert free
    await last.settle(free, 500, 20_000)  # it did not begin under such a limit
    assert [record.session_id for record in await first.metered("acme")] == ["s2"]
    await last.settle(metered["s2"], 7, 20_001)
    assert [await last.settled("acme", day) for day in (19_999, 20_000, 20_001)] == [0, spent, 7]
    assert (await last.metered("acme"), await last.settled("other", 20_000)) == ([], 0)


async def test_who_has_used_up_its_tokens_begins_nothing(stores: list[Store]) -> None:
    quota = TenantLimit("*", tokens_per_day=100)
    assert await begun(stores, ["s1"], replace(quota, spent=99)) == ["s1"]
    for store in stores:
        over = await refused(store, replace(quota, spent=100))
        assert over.code == "quota_exceeded"
        assert 1 <= over.retry_after <= 86_400
    key = IdempotencyKey("0123456789abcdef", b"body", time.time() + 1000)
    await stores[0].create(of("acme", "s2"), key, quota)
    repeated = await stores[-1].create(of("acme", "again"), key, replace(quota, spent=100))
    assert (repeated.fresh, repeated.record.session_id) == (False, "s2")


async def test_one_that_was_never_made_is_not_counted(redis: RedisServer) -> None:
    """As where an instance died between the two."""
    store = await open_store(f"redis://{redis.address}")
    try:
        now, metered = int(time.time() * 1000), tenant_keys("acme").metered
        redis.ask("ZADD", metered, str(now), "under way")
        redis.ask("ZADD", metered, str(now - 31_000), "dead")
        assert await store.metered("acme") == []
        assert redis.ask("ZCARD", metered) == b":1\r\n"
    finally:
        await store.close()


# ---- times, without waiting for them


@pytest.mark.parametrize("url", ["memory://", "sqlite"])
async def test_any_minute_has_so_many(url: str, tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/s.db" if url == "sqlite" else url)
    try:
        for name, at in (("s1", 100.0), ("s2", 130.0), ("s3", 159.0)):
            await store.create(waiting(name, at), limit=PER_MINUTE)
        for at, seconds in ((159.0, 1), (100.5, 60), (50.0, 60)):  # a clock that was set back
            with pytest.raises(OverLimit) as caught:
                await store.create(waiting("s4", at), limit=PER_MINUTE)
            assert caught.value.retry_after == seconds
        await store.create(waiting("s4", 160.0), limit=PER_MINUTE)
        with pytest.raises(OverLimit) as caught:
            await store.create(waiting("s5", 161.0), limit=PER_MINUTE)
        assert caught.value.retry_after == 29
    finally:
        await store.close()


async def test_a_minute_by_the_clock_of_redis(redis: RedisServer) -> None:
    store = await open_store(f"redis://{redis.address}")
    try:
        assert await begun([store], ["s1", "s2", "s3"], PER_MINUTE) == ["s1", "s2", "s3"]
        key = tenant_keys("acme").begun
        redis.ask("ZINCRBY", key, "-60000", "s1")  # as if it had begun then
        redis.ask("ZINCRBY", key, "-30000", "s2")
        assert await begun([store], ["s4"], PER_MINUTE) == ["s4"]
        over = await refused(store, PER_MINUTE)
        assert over.retry_after <= 30
        fewer = TenantLimit("*", sessions_per_minute=1)
        assert (await refused(store, fewer)).retry_after >= over.retry_after
        assert 0 < int(redis.ask("PTTL", key)[1:]) <= 60_000
    finally:
        await store.close()


async def test_a_tenant_at_its_limit_is_not_looked_at_again_and_again(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    async def counted(*asked: Any) -> Any:
        calls.append(asked)
        return await heads(*asked)

    monkeypatch.setattr("dispatcher.store.redis.admissions.heads", counted)
    monkeypatch.setattr(admissions, "QUIET_SECONDS_EACH", 1000.0)
    store = await open_store(f"redis://{redis.address}")
    try:
        assert await begun([store], ["s1", "s2", "s3"], AT_ONCE) == ["s1", "s2", "s3"]
        for _ in range(3):
            await refused(store, AT_ONCE)
        assert len(calls) == 1
    finally:
        await store.close()


async def test_one_that_was_counted_and_never_made_counts_for_a_while(redis: RedisServer) -> None:
    """As where an instance died between the two."""
    store = await open_store(f"redis://{redis.address}")
    try:
        one, live = TenantLimit("*", 1), tenant_keys("acme").live
        redis.ask("ZADD", live, str(int(time.time() * 1000) + 600_000), "dead")
        await refused(store, one)
        redis.ask("ZINCRBY", live, "-640000", "dead")
        assert await begun([store], ["s1"], one) == ["s1"]
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("limit", "lives", "now", "seconds"),
    [
        (TenantLimit("*", 2), (True, True), 300.0, OCCUPIED_RETRY_SECONDS),
        (TenantLimit("*", None, 2), (False, False), 111.5, 49),
        (TenantLimit("*", None, 1), (False, False), 111.5, 59),
    ],
)
def test_when_to_try_again(limit: TenantLimit, lives: tuple[bool, bool], now: float, seconds: int) -> None:
    with pytest.raises(OverLimit) as caught:
        check(limit, zip((100.0, 110.0), lives, strict=True), now)
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize(("now", "seconds"), [(0.0, 86_400), (86_399.5, 1), (86_400.0, 86_400), (129_600.25, 43_200)])
def test_tokens_come_back_with_the_day(now: float, seconds: int) -> None:
    with pytest.raises(OverLimit) as caught:
        check_tokens(TenantLimit("*", tokens_per_day=5, spent=6), now)
    assert caught.value.retry_after == seconds


def test_what_a_session_costs() -> None:
    record = waiting()
    asked = replace(record, request=replace(record.request, prompt_bytes=9), head=replace(record.head, decided=4))
    assert tokens_of(asked, None) == 4
    assert tokens_of(asked, Usage(30, 4)) == 34
    assert tokens_of(asked, Usage(30, 0)) == 31
    assert tokens_of(asked, Usage(0, 30)) == 33
    assert tokens_of(asked, Usage(2**63, 2**63)) == MAX_TOKENS


def test_whose_a_limit_is() -> None:
    assert TenantLimit("acme").fits("acme")
    assert TenantLimit("*").fits("acme")
    assert not TenantLimit("acme").fits("acmes")

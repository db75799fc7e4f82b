"""Slots that move and servers that die while sessions are written."""

import asyncio
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from redis.crc import key_slot

from dispatcher.core.log import Settle
from dispatcher.store.factory import open_store
from dispatcher.store.ports import StoreMisconfigured, StoreUnavailable
from dispatcher.store.redis.keys import LIVE, session_keys
from shared.records import Content
from tests.contracts.sessions import append, bodies, head_of, said, stop, waiting
from tests.dispatcher.store.redis.world import SECONDS, Ears, answered, opened, owned, until, url
from tests.redis_servers import RedisServer, answers, redis_cluster
from tests.redis_servers import until as until_servers

NAMES = [f"s{n}" for n in range(12)]  # in slots of every server


@pytest.fixture
def with_replicas(tmp_path: Path) -> Iterator[list[RedisServer]]:
    with redis_cluster(tmp_path, 1, timeout_ms=2000) as servers:
        yield servers


def slot_of(session_id: str) -> int:
    return key_slot(session_keys(session_id).head)


def node_of(servers: list[RedisServer], slot: int) -> RedisServer:
    """The master that has the slot."""
    for server in servers:
        for line in server.ask("CLUSTER", "NODES").decode().splitlines():
            if "myself,master" in line:
                for part in line.split()[8:]:
                    first, _, last = part.partition("-")
                    if first.isdecimal() and int(first) <= slot <= int(last or first):
                        return server
    raise AssertionError(slot)


def replicated(server: RedisServer) -> str:
    """How far its data goes. A replica says `master_link_status:up` and `lag=0` before anything is sent to it."""
    lines = server.ask("INFO", "replication").decode().split()
    return next(line for line in lines if line.startswith("master_repl_offset:"))


def node_id(server: RedisServer) -> str:
    return server.ask("CLUSTER", "MYID").split()[1].decode()


async def test_a_slot_moves_while_its_sessions_are_written(cluster: list[RedisServer]) -> None:
    async with opened(url(cluster[0])) as store:
        epoch = await owned(store)
        slot = slot_of("s")
        old = node_of(cluster, slot)
        new = next(server for server in cluster if server is not old)
        try:
            head_of(await store.submit("s", append(epoch, said(1))))
            new.ask("CLUSTER", "SETSLOT", str(slot), "IMPORTING", node_id(old))
            old.ask("CLUSTER", "SETSLOT", str(slot), "MIGRATING", node_id(new))
            head_of(await store.submit("s", append(epoch, said(2))))  # not moved yet
            head_key, log_key = session_keys("s")
            move(old, new, log_key)
            under_way = store.submit("s", append(epoch, said(3)))  # half of it is there: TRYAGAIN
            assert not (await asyncio.wait([under_way], timeout=0.1))[0]
            move(old, new, head_key)
            assert head_of(await under_way).sequence == 3  # ASK
            assert await bodies(store) == [Content("word ")] * 3
            for server in (new, old):
                server.ask("CLUSTER", "SETSLOT", str(slot), "NODE", node_id(new))
            for n in range(4, 8):
                head_of(await store.submit("s", append(epoch, said(n))))  # MOVED
            assert len(await bodies(store)) == 7
        finally:
            for server in cluster:
                server.ask("CLUSTER", "SETSLOT", str(slot), "STABLE")
            for key in session_keys("s"):
                move(new, old, key)
            for server in (old, new):
                server.ask("CLUSTER", "SETSLOT", str(slot), "NODE", node_id(old))


def move(old: RedisServer, new: RedisServer, key: bytes) -> None:
    old.ask("MIGRATE", "127.0.0.1", str(new.port), key, "0", "5000")


async def test_a_replica_takes_over(with_replicas: list[RedisServer]) -> None:
    """A master dies: sessions of its slots wait until its replica has them, those of others go on meanwhile."""
    servers, ears = with_replicas, Ears()
    async with opened(f"{url(servers[0])}?wait=1", ears) as store:
        epochs = dict(zip(NAMES, await asyncio.gather(*(owned(store, name) for name in NAMES)), strict=True))
        await asyncio.gather(*(store.submit(name, append(epochs[name], said(1, "before "))) for name in NAMES))
        dying = node_of(servers, key_slot(LIVE))  # the index goes too
        its = [name for name in NAMES if node_of(servers, slot_of(name)) is dying]
        others = [name for name in NAMES if name not in its]
        assert its
        assert others
        dying.kill()
        outcomes = await asyncio.gather(
            *(store.submit(name, append(epochs[name], said(2, "after"))) for name in others)
        )
        assert [head_of(outcome).sequence for outcome in outcomes] == [2] * len(others)
        survivor = next(server for server in servers[:3] if server is not dying)
        replica = servers[servers.index(dying) + 3]
        until_servers(partial(answers, replica, b"role:master", "INFO", "replication"))
        with pytest.raises(StoreUnavailable):  # there is no second server to keep it
            await store.submit(its[0], append(epochs[its[0]], said(2, "after")))
        dying.start()
        await asyncio.gather(
            *(answered(partial(store.submit, name, append(epochs[name], said(2, "after")))) for name in its)
        )
        for name in NAMES:
            assert await bodies(store, name) == [Content("before "), Content("after")]
        await answered(lambda: store.select(["running"], 100))
        assert len(await store.select(["running"], 100)) == len(NAMES)
        async with opened(url(survivor)) as other:  # a stop reaches the instance, whichever server it listens at
            await until(store.replicas._nudges.hearing.is_set)  # type: ignore[union-attr]
            await answered(lambda: other.submit(its[0], Settle(stop())))
            await until(lambda: its[0] in ears.grew)


async def test_a_master_that_freezes_is_given_up(
    with_replicas: list[RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = with_replicas
    async with opened(url(servers[0])) as store:
        epoch = await owned(store)
        await store.submit("s", append(epoch, said(1, "before ")))
        frozen = node_of(servers, slot_of("s"))
        replica = servers[servers.index(frozen) + 3]
        until_servers(lambda: replicated(replica) == replicated(frozen))
        monkeypatch.setattr("dispatcher.store.redis.pipeline.REPLY_SECONDS", 0.5)
        frozen.send_signal(signal.SIGSTOP)
        await answered(lambda: store.submit("s", append(epoch, said(2, "after"))))
        frozen.send_signal(signal.SIGCONT)
        until_servers(partial(answers, frozen, b"role:slave", "INFO", "replication"))
        for n in range(3, 10):
            await answered(partial(store.submit, "s", append(epoch, said(n))))
        assert len(await bodies(store)) == 9


async def test_a_cluster_that_does_not_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.store.redis.cluster.STAND_SECONDS", 0.3)
    with redis_cluster(tmp_path, timeout_ms=2000) as servers:
        servers[0].kill()
        until_servers(partial(answers, servers[1], b"cluster_state:fail", "CLUSTER", "INFO"))
        with pytest.raises(StoreMisconfigured, match="the Redis cluster is down"):
            await open_store(url(servers[1]))
        servers[0].start()
        for server in servers:
            until_servers(partial(answers, server, b"cluster_state:ok", "CLUSTER", "INFO"))
        async with opened(url(servers[1])) as store:
            await owned(store)
            servers[0].kill()
            until_servers(partial(answers, servers[1], b"cluster_state:fail", "CLUSTER", "INFO"))
            with pytest.raises(StoreUnavailable):
                await store.create(waiting("s2"))
            servers[0].start()
            await answered(lambda: store.create(waiting("s2")))


async def test_any_server_of_it_may_be_named(cluster: list[RedisServer]) -> None:
    for n, server in enumerate(cluster):
        async with opened(url(server)) as store:
            async with asyncio.timeout(SECONDS):
                await owned(store, f"s{n}")
            assert len(await store.select(["running"], 10)) == n + 1

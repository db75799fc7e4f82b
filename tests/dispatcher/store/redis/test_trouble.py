"""What is wrong with a Redis at start is said in one line; what happens to it later passes, and nothing is lost."""

import asyncio
import operator
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from dispatcher.core.log import Settle, TakeOver
from dispatcher.store.ports import IdempotencyKey, Store, StoreUnavailable
from dispatcher.store.redis.rights import RULE
from shared.records import Content
from tests.contracts.sessions import append, bodies, finished, head_of, said, stop, waiting
from tests.dispatcher.store.redis.world import (
    SECONDS,
    Ears,
    Switch,
    answered,
    instance,
    opened,
    owned,
    refused,
    until,
    url,
)
from tests.dispatcher.store.writing_process import SESSIONS
from tests.programs import free_port
from tests.redis_servers import RedisServer, answers, redis_server
from tests.redis_servers import until as until_servers
from tests.sockets import listening

ROOT = Path(__file__).parents[4]
APPENDS = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """One that a test may stop, freeze, fill and start again: it keeps what it has answered."""
    with redis_server(tmp_path / "own", *APPENDS) as server:
        yield server


@pytest.fixture
def replica(server: RedisServer, tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "replica", "--replicaof", "127.0.0.1", str(server.port)) as replica:
        until_servers(partial(answers, replica, b"master_link_status:up", "INFO", "replication"))
        yield replica


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply is given up sooner than anybody would like to wait in a test."""
    monkeypatch.setattr("dispatcher.store.redis.pipeline.REPLY_SECONDS", 0.5)


# ---- at start


async def test_nobody_answers(server: RedisServer) -> None:
    server.kill()
    assert f"redis://{server.address}/0 cannot be reached" in await refused(f"redis://user:secret@{server.address}/0")
    assert "cannot be reached" in await refused("redis://nowhere.invalid/0")
    assert "cannot be reached" in await refused("unix:///nowhere/redis.sock")
    assert "cannot be reached" in await refused(f"rediss://:secret@{server.address}?ca=/nowhere/ca.pem")


async def test_a_wrong_password_or_none(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--requirepass", "secret of its own") as server:
        assert "refuses the user or the password" in await refused(f"redis://:secret@{server.address}/0")
        assert "refuses the user or the password" in await refused(f"redis://{server.address}/0")
        async with opened(f"redis://:secret%20of%20its%20own@{server.address}/0") as store:
            await owned(store)
        async with opened(f"redis://default:secret%20of%20its%20own@{server.address}/0") as store:
            assert await store.load("s")


async def test_a_user_of_its_own(cluster: list[RedisServer], redis: RedisServer) -> None:
    """With the rights that `deploy/README.md` says are enough."""
    rights = ("on", ">secret", *(right.strip("'") for right in RULE.split()))
    for server in (*cluster, redis):
        assert server.ask("ACL", "SETUSER", "dispatcher", *rights) == b"+OK\r\n"
    try:
        for server in (cluster[0], redis):
            ears = Ears()
            address = f"redis://dispatcher:secret@{server.address}/0"
            async with opened(address, ears) as store, opened(f"{address}?wait=0") as other:
                assert store.replicas
                await store.replicas.renew()
                epoch = await owned(store)
                await other.create(waiting("w"), IdempotencyKey("0123456789abcdef", b"body", 1000.0))
                await until(partial(ears.waiting.__contains__, "w"))
                await store.submit("s", append(epoch, said(1), finished(2)))
                await other.submit("w", Settle(stop()))
                await until(partial(operator.not_, ears.waiting))
                assert await store.replicas.orphans(()) == []
                assert await store.expire(1000.0) == 2
    finally:
        for server in (*cluster, redis):
            server.ask("ACL", "DELUSER", "dispatcher")


async def test_a_database_that_is_not_there(redis: RedisServer, cluster: list[RedisServer]) -> None:
    assert "refuses: DB index is out of range" in await refused(f"redis://{redis.address}/99")
    assert "refuses: SELECT is not allowed in cluster mode" in await refused(f"redis://{cluster[0].address}/1")


async def test_databases_of_one_server_are_apart(redis: RedisServer) -> None:
    ears = Ears()
    async with opened(f"redis://{redis.address}/1", ears) as one, opened(f"redis://{redis.address}/2") as two:
        await owned(one)
        assert await two.load("s") is None
        epoch = await owned(two)
        with one.follow("s") as follower:
            await follower.wait(SECONDS)  # that it is subscribed to
            await two.submit("s", append(epoch, said(1)))
            await two.create(waiting("w"))
            await one.create(waiting("last"))
            await two.submit("s", append(epoch, said(2)))
        assert ears.waiting == []
        assert len((await one.read("s", 0, 10)).entries) == 1


async def test_a_replica(server: RedisServer, replica: RedisServer) -> None:
    assert "is a read-only replica; the master is needed" in await refused(url(replica))


async def test_a_server_that_may_evict_live_sessions(redis: RedisServer) -> None:
    redis.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        assert "may evict live sessions (maxmemory-policy allkeys-lru)" in await refused(url(redis))
    finally:
        redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")


@asynccontextmanager
async def answering(*replies: bytes) -> AsyncIterator[str]:
    """A server that answers everything with the next of these, and with the last from then on."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = 0
        while await reader.read(65536):
            writer.write(replies[min(sent, len(replies) - 1)])
            sent += 1

    async with listening(serve) as port:
        yield f"redis://:secret@127.0.0.1:{port}/0"


async def test_an_old_server_and_others_that_are_none() -> None:
    info = b"redis_version:6.2.14\r\nrole:master\r\n"
    async with answering(b"+OK\r\n", b"+OK\r\n", b"$%d\r\n%s\r\n" % (len(info), info)) as address:
        assert "is Redis 6.2.14; 7 or later is needed" in await refused(address)
    async with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        assert "does not answer as Redis" in await refused(address)
    async with answering(b"+OK\r\n", b"+OK\r\n", b"-ERR no such thing\r\n") as address:
        assert "refuses: no such thing" in await refused(address)


async def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.store.redis.pipeline.CONNECT_SECONDS", 0.2)
    async with answering(b"") as address:
        assert "cannot be reached" in await refused(address)


async def test_a_socket_of_the_file_system(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--unixsocket", str(tmp_path / "redis.sock")):
        async with opened(f"unix://{tmp_path}/redis.sock?db=3") as store:
            epoch = await owned(store)
            head_of(await store.submit("s", append(epoch, said(1, "heard"))))
            assert await bodies(store) == [Content("heard")]


async def test_tls(tmp_path: Path) -> None:
    certificate(tmp_path)
    files = {"cert": "server.pem", "key": "server.key", "ca-cert": "server.pem"}
    tls = [part for name, file in files.items() for part in (f"--tls-{name}-file", str(tmp_path / file))]
    tls_port = str(free_port())
    with redis_server(tmp_path / "data", "--tls-port", tls_port, "--tls-auth-clients", "no", *tls):
        async with opened(f"rediss://localhost:{tls_port}/0?ca={tmp_path}/server.pem") as store:
            await owned(store)
        line = await refused(f"rediss://localhost:{tls_port}/0")
        assert "CERTIFICATE_VERIFY_FAILED" in line


def certificate(folder: Path) -> None:
    """For localhost, signed by itself."""
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    files = ("-keyout", str(folder / "server.key"), "-out", str(folder / "server.pem"))
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, *files]
    subprocess.run(command, check=True, capture_output=True)


# ---- later


async def test_away_and_back(server: RedisServer) -> None:
    ears = Ears()
    async with opened(url(server), ears) as store:
        epoch = await owned(store)
        with store.follow("s") as follower:
            await store.submit("s", append(epoch, said(1, "before ")))
            server.kill()
            for ask in (
                lambda: store.submit("s", append(epoch, said(2, "during "))),
                lambda: store.load("s"),
                lambda: store.create(waiting("s2")),
                lambda: store.offer("i", ["a"], 1.0),
                lambda: store.offer("i", [], 1.0),
                lambda: store.offered(0.0),
                lambda: store.expire(1000.0),
                lambda: store.select(["running"], 1),
            ):
                with pytest.raises(StoreUnavailable, match="Redis does not answer"):
                    await ask()
            assert store.replicas
            for of_replicas in (store.replicas.renew, store.replicas.alive, lambda: store.replicas.orphans(())):
                with pytest.raises(StoreUnavailable):
                    await of_replicas()
            server.start()
            await answered(lambda: store.submit("s", append(epoch, said(2, "during "))))
            async with asyncio.timeout(SECONDS):
                while len((await store.read("s", 0, 10)).entries) < 3:
                    await follower.wait(SECONDS)
        await answered(lambda: store.create(waiting("s2")))
        async with opened(url(server)) as other:  # both hear again
            await until(store.replicas._nudges.hearing.is_set)  # type: ignore[attr-defined]
            await other.submit("s", Settle(stop()))
            await until(lambda: "s" in ears.grew)
            assert await bodies(other) == [Content("before "), Content("during "), stop().body]


async def test_an_outcome_that_nobody_heard_of_is_repeated_safely(server: RedisServer, hurry: None) -> None:
    """The server froze after it had read the append: it is carried out once, whenever that is."""
    async with opened(url(server)) as store:
        epoch = await owned(store)
        for n in range(1, 4):
            server.send_signal(signal.SIGSTOP)
            append_n = partial(store.submit, "s", append(epoch, said(n, f"{n}")))
            with pytest.raises(StoreUnavailable, match="no reply within"):
                await append_n()
            server.send_signal(signal.SIGCONT)
            await answered(append_n)
        assert await bodies(store) == [Content("1"), Content("2"), Content("3")]
        entries = (await store.read("s", 0, 10)).entries
        assert [entry.offset for entry in entries] == [1, 2, 3, 4]


async def test_what_happened_to_a_session_while_the_store_was_away_is_heard_of(redis: RedisServer, hurry: None) -> None:
    """Its last append failed, its news went into nowhere, and another instance took it over meanwhile."""
    switch, ears = Switch(redis), Ears()
    async with switch.listening() as address, opened(address, ears) as store, opened(url(redis)) as other:
        epoch = await owned(store)
        switch.open.clear()
        with pytest.raises(StoreUnavailable):
            await store.submit("s", append(epoch, said(1)))
        redis.ask("CLIENT", "KILL", "TYPE", "pubsub")  # what is published goes to nobody
        head_of(await other.submit("s", TakeOver(epoch, instance(store), instance(other))))
        switch.open.set()
        await until(lambda: "s" in ears.grew)


async def test_full(server: RedisServer) -> None:
    async with opened(url(server)) as store:
        epoch = await owned(store)
        await store.submit("s", append(epoch, said(1, "kept ")))
        await store.create(waiting("over"))
        await store.submit("over", Settle(stop()))
        assert await store.select(["stopped"], 1)
        server.ask("CONFIG", "SET", "maxmemory", "1")
        outcomes = await asyncio.gather(
            store.submit("s", append(epoch, said(2, "lost?"))),
            store.create(waiting("s2")),
            store.submit("s", append(epoch, finished(2))),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 3
        assert "Redis is full" in str(outcomes[0])
        assert await bodies(store) == [Content("kept ")]
        assert await store.load("s2") is None
        record = await store.load("s")
        assert record
        assert record.head.sequence == 1
        assert await store.expire(1000.0) == 1  # what makes room needs none
        server.ask("CONFIG", "SET", "maxmemory", "0")
        head_of(await store.submit("s", append(epoch, said(2, "kept too"), finished(3))))
        assert (await bodies(store))[:2] == [Content("kept "), Content("kept too")]
        await until_expired(store)


async def until_expired(store: Store) -> None:
    """What ended while Redis was full is found all the same."""
    async with asyncio.timeout(SECONDS):
        while not await store.expire(1000.0):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("query", ["", "?wait=1"])
async def test_a_server_that_has_become_a_replica(server: RedisServer, replica: RedisServer, query: str) -> None:
    """The address leads to the other one, but the connections still to the old master."""
    switch, ears = Switch(server), Ears()
    async with switch.listening() as address, opened(f"{address}{query}", ears) as store:
        epoch = await owned(store)
        await store.submit("s", append(epoch, said(1, "before ")))
        until_servers(partial(in_step, server, replica))
        replica.ask("REPLICAOF", "NO", "ONE")
        server.ask("REPLICAOF", "127.0.0.1", str(replica.port))
        switch.server = replica
        said_so = await answered(lambda: store.submit("s", append(epoch, said(2, "after"))))
        assert any("replica" in line for line in said_so)
        if not query:
            server.ask("REPLICAOF", "NO", "ONE")  # what it has is of old from now on
            await store.submit("s", append(epoch, said(3, "on")))
            assert (await bodies(store))[2:] == [Content("on")]
        await until(lambda: b"sub=2" in replica.ask("CLIENT", "LIST", "TYPE", "pubsub"))  # it listens there, too
        async with opened(url(replica)) as other:
            assert (await bodies(other))[:2] == [Content("before "), Content("after")]
            await other.submit("s", Settle(stop()))
            await until(lambda: "s" in ears.grew)


async def test_a_failover_that_loses_what_was_written_last(server: RedisServer, replica: RedisServer) -> None:
    """Without WAIT an answered append may be lost: then it is a gap that is seen, never a silent one."""
    switch = Switch(server)
    async with switch.listening() as address, opened(address) as store:
        epoch = await owned(store)
        await store.submit("s", append(epoch, said(1, "kept ")))
        until_servers(partial(in_step, server, replica))
        replica.ask("REPLICAOF", "NO", "ONE")  # cut off; but nobody has noticed
        head_of(await store.submit("s", append(epoch, said(2, "lost "))))
        server.kill()
        switch.server = replica
        outcome: list[object] = []

        async def go_on() -> None:
            outcome.append(await store.submit("s", append(epoch, said(3, "after"))))

        await answered(go_on)
        assert getattr(outcome[0], "code", "") == "gap"
        head_of(await store.submit("s", append(epoch, said(2, "lost "), said(3, "after"))))
        assert await bodies(store) == [Content("kept "), Content("lost "), Content("after")]


async def test_with_wait_nothing_is_answered_that_no_replica_has(
    server: RedisServer, replica: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatcher.store.redis.pipeline.WAIT_MS", 4000)
    switch = Switch(server)
    async with switch.listening() as address, opened(f"{address}?wait=1") as store:
        epoch = await owned(store)
        head_of(await store.submit("s", append(epoch, said(1, "kept "))))
        replica.send_signal(signal.SIGSTOP)
        monkeypatch.setattr("dispatcher.store.redis.pipeline.WAIT_MS", 200)
        for _ in range(2):  # repeated, it is there already; but not where it has to be
            with pytest.raises(StoreUnavailable, match="of 1 Redis replicas, 0 have answered"):
                await store.submit("s", append(epoch, said(2, "unanswered ")))
        with pytest.raises(StoreUnavailable):
            await store.create(waiting("s2"))
        replica.send_signal(signal.SIGCONT)
        monkeypatch.setattr("dispatcher.store.redis.pipeline.WAIT_MS", 4000)
        await answered(lambda: store.submit("s", append(epoch, said(2, "unanswered "))))
        results = await asyncio.gather(*(store.submit("s", append(epoch, said(n))) for n in range(3, 50)))
        assert head_of(results[-1]).sequence == 49
        server.kill()
        replica.ask("REPLICAOF", "NO", "ONE")
        switch.server = replica
        async with opened(url(replica)) as other:
            assert len(await bodies(other)) == 49


@pytest.mark.parametrize("answered_lines", [1, 57, 400])
async def test_what_was_answered_survives_kill_9_of_the_process(redis: RedisServer, answered_lines: int) -> None:
    process = await writing_process(url(redis))
    assert process.stdout
    lines = [await process.stdout.readline() for _ in range(answered_lines)]
    process.kill()
    rest, _ = await process.communicate()
    await check_logs(url(redis), [*lines, *rest.splitlines(keepends=True)])


async def test_what_was_answered_survives_kill_9_of_redis(server: RedisServer) -> None:
    process = await writing_process(url(server))
    assert process.stdout
    lines = [await process.stdout.readline() for _ in range(200)]
    server.kill()
    rest, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    server.start()
    await check_logs(url(server), [*lines, *rest.splitlines(keepends=True)])


async def writing_process(url: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        Path(__file__).parents[1] / "writing_process.py",
        url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


async def check_logs(url: str, lines: list[bytes]) -> None:
    """What was answered is there, in order and whole."""
    logged = dict.fromkeys((f"s{n}" for n in range(SESSIONS)), 0)
    for line in lines:
        if line.endswith(b"\n"):
            name, sequence = line.decode().split()
            logged[name] = int(sequence)
    assert any(logged.values())
    async with opened(url) as store:
        for name, answered_sequence in logged.items():
            entries = (await store.read(name, 0, 100_000)).entries
            assert len(entries) >= answered_sequence
            assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))
            assert [entry.offset for entry in entries] == list(range(1, len(entries) + 1))
            record = await store.load(name)
            assert bool(record) or not answered_sequence
            if record:
                assert (record.head.sequence, record.head.offset) == (len(entries), len(entries))
                assert len(entries) % 2 == 0  # an append is there whole or not at all


def in_step(master: RedisServer, replica: RedisServer) -> bool:
    """Whether the replica has all that the master has."""
    offsets = [
        dict(line.split(b":", 1) for line in server.ask("INFO", "replication").splitlines() if b":" in line)
        for server in (master, replica)
    ]
    return offsets[0][b"master_repl_offset"] == offsets[1][b"slave_repl_offset"]

"""What only the Redis store promises: steps that nobody starves, news that may be lost, hints that are repaired."""

import asyncio
import time

import pytest
from msgspec.structs import replace

from dispatcher.core.entries import StopEntry
from dispatcher.core.log import Acquire, Assign, Refused, Settle
from dispatcher.store.blobs import encode
from dispatcher.store.ports import READ_BYTES, IdempotencyKey, StoreUnavailable
from dispatcher.store.redis.keys import AGENTS, ENDED, LEASES, LIVE, WAITING, Channels, binding_key, session_keys
from dispatcher.store.redis.lanes import Lanes
from dispatcher.store.redis.pipeline import Reply
from dispatcher.store.redis.scripts import Command
from dispatcher.store.redis.server import Server
from shared.records import MAX_TEXT_BYTES, Content
from tests.contracts.sessions import append, bodies, brought, finished, head_of, said, stop, waiting
from tests.dispatcher.store.redis.world import SECONDS, Ears, instance, opened, owned, until, url
from tests.redis_servers import RedisServer

# ---- steps


async def test_a_stop_waits_for_the_step_under_way_and_for_nothing_that_is_queued(redis: RedisServer) -> None:
    async with opened(url(redis)) as store:
        epoch = await owned(store)
        under_way = store.submit("s", append(epoch, said(1)))
        await asyncio.sleep(0)  # a step begins at the end of a turn of the loop
        await asyncio.sleep(0)
        queued = [store.submit("s", append(epoch, said(number))) for number in range(2, 6)]
        stopped = store.submit("s", Settle(stop()))
        await asyncio.gather(under_way, *queued, stopped)
        entries = (await store.read("s", 0, 20)).entries
    order = [type(entry.body).__name__ for entry in entries if isinstance(entry.body, Content | StopEntry)]
    assert order == ["Content", "StopEntry", *["Content"] * 4]
    assert not entries[-1].released


async def test_an_append_to_a_session_of_this_instance_asks_once(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = count(monkeypatch)
    async with opened(url(redis)) as store:
        epoch = await owned(store)
        await store.submit("s", append(epoch, said(1)))
        asked.clear()
        for n in range(2, 12):
            await asyncio.gather(store.submit("s", append(epoch, said(n))), store.submit("s", append(epoch, said(n))))
    assert asked == ["send"] * 10


async def test_a_flood_of_another_instance_starves_no_stop(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other writes between each of our reads and the write that relies on it, as a nearer one might for ever."""
    async with opened(url(redis)) as near, opened(url(redis)) as far:
        epoch = await owned(near)
        sequence = 0
        call, lanes = Server.call, far._lanes  # type: ignore[attr-defined]
        tries = 0

        async def after_another(server: Server, command: object) -> object:
            nonlocal sequence, tries
            if server is lanes._servers:
                tries += 1
                sequence += 1
                others = near.submit("s", append(epoch, said(sequence)))
                done, _ = await asyncio.wait([others], timeout=0.2 if tries == 2 else SECONDS)
                assert bool(done) == (tries != 2)  # it has to let us pass
            return await call(server, command)  # type: ignore[arg-type]

        monkeypatch.setattr(Server, "call", after_another)
        outcome = await asyncio.wait_for(far.submit("s", Settle(stop())), SECONDS)
        assert head_of(outcome).state == "stopped"
        assert tries == 2
        head_of(await near.submit("s", append(epoch, said(sequence + 1))))


async def test_who_was_let_pass_and_died_holds_nobody_up_for_long(redis: RedisServer) -> None:
    async with opened(url(redis)) as store:
        epoch = await owned(store)
        take_turn(redis, "of one that is dead", 0.3)
        assert head_of(await asyncio.wait_for(store.submit("s", append(epoch, said(1))), SECONDS)).sequence == 1


async def test_a_step_gives_up_when_others_never_let_it_pass(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatcher.store.redis.lanes.CONTEND_SECONDS", 0.05)
    async with opened(url(redis)) as store:
        epoch = await owned(store)
        take_turn(redis, "of another", 1000)
        with pytest.raises(StoreUnavailable, match="other processes"):
            await store.submit("s", append(epoch, said(1)))
        take_turn(redis, "of another", -1)
        assert head_of(await store.submit("s", append(epoch, said(1)))).sequence == 1


def take_turn(redis: RedisServer, who: str, seconds: float) -> None:
    redis.ask("HSET", session_keys("s").head, "turn", who, "until", str(int((time.time() + seconds) * 1000)))


async def test_scripts_are_found_again_after_they_were_lost(redis: RedisServer) -> None:
    async with opened(url(redis)) as store:
        epochs = [await owned(store, f"s{n}") for n in range(5)]
        redis.ask("SCRIPT", "FLUSH")
        outcomes = await asyncio.gather(
            *(store.submit(f"s{n}", append(epoch, said(1))) for n, epoch in enumerate(epochs))
        )
        assert [head_of(outcome).sequence for outcome in outcomes] == [1] * 5


async def test_no_reply_is_larger_than_what_is_read_at_once(redis: RedisServer) -> None:
    """Small entries in front of large ones do not tell how many of these are too many."""
    async with opened(url(redis)) as store:
        epoch = await owned(store)
        small = [said(n) for n in range(1, 17)]
        large = [said(n, "x" * MAX_TEXT_BYTES) for n in range(17, 60)]
        for entry in small + large:
            await store.submit("s", append(epoch, entry))
        asked: dict[int, int] = {}
        for after in (0, 10, 30):
            before = sent(redis)
            await store.read("s", after, 1000)
            asked[after] = sent(redis) - before
    assert max(asked.values()) < READ_BYTES + 4 * MAX_TEXT_BYTES, asked


def sent(redis: RedisServer) -> int:
    """Bytes that the server has ever answered with."""
    said = redis.ask("INFO", "stats").decode()
    return int(said.partition("total_net_output_bytes:")[2].split()[0])


async def test_any_session_id_has_keys_of_its_own(redis: RedisServer) -> None:
    names = ["a}b{c", "{}", "}", "ü夜", "a b\n", "a%7Db", "x" * 200]
    async with opened(url(redis)) as store:
        for name in names:
            epoch = await owned(store, name)
            head_of(await store.submit(name, append(epoch, said(1, name))))
        for name in names:
            assert await bodies(store, name) == [Content(name)]
        assert sorted(record.session_id for record in await store.select(["running"], 100)) == sorted(names)


async def test_what_an_older_dispatcher_made_is_listed_too(redis: RedisServer) -> None:
    """It has its request with the prompt only."""
    async with opened(url(redis)) as store:
        await store.create(waiting("s"))
        listed = await store.select(["waiting"], 10)
        assert redis.ask("HDEL", session_keys("s").head, "brief") == b":1\r\n"
        assert await store.select(["waiting"], 10) == listed
        assert not listed[0].request.messages


async def test_a_record_that_cannot_be_read_fails_alone(redis: RedisServer) -> None:
    async with opened(url(redis)) as store:
        await store.create(brought("good"))
        await store.create(brought("bad"))
        redis.ask("HSET", session_keys("bad").head, "head", "?")
        good, bad = await asyncio.gather(
            store.submit("good", Settle(stop())), store.submit("bad", Settle(stop())), return_exceptions=True
        )
        assert isinstance(bad, StoreUnavailable)
        assert not isinstance(good, BaseException)
        assert head_of(good).state == "stopped"
        with pytest.raises(StoreUnavailable):
            await store.load("bad")


# ---- a key whose session was never made


async def test_who_comes_after_a_creator_that_died_makes_its_session(redis: RedisServer) -> None:
    key = IdempotencyKey("0123456789abcdef", b"body", 1000.0)
    bind(redis, key, "of-the-dead")
    async with opened(url(redis)) as store:
        created = await store.create(waiting("mine"), key)
        assert (created.fresh, created.record.session_id) == (True, "of-the-dead")
        again = await store.create(waiting("another"), key)
        assert (again.fresh, again.same_request, again.record.session_id) == (False, True, "of-the-dead")
        assert await store.load("mine") is None


async def test_a_creator_that_died_does_not_keep_its_key_from_another_body(redis: RedisServer) -> None:
    bind(redis, IdempotencyKey("0123456789abcdef", b"body", 1000.0), "of-the-dead")
    async with opened(url(redis)) as store:
        created = await store.create(waiting("mine"), IdempotencyKey("0123456789abcdef", b"other", 1000.0))
        assert (created.fresh, created.record.session_id) == (True, "mine")


async def test_a_session_that_is_being_made_is_waited_for(redis: RedisServer) -> None:
    key = IdempotencyKey("0123456789abcdef", b"body", 1000.0)
    bind(redis, key, "under-way")
    async with opened(url(redis)) as store:
        other = asyncio.create_task(store.create(waiting("mine"), IdempotencyKey(key.key, b"other", 1000.0)))
        await asyncio.sleep(0)
        await store.create(waiting("under-way"), key)
        created = await other
        assert (created.fresh, created.same_request, created.record.session_id) == (False, False, "under-way")


def bind(redis: RedisServer, key: IdempotencyKey, session_id: str) -> None:
    fields = ("session", session_id, "fingerprint", key.fingerprint.decode(), "expires", str(key.expires_at))
    redis.ask("HSET", binding_key(key.key), *fields)


# ---- news that were lost


async def test_what_nobody_told_a_reader_is_found(redis: RedisServer) -> None:
    """The other's publish went nowhere: the log grows as if by another program."""
    async with opened(url(redis)) as store:
        epoch = await owned(store)
        head_of(await store.submit("s", append(epoch, said(1))))
        with store.follow("s") as follower:
            head_of(await store.submit("s", append(epoch, said(2, "ours"))))
            assert len((await store.read("s", 0, 10)).entries) == 3
            silently_add(redis, "s", 4)
            async with asyncio.timeout(SECONDS):
                while len(entries := (await store.read("s", 0, 10)).entries) < 4:
                    await follower.wait(SECONDS)
            assert entries[3].body == Content("silent")


async def test_what_nobody_told_the_instance_is_found(redis: RedisServer) -> None:
    ears = Ears()
    async with opened(url(redis), ears) as store:
        for name in ("s", "other"):
            await owned(store, name)
        redis.ask("HSET", session_keys("s").head, "token", "another")
        await until(lambda: ears.grew == ["s"])
        # Once it is known, it is not news again.
        redis.ask("HSET", session_keys("other").head, "token", "another")
        await until(lambda: ears.grew == ["s", "other"])
        redis.ask("UNLINK", *session_keys("s"))
        await until(lambda: ears.grew == ["s", "other", "s"])


async def test_news_come_again_after_the_subscription_was_cut(redis: RedisServer) -> None:
    ears = Ears()
    async with opened(url(redis), ears) as store, opened(url(redis)) as other:
        await owned(store)
        with store.follow("s") as follower:
            redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
            await other.submit("s", Settle(stop()))
            async with asyncio.timeout(SECONDS):
                while not any(isinstance(entry.body, StopEntry) for entry in (await store.read("s", 0, 10)).entries):
                    await follower.wait(SECONDS)
            await until(lambda: ears.grew == ["s"])
            ears.grew.clear()
            await other.create(waiting("w"))
            await until(lambda: ears.waiting == ["w"])


async def test_no_step_of_its_own_is_news_to_an_instance(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It subscribes to no session that it has. Its readers hear of what others write there all the same, also when it
    has lost the session to them.
    """
    monkeypatch.setattr("dispatcher.store.redis.poll.LOOK_SECONDS", 600)

    def subscribed() -> bool:
        return not redis.ask("PUBSUB", "NUMSUB", Channels(0).log("s")).endswith(b":0\r\n")

    async with opened(url(redis)) as one, opened(url(redis)) as two:
        with one.follow("s") as follower:

            async def reach(offset: int) -> None:
                async with asyncio.timeout(SECONDS):
                    while len((await one.read("s", 0, 100)).entries) < offset:
                        await follower.wait(SECONDS)

            await until(subscribed)
            epoch = await owned(one)
            await until(lambda: not subscribed())
            await one.submit("s", append(epoch, said(1)))
            await reach(2)
            await two.submit("s", append(epoch, said(2)))
            await reach(3)
            head_of(await two.submit("s", Acquire("c1", 1, instance(two), 107.0)))
            assert await one.submit("s", append(epoch, said(3))) == Refused("superseded")
            await until(subscribed)
            head_of(await two.submit("s", append(epoch + 1, said(3))))
            await reach(4)


async def test_a_log_that_was_rolled_back_is_read_anew(redis: RedisServer) -> None:
    """As by a failover that loses what was written last: what this process remembers of it counts no more."""
    async with opened(url(redis)) as store:
        epoch = await owned(store)
        head_of(await store.submit("s", append(epoch, said(1, "kept"))))
        before = dump(redis, "s")
        with store.follow("s") as follower:
            head_of(await store.submit("s", append(epoch, said(2, "lost"), said(3, "lost"))))
            assert len((await store.read("s", 0, 10)).entries) == 4
            restore(redis, "s", before)
            async with asyncio.timeout(SECONDS):
                while not await follower.wait(SECONDS):
                    pass
            assert len((await store.read("s", 0, 10)).entries) == 2
        outcome = await store.submit("s", append(epoch, said(2, "lost"), said(3, "lost")))
        assert head_of(outcome).offset == 4  # said again, not taken for a repetition
        assert await bodies(store) == [Content("kept"), Content("lost"), Content("lost")]


async def test_a_follower_hears_of_a_rollback_from_the_next_append_too(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatcher.store.redis.poll.LOOK_SECONDS", 600)
    async with opened(url(redis)) as store:
        epoch = await owned(store)
        before = dump(redis, "s")
        with store.follow("s") as follower:
            head_of(await store.submit("s", append(epoch, said(1, "lost"), said(2, "lost"))))
            assert not await follower.wait(SECONDS)
            restore(redis, "s", before)
            head_of(await store.submit("s", append(epoch, said(1, "again"))))
            assert await follower.wait(SECONDS)


def silently_add(redis: RedisServer, session_id: str, offset: int) -> None:
    entry = encode(replace(said(offset, "silent"), offset=offset))
    redis.ask("XADD", session_keys(session_id).log, f"{offset}-0", "e", entry)


def dump(redis: RedisServer, session_id: str) -> list[str]:
    keys = session_keys(session_id)
    copies = [f"copy-{n}" for n in range(2)]
    for key, copy in zip((keys.head, keys.log), copies, strict=True):
        redis.ask("COPY", key, copy, "REPLACE")
    return copies


def restore(redis: RedisServer, session_id: str, copies: list[str]) -> None:
    keys = session_keys(session_id)
    for key, copy in zip((keys.head, keys.log), copies, strict=True):
        redis.ask("COPY", copy, key, "REPLACE")


# ---- hints that are repaired


async def test_a_waiting_session_that_is_not_enlisted_is_enlisted(redis: RedisServer) -> None:
    ears = Ears()
    async with opened(url(redis)) as store, opened(url(redis), ears) as other:
        assert store.replicas
        assert other.replicas
        await store.create(waiting("w"))
        await until(lambda: ears.waiting == ["w"])
        redis.ask("DEL", WAITING, AGENTS)
        assert await other.replicas.waiting_count() == 0
        ears.waiting.clear()
        await store.replicas.orphans(())
        assert [each.session_id for each in await other.replicas.waiting(10)] == ["w"]
        await until(lambda: ears.waiting == ["w"])


async def test_a_session_that_cannot_be_read_hides_no_orphan(redis: RedisServer) -> None:
    async with opened(url(redis)) as store, opened(url(redis)) as other:
        assert other.replicas
        for name in ("bad", "orphan"):
            await owned(store, name)
        redis.ask("HSET", session_keys("bad").head, "head", "?")
        assert [record.session_id for record in await other.replicas.orphans(())] == ["orphan"]
        assert [record.session_id for record in await other.select(["running"], 10)] == ["orphan"]


async def test_who_stands_among_the_waiting_by_mistake_is_taken_out(redis: RedisServer) -> None:
    async with opened(url(redis)) as store:
        assert store.replicas
        await owned(store, "runs")
        epoch = await owned(store, "ended")
        await store.submit("ended", append(epoch, finished(1)))
        await owned(store, "tried")
        for name in ("runs", "ended", "tried", "gone", "never"):
            redis.ask("ZADD", WAITING, "100", name)
        await store.submit("tried", assign_to(instance(store)))
        await store.submit("never", assign_to(instance(store)))
        assert sorted(each.session_id for each in await store.replicas.waiting(10)) == ["ended", "gone", "runs"]
        await store.replicas.orphans(())
        assert await store.replicas.waiting(10) == []


async def test_an_end_that_is_not_in_the_index_is_put_there(redis: RedisServer) -> None:
    async with opened(url(redis)) as store:
        assert store.replicas
        epoch = await owned(store)
        await store.submit("s", append(epoch, finished(1, at=120.0)))
        await store.select(["finished"], 1)
        redis.ask("ZREM", ENDED, "s")
        redis.ask("ZADD", LIVE, "100", "s")
        assert await store.expire(200.0) == 0
        await store.replicas.orphans(())
        assert await store.expire(120.0) == 0
        assert await store.expire(200.0) == 1
        assert redis.ask("DBSIZE") == b":0\r\n"


async def test_a_live_session_is_never_dropped(redis: RedisServer) -> None:
    async with opened(url(redis)) as store:
        await owned(store)
        redis.ask("ZADD", ENDED, "100", "s", "100", "never")
        assert await store.expire(200.0) == 0
        assert await store.load("s")
        assert redis.ask("ZCARD", ENDED) == b":0\r\n"


async def test_what_is_lost_of_the_index_of_the_living_is_put_back(redis: RedisServer) -> None:
    async with opened(url(redis)) as store:
        assert store.replicas
        await owned(store)
        await store.create(waiting("w"))
        await store.replicas.renew()
        redis.ask("DEL", LIVE)
        assert await store.select(["running"], 10) == []
        await store.replicas.orphans(())
        assert [record.session_id for record in await store.select(["running", "waiting"], 10)] == ["w", "s"]


async def test_an_instance_without_sessions_is_forgotten(redis: RedisServer) -> None:
    async with opened(url(redis)) as store:
        assert store.replicas
        await store.replicas.renew()
        redis.ask("HSET", LEASES, "dead", "1000")
        assert await store.replicas.alive() == {instance(store)}
        await store.replicas.orphans(())
        assert redis.ask("HKEYS", LEASES).count(b"$") == 1
        assert await store.replicas.alive() == {instance(store)}


async def test_nothing_is_left_of_a_session_that_was_dropped(redis: RedisServer) -> None:
    async with opened(url(redis)) as store:
        for n in range(60):
            await store.create(waiting(f"s{n}"), IdempotencyKey(f"key-{n}", b"body", 1000.0))
            await store.submit(f"s{n}", Settle(stop()))
        assert await store.delete("s0")
        assert await store.expire(200.0) == 59
        await until(lambda: redis.ask("DBSIZE") == b":0\r\n")
        lanes = store._lanes  # type: ignore[attr-defined]
        assert isinstance(lanes, Lanes)
        assert list(lanes.owned()) == []


def assign_to(instance: str) -> Assign:
    return Assign("c1", instance, False, 105.0)


def count(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is asked of the server from now on, one by one."""
    asked: list[str] = []
    for name in ("call", "read"):
        real = getattr(Server, name)

        async def counting(server: Server, command: object, name=name, real=real) -> object:
            asked.append(name)
            return await real(server, command)

        monkeypatch.setattr(Server, name, counting)
    send = Server.send

    def counted(server: Server, command: Command) -> asyncio.Future[list[Reply]]:
        asked.append("send")
        return send(server, command)

    monkeypatch.setattr(Server, "send", counted)
    return asked

"""A Redis user that may not do all that the store needs is refused at start, in one line with the remedy."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import dispatcher.store.redis
from dispatcher.store.redis.rights import RULE, probes
from tests.dispatcher.store.redis.world import opened, owned, refused, until
from tests.redis_servers import RedisServer

ROOT = Path(__file__).parents[4]
ENOUGH = [right.strip("'") for right in RULE.split()]


@contextmanager
def user(server: RedisServer, *rights: str) -> Iterator[str]:
    """The address for a user with these rights, until the block ends."""
    assert server.ask("ACL", "SETUSER", "dispatcher", "on", ">secret", *rights) == b"+OK\r\n"
    try:
        yield f"redis://dispatcher:secret@{server.address}/0"
    finally:
        server.ask("ACL", "DELUSER", "dispatcher")


async def refused_with_remedy(address: str) -> str:
    line, semicolon, remedy = (await refused(address)).partition("; what works is ")
    assert semicolon
    assert remedy == f"ACL SETUSER dispatcher {RULE}"
    return line


async def test_a_user_as_redis_makes_them(redis: RedisServer, cluster: list[RedisServer]) -> None:
    """`acl-pubsub-default` is `resetchannels` since Redis 7."""
    for server in (redis, cluster[0]):
        with user(server, "~*", "+@all") as address:
            line = await refused_with_remedy(address)
        assert line == f"the store redis://{server.address}/0 does not allow the channels midsentence:*"


@pytest.mark.parametrize(
    ("taken", "missing"),
    [
        (("resetkeys",), "the keys midsentence:*"),
        (("resetkeys", "~midsentence:{*"), "the keys midsentence:*"),
        (("resetkeys", "%R~midsentence:*"), "the keys midsentence:*"),
        (("resetkeys", "%W~midsentence:*"), "the keys midsentence:*"),
        (("resetchannels",), "the channels midsentence:*"),
        (("resetchannels", "&midsentence:0:log:*"), "the channels midsentence:*"),
        (("-subscribe", "-unsubscribe"), "SUBSCRIBE, UNSUBSCRIBE"),
        (("-publish", "-xadd", "resetkeys"), "XADD, PUBLISH, the keys midsentence:*"),
        (("-@scripting",), "EVAL, EVALSHA"),
        (("-ping", "-time"), "TIME, PING"),
    ],
)
async def test_what_is_missing_is_named(redis: RedisServer, taken: tuple[str, ...], missing: str) -> None:
    with user(redis, *ENOUGH, *taken) as address:
        line = await refused_with_remedy(address)
    assert line.endswith(f" does not allow {missing}")


@pytest.mark.parametrize(("taken", "command"), [("-info", "info"), ("-client", "client|setname")])
async def test_what_comes_before_all_else(redis: RedisServer, taken: str, command: str) -> None:
    with user(redis, *ENOUGH, taken) as address:
        line = await refused_with_remedy(address)
    assert line.endswith(f" refuses: this user has no permissions to run the '{command}' command")


async def test_each_server_of_a_cluster_has_users_of_its_own(cluster: list[RedisServer]) -> None:
    first, second, third = cluster
    with user(first, *ENOUGH) as address, user(second, *ENOUGH), user(third, *ENOUGH, "-xadd"):
        assert f"the store 127.0.0.1:{third.port} does not allow XADD" in await refused_with_remedy(address)
    with user(first, *ENOUGH, "-cluster") as address:
        assert "does not allow CLUSTER|INFO, CLUSTER|SLOTS" in await refused_with_remedy(address)


async def test_a_server_needs_no_rights_of_clusters_and_of_replicas(redis: RedisServer) -> None:
    with user(redis, *ENOUGH, "-cluster", "-asking", "-wait") as address:
        async with opened(address) as store:
            await owned(store)
        assert "does not allow WAIT" in await refused_with_remedy(f"{address}?wait=1")


async def test_channels_that_are_taken_away_later_are_a_trouble_until_they_are_back(redis: RedisServer) -> None:
    with user(redis, *ENOUGH) as address:
        async with opened(address) as store:
            replicas = store.replicas
            assert replicas
            assert not replicas.trouble
            redis.ask("ACL", "SETUSER", "dispatcher", "resetchannels")
            await until(lambda: "no permissions to access one of the channels" in replicas.trouble)
            redis.ask("ACL", "SETUSER", "dispatcher", "&midsentence:*")
            await until(lambda: not replicas.trouble)


async def test_trying_leaves_nothing_behind(redis: RedisServer) -> None:
    redis.ask("FLUSHALL")
    with user(redis, *ENOUGH) as address:
        async with opened(address):
            pass
    assert redis.ask("DBSIZE") == b":0\r\n"


def test_each_command_of_the_store_is_tried() -> None:
    folder = Path(dispatcher.store.redis.__file__).parent
    named = {
        name
        for source in folder.glob("*.py")
        for name in re.findall(r"""(?:redis\.call|pack|command)\(['"]([A-Z]+)['"]""", source.read_text())
    }
    assert len(named) > 20
    assert named <= {str(probe[0]) for probe in probes(0, replicas=True, cluster=True)}


def test_the_operators_guide_says_the_rights_that_are_enough() -> None:
    assert RULE in (ROOT / "deploy/README.md").read_text()

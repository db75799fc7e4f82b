"""The connection: what goes out, what comes back, and what becomes of it when it breaks. A scripted server answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from unittest.mock import AsyncMock
from urllib.parse import quote, urlsplit

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.store.factory import open_store
from dispatcher.store.ports import StoreMisconfigured, StoreUnavailable
from dispatcher.store.redis.address import parse
from dispatcher.store.redis.pipeline import Pipeline, pack, together
from dispatcher.store.redis.store import RedisStore
from tests.sockets import listening

SECONDS = 30


class Script:
    """What the server read, command by command; `say` sends something to who is connected."""

    def __init__(self) -> None:
        self.commands: asyncio.Queue[list[bytes]] = asyncio.Queue()
        self.reads: list[int] = []  # commands that came together
        self.connections = 0
        self._writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.connections += 1
        parser = hiredis.Reader()
        while data := await reader.read(1 << 20):
            parser.feed(data)
            came = 0
            while (command := parser.gets()) is not False:
                if command[0] in (b"CLIENT", b"SELECT"):
                    writer.write(b"+OK\r\n")
                else:
                    came += 1
                    self.commands.put_nowait(command)
            self.reads += [came] if came else []

    async def next(self, count: int) -> list[bytes]:
        """The names of so many commands, once they have come."""
        return [(await asyncio.wait_for(self.commands.get(), SECONDS))[0] for _ in range(count)]

    def say(self, data: bytes) -> None:
        assert self._writer
        self._writer.write(data)

    def hang_up(self) -> None:
        assert self._writer
        self._writer.close()


@asynccontextmanager
async def linked(replicas: int = 0) -> AsyncIterator[tuple[Pipeline, Script]]:
    script = Script()
    async with listening(script.serve) as port:
        link = Pipeline(parse(urlsplit(f"redis://127.0.0.1:{port}/0")).connection, replicas)
        try:
            yield link, script
        finally:
            await link.close()


def commands(*names: str) -> list[bytes]:
    return [pack(name) for name in names]


@settings(deadline=None)
@given(st.lists(st.binary() | st.text(st.characters(codec="utf-8")) | st.integers() | st.floats(), min_size=1))
def test_what_is_packed_is_read_by_others(arguments: list[bytes | str | int | float]) -> None:
    reader = hiredis.Reader()
    reader.feed(pack(*arguments))
    assert reader.gets() == [
        argument if isinstance(argument, bytes) else str(argument).encode() for argument in arguments
    ]
    assert reader.gets() is False


async def test_what_is_sent_in_one_turn_goes_out_together_and_is_answered_in_order() -> None:
    async with linked() as (link, script):
        first, second, third = link.send(commands("A", "B")), link.send(commands("C")), link.send([])
        assert await third == []
        assert await script.next(3) == [b"A", b"B", b"C"]
        assert script.reads == [3]
        script.say(b"+one\r\n:2\r\n")
        assert await first == [b"one", 2]
        later = link.send(commands("D"))
        assert await script.next(1) == [b"D"]
        script.say(b"-ERR three\r\n$-1\r\n")
        [error] = await second
        assert "three" in str(error)
        assert await later == [None]
        assert script.connections == 1


async def test_what_is_under_way_fails_when_the_connection_breaks_and_the_next_connects_anew() -> None:
    async with linked() as (link, script):
        whole, half, none = link.send(commands("A")), link.send(commands("B", "C")), link.send(commands("D"))
        await script.next(4)
        script.say(b"+a\r\n+b\r\n")
        assert await whole == [b"a"]
        script.hang_up()
        for future in (half, none):
            with pytest.raises(StoreUnavailable, match="Redis does not answer"):
                await future
        again = link.send(commands("E"))
        assert await script.next(1) == [b"E"]
        script.say(b"+e\r\n")
        assert await again == [b"e"]
        assert script.connections == 2


async def test_a_broken_connection_leaves_no_cancellation_behind() -> None:
    """Python up to 3.11.2 takes one that is left in a task for its own in every later time limit there."""
    async with linked() as (link, script):
        broken = link.send(commands("A"))
        await script.next(1)
        script.hang_up()
        with pytest.raises(StoreUnavailable):
            await broken
        again = link.send(commands("B"))
        await script.next(1)
        assert link._serving.cancelling() == 0
        script.say(b"+b\r\n")
        assert await again == [b"b"]


async def test_what_runs_together_ends_together() -> None:
    ended = []

    async def forever(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async def broken() -> None:
        raise ConnectionResetError("broken")

    with pytest.raises(ConnectionResetError, match="broken"):
        await together(forever("a"), broken(), forever("b"))
    assert sorted(ended) == ["a", "b"]
    running = asyncio.create_task(together(forever("c"), forever("d")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert sorted(ended) == ["a", "b", "c", "d"]


async def test_who_does_not_want_to_wait_for_an_answer_takes_none_from_others() -> None:
    async with linked() as (link, script):
        given_up, kept = link.send(commands("A")), link.send(commands("B"))
        await script.next(2)
        given_up.cancel()
        script.say(b"+a\r\n+b\r\n")
        assert await kept == [b"b"]


async def test_a_reply_that_does_not_come_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.store.redis.pipeline.REPLY_SECONDS", 0.2)
    async with linked() as (link, script):
        with pytest.raises(StoreUnavailable, match=r"no reply within 0\.2 s"):
            await link.send(commands("A"))
        monkeypatch.setattr("dispatcher.store.redis.pipeline.REPLY_SECONDS", SECONDS)
        again = link.send(commands("B"))
        assert await script.next(2) == [b"A", b"B"]
        script.say(b"+b\r\n")
        assert await again == [b"b"]


async def test_what_is_no_redis_ends_the_connection() -> None:
    async with linked() as (link, script):
        asked = link.send(commands("A", "B"))
        await script.next(2)
        script.say(b"HTTP/1.1 200 OK\r\n\r\n")
        with pytest.raises(StoreUnavailable):
            await asked
        again = link.send(commands("C"))
        assert await script.next(1) == [b"C"]
        script.say(b"+c\r\n")
        assert await again == [b"c"]


async def test_replicas_acknowledge_a_batch_before_it_is_answered() -> None:
    async with linked(replicas=2) as (link, script):
        first, also = link.send(commands("A")), link.send(commands("B"))
        assert await script.next(3) == [b"A", b"B", b"WAIT"]
        script.say(b"+a\r\n+b\r\n")
        meanwhile = [link.send(commands(name)) for name in "CD"]
        assert not (await asyncio.wait([first, also, *meanwhile], timeout=0.05))[0]
        assert script.commands.empty()
        script.say(b":2\r\n")
        assert (await first, await also) == ([b"a"], [b"b"])
        assert await script.next(3) == [b"C", b"D", b"WAIT"]
        script.say(b"+c\r\n+d\r\n:1\r\n")
        for future in meanwhile:
            with pytest.raises(StoreUnavailable, match="of 2 Redis replicas, 1 have answered"):
                await future


async def test_nobody_knocks_again_at_once_where_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.store.redis.pipeline.PAUSE_SECONDS", 1000.0)
    attempts = 0
    address = parse(urlsplit("redis://127.0.0.1:1/0"))

    def make():
        nonlocal attempts
        attempts += 1
        return address.connection()

    link = Pipeline(make)
    for _ in range(50):
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1"):
            await link.send(commands("A"))
    assert attempts == 1
    await link.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await link.send(commands("A"))


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8"), min_size=1))
def test_credentials_come_out_of_a_url_as_they_went_in(user: str, password: str) -> None:
    address = parse(urlsplit(f"redis://{quote(user, safe='')}:{quote(password, safe='')}@host/0"))
    assert (address.arguments["username"], address.arguments["password"]) == (user, password)
    assert address.shown == "redis://host:6379/0"


@settings(deadline=None)
@given(st.text(), st.sampled_from(["redis", "rediss", "unix"]))
async def test_no_url_makes_anything_but_a_store_or_one_line_without_the_password(rest: str, scheme: str) -> None:
    line = ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RedisStore, "open", AsyncMock())
        try:
            await open_store(f"{scheme}://:a-very-secret@{rest}")
        except StoreMisconfigured as error:
            line = str(error)
    assert "a-very-secret" not in line
    assert "\n" not in line

"""Attacks that need a house of their own."""

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from dispatcher.access.new_keys import NewKey
from dispatcher.grpc_edge.stream import METADATA
from dispatcher.live.outliers import CONSECUTIVE_FAILURES
from dispatcher.live.pool import MAX_ASSIGNING
from dispatcher.store.redis.pipeline import pack
from shared import wire
from shared.records import Downstream, Drain
from tests.abuse import http, workers
from tests.abuse.house import CAPACITY, MORE_BYTES, House, Keys, commander, house, nothing, running
from tests.abuse.user import ACCEPTED, CREATED, OK, TOO_MANY, ask
from tests.faults.reader import FINAL, events
from tests.programs import need
from tests.redis_servers import RedisServer

pytestmark = [pytest.mark.abuse, pytest.mark.timeout(240)]

DESCRIPTORS = 256
LOG_BYTES = 1024**2  # that a flood of nonsense may write
WORST = ("a{200}b", r"(?i)\w{0,200}zz", r"[\s\S]{0,200}x", "(?:a?){100}a{100}c", "ffi{0,100}q")  # as dear as may be
DRAINED_SECONDS = 6.0
FLOOD_SECONDS = 3.0
MAX_STREAMS = 30  # in that time: 290 a second were seen


async def test_idle_connections_leave_room_for_everybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of users, more than there are descriptors: users, operators and Commanders are let in."""
    monkeypatch.setenv("PROBE_DESCRIPTORS", str(DESCRIPTORS))

    async def idle(world: House) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(2 * DESCRIPTORS):
                await stack.enter_async_context(http.connected(world.http))
            assert world.dispatcher.descriptors() > DESCRIPTORS // 2
            async with world.commander("brief"):
                assert (await ask(world.operator, "GET", "/operator/sessions"))[0] == OK

    async with house(tmp_path) as world:
        when_quiet = await world.beside(nothing)
        assert not await world.harm(idle, when_quiet)


async def test_busy_connections_leave_room_for_operators_and_commanders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Event streams of users, as many as are let in: none is idle."""
    monkeypatch.setenv("PROBE_DESCRIPTORS", str(DESCRIPTORS))
    until = tmp_path / "busy"
    body = {"agent": "steady", "prompt": "go", "parameters": {"until": str(until)}}
    async with house(tmp_path) as world, contextlib.AsyncExitStack() as stack:
        _, created = await ask(world.http, "POST", "/v1/sessions", body)
        answers = Counter[int]()
        for _ in range(2 * DESCRIPTORS):
            reader, writer = await stack.enter_async_context(http.connected(world.http))
            writer.write(f"GET {created['events']} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
            answers[await http.status(reader)] += 1
        assert answers[OK] > 0
        assert answers[503] > 0
        machine = commander("another", tmp_path, world.grpc, "brief", {})
        async with running(machine):
            await world.joined(2)
        path = f"/operator/sessions/{created['session_id']}/stop"
        assert (await ask(world.operator, "POST", path, {}))[0] == ACCEPTED


async def test_prompts_that_wait_cost_a_restart_little(tmp_path: Path) -> None:
    async with house(tmp_path, QUEUE_SECONDS="600") as world:
        when_quiet = await world.beside(nothing)
        waiting = await http.waiting_prompts(world)
        await asyncio.to_thread(world.program.kill)
        await world.dispatcher.start()
        assert world.memory("VmHWM") < when_quiet.peak + MORE_BYTES
        _, answer = await ask(world.operator, "GET", "/operator/sessions?state=waiting&limit=1000")
        assert len(answer["sessions"]) == waiting
        header = "Idempotency-Key: one-more-after-the-restart\r\n"
        assert await http.post(world.http, "/v1/sessions", b'{"agent": "nobody", "prompt": "x"}', header) == TOO_MANY


async def test_patterns_at_their_worst(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(f'[[policy]]\nname = "worst"\nkind = "patterns"\npatterns = {list(WORST)}\n')
    async with house(tmp_path, POLICIES=str(rules)) as world:
        when_quiet = await world.beside(nothing)
        await world.settle()
        assert not await world.harm(workers.adversary, when_quiet)
        assert not await world.left()


class Draining:
    """A Dispatcher that tells each Commander at once that it drains. streams: opened so far."""

    def __init__(self) -> None:
        self.streams = 0

    async def chat_stream(self, _: AsyncIterator[bytes], context: Any) -> None:
        self.streams += 1
        await context.send_initial_metadata(METADATA)
        await context.write(wire.encode_downstream([Downstream("", Drain("leaving"))]))
        while await context.read() is not grpc.aio.EOF:
            pass


async def test_a_dispatcher_that_drains_in_a_loop_is_asked_slower_and_slower(tmp_path: Path) -> None:
    server, draining = grpc.aio.server(), Draining()
    handler: Any = grpc.stream_stream_rpc_method_handler(
        draining.chat_stream, response_serializer=wire.DownstreamMessage.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(wire.SERVICE, {"ChatStream": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with running(commander("drained", tmp_path, port, "brief", {})):
            await asyncio.sleep(DRAINED_SECONDS)
            assert 2 <= draining.streams <= MAX_STREAMS
            assert (tmp_path / "drained.log").stat().st_size < LOG_BYTES
    finally:
        await server.stop(None)


def _publish(redis: RedisServer, seconds: float) -> None:
    """Nonsense on every channel, as fast as it is taken."""
    until = time.monotonic() + seconds
    channels = [name for name in redis.ask("PUBSUB", "CHANNELS", "midsentence:*").split(b"\r\n") if b":" in name]
    nonsense = [pack("PUBLISH", name, b"\xff nonsense " * 20) for name in channels] * 100
    with socket.create_connection(("127.0.0.1", redis.port)) as connection:
        connection.settimeout(seconds)
        while time.monotonic() < until:
            connection.sendall(b"".join(nonsense))
            left = len(nonsense)
            while left > 0:
                left -= connection.recv(65536).count(b"\r\n")


async def test_nonsense_from_a_neighbour_in_redis(tmp_path: Path) -> None:
    need("redis-server")
    redis = RedisServer(tmp_path / "redis")
    log = tmp_path / "dispatcher.log"

    async def lines_left_out(world: House) -> float:
        return (await world.gauges())["dispatcher_log_lines_left_out_total"]

    async def nonsense(world: House) -> None:
        before, left_out = log.stat().st_size, await lines_left_out(world)
        await asyncio.to_thread(_publish, redis, 3.0)
        assert log.stat().st_size - before < LOG_BYTES
        assert await lines_left_out(world) > left_out

    try:
        async with house(tmp_path, f"redis://127.0.0.1:{redis.port}/0") as world:
            when_quiet = await world.beside(nothing)
            assert not await world.harm(nonsense, when_quiet)
    finally:
        redis.close()


async def test_a_tenant_that_floods_beside_another(tmp_path: Path, capsys) -> None:
    """It may have as many sessions as there are slots, and asks on as fast as it can: another's turn comes."""
    access, over = tmp_path / "access.toml", tmp_path / "over"
    access.write_text(f'[[limit]]\ntenant = "*"\nsessions_at_once = {CAPACITY}\n')
    user, operator, worker, flooding = (
        key.append_to(access)
        for key in (
            NewKey("honest", "user", "honest"),
            NewKey("ops", "operator"),
            NewKey("worker", "commander"),
            NewKey("flooding", "user", "flooding"),
        )
    )
    over.touch()
    body = {"agent": "steady", "prompt": "go", "parameters": {"until": str(over)}}

    async def flood(world: House) -> None:
        answers = Counter[int]()
        until = time.monotonic() + FLOOD_SECONDS

        async def ask_on() -> None:
            while time.monotonic() < until:
                answers[(await ask(world.http, "POST", "/v1/sessions", body, flooding))[0]] += 1

        await asyncio.gather(*(ask_on() for _ in range(CAPACITY // 2)))
        with capsys.disabled():
            print(f"\n  {answers}", end=" ")
        assert answers[CREATED] > 0
        assert answers.keys() <= {CREATED, TOO_MANY}, answers

    async with house(tmp_path, keys=Keys(user, operator, worker), ACCESS=str(access)) as world:
        when_quiet = await world.beside(nothing)
        await world.settle()
        assert not await world.harm(flood, when_quiet)
        assert not await world.left()


async def test_one_broken_commander_among_four(tmp_path: Path) -> None:
    """It fails at once, and so has the most free slots: few sessions are lost to it."""
    async with house(tmp_path) as world, contextlib.AsyncExitStack() as stack:
        for number, agent in enumerate(("failing", "brief", "brief", "brief")):
            machine = commander(f"{agent}-{number}", tmp_path, world.grpc, agent, {"AGENT": "brief", "CAPACITY": "8"})
            await stack.enter_async_context(running(machine))
        await world.joined(5)
        ends = Counter[str]()

        async def one() -> None:
            body = {"agent": "brief", "prompt": "go", "parameters": {"words": 20}}
            status, created = await ask(world.http, "POST", "/v1/sessions", body)
            assert status == CREATED, created
            async for event in events(world.http, created["events"], "0"):
                if event.name in FINAL:
                    ends[event.name] += 1

        async with asyncio.timeout(60):
            for _ in range(6):
                await asyncio.gather(*(one() for _ in range(10)))
        assert ends.total() == 60
        assert 1 <= ends["failed"] <= CONSECUTIVE_FAILURES + MAX_ASSIGNING

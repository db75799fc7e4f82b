"""`kill -9` of Dispatchers and Commanders in the middle of sessions: users' texts are what they would have been."""

import contextlib
import os
import random
import re
import socket
import time

import httpx2
import pytest

from tests.e2e.agents import word
from tests.e2e.reading import Reader, ask
from tests.programs import commander, dispatcher, free_port

TOKENS, SECONDS = 150, 0.02
EXPECTED = "".join(map(word, range(TOKENS)))
SEED = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(2**32))


def addresses():
    return {f"{edge}_address": f"127.0.0.1:{free_port()}" for edge in ("grpc", "http", "operator")}


def kill_and_compare(tmp_path, kills, sessions, seed):
    chance = random.Random(seed)
    settings = {"store": f"sqlite:///{tmp_path}/sessions.db", **addresses()}
    url = f"http://{settings['http_address']}"
    with contextlib.ExitStack() as stack:
        current = stack.enter_context(contextlib.ExitStack())
        server = current.enter_context(dispatcher(tmp_path / "d0.log", **settings))
        stack.enter_context(
            commander(server.grpc, tmp_path / "c.log", "tests.e2e.agents:counting", capacity=str(sessions))
        )
        readers: list[Reader] = []
        for number in range(1, kills + 1):
            keep_busy(url, readers, sessions)
            time.sleep(chance.uniform(0.05, 0.6))  # kill at any moment: not to wait for something
            server.program.kill()
            current.close()
            server = current.enter_context(dispatcher(tmp_path / f"d{number}.log", **settings))
        for reader in readers:
            reader.ended(60)
            assert reader.final == ("finished", {"finish_reason": "stop", "usage": None}), f"seed {seed}"
            assert reader.text == EXPECTED, f"seed {seed}"
            assert reader.ids == sorted(set(reader.ids)), f"seed {seed}: an id came twice"


def keep_busy(url, readers, sessions):
    """Ask so that so many sessions are under way, and wait until some user has got more words."""
    running = [reader for reader in readers if reader.is_alive()]
    for _ in range(sessions - len(running)):
        running.append(Reader(url, ask(url, tokens=TOKENS, seconds=SECONDS)))
        readers.append(running[-1])
    before = [len(reader.text) for reader in running]
    wait_until(lambda: any(len(r.text) > b for r, b in zip(running, before, strict=True)))


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


def test_the_text_survives_kills_of_the_dispatcher(tmp_path):
    kill_and_compare(tmp_path, kills=3, sessions=6, seed=1)


@pytest.mark.faults
@pytest.mark.timeout(1200)  # up to twenty starts of programs, which take a minute each where all wait for the CPU
def test_the_text_survives_twenty_kills_of_the_dispatcher(tmp_path):
    kill_and_compare(tmp_path, kills=20, sessions=8, seed=SEED)


def kill_commanders(tmp_path, kills, sessions, seed):
    """Sessions of agents that can go on are taken over; the user's text is contiguous."""
    chance = random.Random(seed)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            dispatcher(tmp_path / "d.log", f"sqlite:///{tmp_path}/s.db", grace_seconds="0.3", takeovers=str(kills + 1))
        )
        url = f"http://{server.http}"
        pool = []

        def join(number):
            log = tmp_path / f"c{number}.log"
            pool.append(stack.enter_context(commander(server.grpc, log, "tests.e2e.agents:continuing", capacity="8")))

        join(0)
        readers: list[Reader] = []
        for number in range(1, kills + 1):
            join(number)
            keep_busy(url, readers, sessions)
            time.sleep(chance.uniform(0, 0.3))  # kill at any moment
            pool.pop(0).kill()
        for reader in readers:
            reader.ended(60)
            assert (reader.final[0], reader.text) == ("finished", EXPECTED), f"seed {seed}"
        metrics = httpx2.get(f"http://{server.operator}/metrics").text
        takeovers = re.search(r"dispatcher_takeovers_total (\d+)", metrics)
        assert takeovers
        assert int(takeovers[1]) > 0


def test_a_killed_commanders_sessions_go_on_at_another(tmp_path):
    kill_commanders(tmp_path, kills=1, sessions=4, seed=1)


@pytest.mark.faults
@pytest.mark.timeout(1200)  # up to twenty starts of programs, which take a minute each where all wait for the CPU
def test_sessions_go_on_over_ten_killed_commanders(tmp_path):
    kill_commanders(tmp_path, kills=10, sessions=6, seed=SEED)


def test_what_was_forked_holds_nothing_that_a_restart_needs(tmp_path):
    """Neither ports nor the file of a Dispatcher that is killed, nor a Commander's; who is connected learns of it."""
    until = tmp_path / "until"
    until.touch()
    tools, effects = tmp_path / "tools.toml", [tmp_path / "tool", tmp_path / "agent"]
    tools.write_text('[[tool]]\nname = "fork"\nkind = "local"\nuse = "tests.e2e.agents:fork"\n')
    settings = {"store": f"sqlite:///{tmp_path}/sessions.db", "tools": str(tools), **addresses()}
    metrics = f"127.0.0.1:{free_port()}"
    with contextlib.ExitStack() as stack:
        stack.callback(until.unlink)
        first = stack.enter_context(dispatcher(tmp_path / "d0.log", **settings))
        work = commander(first.grpc, tmp_path / "c0.log", "tests.e2e.agents:forking", metrics_address=metrics)
        killed = stack.enter_context(work)
        host, port = first.http.split(":")
        connected = stack.enter_context(socket.create_connection((host, int(port))))
        ask(f"http://{first.http}", until=str(until), tool=str(effects[0]), agent=str(effects[1]))
        wait_until(lambda: all(effect.exists() for effect in effects))
        first.program.kill()
        killed.kill()
        connected.settimeout(10)
        assert connected.recv(1) == b""
        again = stack.enter_context(dispatcher(tmp_path / "d1.log", **settings))
        stack.enter_context(
            commander(again.grpc, tmp_path / "c1.log", "tests.e2e.agents:counting", metrics_address=metrics)
        )
        for effect in effects:
            os.kill(int(effect.read_text()), 0)  # the child lives


def test_a_tool_runs_at_most_once_whatever_dies(tmp_path):
    """Each call's line stands at most once in the file; where it is not known, the agent was told so."""
    file, tools = tmp_path / "effects", tmp_path / "tools.toml"
    tools.write_text('[[tool]]\nname = "note"\nkind = "local"\nuse = "tests.e2e.agents:note"\n')
    settings = {"store": f"sqlite:///{tmp_path}/sessions.db", "tools": str(tools), **addresses()}
    url = f"http://{settings['http_address']}"
    with contextlib.ExitStack() as stack:
        current = stack.enter_context(contextlib.ExitStack())
        server = current.enter_context(dispatcher(tmp_path / "d0.log", **settings))
        stack.enter_context(commander(server.grpc, tmp_path / "c.log", "tests.e2e.agents:noting"))
        readers = [Reader(url, ask(url, file=str(file), calls=40)) for _ in range(4)]
        wait_until(lambda: file.exists() and len(file.read_text().splitlines()) > 10)
        server.program.kill()
        current.close()
        server = current.enter_context(dispatcher(tmp_path / "d1.log", **settings))
        for reader in readers:
            reader.ended(60)
        lines = file.read_text().splitlines()
        assert len(lines) == len(set(lines))

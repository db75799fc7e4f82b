"""Two Dispatchers on one Redis: whatever is asked of one reaches what runs at the other."""

import contextlib

import httpx2
import pytest

from tests.e2e.agents import word
from tests.e2e.reading import Reader, ask
from tests.e2e.test_kill import wait_until
from tests.programs import commander, dispatcher
from tests.redis_servers import redis_server

TOKENS, SECONDS = 60, 0.02
TEXT = "".join(map(word, range(TOKENS)))


@pytest.fixture(params=["redis", "cluster"])
def store(request):
    server = request.getfixturevalue(request.param)
    return f"redis://{(server[0] if isinstance(server, list) else server).address}/0"


def test_ask_read_and_stop_at_any_replica(store, tmp_path):
    made = tmp_path / "made"
    with (
        dispatcher(tmp_path / "one.log", store) as one,
        dispatcher(tmp_path / "two.log", store) as two,
        commander(two.grpc, tmp_path / "c.log", "tests.e2e.agents:counting", capacity="2"),
    ):
        urls = [f"http://{server.http}" for server in (one, two)]
        session = ask(urls[0], tokens=TOKENS, seconds=SECONDS)
        readers = [Reader(url, session) for url in urls]
        for reader in readers:
            assert reader.ended(60).text == TEXT
            assert reader.final == ("finished", {"finish_reason": "stop", "usage": None})
        assert readers[0].ids[-1] == readers[1].ids[-1]
        # A stop at the replica that does not have the stream.
        session = ask(urls[0], tokens=5000, seconds=0.005, made=str(made))
        readers = [Reader(url, session) for url in urls]
        wait_until(lambda: all(reader.text for reader in readers))
        assert httpx2.post(f"{urls[0]}/v1/sessions/{session}/stop").status_code == 202
        for reader in readers:
            assert reader.ended(60).final == ("stopped", {"reason": "UserCancel"})
        wait_until(made.exists)
        wait_until(lambda: made.read_text().count(" "))
        number, _ = made.read_text().split()
        assert int(number) < 2500
        assert readers[0].text == readers[1].text


def test_redis_is_away_for_a_while(tmp_path):
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(redis_server(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always"))
        store = f"redis://{redis.address}/0"
        servers = [stack.enter_context(dispatcher(tmp_path / f"{n}.log", store)) for n in range(2)]
        stack.enter_context(commander(servers[1].grpc, tmp_path / "c.log", "tests.e2e.agents:counting"))
        session = ask(f"http://{servers[0].http}", tokens=TOKENS, seconds=SECONDS)
        readers = [Reader(f"http://{server.http}", session) for server in servers]
        wait_until(lambda: all(reader.text for reader in readers))
        redis.kill()
        wait_until(lambda: httpx2.get(f"http://{servers[0].operator}/readyz").status_code == 503)
        redis.start()
        for reader in readers:
            assert reader.ended(60).text == TEXT
            assert reader.ids == sorted(set(reader.ids))
        wait_until(lambda: httpx2.get(f"http://{servers[0].http}/readyz").status_code == 200)

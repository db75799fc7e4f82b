"""Replicas that come and go under load: nobody restarts anything, and users notice nothing but a pause."""

import signal

import httpx2

from tests.e2e.agents import word
from tests.e2e.reading import Reader, ask
from tests.replicas import eventually, figure, replicas


def text(tokens: int) -> str:
    return "".join(map(word, range(tokens)))


def test_sessions_move_in_mid_sentence_to_a_replica_that_came_later(tmp_path):
    """The Commander has never heard of the replica, for nothing made it look: the one that leaves does."""
    with replicas(tmp_path) as rig:
        leaving = rig.dispatcher()
        rig.commander("tests.e2e.agents:counting", capacity="4")
        eventually(lambda: figure(leaving.operator, "dispatcher_commanders") == 1, "the Commander joins")
        staying = rig.dispatcher()
        tokens = 600
        readers = [Reader(f"http://{staying.http}", ask(f"http://{staying.http}", tokens=tokens, seconds=0.02))]
        eventually(lambda: all(reader.text for reader in readers), "words")
        leaving.program.send_signal(signal.SIGTERM)
        assert leaving.program.exit_status(30) == 0
        assert not any(reader.final[0] for reader in readers)
        for reader in readers:
            assert reader.ended(60).text == text(tokens)


def test_a_replica_that_leaves_answers_until_haproxy_has_noticed(tmp_path):
    """Else the requests that are under way to it when it closes its port are lost, and none of them can be repeated."""
    with replicas(tmp_path) as rig:
        edge = rig.haproxy()
        leaving = rig.dispatcher()
        eventually(lambda: edge.ready() == 1, "HAProxy finds it")
        leaving.program.send_signal(signal.SIGTERM)
        eventually(lambda: httpx2.get(f"http://{leaving.http}/readyz").status_code == 503, "it is not ready")
        eventually(lambda: edge.ready() == 0, "HAProxy has noticed")
        assert httpx2.post(f"http://{leaving.http}/v1/sessions", json={"prompt": "Hello."}).status_code == 201
        assert leaving.program.exit_status(30) == 0

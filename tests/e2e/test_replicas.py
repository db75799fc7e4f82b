"""Replicas that come and go under load: nobody restarts anything, and users notice nothing but a pause."""

import signal
import threading

import httpx2
import pytest

from tests.e2e.agents import word
from tests.e2e.reading import Reader, ask
from tests.programs import Dispatcher
from tests.replicas import Commander, eventually, figure, replicas


def text(tokens: int) -> str:
    return "".join(map(word, range(tokens)))


def test_sessions_move_in_mid_sentence_to_a_replica_that_came_later(tmp_path):
    """The Commander has never heard of the replica, for nothing made it look: the one that leaves does."""
    with replicas(tmp_path) as rig:
        leaving = rig.dispatcher()
        rig.commander("tests.e2e.agents:counting", capacity="4")
        eventually(lambda: figure(leaving.operator, "dispatcher_commanders") == 1, "the Commander joins")
        staying = rig.dispatcher()
        tokens = 400
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
        assert ask(f"http://{leaving.http}", "Hello.")
        assert leaving.program.exit_status(30) == 0


class Load:
    """Sessions that begin one after the other, each read through HAProxy to its end. Use as a context manager."""

    def __init__(self, url: str, tokens: int, seconds: float, pause: float) -> None:
        self.readers: list[Reader] = []
        self._url, self._tokens, self._seconds, self._pause = url, tokens, seconds, pause
        self._enough = threading.Event()
        self._error: BaseException | None = None
        self._asking = threading.Thread(target=self._ask, daemon=True)

    def _ask(self) -> None:
        try:
            while not self._enough.wait(self._pause):
                session = ask(self._url, tokens=self._tokens, seconds=self._seconds)
                self.readers.append(Reader(self._url, session))
        except BaseException as error:
            self._error = error

    def __enter__(self) -> "Load":
        self._asking.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._enough.set()
        self._asking.join()
        if kind is None:
            if self._error:
                raise self._error
            for reader in self.readers:
                assert reader.ended(60).final[0] == "finished"
                assert reader.text == text(self._tokens)


def streams(replica: Dispatcher) -> float:
    """That were opened at it."""
    return figure(replica.operator, 'grpc_server_started_total{grpc_method="ChatStream"')


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", ["by name", "through HAProxy"])
def test_new_replicas_and_commanders_get_their_share_without_a_restart(tmp_path, way):
    with replicas(tmp_path) as rig:
        edge = rig.haproxy()
        reach = {"dispatcher": edge.target} if way == "through HAProxy" else {}

        def add() -> tuple[list[Dispatcher], list[Commander]]:
            """Two more of each."""
            return (
                [rig.dispatcher(keepalive__max_connection_age_ms="1500") for _ in range(2)],
                [rig.commander("tests.e2e.agents:counting", capacity="4", **reach) for _ in range(2)],
            )

        first, commanders = add()
        eventually(lambda: edge.ready() == edge.ready("commanders") == 2, "HAProxy finds the first two")
        with Load(edge.url, tokens=40, seconds=0.04, pause=0.25) as load:
            eventually(lambda: any(reader.final[0] for reader in load.readers), "sessions end")
            second, more = add()
            eventually(lambda: edge.ready() == 4, "HAProxy finds the new ones")
            for replica in second:
                eventually(lambda: streams(replica) > 0, "a new replica has a stream", 90)  # noqa: B023
                eventually(
                    lambda: figure(replica.operator, 'dispatcher_packets_total{kind="content"') > 0,  # noqa: B023
                    "sessions run there",
                    90,
                )
            for commander in more:
                eventually(lambda: figure(commander.metrics, "commander_tokens_total") > 0, "it works", 90)  # noqa: B023
            before = [streams(replica) for replica in first]
            eventually(
                lambda: all(streams(replica) > count for replica, count in zip(first, before, strict=True)),
                "the first ones have their share, too",
                90,
            )
        assert all(program.alive for program in [one.program for one in first] + [one.program for one in commanders]), (
            "nothing was restarted"
        )


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_a_rolling_restart_loses_no_request_and_no_word(tmp_path):
    """Each replica in its turn gets SIGTERM, and another takes its place; `Load` lets no request fail."""
    with replicas(tmp_path) as rig:
        edge = rig.haproxy()
        current = [rig.dispatcher() for _ in range(2)]
        rig.commander("tests.e2e.agents:counting", capacity="40")
        eventually(lambda: edge.ready() == 2, "HAProxy finds both")
        with Load(edge.url, tokens=150, seconds=0.04, pause=0.2) as load:
            eventually(lambda: any(reader.text for reader in load.readers), "words")
            for leaving in current:
                leaving.program.send_signal(signal.SIGTERM)
                assert leaving.program.exit_status(30) == 0
                rig.dispatcher(host=rig.leave(leaving))
                eventually(lambda: edge.ready() == 2, "HAProxy finds the new one")
            assert not all(reader.final[0] for reader in load.readers), "in mid-sentence"


@pytest.mark.parametrize(("agent", "tokens", "moved"), [("counting", 60, False), ("continuing", 300, True)])
def test_a_commanders_sessions_end_there_or_are_handed_over(tmp_path, agent, tokens, moved):
    """At SIGTERM. The short ones finish within its time; the long ones go on at another at the end of that."""
    with replicas(tmp_path) as rig:
        replica = rig.dispatcher()
        url = f"http://{replica.http}"
        leaving = rig.commander(f"tests.e2e.agents:{agent}", capacity="4", drain_seconds="2" if moved else "30")
        readers = [Reader(url, ask(url, tokens=tokens, seconds=0.02)) for _ in range(4)]
        eventually(lambda: all(reader.text for reader in readers), "words")
        rig.commander(f"tests.e2e.agents:{agent}", capacity="9")
        eventually(lambda: figure(replica.operator, "dispatcher_free_slots") >= 9, "the other one joins")
        leaving.program.send_signal(signal.SIGTERM)
        eventually(lambda: figure(replica.operator, "dispatcher_free_slots") == 9, "no slot of it is offered")
        later = Reader(url, ask(url, tokens=20, seconds=0.02))
        assert leaving.program.exit_status(40) == 0
        assert any(not reader.final[0] for reader in readers) is moved
        for reader in readers:
            assert (reader.ended(60).final[0], reader.text) == ("finished", text(tokens))
        assert later.ended(60).text == text(20)
        assert figure(replica.operator, "dispatcher_takeovers_total") == 0, "a hand-over is no loss"

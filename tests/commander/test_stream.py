"""What the stream's own rules are; sessions on streams stand in test_worker."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import cast

import grpc
import pytest
from grpc import aio
from prometheus_client import CollectorRegistry

from commander.credentials import ClientTls, Credentials
from commander.outbox import Outbox
from commander.session import Session
from commander.stream import MAX_BACKOFF, PATH, DispatcherChannel, Stream, StreamCall, backoff
from shared import records, wire
from shared.channel import ClientKeepalive, client_options
from shared.envelope import split
from shared.grpc_metrics import ClientMetrics
from tests.certificates import Authority
from tests.commander.fake_dispatcher import Commander, FakeDispatcher, settings, soon


@pytest.mark.parametrize("failures", [0, 1, 5, 10_000])
def test_the_back_off_is_bounded_however_long_nobody_answers(failures: int) -> None:
    assert all(0 <= backoff(failures) <= MAX_BACKOFF for _ in range(100))


@pytest.mark.parametrize(
    ("code", "counted"),
    [(grpc.StatusCode.OK, "OK"), (grpc.StatusCode.UNAVAILABLE, "Unavailable"), (None, "Canceled")],
)
async def test_messages_and_the_end_are_counted(
    dispatcher: FakeDispatcher, code: grpc.StatusCode | None, counted: str
) -> None:
    """code: of the Dispatcher; None: the stream is cut here."""
    commander = Commander(settings(dispatcher))
    received: asyncio.Queue[records.Downstream] = asyncio.Queue()

    def status(_: Stream) -> records.Upstream:
        return records.Upstream("", records.Status("c"))

    stream = commander.channel.stream(lambda _, packet: received.put_nowait(packet), 0, status)
    peer = await dispatcher.peer()
    for _ in range(3):
        await peer.status()
        await peer.send("", records.Drain("a test"), records.Drain("a batch is one message"))
        assert await soon(received.get())
        assert await soon(received.get())
        stream.status_due()
    await peer.status()
    _, service, method = PATH.split("/")
    labels = {"grpc_type": "bidi_stream", "grpc_service": service, "grpc_method": method}
    async with asyncio.timeout(30):
        while commander.value("grpc_client_msg_sent_total", **labels) != 4:  # noqa: ASYNC110 (nothing to await)
            await asyncio.sleep(0.001)
    if code is None:
        stream.cut()
    else:
        peer.end(code)
    assert await soon(stream.ended) is code
    await commander.channel.close()
    assert commander.value("grpc_client_started_total", **labels) == 1
    assert commander.value("grpc_client_msg_received_total", **labels) == 3
    assert commander.value("grpc_client_handling_seconds_count", **labels) == 1
    assert commander.value("grpc_client_handled_total", **labels, grpc_code=counted) == 1


async def test_a_changed_certificate_is_shown_by_the_next_stream_while_the_one_before_goes_on(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    edge, own = authority.issue("edge"), authority.issue("own")
    tls = grpc.ssl_server_credentials(
        [(edge.key.read_bytes(), edge.cert.read_bytes())], authority.ca.read_bytes(), True
    )
    async with FakeDispatcher().serving(tls) as dispatcher:
        target = f"localhost:{dispatcher.port}"
        credentials = Credentials(target, ClientTls(ca=str(authority.ca), cert=own.cert, key=own.key))
        channel = DispatcherChannel(
            target, client_options(ClientKeepalive()), ClientMetrics(CollectorRegistry()), credentials
        )
        received: asyncio.Queue[tuple[Stream, records.Downstream]] = asyncio.Queue()

        def opened() -> Stream:
            return channel.stream(lambda stream, packet: received.put_nowait((stream, packet)), 0)

        first, used = opened(), channel._channel
        before = await dispatcher.peer()
        assert before.certificate == own.cert.read_bytes()
        second = opened()
        assert channel._channel is used, "nothing has changed"
        between = await dispatcher.peer()

        authority.issue("own")
        opened()
        assert (await dispatcher.peer()).certificate == own.cert.read_bytes() != before.certificate
        await before.send("", records.Drain("a test"))
        assert (await soon(received.get()))[0] is first
        for peer, stream in ((before, first), (between, second)):
            assert used._closing is None, "it carries a stream"
            peer.end()
            await soon(stream.ended)
        assert used._closing
        await soon(used._closing)
        await channel.close()


class SlowCall:
    """grpc.aio's call to a Dispatcher that takes a message when the test lets it."""

    def __init__(self) -> None:
        self.written: list[list[str]] = []  # the sessions of each message
        self._permits = asyncio.Semaphore(0)
        self._over = asyncio.Event()

    def take(self) -> None:
        self._permits.release()

    async def write(self, message: bytes) -> None:
        self.written.append([wire.decode_upstream(packet).session_id for packet in split(message)[1]])
        await self._permits.acquire()

    async def read(self) -> object:
        await self._over.wait()
        return aio.EOF

    async def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.CANCELLED

    async def details(self) -> str:
        return ""

    def done(self) -> bool:
        return self._over.is_set()

    def cancel(self) -> None:
        self._over.set()


class Talking:
    """A session that has waiting what an agent may say before it has to wait, again and again."""

    def __init__(self, name: str) -> None:
        self._box = Outbox(name)
        self._box.welcome(0, 2**32 - 1, 2**32 - 1)

    def take(self, stream: Stream, budget: int) -> list[records.Upstream]:
        while not self._box.full:
            self._box.say("x" * 100)
        return self._box.take(budget, 0)


async def test_a_new_session_waits_for_the_message_under_way_and_not_for_all_that_others_say() -> None:
    call = SlowCall()
    counted = ClientMetrics(CollectorRegistry()).began(PATH)
    stream = Stream(cast("StreamCall", call), counted, lambda stream, packet: None, 0, None)

    def queue(name: str) -> None:
        stream.queue(cast("Session", Talking(name)))

    for number in range(24):
        queue(f"flood {number}")
    for _ in range(3):
        messages = len(call.written)
        await until(lambda: len(call.written) > messages)  # noqa: B023
        call.take()
    await until(lambda: len(call.written) == 4)
    queue("new")
    call.take()
    await until(lambda: len(call.written) == 5)
    call.take()
    await until(lambda: len(call.written) == 6)
    assert {"new"} | {f"flood {number}" for number in range(24)} == set(call.written[4] + call.written[5])
    stream.cut()
    call.take()
    await soon(stream.ended)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (nothing to await)
            await asyncio.sleep(0)

"""What the stream's own rules are; sessions on streams stand in test_worker."""

import asyncio
from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry

from commander.credentials import ClientTls, Credentials
from commander.stream import MAX_BACKOFF, PATH, DispatcherChannel, Stream, backoff
from shared import records
from shared.channel import ClientKeepalive, client_options
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

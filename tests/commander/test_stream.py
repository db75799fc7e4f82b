"""What the stream's own rules are; sessions on streams stand in test_worker."""

import asyncio

import grpc
import pytest

from commander.stream import MAX_BACKOFF, PATH, Stream, backoff
from shared import records
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

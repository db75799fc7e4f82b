"""Messages that no published program sends: bytes by hand, each answered with the right status on its own stream."""

import asyncio
import contextlib
import secrets
from typing import Any

import grpc
import pytest

from shared.pb import agent_pb2 as pb
from tests.integration.foreign.conftest import METHOD, SECONDS

INTERNALS = ("Traceback", "Error", "exception", ".py", "codec", "protobuf")


async def outcome(channel: grpc.aio.Channel, *messages: bytes) -> tuple[grpc.StatusCode, str]:
    """The status that a stream with these messages ends with, and its text; it is not half-closed before."""
    call: Any = channel.stream_stream(METHOD)()
    for message in messages:
        try:
            await asyncio.wait_for(call.write(message), SECONDS)
        except (grpc.RpcError, asyncio.InvalidStateError):
            break  # refused already
    return await status(call)


async def status(call: Any) -> tuple[grpc.StatusCode, str]:
    """What the stream ends with; it comes only after all messages have been read."""
    async with asyncio.timeout(SECONDS):
        with contextlib.suppress(grpc.RpcError):
            while await call.read() is not grpc.aio.EOF:
                pass
        return await call.code(), await call.details()


CONTENT = pb.UpstreamPacket(content=pb.ContentChunk(text="x"))
NUMBERED = pb.UpstreamPacket(sequence=1, content=pb.ContentChunk(text="x"))
NOT_UTF8 = CONTENT.SerializeToString().replace(b"x", b"\xff")

CASES = {
    "text that is not UTF-8": [NOT_UTF8],
    "text that is not UTF-8, later": [CONTENT.SerializeToString(), NOT_UTF8],
    "not protobuf": [b"\xff\xff\xff"],
    "a batch as first message": [pb.UpstreamPacket(batch=[CONTENT, CONTENT]).SerializeToString()],
    "unnumbered after numbered": [NUMBERED.SerializeToString(), CONTENT.SerializeToString()],
}


@pytest.mark.parametrize("messages", CASES.values(), ids=CASES)
async def test_malformed_is_an_invalid_argument(channel: grpc.aio.Channel, messages: list[bytes]) -> None:
    code, details = await outcome(channel, *messages)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details
    assert not [word for word in INTERNALS if word in details]


async def test_a_message_above_its_size_is_resource_exhausted(channel: grpc.aio.Channel) -> None:
    too_large = pb.UpstreamPacket(tool_call=pb.ToolCallRequest(arguments_json="x" * (16 * 1024 * 1024)))
    code, _ = await outcome(channel, too_large.SerializeToString())
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_neighbour_on_the_connection_does_not_notice(channel: grpc.aio.Channel) -> None:
    neighbour: Any = channel.stream_stream(METHOD)()
    named = pb.UpstreamPacket(session_id=secrets.token_urlsafe(24), content=pb.ContentChunk(text="x"))
    await neighbour.write(named.SerializeToString())
    for messages in CASES.values():
        await outcome(channel, *messages)
    await neighbour.write(pb.UpstreamPacket(content=pb.ContentChunk(is_finish=True)).SerializeToString())
    await neighbour.done_writing()
    code, _ = await status(neighbour)
    assert code is grpc.StatusCode.OK


async def test_the_contract_announces_itself_at_once(channel: grpc.aio.Channel) -> None:
    call: Any = channel.stream_stream(METHOD)()
    async with asyncio.timeout(SECONDS):
        assert ("midsentence-contract", "1") in list(await call.initial_metadata())
    call.cancel()

"""Calls that come at once with the end, again and again: what is logged close together leads to all it should."""

import asyncio
import json
from typing import Any

import grpc

from shared.pb import agent_pb2 as pb
from tests.integration.foreign.conftest import METHOD, SECONDS

SESSIONS = 60


async def results(channel: grpc.aio.Channel) -> list[Any]:
    """What two calls at once are answered with before the RPC ends."""
    call: Any = channel.stream_stream(
        METHOD,
        request_serializer=pb.UpstreamPacket.SerializeToString,
        response_deserializer=pb.DownstreamPacket.FromString,
    )()
    for tool, arguments in (("no_such_tool", "{}"), ("calculate", "{not json")):
        request = pb.ToolCallRequest(tool_name=tool, arguments_json=arguments)
        await call.write(pb.UpstreamPacket(tool_call=request))
    await call.write(pb.UpstreamPacket(content=pb.ContentChunk(is_finish=True)))
    await call.done_writing()
    found = []
    while (packet := await call.read()) is not grpc.aio.EOF:
        if packet.HasField("tool_result"):
            found.append(json.loads(packet.tool_result.result_json)["error"]["code"])
    assert await call.code() is grpc.StatusCode.OK
    return sorted(found)


async def test_every_call_is_answered(channel: grpc.aio.Channel) -> None:
    async with asyncio.timeout(SECONDS):
        answers = [await results(channel) for _ in range(SESSIONS)]
    assert answers == [answers[0]] * SESSIONS
    assert len(answers[0]) == 2

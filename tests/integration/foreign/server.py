"""A Dispatcher as a stranger would write it, from published.proto alone (its stubs are found by PYTHONPATH).

    python server.py

It prints its port, then each packet that it gets as a line of JSON. Each line of standard input is a packet to send on
the stream, as protobuf's JSON: a tool's result has no call_id and a stop no stop_id, nothing is acked, no metadata is
sent. At `is_finish` or the end of the stream it prints `null` and ends the RPC.
"""

import asyncio
import json
import os
import sys
from typing import Any

import grpc
import published_pb2 as pb  # type: ignore[import-not-found] # made by the test, for this process only
import published_pb2_grpc  # type: ignore[import-not-found]
from google.protobuf import json_format


class Server(published_pb2_grpc.AgentInteractionServicer):  # type: ignore[misc]
    def __init__(self, lines: asyncio.StreamReader) -> None:
        self.lines = lines

    async def ChatStream(self, packets: Any, context: Any) -> None:  # noqa: N802
        sending = asyncio.create_task(self.send(context))
        try:
            async for packet in packets:
                print(json_format.MessageToJson(packet, indent=None, preserving_proto_field_name=True), flush=True)
                if packet.content.is_finish:
                    break
        finally:
            sending.cancel()
            print("null", flush=True)

    async def send(self, context: Any) -> None:
        while line := await self.lines.readline():
            await context.write(json_format.Parse(line, pb.DownstreamPacket()))


async def main() -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    published_pb2_grpc.add_AgentInteractionServicer_to_server(Server(lines), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"port": port, "pid": os.getpid()}), flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())

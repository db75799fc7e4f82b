"""A Commander as a stranger would write it, from published.proto alone (its stubs are found by PYTHONPATH).

    python client.py ADDRESS

Each line of standard input is a packet to send, as protobuf's JSON; the end of the input is its half-close. It prints
each packet that it gets as a line of JSON, and at last `{"status": ...}`, the RPC's.
"""

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import published_pb2 as pb  # type: ignore[import-not-found] # made by the test, for this process only
import published_pb2_grpc  # type: ignore[import-not-found]
from google.protobuf import json_format


def packets() -> Iterator[Any]:
    for line in sys.stdin:
        yield json_format.Parse(line, pb.UpstreamPacket())


def main() -> None:
    status = grpc.StatusCode.OK
    with grpc.insecure_channel(sys.argv[1]) as channel:
        call = published_pb2_grpc.AgentInteractionStub(channel).ChatStream(packets(), wait_for_ready=True)
        try:
            for packet in call:
                print(json_format.MessageToJson(packet, indent=None, preserving_proto_field_name=True), flush=True)
        except grpc.RpcError:
            status = call.code()
        print(json.dumps({"status": status.name, "details": call.details()}), flush=True)
        os._exit(0)  # the thread that sends still waits for input


if __name__ == "__main__":
    main()

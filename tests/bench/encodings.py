"""What a message is as Protocol Buffers, which the contract speaks, and as JSON: its bytes, and the CPU of both ends.

JSON by Python's own `json` and by `orjson`, from and to dicts, as programs hold what they send by it. Embeddings are
not in the contract: a message of one packed field stands for them, and JSON has eight digits a number, as providers'
answers have.
"""

import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import orjson
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from shared.pb import agent_pb2 as pb
from tests.bench.measures import Figures

DIMENSIONS = 1536
REPEATS = 5
LEAST = 0.05  # seconds of CPU that one repeat takes at least


def measured() -> dict[str, dict[str, list[Figures]]]:
    """Message → encoding → figures. A message of Protocol Buffers is made and read too, as a dict is: most of what it
    costs is there.
    """
    session_id, text = "s" * 32, " midsentence"
    chance = random.Random(5)
    numbers = [round(chance.gauss(0, 0.03), 8) for _ in range(DIMENSIONS)]
    embedding: Any = _embedding_class()

    def say() -> bytes:
        content = pb.ContentChunk(text=text)
        return pb.UpstreamPacket(session_id=session_id, sequence=1234, content=content).SerializeToString()

    def said(data: bytes) -> object:
        packet = pb.UpstreamPacket.FromString(data)
        return packet.session_id, packet.sequence, packet.content.text

    as_json = {"session_id": session_id, "sequence": 1234, "content": {"text": text}}
    return {
        "encodings: a token": {"protobuf": _figures(say, said)} | _json(as_json),
        f"encodings: an embedding of {DIMENSIONS:,} numbers": {
            "protobuf": _figures(
                lambda: embedding(values=numbers).SerializeToString(),
                lambda data: list(embedding.FromString(data).values),
            )
        }
        | _json({"values": numbers}),
    }


def _embedding_class() -> type[Message]:
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="bench/embedding.proto", package="bench", syntax="proto3")
    message = file.message_type.add(name="Embedding")
    message.field.add(name="values", number=1, type=field.TYPE_FLOAT, label=field.LABEL_REPEATED)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("bench.Embedding"))


def _json(value: dict[str, Any]) -> dict[str, list[Figures]]:
    return {
        "json": _figures(lambda: json.dumps(value, separators=(",", ":")).encode(), json.loads),
        "orjson": _figures(lambda: orjson.dumps(value), orjson.loads),
    }


def _figures(encode: Callable[[], bytes], decode: Callable[[bytes], object]) -> list[Figures]:
    encoded = encode()
    nanos = {"encode_nanos": _nanos(encode), "decode_nanos": _nanos(lambda: decode(encoded))}
    return [{"message_bytes": len(encoded), **nanos}]


def _nanos(work: Callable[[], object]) -> float:
    """CPU of one, the median over the repeats."""
    took = []
    for _ in range(REPEATS):
        times = 0
        began = time.process_time()
        while time.process_time() - began < LEAST:
            for _ in range(100):
                work()
            times += 100
        took.append((time.process_time() - began) / times)
    return statistics.median(took) * 1e9

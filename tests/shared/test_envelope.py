"""A message taken apart before it is decoded."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.envelope import COUNTED_BYTES, MalformedPacketError, split
from shared.pb import agent_pb2 as pb
from shared.records import MAX_FIELDS, MAX_UPSTREAM_BYTES
from shared.wire import decode_upstream

SMALL = pb.UpstreamPacket(session_id="s", sequence=1)


def of(*packets: pb.UpstreamPacket) -> bytes:
    return pb.UpstreamPacket(batch=packets).SerializeToString()


@given(st.binary(max_size=200))
def test_whatever_comes_is_taken_apart_or_malformed(message: bytes) -> None:
    try:
        _, packets = split(message)
    except MalformedPacketError:
        return
    for packet in packets:
        with contextlib.suppress(MalformedPacketError):
            decode_upstream(packet)


@given(st.lists(st.binary(max_size=30), max_size=5), st.binary(max_size=30))
def test_a_batch_is_its_packets_whatever_they_hold(packets: list[bytes], unknown: bytes) -> None:
    message = b"".join(b"\x5a" + bytes([len(packet)]) + packet for packet in packets)
    message += b"\x10\x05" + b"\xfa\x07" + bytes([len(unknown)]) + unknown  # a timestamp, and a field of the future
    assert split(message) == ((True, packets) if packets else (False, [message]))


def test_a_batch_of_many_packets_is_refused_before_they_are_decoded() -> None:
    assert len(split(of(*[SMALL] * MAX_FIELDS))[1]) == MAX_FIELDS
    with pytest.raises(MalformedPacketError, match="more than 4096"):
        split(of(*[SMALL] * (MAX_FIELDS + 1)))
    with pytest.raises(MalformedPacketError, match="more than 4096"):
        split(b"\x5a\x00" * (MAX_UPSTREAM_BYTES // 2))


HOSTILE = {
    "runs nothing, often": pb.UpstreamPacket(status=pb.CommanderStatus(running=[pb.Running()] * COUNTED_BYTES)),
    "awaits nothing, often": pb.UpstreamPacket(open=pb.Open(awaiting_call_ids=[""] * COUNTED_BYTES)),
    "carries carriers": pb.UpstreamPacket(batch=[pb.UpstreamPacket()] * COUNTED_BYTES),
}


@pytest.mark.parametrize("in_a_batch", [False, True])
@pytest.mark.parametrize("packet", HOSTILE.values(), ids=HOSTILE)
def test_a_large_packet_is_counted_before_it_is_decoded(packet: pb.UpstreamPacket, in_a_batch: bool) -> None:
    with pytest.raises(MalformedPacketError, match=r"more than 4096|nested"):
        split(of(packet) if in_a_batch else packet.SerializeToString())


@pytest.mark.parametrize("message", [b"\xff\xff\xff", b"\x5a\x05ab", b"\x0b\x0c", b"\x22\x80", b"\x5a" + b"\x80" * 11])
def test_what_is_no_message_is_malformed(message: bytes) -> None:
    with pytest.raises(MalformedPacketError):
        split(message)


def test_a_large_text_is_no_reason_to_refuse() -> None:
    packet = pb.UpstreamPacket(session_id="s", content=pb.ContentChunk(text="x" * 500_000), sequence=1)
    assert len(decode_upstream(split(packet.SerializeToString())[1][0]).payload.text) == 500_000  # type: ignore[union-attr]

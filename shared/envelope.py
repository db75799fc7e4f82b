"""A message of a Commander taken apart before anything of it is decoded: 16 KB on the wire can be millions of packets.

Protobuf's decoder makes an object of each, at once, however few of them are wanted: 1 MiB of empty ones takes 180 ms.
"""

from collections.abc import Iterator

from shared.records import MAX_FIELDS, MAX_TEXT_BYTES

BATCH = 11  # `UpstreamPacket.batch`
OF_A_PACKET = {1, 3, 4, 5, 6, 7, 8, 9, 10}  # its session_id, payload and sequence
PAYLOADS = OF_A_PACKET - {1, 7}
# What is as large as this is counted before it is decoded: a packet that is all text is hardly larger, and one of its
# size that is all fields takes 12 ms.
COUNTED_BYTES = MAX_TEXT_BYTES + 8 * 1024


class MalformedPacketError(ValueError):
    """A message that the contract does not allow."""


def split(message: bytes) -> tuple[bool, list[bytes]]:
    """Whether it is a batch, and its packets in order, each as it is serialised. Raises MalformedPacketError."""
    packets: list[bytes] = []
    others: set[int] = set()
    for number, start, end in _fields(message, 0, len(message), [MAX_FIELDS]):
        if number == BATCH and start:
            packets.append(message[start:end])
        else:
            others.add(number)
    if packets and others & OF_A_PACKET:
        raise MalformedPacketError("a batch has no payload, session_id or sequence of its own")
    for packet in packets or [message]:
        if len(packet) > COUNTED_BYTES:
            _count(packet)
    return bool(packets), packets or [message]


def _count(packet: bytes) -> None:
    left = [MAX_FIELDS]
    for number, start, end in _fields(packet, 0, len(packet), left):
        if number == BATCH:
            raise MalformedPacketError("a batch is never nested")
        if number in PAYLOADS and start:
            for _ in _fields(packet, start, end, left):
                pass


def _fields(data: bytes, at: int, end: int, left: list[int]) -> Iterator[tuple[int, int, int]]:
    """The number of each field, and where its bytes begin and end; 0, 0 where it has no length. left: how many may
    still come, counted down.
    """
    while at < end:
        left[0] -= 1
        if left[0] < 0:
            raise MalformedPacketError(f"more than {MAX_FIELDS} packets or fields in one message")
        tag, at = _varint(data, at, end)
        start = 0
        match tag & 7:
            case 0:
                _, at = _varint(data, at, end)
            case 1:
                at += 8
            case 2:
                size, start = _varint(data, at, end)
                at = start + size
            case 5:
                at += 4
            case _:
                raise MalformedPacketError("the message is malformed")
        if at > end:
            raise MalformedPacketError("the message is malformed")
        yield tag >> 3, start, at if start else 0


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Its value, and where it ends."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise MalformedPacketError("the message is malformed")

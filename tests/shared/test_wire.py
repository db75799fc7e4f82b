"""The codecs: every record survives the wire, batches keep their order, bad carriers are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import records, wire
from shared.envelope import MalformedPacketError, split
from shared.pb import agent_pb2 as pb

texts = st.text(st.characters(codec="utf-8"), max_size=30)
numbers = st.integers(0, 2**32 - 1)
usages = st.none() | st.builds(records.Usage, numbers, numbers)
calls = st.builds(records.ToolCall, texts, texts, texts)
client_calls = st.lists(st.builds(records.ClientCall, texts, texts, texts), max_size=3).map(tuple)
statuses = st.sampled_from(["", *wire._STATUS_NAMES.values()])
results = st.builds(records.ToolResult, texts, texts, texts, statuses)
payloads = st.one_of(
    st.builds(records.Thought, texts, texts),
    st.builds(records.Content, texts),
    st.builds(records.Content, texts, st.just(True), texts, usages, client_calls),
    calls,
    st.builds(records.Error, texts, texts, st.booleans()),
    st.builds(records.Stopped, texts, numbers, numbers, numbers),
    st.builds(records.Open, texts, numbers, st.lists(texts, max_size=3).map(tuple)),
    st.builds(
        records.Status,
        texts,
        st.lists(texts, max_size=2).map(tuple),
        st.lists(texts, max_size=2).map(tuple),
        numbers,
        numbers,
        st.lists(st.builds(records.Running, texts, numbers), max_size=2).map(tuple),
        numbers,
        st.lists(st.builds(records.Support, texts, st.lists(texts, max_size=2).map(tuple)), max_size=2).map(tuple),
    ),
    st.just(records.Unknown()),
)
upstream = st.builds(records.Upstream, texts, payloads, numbers, numbers)
histories = st.none() | st.builds(
    records.History, numbers, st.lists(st.one_of(st.builds(records.Said, texts), calls, results), max_size=4).map(tuple)
)
users = st.none() | st.builds(
    records.User,
    texts,
    texts,
    st.dictionaries(texts, texts, max_size=2).map(lambda claims: tuple(sorted(claims.items()))),
)
signals = st.one_of(
    st.builds(records.Ack, numbers),
    st.builds(records.Stop, texts, texts, texts),
    results,
    st.builds(records.Welcome, numbers, numbers, numbers),
    st.builds(records.Closed, texts, texts),
    st.builds(records.Drain, texts),
    st.builds(
        records.Assignment,
        texts,
        numbers,
        texts,
        st.lists(st.builds(records.Message, texts, texts, client_calls, texts, texts, texts, texts), max_size=2).map(
            tuple
        ),
        texts,
        st.lists(st.builds(records.Tool, texts, texts, texts, st.booleans(), st.booleans()), max_size=2).map(tuple),
        histories,
        texts,
        texts,
        st.binary(max_size=9),
        users,
    ),
)
downstream = st.builds(records.Downstream, texts, signals)


def over_the_wire(message):
    return type(message).FromString(message.SerializeToString())


def decoded(message):
    """All of it, as a stream takes it: packet by packet."""
    return [wire.decode_upstream(packet) for packet in split(message)[1]]


@given(st.lists(upstream, min_size=1, max_size=4))
def test_upstream_survives_the_wire(packets):
    message = wire.encode_upstream(packets)
    assert split(message)[0] == (len(packets) > 1)
    assert [(p.session_id, p.payload, p.sequence, p.timestamp) for p in decoded(message)] == [
        (p.session_id, p.payload, p.sequence, p.timestamp) for p in packets
    ]
    assert wire.UpstreamMessage.FromString(message).SerializeToString() == message
    made = [wire.packed(p.session_id, p.payload, p.sequence, p.timestamp) for p in packets]
    assert wire.encode_upstream(made) == message
    assert [p.size for p in decoded(message)] == [p.size for p in made]


@given(st.lists(downstream, min_size=1, max_size=4))
def test_downstream_survives_the_wire(packets):
    assert wire.decode_downstream(over_the_wire(wire.encode_downstream(packets))) == packets
    messages = [over_the_wire(message) for message in wire.downstream_messages(packets)]
    assert [packet for message in messages for packet in wire.decode_downstream(message)] == packets


def test_batches_are_bounded_and_a_larger_packet_goes_as_itself():
    large = records.Downstream("s", records.ToolResult("t", "x" * 200_000, "c", "OK"))
    assert [len(wire.decode_downstream(m)) for m in wire.downstream_messages([large] * 3)] == [1, 1, 1]
    small = records.Downstream("s", records.Ack(1))
    assert [len(wire.decode_downstream(m)) for m in wire.downstream_messages([small, small, large, small])] == [4]


@pytest.mark.parametrize(
    "message",
    [
        pb.UpstreamPacket(session_id="s", batch=[pb.UpstreamPacket()]),
        pb.UpstreamPacket(sequence=1, batch=[pb.UpstreamPacket()]),
        pb.UpstreamPacket(content=pb.ContentChunk(text="x"), batch=[pb.UpstreamPacket()]),
        pb.UpstreamPacket(batch=[pb.UpstreamPacket(batch=[pb.UpstreamPacket()])]),
    ],
)
def test_a_bad_batch_is_refused(message):
    with pytest.raises(MalformedPacketError, match="batch"):
        decoded(message.SerializeToString())


def test_what_is_not_known_is_unknown():
    message = pb.UpstreamPacket(session_id="s", sequence=4).SerializeToString() + b"\x62\x00"
    assert wire.decode_upstream(message) == records.Upstream("s", records.Unknown(), 4, 0, len(message))


@given(st.text(max_size=40))
def test_text_is_made_well_formed(text):
    fixed = wire.well_formed(text)
    fixed.encode()
    if not any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        assert fixed == text


def test_a_lone_surrogate_becomes_the_replacement_character():
    assert wire.well_formed("a\ud800b\ud83d\ude00") == "a\ufffdb\U0001f600"


@given(st.integers(0, 3), st.lists(st.sampled_from(["a", "é", "夜", "😀"]), min_size=1, max_size=5))
def test_text_is_split_at_code_points(extra, alphabet):
    text = ("".join(alphabet) * (records.MAX_TEXT_BYTES // len(alphabet)))[: records.MAX_TEXT_BYTES + extra]
    pieces = wire.split_text(text)
    assert "".join(pieces) == text
    assert all(0 < len(piece.encode()) <= records.MAX_TEXT_BYTES for piece in pieces)

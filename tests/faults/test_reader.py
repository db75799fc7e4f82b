"""The reader, against a server that breaks its connection after every byte."""

import asyncio
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.proxy import Proxy
from tests.faults.reader import EventParser, Reader

WORDS = ["A", " word\\n", " more", " é夜."]
BLOCKS = [f'id: {n}\nevent: content\ndata: {{"text": "{word}"}}\n\n'.encode() for n, word in enumerate(WORDS, 2)]
BLOCKS.append(b'id: 9\nevent: finished\ndata: {"finish_reason": "stop"}\n\n')
STREAM = b"retry: 1000\n\n: keep-alive\n\n" + b"".join(BLOCKS)
TEXT = "A word\n more é夜."


@given(st.sets(st.integers(1, len(STREAM) - 1)))
def test_events_are_the_same_however_their_bytes_come(cuts: set[int]) -> None:
    parser, whole = EventParser(), EventParser().feed(STREAM)
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in pairwise(edges)]
    assert [event for piece in pieces for event in parser.feed(piece)] == whole
    assert "".join(event.data.get("text", "") for event in whole) == TEXT


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As a Dispatcher that has this session: what follows Last-Event-ID, or 204."""
    request = (await reader.readuntil(b"\r\n\r\n")).decode()
    after = int(request.split("Last-Event-ID: ")[1].split("\r\n")[0])
    left = [block for block in BLOCKS if int(block.split(b"\n")[0][4:]) > after]
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" if left else b"HTTP/1.1 204 No Content\r\n\r\n"
    writer.write(head + b"".join(map(chunked, left)) + (chunked(b"") if left else b""))
    writer.close()


@pytest.mark.parametrize("seed", range(3))
async def test_a_stream_cut_after_any_byte_is_read_once_and_whole(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.faults.reader.AGAIN_SECONDS", (0, 0))
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    proxy = await Proxy(("127.0.0.1", server.sockets[0].getsockname()[1])).start()
    chance = random.Random(seed)
    proxy.limits = lambda: chance.randint(1, 240)
    reader = Reader("one", [proxy], chance)
    async with asyncio.timeout(20):
        await reader.run()
    assert (reader.text, reader.trouble) == (TEXT, [])
    assert reader.final == ("finished", {"finish_reason": "stop"})
    assert reader.connections > 2
    await proxy.close()
    server.close()

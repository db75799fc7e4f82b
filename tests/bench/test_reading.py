"""That the benchmark would notice a wrong text."""

import pytest

from tests.bench.agents import agent
from tests.bench.floor import Said, Turn
from tests.bench.reading import FloodReader, PacedReader, Reader, TextWrong

READERS = {"flood": FloodReader, "paced": PacedReader}


async def tokens(kind: str) -> list[bytes]:
    prompt = f'{{"kind": "{kind}", "seconds": 0.02, "rate": 500}}'
    return [token.encode() async for token in agent(Turn((Said(prompt),)))]


def frames(texts: list[bytes], end: str = "finished") -> bytes:
    events = [b'id: 1\nevent: content\ndata: {"text":"%b"}\n\n' % text for text in texts]
    return b"".join(events) + f"event: {end}\ndata: {{}}\n\n".encode()


def fed(reader: Reader, data: bytes, size: int) -> Reader:
    for start in range(0, len(data), size):
        reader.on_body(data[start : start + size])
    reader.over.set_result(None)
    return reader


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("joined", [1, 3, 1000])
@pytest.mark.parametrize("size", [7, 65536])
async def test_reads_a_text_however_it_is_cut(kind: str, joined: int, size: int) -> None:
    said = await tokens(kind)
    texts = [b"".join(said[start : start + joined]) for start in range(0, len(said), joined)]
    reader = fed(READERS[kind](), frames(texts), size)
    await reader.finished(1)
    assert reader.first.done()


@pytest.mark.parametrize("kind", READERS)
async def test_notices_what_is_missing_doubled_or_changed(kind: str) -> None:
    said = await tokens(kind)
    changed = [said[0], b"x" * len(said[1]), *said[2:]]
    for wrong in (said[1:], said[:3] + said[4:], [said[0], *said], [*said, said[-1]], changed):
        with pytest.raises((TextWrong, ValueError)):
            fed(READERS[kind](), frames(wrong), 65536)


@pytest.mark.parametrize("kind", READERS)
async def test_notices_an_end_that_comes_too_early(kind: str) -> None:
    said = await tokens(kind)
    for texts, end in ((said[:-1], "finished"), (said, "stopped")):
        with pytest.raises(TextWrong):
            await fed(READERS[kind](), frames(texts, end), 65536).finished(1)

"""What strangers do to the two HTTP addresses, over raw sockets."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator

from dispatcher.gateway.limits import AHEAD_REQUESTS, BODY_GRACE_SECONDS
from tests.abuse.house import DISPATCHER, House
from tests.abuse.user import OK, ask

MIB = 1024 * 1024
ANSWER_SECONDS = 30.0
PIECE = 64 * 1024


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def status(reader: asyncio.StreamReader) -> int:
    """Of the answer that comes; 0: the connection ends without one."""
    async with asyncio.timeout(ANSWER_SECONDS):
        try:
            return int((await reader.readuntil(b"\r\n")).split()[1])
        except (EOFError, OSError):
            return 0


async def _poured(port: int, first: bytes, size: int) -> int:
    """Send so much, or until it is not taken any more; the status."""
    async with connected(port) as (reader, writer):
        answer = asyncio.ensure_future(status(reader))
        try:
            writer.write(first)
            for _ in range(size // PIECE):
                writer.write(b"x" * PIECE)
                await writer.drain()
                if answer.done():
                    break
        except OSError:
            pass
        return await answer


async def heads(house: House) -> None:
    """Headers of 40 and 100 MB, a URL as long."""
    for size in (40 * MIB, 100 * MIB):
        long_header = [_poured(house.http, b"GET / HTTP/1.1\r\nx: ", size) for _ in range(4)]
        many_headers = [_poured(house.operator, b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 500_000, size)]
        long_url = [_poured(house.http, b"GET /", size) for _ in range(4)]
        assert set(await asyncio.gather(*long_header, *many_headers)) == {431}
        assert set(await asyncio.gather(*long_url)) == {414}


async def pipelines(house: House) -> None:
    """400,000 requests at once, whose answers are read by nobody, and by somebody."""
    request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
    read = 0

    async def read_on(reader: asyncio.StreamReader) -> None:
        nonlocal read
        while data := await reader.read(PIECE):
            read += data.count(b"HTTP/1.1 200 ")

    async def send(reads: bool) -> None:
        async with connected(house.http) as (reader, writer):
            reading = asyncio.ensure_future(read_on(reader)) if reads else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(6):
                    for _ in range(100):
                        writer.write(request * 1000)
                        await writer.drain()
            if reading:
                reading.cancel()
            else:
                assert await status(reader) == OK

    await asyncio.gather(*(send(reads) for reads in (False, False, False, True)))
    assert read >= AHEAD_REQUESTS


async def _drip(port: int, first: bytes, byte: bytes) -> tuple[int, float]:
    """A byte a second until there is an answer: its status, and after how many seconds."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with connected(port) as (reader, writer):
        writer.write(first)
        answer = asyncio.ensure_future(status(reader))
        while not answer.done():
            writer.write(byte)
            await asyncio.wait([answer], timeout=1)
        return answer.result(), loop.time() - began


async def drips(house: House) -> None:
    """400 heads and 400 bodies that come a byte a second: each is waited for for its time, and no longer."""
    head = [_drip(house.http, b"GET / HTTP/1.1\r\nx: ", b"x") for _ in range(400)]
    begun = b"POST /v1/sessions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n{"
    body = [_drip(house.http, begun, b" ") for _ in range(400)]
    answers = await asyncio.gather(*head, *body)
    assert {answer for answer, _ in answers} == {408}
    assert min(seconds for _, seconds in answers[:400]) > float(DISPATCHER["HTTP_HEAD_SECONDS"]) / 2
    assert min(seconds for _, seconds in answers[400:]) > BODY_GRACE_SECONDS / 2


def _slow_bodies() -> Iterator[bytes]:
    numbers = b"1e-9," * (MIB // 5)
    yield b'{"prompt": "x", "parameters": {"n": [%b1]}}' % numbers
    yield b'{"prompt": "x", "parameters": {"n": %b}}' % (b"1" * MIB)
    yield b'{"prompt": "x", "parameters": {"n": 0.%b}}' % (b"1234567890" * (MIB // 10))
    yield b'{"prompt": "x", "parameters": %b1%b}' % (b'{"a":' * (MIB // 6), b"}" * (MIB // 6))
    yield b'{"prompt": "x", "parameters": {"n": %b%b}}' % (b"[" * (MIB // 2), b"]" * (MIB // 2))
    yield b'{"prompt": "x", "parameters": {"n": [%b""]}}' % (b'"",' * (MIB // 3))
    yield b'{"prompt": "%b"}' % (b"\\ud83d\\ude00" * (MIB // 12))
    yield b'{"prompt": "x", "parameters": {%b"z": 1}}' % b"".join(b'"%d":1,' % n for n in range(MIB // 9))
    yield json.dumps({"messages": [{"role": "user", "content": "x"}] * (MIB // 35)}).encode()


async def post(port: int, path: str, body: bytes, header: str = "") -> int:
    async with connected(port) as (reader, writer):
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        head += f"{header}content-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        return await status(reader)


async def bodies(house: House) -> None:
    """1 MiB of JSON that is slow to read, of each kind, eight at a time; what is taken asks for an unknown agent."""
    for body in _slow_bodies():
        answers = await asyncio.gather(*(post(house.http, "/v1/sessions", body) for _ in range(8)))
        assert set(answers) <= {400, 404}, (set(answers), body[:60])


async def held_bodies(house: House) -> None:
    """60 bodies of 8 MB whose last byte does not come."""
    head = b"POST /v1/sessions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 8000000\r\n\r\n"
    async with contextlib.AsyncExitStack() as stack:
        answers = []
        for _ in range(60):
            reader, writer = await stack.enter_async_context(connected(house.http))
            writer.write(head + b" " * 7_999_999)
            answers.append(asyncio.ensure_future(status(reader)))
        answered, held = await asyncio.wait(answers, timeout=3)
        for answer in held:
            answer.cancel()
    assert held
    assert {answer.result() for answer in answered} <= {503}


async def readers(house: House) -> None:
    """1,000 event streams of one long answer that nobody reads."""
    until = house.folder / f"nobody-reads-{next(house.numbers)}"
    body = {"agent": "steady", "prompt": "go", "parameters": {"until": str(until)}}
    _, created = await ask(house.http, "POST", "/v1/sessions", body)
    request = f"GET {created['events']} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
    async with contextlib.AsyncExitStack() as stack:
        answers = []
        for _ in range(1000):
            reader, writer = await stack.enter_async_context(connected(house.http))
            writer.write(request)
            answers.append(status(reader))
        assert set(await asyncio.gather(*answers)) == {OK}
        await asyncio.sleep(3)
    until.touch()


async def waiting_prompts(house: House) -> int:
    """400 prompts of 1 MiB are sent to an agent that is not there; how many of them wait."""
    body = json.dumps({"agent": "nobody", "prompt": "x" * MIB}).encode()
    numbers = iter(range(400))

    async def ask_for_it() -> list[int]:
        key = f"Idempotency-Key: waits-without-a-taker-{next(house.numbers)}-"
        return [await post(house.http, "/v1/sessions", body, f"{key}{number}\r\n") for number in numbers]

    found = Counter(status for found in await asyncio.gather(*(ask_for_it() for _ in range(8))) for status in found)
    assert 250 <= found[201] <= 256 + 8, found
    assert found[201] + found[429] == 400, found
    return found[201]


async def prompts(house: House) -> None:
    """An operator lists them again and again, and stops them."""
    waiting = await waiting_prompts(house)
    listed: list[str] = []
    async with asyncio.timeout(ANSWER_SECONDS):
        for _ in range(20):
            _, answer = await ask(house.operator, "GET", "/operator/sessions?state=waiting&limit=1000")
            listed = [session["session_id"] for session in answer["sessions"]]
            assert len(listed) >= waiting
    for session_id in listed:
        await ask(house.operator, "POST", f"/operator/sessions/{session_id}/stop", {})


ANSWERS = 120  # of each protocol
AT_ONCE = 8


async def answers(house: House) -> None:
    """Streamed answers that wait for a Commander, each asked for with 1 MiB."""
    text, waiting = "x" * MIB, "/operator/sessions?state=waiting&limit=1000"
    asked = {
        "/v1/responses": {"model": "silent", "stream": True, "input": text},
        "/v1/chat/completions": {"model": "silent", "stream": True, "messages": [{"role": "user", "content": text}]},
    }
    async with house.commander("silent", CAPACITY="1"), contextlib.AsyncExitStack() as stack:
        sent = 0
        for path, body in asked.items():
            data = json.dumps(body).encode()
            head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(data)}\r\n\r\n".encode()
            for _ in range(ANSWERS // AT_ONCE):
                for _ in range(AT_ONCE):
                    _, writer = await stack.enter_async_context(connected(house.http))
                    writer.write(head + data)
                sent += AT_ONCE
                async with asyncio.timeout(ANSWER_SECONDS):
                    while len((await ask(house.operator, "GET", waiting))[1]["sessions"]) < sent - 1:  # noqa: ASYNC110
                        await asyncio.sleep(0.05)

"""An OpenAI-compatible server on a real socket that follows a script for each request, and counts by connection."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from pydantic import HttpUrl, SecretStr

from commander.backends.settings import OpenAISettings
from tests.sockets import listening

KEY = "sk-secret-0123456789"


@dataclass
class Connection:
    """One request and its answer. `closed` is set when the client has closed its side."""

    headers: dict[str, str]
    body: dict[str, Any]
    writer: asyncio.StreamWriter
    tokens: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def begin(self, status: str = "200 OK", content_type: str = "text/event-stream", length: str = "") -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n"
        await self.raw((head + (f"Content-Length: {length}\r\n\r\n" if length else "\r\n")).encode())

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def chunk(self, delta: dict[str, Any] | None = None, finish: str | None = None, **fields: Any) -> None:
        choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish}] if delta or finish else []
        await self.raw(f"data: {json.dumps({'choices': choices, **fields})}\n\n".encode())

    async def token(self, text: str) -> None:
        self.tokens += 1
        await self.chunk({"content": text})

    async def end(self, finish: str = "stop", prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        await self.chunk(finish=finish)
        await self.chunk(usage={"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens})
        await self.raw(b"data: [DONE]\n\n")


Script = Callable[[Connection], Coroutine[None, None, None]]


class Provider:
    """Answers request i by script i, the last one again after that."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        self.connections: list[Connection] = []
        self.port = 0

    def settings(self, **changes: Any) -> OpenAISettings:
        url = HttpUrl(f"http://127.0.0.1:{self.port}/v1")
        values = {
            "base_url": url,
            "model": "tested",
            "api_key": SecretStr(KEY),
            "silence_seconds": 10,
            "retries": 0,
            **changes,
        }
        return OpenAISettings(**values)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or "null")
        connection = Connection({"path": head[0].split()[1], **headers}, body, writer)
        self.connections.append(connection)
        script = self._scripts[min(len(self.connections), len(self._scripts)) - 1]
        answer = asyncio.create_task(script(connection))
        gone = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                connection.closed.set()
        finally:
            for task in (answer, gone):
                task.cancel()
            await asyncio.gather(answer, gone, return_exceptions=True)


@contextlib.asynccontextmanager
async def serving(*scripts: Script) -> AsyncIterator[Provider]:
    provider = Provider(*scripts)
    async with listening(provider._serve) as provider.port:
        yield provider

"""A server that is a process of ours: a message is a line of its stdin or stdout."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import structlog
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import ErrorData, JSONRPCError, jsonrpc_message_adapter

from dispatcher.tools.errors import ServiceError, UnreachableError
from dispatcher.tools.mcp.attempt import CURRENT, Attempt
from dispatcher.tools.mcp.web import MAX_MESSAGE_BYTES

logger = structlog.get_logger()

TOO_LARGE = -32099  # of the codes that JSON-RPC leaves to implementations: ours, to ourselves
GRACE = 2.0  # seconds for a server to end by itself when its stdin is closed; after SIGTERM, again
CHUNK = 64 * 1024
EDGE = 200  # bytes of a line's ends, of which one names the call
MAX_STDERR = 20  # lines of it that are logged, at DEBUG
_ID = rb'"id"\s*:\s*(\d{1,15})'
_FIRST, _LAST = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?' + _ID), re.compile(_ID + rb"\s*\}\s*$")

Sent = SessionMessage | Exception


@asynccontextmanager
async def process(
    toolset: str, command: Sequence[str], environment: dict[str, str], folder: Path
) -> AsyncIterator[tuple[MemoryObjectReceiveStream[Sent], "Stdin"]]:
    """Its messages, and where messages to it go. It sees of this program's environment only what names the user and
    the place (`PATH`, `HOME` …), and is ended with all that it has started. Raises ServiceError.
    """
    try:
        child = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=get_default_environment() | environment,
            cwd=folder,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it cannot be started so"
        raise ServiceError("unreachable", f"{command[0]}: {reason}") from None
    stdin, stdout, stderr = child.stdin, child.stdout, child.stderr
    if stdin is None or stdout is None or stderr is None:
        raise AssertionError("they were asked for")
    heard, received = anyio.create_memory_object_stream[Sent](0)
    reading = asyncio.create_task(_read(stdout, heard))
    draining = asyncio.create_task(_drain(toolset, stderr))
    try:
        yield received, Stdin(stdin, heard)
    finally:
        reading.cancel()
        await asyncio.shield(asyncio.create_task(_ended(child, stdin)))
        draining.cancel()
        await asyncio.gather(reading, draining, return_exceptions=True)
        heard.close()
        received.close()


async def _read(stdout: asyncio.StreamReader, heard: MemoryObjectSendStream[Sent]) -> None:
    lines = Lines()
    with heard, suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        while chunk := await stdout.read(CHUNK):
            for line in lines.of(chunk):
                if message := _message(line):
                    await heard.send(message)


def _message(line: "bytes | Oversize") -> SessionMessage | None:
    """None: it is none, as servers print what they like."""
    if isinstance(line, Oversize):
        if line.call is None:
            return None
        return SessionMessage(
            JSONRPCError(jsonrpc="2.0", id=line.call, error=ErrorData(code=TOO_LARGE, message="too large"))
        )
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except (ValueError, RecursionError):
        return None


class Stdin:
    """Its writing end, for the SDK. A message is written in the caller's own turn of the loop, so that a stop waits for
    no other.
    """

    def __init__(self, stdin: asyncio.StreamWriter, heard: MemoryObjectSendStream[Sent]) -> None:
        self._stdin, self._heard = stdin, heard

    async def send(self, message: SessionMessage) -> None:
        """Waits while the server has not read what came before. Raises anyio.BrokenResourceError."""
        attempt = CURRENT.get() or Attempt()
        try:
            await self._stdin.drain()
        except (OSError, RuntimeError):  # the second is uvloop's, of a closed pipe
            attempt.error = UnreachableError()
            raise self._broken() from None
        try:
            self._stdin.write(message.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
            await self._stdin.drain()
        except (OSError, RuntimeError):
            attempt.cut = True
            raise self._broken() from None

    def _broken(self) -> Exception:
        self._heard.close()  # whoever waits for answers learns that none will come
        return anyio.BrokenResourceError()

    async def aclose(self) -> None:
        """It is closed with the process."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


async def _drain(toolset: str, stderr: asyncio.StreamReader) -> None:
    """A server that is not read stands still. What it says may hold what its tools were given: nobody is shown it."""
    lines, told = Lines(), 0
    with suppress(OSError):
        while chunk := await stderr.read(CHUNK):
            for line in lines.of(chunk):
                if isinstance(line, bytes) and told < MAX_STDERR:
                    told += 1
                    logger.debug("toolset_stderr", toolset=toolset, line=line.decode(errors="replace")[:300])


async def _ended(child: asyncio.subprocess.Process, stdin: asyncio.StreamWriter) -> None:
    """First asked, then told, then killed, with its children."""
    stdin.close()
    for sent in (signal.SIGTERM, signal.SIGKILL):
        with suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), GRACE)
            break
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, sent)
    else:
        await child.wait()
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)  # whom it has left behind


class Oversize:
    """A line that was too long to be kept. call: whose answer it was, if one of its ends says so."""

    def __init__(self, first: bytes, last: bytes) -> None:
        found = _FIRST.match(first) or _LAST.search(last)
        self.call = int(found[1]) if found else None


class Lines:
    """Bytes become lines of at most MAX_MESSAGE_BYTES; of longer ones only the ends are kept."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._first = b""
        self._over = False

    def of(self, chunk: bytes) -> Iterator[bytes | Oversize]:
        """Those that end in this piece."""
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            self._add(part)
            yield Oversize(self._first, bytes(self._kept)) if self._over else bytes(self._kept)
            self._kept.clear()
            self._over = False
        self._add(rest)

    def _add(self, part: bytes) -> None:
        self._kept += part
        if not self._over and len(self._kept) > MAX_MESSAGE_BYTES:
            self._over, self._first = True, bytes(self._kept[:EDGE])
        if self._over:
            del self._kept[:-EDGE]

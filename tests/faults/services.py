"""Services whose tools agents call, one program for each kind: `services.py KIND JOURNAL [PORT]`.

What a service is asked for it notes in the journal, which outlives it: a call's key, and what became of it. A call says
whether the service dies of it: before it acts, while it does, or after that and before it answers. KIND `http` serves
the kinds `http` and `openapi`; `stdio` is a child of whoever started it, and starts no more by itself.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

PACKAGE, SERVICE, METHOD = "rig.v1", "Rig", "grpc_act"
ACT = "act"  # an MCP server's own name for its tool
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "line": {"type": "string"},
        "number": {"type": "integer"},
        "millis": {"type": "integer"},
        "dies": {"enum": ["", "before", "while", "after"]},
    },
    "required": ["line", "number", "millis", "dies"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Seen:
    """A line of the journal.

    event   `up`: it has started; `asked`, `began`, `acted`, `answered`, `cancelled`: of a call; `died`: of that call
    start   which start of which service
    at      Unix seconds
    line    what the call was to say: session and number
    sha256  of the arguments, canonical
    """

    service: str
    start: str
    event: str
    at: float
    key: str = ""
    line: str = ""
    sha256: str = ""


def journal(path: Path) -> list[Seen]:
    """All that the services noted, in their order."""
    return [Seen(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def runs(start: str) -> bool:
    """Whether that start's process is still there."""
    try:
        command = Path(f"/proc/{start.partition(' ')[0]}/cmdline").read_bytes()
    except OSError:
        return False
    return Path(__file__).name.encode() in command


def canonical(arguments: object) -> str:
    """As RFC 8785 writes what these arguments have: texts of ASCII and small integers."""
    return json.dumps(arguments, sort_keys=True, separators=(",", ":"))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Calls(Protocol):
    """What all kinds do with a call."""

    async def call(
        self,
        key: str,
        arguments: dict[str, Any],
        left: Callable[[], Awaitable[object]],
        answer: Callable[[str], Awaitable[object]],
    ) -> None:
        """left: returns when nobody waits for the answer any more; then it is not given. Whoever is cancelled in here
        is left, too.
        """


class Acting:
    """Takes a while for a call, and notes what becomes of it. die: how this one ends."""

    def __init__(self, service: str, path: Path, die: Callable[[], NoReturn]) -> None:
        self._service, self._path, self._die = service, path, die
        self._start = f"{os.getpid()} {time.monotonic_ns()}"
        self.note("up")

    def note(self, event: str, key: str = "", line: str = "", sha256: str = "") -> None:
        """One write of less than a page: lines stay whole."""
        seen = Seen(self._service, self._start, event, time.time(), key, line, sha256)
        out = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(out, f"{json.dumps(asdict(seen))}\n".encode())
        finally:
            os.close(out)

    async def call(
        self,
        key: str,
        arguments: dict[str, Any],
        left: Callable[[], Awaitable[object]],
        answer: Callable[[str], Awaitable[object]],
    ) -> None:
        """As `Calls` says. What was begun by then stays so."""
        line = str(arguments["line"])
        self.note("asked", key, line, digest(canonical(arguments)))
        leaving = asyncio.ensure_future(left())
        try:
            self._perhaps_die("before", arguments, key, line)
            self.note("began", key, line)
            await asyncio.wait({leaving}, timeout=int(arguments["millis"]) / 2000)
            self._perhaps_die("while", arguments, key, line)
            await asyncio.wait({leaving}, timeout=int(arguments["millis"]) / 2000)
            if leaving.done():
                self.note("cancelled", key, line)
                return
            self.note("acted", key, line)
            self._perhaps_die("after", arguments, key, line)
            self.note("answered", key, line)
            await answer(line)
        except (ConnectionError, asyncio.CancelledError):
            self.note("cancelled", key, line)
            raise
        finally:
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)

    def _perhaps_die(self, moment: str, arguments: dict[str, Any], key: str, line: str) -> None:
        if arguments["dies"] == moment:
            self.note("died", key, line)
            self._die()


async def never() -> None:
    await asyncio.Event().wait()


# ---- http, openapi and MCP's streamable HTTP


class Http:
    """A request on each connection."""

    def __init__(self, acting: Calls, mcp: "Mcp | None") -> None:
        self._acting, self._mcp = acting, mcp

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """As `asyncio.start_server` calls it."""
        try:
            head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))

            async def left() -> None:
                while await reader.read(1024):
                    pass

            async def say(data: bytes, status: str = "200 OK", *more: str) -> None:
                said = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(data)}", *more]
                writer.write("\r\n".join([*said, "Connection: close", "", ""]).encode() + data)
                await writer.drain()

            if self._mcp is None:
                answer = lambda line: say(json.dumps(line).encode())  # noqa: E731 - one of its kind
                await self._acting.call(headers["idempotency-key"], json.loads(body), left, answer)
            else:
                await self._mcp_request(head.split(" ")[0], headers, body, left, say)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _mcp_request(self, method: str, headers: dict[str, str], body: bytes, left: Any, say: Any) -> None:
        assert self._mcp
        session = headers.get("mcp-session-id", "")
        message = json.loads(body) if body else {}
        if method != "POST":
            await say(b"", "405 Method Not Allowed" if method == "GET" else "200 OK")
        elif message.get("method") == "initialize":
            made = self._mcp.session()
            await self._mcp.take(
                message, made, left, lambda found: say(json.dumps(found).encode(), "200 OK", f"Mcp-Session-Id: {made}")
            )
        elif session and session not in self._mcp.sessions:
            await say(b"", "404 Not Found")
        elif "id" in message and "method" in message:
            await self._mcp.take(message, session, left, lambda found: say(json.dumps(found).encode()))
        else:
            await self._mcp.take(message, session, left, say)
            await say(b"", "202 Accepted")


class Mcp:
    """What is said in either of its transports."""

    def __init__(self, acting: Calls) -> None:
        self._acting = acting
        self.sessions: set[str] = set()
        self._calls: dict[tuple[str, object], asyncio.Event] = {}  # set when the call is cancelled

    def session(self) -> str:
        """A new one, of nobody else's at any time."""
        made = os.urandom(16).hex()
        self.sessions.add(made)
        return made

    async def take(
        self, message: dict[str, Any], session: str, left: Callable[[], Awaitable[object]], say: Callable[[Any], Any]
    ) -> None:
        """Answer a request with `say`; take note of a notification."""
        number, params = message.get("id"), message.get("params") or {}

        async def result(found: object) -> None:
            await say({"jsonrpc": "2.0", "id": number, "result": found})

        match message.get("method"):
            case "initialize":
                about = {"protocolVersion": "2025-06-18", "serverInfo": {"name": "rig", "version": "1"}}
                await result({**about, "capabilities": {"tools": {}}})
            case "tools/list":
                await result({"tools": [{"name": ACT, "inputSchema": SCHEMA}]})
            case "tools/call":
                cancelled = self._calls[session, number] = asyncio.Event()
                try:
                    await self._acting.call(
                        params["_meta"]["idempotency-key"],
                        params["arguments"],
                        lambda: _first(cancelled.wait(), left()),
                        lambda line: result({"content": [{"type": "text", "text": line}]}),
                    )
                finally:
                    del self._calls[session, number]
            case "notifications/cancelled":
                if call := self._calls.get((session, params["requestId"])):
                    call.set()
            case str() if number is not None:
                await say({"jsonrpc": "2.0", "id": number, "error": {"code": -32601, "message": "no such method"}})


async def _first(*waits: Awaitable[object]) -> None:
    """Return when one has."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def stdio(acting: Calls) -> None:
    """Until stdin is over; whoever has a call under way then has left it."""
    mcp, reader, over = Mcp(acting), asyncio.StreamReader(), asyncio.Event()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def say(message: object) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    async def take(message: dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionError):
            await mcp.take(message, "", over.wait, say)

    tasks: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        tasks.add(task := asyncio.create_task(take(json.loads(line))))
        task.add_done_callback(tasks.discard)
    over.set()
    await asyncio.gather(*tasks)


# ---- gRPC


def descriptor_set() -> bytes:
    """Of the gRPC service, as `protoc` would write it."""
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

    file = FileDescriptorProto(name="rig.proto", package=PACKAGE, syntax="proto3")
    text, number = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_INT32
    kinds = {"line": text, "number": number, "millis": number, "dies": text}
    for name, fields in (("Asked", kinds), ("Answered", {"line": text})):
        message = file.message_type.add(name=name)
        for place, (field, kind) in enumerate(fields.items(), 1):
            message.field.add(name=field, number=place, type=kind, label=FieldDescriptorProto.LABEL_OPTIONAL)
    service = file.service.add(name=SERVICE)
    service.method.add(name=METHOD, input_type=f".{PACKAGE}.Asked", output_type=f".{PACKAGE}.Answered")
    return FileDescriptorSet(file=[file]).SerializeToString()


async def grpc_server(acting: Calls, port: int) -> tuple[Any, int]:
    """A server that has begun, and its port; for 0 the system chooses one."""
    import grpc
    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message_factory import GetMessageClass

    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(descriptor_set()).file:
        pool.AddSerializedFile(file.SerializeToString())
    asked, answered = (
        GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in ("Asked", "Answered")
    )

    async def act(request: Any, context: Any) -> Any:
        arguments = {field.name: getattr(request, field.name) for field in request.DESCRIPTOR.fields}
        metadata = dict(context.invocation_metadata())
        said: list[str] = []

        async def answer(line: str) -> None:
            said.append(line)

        await acting.call(metadata["idempotency-key"], arguments, never, answer)
        return answered(line=said[0])

    handler: Any = grpc.unary_unary_rpc_method_handler(
        act, request_deserializer=asked.FromString, response_serializer=lambda found: found.SerializeToString()
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(f"{PACKAGE}.{SERVICE}", {METHOD: handler}),))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return server, port


# ---- the program


def _serving() -> None:
    print(json.dumps({"event": "serving"}), flush=True)


def _killed() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nobody survives it")


def _again() -> NoReturn:
    """For its peers as `kill -9`: the kernel closes all sockets; what comes up is a new program on the same port."""
    os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606 - without a shell, as meant


async def _serve(kind: str, path: Path, port: int) -> None:
    acting = Acting(kind, path, _killed if kind == "stdio" else _again)
    if kind == "stdio":
        await stdio(acting)
    elif kind == "grpc":
        grpc_service, _ = await grpc_server(acting, port)
        _serving()
        await grpc_service.wait_for_termination()
    else:
        http = Http(acting, Mcp(acting) if kind == "mcp" else None)
        server = await asyncio.start_server(http.serve, "127.0.0.1", port, reuse_port=True)
        _serving()
        await server.serve_forever()


if __name__ == "__main__":
    kind, path, *port = sys.argv[1:]
    asyncio.run(_serve(kind, Path(path), int(port[0]) if port else 0))

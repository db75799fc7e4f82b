"""Servers that do not keep to gRPC, frame by frame, and reflections that tell nonsense."""

import asyncio
import gzip
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import h2.config
import h2.connection
import h2.events
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc import aio
from grpc_reflection.v1alpha import reflection_pb2

from dispatcher.tools.rpc import reflection
from tests.dispatcher.tools.rpc.service import ORDERS, descriptor_set, message
from tests.dispatcher.tools.rpc.test_toolset import code, kept, run
from tests.sockets import listening

Http2: TypeAlias = h2.connection.H2Connection
Says: TypeAlias = Callable[[Http2, int], None]
HEAD = [(":status", "200"), ("content-type", "application/grpc")]
OK = [("grpc-status", "0")]
ORDER = message("shop.v1.Order", id=7).SerializeToString()


def framed(body: bytes, flag: int = 0) -> bytes:
    return struct.pack(">BI", flag, len(body)) + body


def answers(data: bytes, *headers: tuple[str, str]) -> Says:
    def says(http2: Http2, stream: int) -> None:
        http2.send_headers(stream, [*HEAD, *headers])
        http2.send_data(stream, data)
        http2.send_headers(stream, OK, end_stream=True)

    return says


def heads(*headers: tuple[str, str], end: bool = True, data: bytes = b"") -> Says:
    def says(http2: Http2, stream: int) -> None:
        http2.send_headers(stream, list(headers), end_stream=end and not data)
        if data:
            http2.send_data(stream, data, end_stream=end)

    return says


def resets(error: int) -> Says:
    return lambda http2, stream: http2.reset_stream(stream, error)


def hangs_up(http2: Http2, stream: int) -> None:
    raise ConnectionError


@asynccontextmanager
async def serving(says: Says) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Its target, and the paths of the calls that it got."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http2 = Http2(h2.config.H2Configuration(client_side=False))
        http2.initiate_connection()
        writer.write(http2.data_to_send())
        with suppress(h2.exceptions.ProtocolError):
            while data := await reader.read(65536):
                for event in http2.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        seen.append(dict(event.headers)[b":path"])
                    elif isinstance(event, h2.events.StreamEnded):
                        says(http2, event.stream_id)
                writer.write(http2.data_to_send())

    async with listening(serve) as port:
        yield f"127.0.0.1:{port}", seen


def entry(target: str, more: str = "") -> str:
    head = f'[[toolset]]\nname = "shop"\nkind = "grpc"\ntarget = "{target}"\nprivate = true\n'
    return f'{head}services = ["{ORDERS}"]\n{more}\n'


@pytest.mark.parametrize(
    ("says", "outcome"),
    [
        (answers(framed(ORDER)), "OK"),
        (heads(*HEAD, ("grpc-status", "5"), ("grpc-message", "none%20such")), "TOOL_ERROR grpc_not_found"),
        (heads(*HEAD, ("grpc-status", "14"), ("grpc-message", "busy")), "TOOL_ERROR grpc_unavailable"),
        (heads(*HEAD, ("grpc-status", "99")), "TOOL_ERROR grpc_unknown"),
        (heads((":status", "404"), ("content-type", "text/html")), "TOOL_ERROR grpc_unimplemented"),
        (heads((":status", "503"), ("content-type", "text/html")), "TOOL_ERROR grpc_unavailable"),
        (heads((":status", "200"), ("content-type", "text/html"), data=b"<html>"), "TOOL_ERROR broken_answer"),
        (heads(*HEAD, data=framed(ORDER)), "TOOL_ERROR broken_answer"),
        (heads(*HEAD, *OK), "TOOL_ERROR broken_answer"),
        (answers(b""), "TOOL_ERROR broken_answer"),
        (answers(framed(ORDER)[:6]), "TOOL_ERROR broken_answer"),
        (answers(framed(b"\xff\xff")), "TOOL_ERROR broken_answer"),
        (answers(b"\0\xff\xff\xff\xff"), "TOOL_ERROR result_too_large"),
        (answers(framed(gzip.compress(b"\0" * 10_000_000), 1), ("grpc-encoding", "gzip")), "TOOL_ERROR broken_answer"),
        (answers(framed(zlib.compress(ORDER), 1), ("grpc-encoding", "deflate")), "TOOL_ERROR broken_answer"),
        (answers(framed(ORDER) * 2), "TIMEOUT"),
        (lambda http2, stream: None, "TIMEOUT"),
        (resets(0), "UNKNOWN_OUTCOME"),
        (resets(2), "UNKNOWN_OUTCOME"),
        (resets(7), "UNKNOWN_OUTCOME"),
        (resets(8), "UNKNOWN_OUTCOME"),
        (resets(11), "UNKNOWN_OUTCOME"),
        (hangs_up, "UNKNOWN_OUTCOME"),
        (lambda http2, stream: http2.close_connection(0, last_stream_id=0), "UNKNOWN_OUTCOME"),
    ],
)
async def test_what_a_server_may_do_to_a_call(tmp_path: Path, says: Says, outcome: str) -> None:
    (tmp_path / "shop.binpb").write_bytes(descriptor_set())
    more = 'descriptor_set = "shop.binpb"\nallow = ["Echo"]\ntimeout_seconds = 1'
    async with serving(says) as (target, seen), kept(tmp_path, entry(target, more)) as files:
        output = await run(files, "Echo", {})
        found = output.status if output.status != "TOOL_ERROR" else f"TOOL_ERROR {code(output)}"
        assert found == outcome
        assert seen == [b"/shop.v1.Orders/Echo"], "a call is made once"


async def test_a_server_that_speaks_no_http2(tmp_path: Path) -> None:
    async def html(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n<html>")

    async with listening(html) as port, kept(tmp_path, entry(f"127.0.0.1:{port}")) as files:
        assert files.servers[0].error == "The tool's service cannot be reached."


# ---- reflection


def file(name: str, *imports: str, package: str = "shop.v1", more: Callable[[Any], None] = lambda found: None) -> bytes:
    found = FileDescriptorProto(name=name, package=package, syntax="proto3", dependency=imports)
    more(found)
    return found.SerializeToString()


def big(found: FileDescriptorProto) -> None:
    found.source_code_info.location.add(leading_comments="x" * 10_000_000)


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ([b"\xff\xff"], "a file of it is no descriptor"),
        ([file("a", "b"), file("b", "a")], "its files import each other in a circle"),
        ([file("a", "a")], "its files import each other in a circle"),
        ([file("a", "missing")], "the server's reflection answers with another file"),
        ([file("a")], "there is no service shop.v1.Orders"),
        ([file("a", more=lambda found: found.message_type.add(name="no name"))], "the file a cannot be used"),
        ([file("a", package="google.protobuf")], "the file a is of the package google.protobuf"),
        ([file("a", more=big)], "the server's reflection ended with RESOURCE_EXHAUSTED"),
        ([file(f"a{number}") for number in range(1001)], "the server's reflection has more than 1000 files"),
        ([], "there is no service shop.v1.Orders"),
    ],
)
async def test_reflections_that_tell_nonsense(tmp_path: Path, files: list[bytes], error: str) -> None:
    response = reflection_pb2.ServerReflectionResponse(file_descriptor_response={"file_descriptor_proto": files})
    said = [response.SerializeToString()]
    async with reflecting(lambda: said) as target, kept(tmp_path, entry(target)) as kept_files:
        (server,) = kept_files.servers
        assert (server.up, server.error) == (False, error)


@pytest.mark.parametrize(
    ("responses", "error"),
    [
        ([b"\xff"], "the server's reflection answers with another message"),
        ([], "the server's reflection ended too early"),
        ([b""], "there is no service shop.v1.Orders"),
    ],
)
async def test_reflections_that_answer_nonsense(tmp_path: Path, responses: list[bytes], error: str) -> None:
    async with reflecting(lambda: responses) as target, kept(tmp_path, entry(target)) as files:
        assert files.servers[0].error == error


async def test_a_reflection_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflection, "REFLECTION_SECONDS", 0.3)
    async with reflecting(lambda: None) as target, kept(tmp_path, entry(target)) as files:
        assert files.servers[0].error == "the server's reflection did not answer in time"


@asynccontextmanager
async def reflecting(says: Callable[[], list[bytes] | None]) -> AsyncIterator[str]:
    """Its target. says: what each request is answered with; nothing: the stream ends; None: never."""

    async def info(requests: Any, context: Any) -> AsyncIterator[bytes]:
        async for _ in requests:
            responses = says()
            if responses is None:
                await asyncio.get_running_loop().create_future()
            elif not responses:
                return
            else:
                for response in responses:
                    yield response

    server = aio.server(options=[("grpc.so_reuseport", 0)])
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(info)
    }
    generic = grpc.method_handlers_generic_handler("grpc.reflection.v1.ServerReflection", handlers)
    server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)

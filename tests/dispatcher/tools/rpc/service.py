"""A gRPC server of the tests, which counts what it executes and tells what it saw."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_tools import protoc

HERE = Path(__file__).parent
TLS = HERE.parent / "http" / "tls"
ORDERS = "shop.v1.Orders"
HEALTH = "grpc.health.v1.Health"
CODES = {code.value[0]: code for code in grpc.StatusCode}

Handler: TypeAlias = Callable[[Any, "aio.ServicerContext[Any, Any]"], Awaitable[Any]]


@cache
def descriptor_set() -> bytes:
    """Of `shop.proto` and all that it imports, with comments."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "shop.binpb"
        arguments = ["protoc", f"-I{HERE}", f"-I{files('grpc_tools') / '_proto'}", "--include_imports"]
        assert protoc.main([*arguments, "--include_source_info", f"-o{out}", "shop.proto"]) == 0
        return out.read_bytes()


@cache
def pool() -> descriptor_pool.DescriptorPool:
    found = descriptor_pool.DescriptorPool()
    for file in FileDescriptorSet.FromString(descriptor_set()).file:
        found.AddSerializedFile(file.SerializeToString())
    return found


def message(name: str, **fields: Any) -> Message:
    return GetMessageClass(pool().FindMessageTypeByName(name))(**fields)


class Seen(NamedTuple):
    """A call that was executed."""

    method: str
    request: Any
    metadata: dict[str, str]
    seconds: float | None


class Orders:
    """While it is entered, at `target`. reflections: the versions of server reflection that it has. password: that
    metadata have to have. asked: how often reflection was.
    """

    def __init__(self, *, reflections: tuple[str, ...] = ("v1", "v1alpha"), password: str = "") -> None:
        self._reflections, self.password = reflections, password
        self.seen: list[Seen] = []
        self.waiting, self.cancelled, self.go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.server: aio.Server = aio.server()
        self.port, self.target = 0, ""
        self.asked = 0

    @asynccontextmanager
    async def at(
        self, port: int = 0, certificate: str = "", *, clients: bool = False, path: Path | None = None
    ) -> AsyncIterator["Orders"]:
        """clients: only those with a certificate of the same authority. path: of a Unix socket instead."""
        address = f"unix:{quote(str(path))}" if path else f"127.0.0.1:{port}"
        self.server = server = aio.server(interceptors=[self._refusing()], options=[("grpc.so_reuseport", 0)])
        service = pool().FindServiceByName(ORDERS)
        handlers = {}
        for method in service.methods:
            kind = {
                (False, True): grpc.unary_stream_rpc_method_handler,
                (True, False): grpc.stream_unary_rpc_method_handler,
            }
            make: Any = kind.get(
                (method.client_streaming, method.server_streaming), grpc.unary_unary_rpc_method_handler
            )
            handlers[method.name] = make(
                self._handler(method.name, method),
                request_deserializer=GetMessageClass(method.input_type).FromString,
                response_serializer=lambda found: found.SerializeToString(),
            )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(ORDERS, handlers),))
        health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
        servicer = reflection.aio.ReflectionServicer([ORDERS, HEALTH], pool=_everything())
        for version in self._reflections:
            info = grpc.stream_stream_rpc_method_handler(
                servicer.ServerReflectionInfo,
                reflection_pb2.ServerReflectionRequest.FromString,
                reflection_pb2.ServerReflectionResponse.SerializeToString,
            )
            name = f"grpc.reflection.{version}.ServerReflection"
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": info}),)
            )
        if certificate:
            pem = (TLS / certificate).read_bytes()
            ca = (TLS / "ca.pem").read_bytes() if clients else None
            credentials = grpc.ssl_server_credentials([(pem, pem)], ca, require_client_auth=clients)
            self.port = server.add_secure_port(address, credentials)
        else:
            self.port = server.add_insecure_port(address)
        self.target = f"unix:{path}" if path else f"127.0.0.1:{self.port}"
        await server.start()
        try:
            yield self
        finally:
            await server.stop(None)

    def _handler(self, name: str, method: Any) -> Handler:
        answer = GetMessageClass(method.output_type)

        async def handle(request: Any, context: "aio.ServicerContext[Any, Any]") -> Any:
            metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
            self.seen.append(Seen(name, request, metadata, context.time_remaining()))
            match name:
                case "Wait":
                    self.waiting.set()
                    try:
                        await self.go_on.wait()
                    except asyncio.CancelledError:
                        self.cancelled.set()
                        raise
                case "Fail":
                    await context.abort(CODES[request.code], request.text)
                case "Fill":
                    return answer(text="a" * request.bytes)
            return request if isinstance(request, answer) else answer()

        return handle

    def _refusing(self) -> "aio.ServerInterceptor":
        orders = self

        class Refusing(aio.ServerInterceptor):
            async def intercept_service(self, continuation: Any, details: Any) -> Any:
                orders.asked += "ServerReflectionInfo" in details.method
                given = dict(details.invocation_metadata).get("authorization", "")
                if orders.password and given != orders.password:

                    async def refuse(request: Any, context: Any) -> None:
                        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")

                    handler = await continuation(details)
                    if handler.request_streaming:
                        return grpc.stream_stream_rpc_method_handler(refuse)
                    return grpc.unary_unary_rpc_method_handler(refuse)
                return await continuation(details)

        return Refusing()


@cache
def _everything() -> descriptor_pool.DescriptorPool:
    """Health too."""
    found = descriptor_pool.DescriptorPool()
    for file in FileDescriptorSet.FromString(descriptor_set()).file:
        found.AddSerializedFile(file.SerializeToString())
    found.AddSerializedFile(health_pb2.DESCRIPTOR.serialized_pb)
    return found

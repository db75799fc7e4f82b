"""A server's descriptors, as its reflection service tells of them: version 1, or v1alpha, whose messages are the same.
https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress

from google.protobuf.message import DecodeError
from grpc import StatusCode, aio
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from dispatcher.tools.errors import ServiceError, UnreachableError
from dispatcher.tools.rpc.connection import MAX_REFLECTION_BYTES, REFLECTION, GrpcConnection
from dispatcher.tools.rpc.descriptors import UnusableDescriptorsError, known, name_and_dependencies

REFLECTION_SECONDS = 10.0
MAX_FILES = 1000
# A server that lacks this version says UNIMPLEMENTED; grpc.aio says INTERNAL where that comes before it has written.
UNKNOWN = (StatusCode.UNIMPLEMENTED, StatusCode.INTERNAL)


async def described(connection: GrpcConnection, services: Iterable[str]) -> Sequence[bytes]:
    """The files of these services, and all that they import, serialized. Raises ServiceError."""
    for version in REFLECTION:
        try:
            async with asyncio.timeout(REFLECTION_SECONDS):
                return await _Reflection(connection, version).described(services)
        except TimeoutError:
            raise ServiceError("reflection", "the server's reflection did not answer in time") from None
        except UnusableDescriptorsError as error:
            raise ServiceError("reflection", str(error)) from None
        except aio.AioRpcError as error:
            if error.code() not in UNKNOWN:
                raise _refused(error) from None
    raise ServiceError("reflection", "the server has no reflection; `descriptor_set` can say what it has")


def _refused(error: aio.AioRpcError) -> ServiceError:
    if error.code() is StatusCode.UNAVAILABLE:
        return UnreachableError()
    return ServiceError("reflection", f"the server's reflection ended with {error.code().name}")


class _Reflection:
    """One stream of it. Raises AioRpcError, UnusableDescriptorsError."""

    def __init__(self, connection: GrpcConnection, version: str) -> None:
        method: aio.StreamStreamMultiCallable[bytes, bytes] = connection.channel.stream_stream(
            f"/{version}/ServerReflectionInfo"
        )
        # Without a deadline: whoever asks has a limit, and two of the same length would race for what is said.
        self._call = method(metadata=aio.Metadata(*connection.metadata))
        self._room = MAX_REFLECTION_BYTES
        self._files: dict[str, bytes] = {}
        self._imported: set[str] = set()

    async def described(self, services: Iterable[str]) -> Sequence[bytes]:
        try:
            for service in services:
                request = ServerReflectionRequest(file_containing_symbol=service)
                if not await self._asked(request):
                    raise UnusableDescriptorsError(f"there is no service {service}")
            while missing := [name for name in self._imported if name not in self._files and not known(name)]:
                if not await self._asked(ServerReflectionRequest(file_by_filename=missing[0])):
                    raise UnusableDescriptorsError("the server lacks a file that it imports itself")
                if missing[0] not in self._files:
                    raise UnusableDescriptorsError("the server's reflection answers with another file")
            return list(self._files.values())
        finally:
            self._call.cancel()

    async def _asked(self, request: ServerReflectionRequest) -> bool:
        """Whether there is such a file."""
        with suppress(asyncio.InvalidStateError):  # the call has ended: with what, is known below
            await self._call.write(request.SerializeToString())
        answer = await self._call.read()
        if not isinstance(answer, bytes):
            if (code := await self._call.code()) is StatusCode.OK:
                raise UnusableDescriptorsError("the server's reflection ended too early")
            raise aio.AioRpcError(code, aio.Metadata(), aio.Metadata(), await self._call.details())
        self._room -= len(answer)
        if self._room < 0:
            raise UnusableDescriptorsError(f"the server's reflection has more than {MAX_REFLECTION_BYTES} bytes")
        try:
            response = ServerReflectionResponse.FromString(answer)
        except DecodeError:
            raise UnusableDescriptorsError("the server's reflection answers with another message") from None
        for content in response.file_descriptor_response.file_descriptor_proto:
            name, dependencies = name_and_dependencies(content)
            self._files.setdefault(name, content)
            self._imported |= set(dependencies)
        if len(self._files) > MAX_FILES:
            raise UnusableDescriptorsError(f"the server's reflection has more than {MAX_FILES} files")
        return response.HasField("file_descriptor_response")

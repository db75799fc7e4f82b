"""Toolsets of kind `grpc`: a server's unary methods, while there is a connection to it."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from google.protobuf.descriptor import MethodDescriptor

from dispatcher.tools.context import Context
from dispatcher.tools.entry import Terms
from dispatcher.tools.errors import ServiceError, UnreachableError
from dispatcher.tools.identity import identity, who_asked
from dispatcher.tools.ports import Offer, Spec
from dispatcher.tools.rpc.connection import GrpcConnection, connected
from dispatcher.tools.rpc.descriptors import Descriptors, UnusableDescriptorsError, built
from dispatcher.tools.rpc.messages import UnaryMethod
from dispatcher.tools.rpc.reflection import described
from dispatcher.tools.rpc.schemas import MessageSchemas
from dispatcher.tools.rpc.server import GrpcServer

LOOK_SECONDS = 30.0  # after which the server is asked again what it has
# That a call's deadline comes after its time limit, which counts, and whose end the server is told by RST_STREAM.
DEADLINE_SECONDS = 1.0
MAX_METHODS = 2000  # of a server that are looked at


class Mapped(NamedTuple):
    """methods: as agents see them, and as they are called. left_out: what is allowed and cannot be offered, and why."""

    methods: Sequence[tuple[Spec, UnaryMethod]]
    left_out: Sequence[str]


def mapped(descriptors: Descriptors, services: Iterable[str], terms: Terms) -> Mapped:
    """Slow where they are large: never in the loop. Raises UnusableDescriptorsError."""
    found = Mapped(methods := [], left_out := [])
    schemas = MessageSchemas(descriptors.comments)
    names: set[str] = set()
    for number, method in enumerate(descriptors.methods(services)):
        names.add(method.name)
        if number >= MAX_METHODS:
            raise UnusableDescriptorsError(f"the services have more than {MAX_METHODS} methods")
        if not terms.allows(method.name):
            continue
        full = f"{method.containing_service.full_name}/{method.name}"[:200]
        if method.client_streaming or method.server_streaming:
            left_out.append(f"{full}: it is a stream")
            continue
        try:
            spec = terms.offered(method.name, _description(method, descriptors), schemas.of(method.input_type))
        except UnusableDescriptorsError as error:
            left_out.append(f"{full}: {error}")
        else:
            methods.append((spec, UnaryMethod(method, descriptors.pool)))
    literal = [name for name in terms.allow if not set(name) & set("*?[")]
    left_out += [f"{name}: `allow` names no method of the services" for name in literal if name not in names]
    return found


def _description(method: MethodDescriptor, descriptors: Descriptors) -> str:
    comment = descriptors.comments.get(method.full_name)
    return comment or f"{method.name} of {method.containing_service.full_name}"


class GrpcToolset:
    """known: what its descriptor set says; None: the server's reflection is asked. connection: None while there is
    none.
    """

    def __init__(self, terms: Terms, server: GrpcServer, services: Sequence[str], known: Mapped | None) -> None:
        self.name = terms.spec.name
        self._terms, self._server, self._services, self._known = terms, server, services, known
        self.told = server.told
        self.connection: GrpcConnection | None = None

    async def run(self, offer: Offer) -> None:
        """As `dispatcher.tools.ports.Toolset` says."""
        seconds = self._terms.spec.timeout_seconds + DEADLINE_SECONDS
        async with connected(self._server, seconds) as connection:
            try:
                await self._offered(connection, offer)
            except Exception as why:
                offer.lost(why)
                raise

    async def _offered(self, connection: GrpcConnection, offer: Offer) -> None:
        """For ever. Raises ServiceError."""
        before: Sequence[bytes] | None = None
        # One for as long as it takes: C-core keeps whom it has to tell of a change, though nobody waits any more.
        changed = asyncio.create_task(connection.changed())
        try:
            while True:
                files = await described(connection, self._services) if self._known is None else ()
                if files != before:
                    before = files
                    found = await asyncio.to_thread(self._mapped, files) if self._known is None else self._known
                    self.connection = connection
                    offer([GrpcTool(self, spec, method) for spec, method in found.methods], found.left_out)
                await asyncio.wait({changed}, timeout=LOOK_SECONDS)
                if changed.done():
                    changed.result()
                    changed = asyncio.create_task(connection.changed())
        finally:
            self.connection = None
            changed.cancel()
            await asyncio.gather(changed, return_exceptions=True)

    def _mapped(self, files: Sequence[bytes]) -> Mapped:
        try:
            return mapped(built(files), self._services, self._terms)
        except UnusableDescriptorsError as error:
            raise ServiceError("reflection", str(error)) from None


class GrpcTool:
    """One method."""

    def __init__(self, toolset: GrpcToolset, spec: Spec, method: UnaryMethod) -> None:
        self.spec = spec
        self._toolset, self._method = toolset, method

    async def call(self, arguments: dict[str, Any], context: Context) -> str:
        """As `dispatcher.tools.ports.Tool` says."""
        request = self._method.request(arguments)
        told = [(name, who_asked(context, what)) for name, what in self._toolset.told]
        connection = self._toolset.connection
        if connection is None:
            raise UnreachableError
        whose = identity(context)
        metadata = (("idempotency-key", whose.key), *whose.trace.items(), *told)
        seconds = self.spec.timeout_seconds + DEADLINE_SECONDS
        answer = await connection.call(self._method.path, request, metadata, seconds)
        return await asyncio.to_thread(self._method.result, answer)

"""What an edge shows over TLS: read at the start, and again on SIGHUP and when the files are seen to have changed.

New connections get what is there now; those that are open keep what they began with.
"""

import asyncio
import ssl
from typing import Literal, TypeAlias

import grpc
import structlog

from dispatcher.files.watch import FileWatch
from dispatcher.metrics import Metrics
from dispatcher.settings import MutualTls, ServerTls
from shared import tls
from shared.errors import ConfigError

logger = structlog.get_logger()

Edge: TypeAlias = Literal["grpc", "http", "operator"]


class Certificates:
    """Of one edge. Raises ConfigError where its files cannot be used: before anything is served."""

    def __init__(self, edge: Edge, files: ServerTls, metrics: Metrics) -> None:
        self._edge, self._files, self._metrics = edge, files, metrics
        self._client_ca = files.client_ca if isinstance(files, MutualTls) else None
        self._watch = FileWatch(files.cert)
        self._reading = asyncio.Lock()
        try:
            self._take(self._read())
        except tls.TlsError as error:
            raise ConfigError(f"DISPATCHER_{edge.upper()}_TLS: {error}") from None

    def context(self) -> ssl.SSLContext:
        """For the next connection over HTTP."""
        return self._context

    def credentials(self) -> grpc.ServerCredentials:
        """For gRPC, which asks at each handshake what to show."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration, lambda: self._configuration, self._client_ca is not None
        )

    async def reload(self) -> None:
        """Read the files now. Broken ones leave in use what was read before."""
        async with self._reading:
            try:
                pems = await asyncio.to_thread(self._read)
            except tls.TlsError as error:
                self._metrics.tls_read(self._edge, None)
                logger.error("tls_reload_failed", edge=self._edge, error=str(error))  # noqa: TRY400 # the operator's
                return
            self._take(pems)
            logger.info("tls_reloaded", edge=self._edge)

    async def watch(self) -> None:
        """Read the files whenever they have changed, until cancelled."""
        await self._watch.watch(self.reload)

    def _read(self) -> tls.Pems:
        self._watch.reading()
        for file in (self._files.key, self._client_ca):
            if file:
                self._watch.reading_too(file)
        return tls.read(self._files.cert, self._files.key, self._client_ca)

    def _take(self, pems: tls.Pems) -> None:
        self._context = pems.server_context()
        self._configuration = grpc.ssl_server_certificate_configuration([(pems.key, pems.cert)], pems.ca or None)
        self._metrics.tls_read(self._edge, pems.expires_at)

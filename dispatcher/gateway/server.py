"""uvicorn inside the running loop, beside grpc.aio."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from shared.addresses import split_address
from shared.errors import ConfigError

BACKLOG = 2048
STARTED_WITHIN_SECONDS = 10.0
CLOSE_SECONDS = 2  # for answers that are under way; event streams have ended before, by `Sessions.closing`


def bind(setting: str, address: str) -> socket.socket:
    """Listen on `host:port`, before anything is served. Raises ConfigError naming the setting."""
    host, port = split_address(address)
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"{setting}: cannot listen on {address}: {_reason(error)}") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(target)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigError(f"{setting}: cannot listen on {address}: {_reason(error)}") from error
    return listening


def _reason(error: OSError) -> str:
    known = error.errno is not None and not isinstance(error, socket.gaierror)
    return os.strerror(error.errno or 0).lower() if known else str(error.strerror or error)


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:  # signals are the program's
        yield


class HttpServer:
    """Serves one application on a bound socket."""

    def __init__(self, app: ASGIApp, listening: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,  # longer than the 60 s after which common proxies drop idle connections
            timeout_graceful_shutdown=CLOSE_SECONDS,
            backlog=BACKLOG,
        )
        self._server = _Uvicorn(config)
        self._listening = listening
        self._serving: asyncio.Task[None] | None = None
        self.port: int = listening.getsockname()[1]

    async def start(self) -> None:
        """Return when requests are answered."""
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listening]))
        async with asyncio.timeout(STARTED_WITHIN_SECONDS):
            while not self._server.started:
                if self._serving.done():
                    self._serving.result()
                await asyncio.sleep(0)

    async def close(self) -> None:
        """Take no more requests, let the answers under way end for CLOSE_SECONDS, cut the rest. May be called twice."""
        if self._serving is None:
            self._listening.close()
            return
        self._server.should_exit = True
        await asyncio.wait([self._serving])
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()

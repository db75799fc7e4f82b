"""A connection until its TLS is up: counted, and given up, from its first moment as any other."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple, Protocol

from dispatcher.gateway import limits


class Peer(Protocol):
    """What the server keeps of a connection."""

    def leave(self) -> None:
        """Close it when the answer under way has ended."""

    def abort(self) -> None: ...


class Certified(NamedTuple):
    """names: in the certificate that the peer has shown. until: when that expires, in Unix seconds; the connection may
    last longer.
    """

    names: tuple[str, ...] = ()
    until: float = 0.0


def certified(transport: asyncio.BaseTransport) -> Certified:
    """By what the peer has shown, if it had to: it is verified then."""
    secure = transport.get_extra_info("ssl_object")
    if not (secure and (certificate := secure.getpeercert())):
        return Certified()
    names = tuple(name for kind, name in certificate.get("subjectAltName", ()) if kind in ("DNS", "URI"))
    return Certified(names, ssl.cert_time_to_seconds(certificate["notAfter"]))


class Handshake:
    """over: called with it when it is."""

    def __init__(self, over: Callable[["Handshake"], None]) -> None:
        self._over = over
        self._task: asyncio.Task[None] | None = None

    def begin(self, accepted: socket.socket, context: ssl.SSLContext, seconds: float, then: asyncio.Protocol) -> None:
        """Let `then` have the connection, if it is up within that time."""
        self._task = asyncio.create_task(self._run(accepted, context, seconds, then))
        self._task.add_done_callback(lambda task: self._ended(task, accepted))

    def leave(self) -> None:
        self.abort()

    def abort(self) -> None:
        if self._task:
            self._task.cancel()

    async def _run(
        self, accepted: socket.socket, context: ssl.SSLContext, seconds: float, then: asyncio.Protocol
    ) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: then,
                accepted,
                ssl=context,
                ssl_handshake_timeout=seconds,
                ssl_shutdown_timeout=limits.LINGER_SECONDS,
            )
        except OSError:  # the peer's fault, or it is gone: `ssl.SSLError` and timeouts are such
            accepted.close()

    def _ended(self, task: asyncio.Task[None], accepted: socket.socket) -> None:
        """Also where it was given up before its first step."""
        if task.cancelled():
            accepted.close()
        self._over(self)

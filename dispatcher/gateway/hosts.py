"""Under which names an address answers, against DNS rebinding: a page's own name, pointed at 127.0.0.1 while the page
is open, makes the page and this server one origin to its browser. `Host` still says the page's name.
"""

import re
import socket
from collections.abc import Callable, Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from dispatcher.gateway.errors import HttpError
from shared.addresses import is_loopback

# Who asks for these comes by an address or a service's name of his own: probes, balancers, Prometheus.
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
_HOST = re.compile(rb"(\[[0-9a-f:.]+\]|[^\[\]:]+)(?::[0-9]*)?")
# RFC 9110, 15.5.20, is about exactly this; 400 would say that the request is malformed, which it is not.
_MISDIRECTED = HttpError(
    421, "This server is not known by that name (DISPATCHER_ALLOWED_HOSTS).", code="host_not_allowed", param="Host"
)


def checked(
    app: ASGIApp, listening: socket.socket, allowed: Collection[str], refused: Callable[[str], None]
) -> ASGIApp:
    """The application under the names it may have there: `allowed` and, on loopback, the machine's own. Elsewhere any,
    unless some are allowed. refused: told of the code of each refusal.
    """
    loopback = is_loopback(listening.getsockname()[0])
    if not (loopback or allowed):
        return app

    async def asked(scope: Scope, receive: Receive, send: Send) -> None:
        # The connection refuses none or two; HTTP/1.0 alone may come without, and no browser speaks that.
        host = next((value for name, value in scope["headers"] if name == b"host"), None)
        passes = host is None or _named(host, loopback, allowed) or (not loopback and scope["path"] in PROBES)
        if passes:
            await app(scope, receive, send)
        else:
            refused(_MISDIRECTED.code or "")
            await _MISDIRECTED.response()(scope, receive, send)

    return asked


def _named(host: bytes, loopback: bool, allowed: Collection[str]) -> bool:
    """With any port, for tunnels and published ports have others."""
    found = _HOST.fullmatch(host.lower())
    if not found:
        return False
    name = found[1].decode("latin-1")
    return name in allowed or (loopback and is_loopback(name.strip("[]")))

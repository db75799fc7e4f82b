"""The handshake of a WebSocket (RFC 6455, 4.2)."""

import base64
import binascii
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.requests import Request as HttpRequest
from wsproto.utilities import generate_accept_token

from dispatcher.gateway.errors import HttpError

VERSION = "13"
_HOW = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": VERSION}


def handshake(http: HttpRequest) -> list[tuple[bytes, bytes]]:
    """The headers that accept it. Raises HttpError 400, 426."""
    said = http.headers
    switches = "websocket" in _tokens(said, "upgrade") and "upgrade" in _tokens(said, "connection")
    if http.method != "GET" or not switches or said.get("sec-websocket-version") != VERSION:
        message = f"By GET this route takes the handshake of a WebSocket, of version {VERSION}, alone."
        raise HttpError(426, message, code="upgrade_required", headers=_HOW)
    key = said.get("sec-websocket-key", "").encode("latin-1")
    try:
        size = len(base64.b64decode(key, validate=True))
    except binascii.Error:
        size = 0
    if size != 16:
        message = "Sec-WebSocket-Key: must be 16 bytes in base64"
        raise HttpError(400, message, code="invalid_value", param="Sec-WebSocket-Key")
    accepted = generate_accept_token(key)
    return [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", accepted)]


def _tokens(headers: Headers, name: str) -> Collection[str]:
    return {token.strip().lower() for value in headers.getlist(name) for token in value.split(",")}

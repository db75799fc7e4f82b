"""Who opens a ChatStream: known before a packet of it is read."""

import time
from collections.abc import Iterable, Mapping
from typing import Protocol

import grpc

from dispatcher.access.rules import Caller, UnknownCaller, identify
from dispatcher.access.watch import Access
from dispatcher.grpc_edge.status import StreamOver
from shared import tls

_UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED, "A valid token or certificate is needed.", "unauthenticated"
_NAMES = ("peer_dns", "peer_uri")  # of what gRPC tells of a certificate: not the other kinds of names in it


class CallContext(Protocol):
    """What is asked of grpc.aio's ServicerContext."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...
    def auth_context(self) -> Mapping[str, Iterable[bytes]]: ...


def commander(access: Access, context: CallContext) -> Caller | None:
    """None: it shows nothing, and may be no more than a peer of the published contract. Raises StreamOver."""
    rules = access.rules
    if rules is None:
        return Caller("commander")
    shown = [_bytes(value) for key, value in context.invocation_metadata() or () if key == "authorization"]
    now = time.time()
    try:
        caller = identify(rules, shown, _names(context.auth_context(), now), now)
    except UnknownCaller:
        if rules.older and not shown:
            return None
        raise unauthenticated() from None
    if caller.role != "commander":
        raise forbidden("This is no Commander's token or certificate.")
    return caller


def still(access: Access, context: CallContext, caller: Caller | None) -> bool:
    """Whether that stream would be let in now, as the same caller."""
    try:
        return commander(access, context) == caller
    except StreamOver:
        return False


def _names(told: Mapping[str, Iterable[bytes]], now: float) -> list[str]:
    """Of the certificate that was shown when the connection was made, which may last longer than it."""
    if any(now >= tls.expires_at(pem) for pem in told.get("x509_pem_cert", ())):
        return []
    return [name.decode("utf-8", "replace") for kind in _NAMES for name in told.get(kind, ())]


def unauthenticated() -> StreamOver:
    return StreamOver(*_UNAUTHENTICATED)


def forbidden(text: str) -> StreamOver:
    return StreamOver(grpc.StatusCode.PERMISSION_DENIED, text, "forbidden")


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()

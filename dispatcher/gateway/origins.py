"""Which pages may change something here: this origin's, and those that `DISPATCHER_CORS_ORIGINS` names (CSRF)."""

from collections.abc import Collection

from starlette.datastructures import Headers

from dispatcher.gateway.errors import HttpError

_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110, 9.2.1


def check(method: str, headers: Headers, trusted: Collection[str]) -> None:
    """Raises HttpError: 403 for a foreign page, 415 for a body that a form could send.

    As Go's net/http.CrossOriginProtection decides: a browser says in `Sec-Fetch-Site` whose page asks, where it does
    not (an old one, or plain HTTP beyond loopback) in `Origin`; who says neither is no browser.
    """
    if method in _SAFE and "upgrade" not in headers:  # a WebSocket is not kept from pages by CORS
        return
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if not ("*" in trusted or origin in trusted or _own(origin, site, headers.get("host"))):
        raise HttpError(403, "A page of another origin may not do this.", code="origin_not_allowed", param="Origin")
    # What a page may send without asking first (CORS's preflight) is of a form's types. A body without a type is taken
    # for JSON: forms name theirs, and a script that does not is told from the others by its origin.
    kinds = headers.getlist("content-type")
    if any(kind.partition(";")[0].strip().lower() != "application/json" for kind in kinds):
        raise HttpError(415, "Bodies are application/json here.", code="unsupported_media_type", param="Content-Type")


def _own(origin: str | None, site: str | None, host: str | None) -> bool:
    """Whether no page asks, or one of this address. The scheme is left out: a proxy may have taken TLS off."""
    if site is not None:
        return site in ("same-origin", "none")
    return origin is None or (host is not None and origin.partition("://")[2] == host.lower())

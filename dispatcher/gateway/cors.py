"""Cross-origin requests from the pages that `DISPATCHER_CORS_ORIGINS` names; from no others by default."""

from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = "GET, POST, DELETE"
EXPOSED = "x-session-id, Location, Retry-After"
PREFLIGHT_SECONDS = 600


class Cors:
    """`*` among the origins means any. Requests from other origins are answered without leave to read the answer."""

    def __init__(self, app: ASGIApp, origins: Iterable[str]) -> None:
        self._app, self._origins = app, frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is None or not self._origins & {origin, "*"}:
            await self._app(scope, receive, send)
            return
        allowed = {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            allowed |= {"Access-Control-Allow-Methods": METHODS, "Access-Control-Max-Age": str(PREFLIGHT_SECONDS)}
            if asked := headers.get("access-control-request-headers"):
                allowed["Access-Control-Allow-Headers"] = asked
            await Response(status_code=204, headers=allowed)(scope, receive, send)
            return
        allowed["Access-Control-Expose-Headers"] = EXPOSED

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(allowed)
            await send(message)

        await self._app(scope, receive, sending)

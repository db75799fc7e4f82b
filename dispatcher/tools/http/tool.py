"""A tool of kind `http`: arguments become a request, its answer becomes the result."""

import json
import ssl
from collections.abc import Mapping
from typing import Any

from dispatcher.tools.context import Context
from dispatcher.tools.errors import InvalidArgumentsError
from dispatcher.tools.http.answers import Pointer, result
from dispatcher.tools.http.exchange import HttpRequest, exchange
from dispatcher.tools.http.template import Template
from dispatcher.tools.identity import identity, who_asked
from dispatcher.tools.ports import Spec
from shared.version import version

# What the connection, the body and the call's identity need.
_OURS = frozenset({
    "host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect",
    "accept-encoding", "idempotency-key", "traceparent", "tracestate",
})  # fmt: skip


def is_ours(header: str) -> bool:
    """Whether neither an operator nor an agent may say it."""
    return header.lower() in _OURS or header.lower().startswith("proxy-")


class Connecting:
    """How an entry's service is asked. headers may hold secrets; told: those that say who asked, each with what of
    them, as `who_asked` takes it; tls: None where the URL is http.
    """

    def __init__(
        self,
        headers: tuple[tuple[str, str], ...] = (),
        told: tuple[tuple[str, str], ...] = (),
        *,
        private: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.headers, self.told, self.private, self.tls = headers, told, private, tls

    @property
    def names(self) -> set[str]:
        """Of all headers, in lower case."""
        return {name.lower() for name, _ in (*self.headers, *self.told)}


class HttpTool:
    """body: what arguments the template does not use are sent as JSON. pointer: what of the answer is the result."""

    def __init__(
        self,
        spec: Spec,
        method: str,
        template: Template,
        connecting: Connecting,
        *,
        body: bool,
        pointer: Pointer | None,
    ) -> None:
        self.spec = spec
        self._method, self._template, self._connecting = method, template, connecting
        self._body, self._pointer = body, pointer
        accepted = next((value for name, value in connecting.headers if name.lower() == "accept"), "")
        self._html = "text/html" in accepted.lower()

    async def call(self, arguments: dict[str, Any], context: Context) -> str:
        """As `dispatcher.tools.ports.Tool` says."""
        target = self._template.target(arguments)
        names = self._template.names
        rest = {name: value for name, value in arguments.items() if name not in names}
        if rest and not self._body:
            raise InvalidArgumentsError(f"The argument {json.dumps(min(rest))[:100]} is not known.")
        body = json.dumps(rest, ensure_ascii=False).encode() if self._body else None
        async with exchange(request(self._connecting, self._method, self._template, target, body, context)) as response:
            return await result(response, self._pointer, self._html)


def request(
    connecting: Connecting,
    method: str,
    template: Template,
    target: str,
    body: bytes | None,
    context: Context,
    more: Mapping[str, str] = {},
) -> HttpRequest:
    """more: headers of this call; the entry's own stand for those of the same name. Raises ServiceError, as `who_asked`
    does.
    """
    origin = template.origin
    call = identity(context)
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    usual = origin.port == (443 if origin.scheme == "https" else 80)
    headers = {
        "Host": host if usual else f"{host}:{origin.port}",
        "User-Agent": f"midsentence/{version()}",
        "Accept": "application/json, text/*;q=0.5",
        "Accept-Encoding": "gzip, deflate",
        "Connection": "close",
        "Idempotency-Key": call.key,
        **call.trace,
    }
    if body is not None:
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    elif method in ("POST", "PUT", "PATCH"):
        headers["Content-Length"] = "0"
    headers |= more
    own = connecting.names
    kept = [(name, value) for name, value in headers.items() if name.lower() not in own]
    told = [(name, who_asked(context, what)) for name, what in connecting.told]
    every = (*kept, *connecting.headers, *told)
    return HttpRequest(origin, method, target, every, body, connecting.private, connecting.tls)

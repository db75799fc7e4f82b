"""The HTTP client under the package `openai`: connections, redirects, and how much of a refusal is read."""

import asyncio
import contextlib
from contextlib import aclosing
from typing import Any

import httpx2
import structlog

from commander.backends.errors import ProviderError
from commander.backends.settings import OpenAISettings
from shared.spans import trace_headers

MAX_REDIRECTS = 5
MAX_REFUSAL_BYTES = 16 * 1024  # read of what is no success, within REFUSAL_SECONDS
REFUSAL_SECONDS = 5.0
MAX_LIST_BYTES = 16 * 1024 * 1024  # of models: some servers have thousands, with their descriptions

logger = structlog.get_logger()

_REDIRECTS = (301, 302, 307, 308)
_OF_THE_BODY = ("content-encoding", "content-length", "transfer-encoding")


class HttpClient(httpx2.AsyncClient):
    """Connections are never kept: one that is closed, at its end or by a stop, is closed for the server too. Nothing is
    decompressed: compression holds tokens back, and what it hides has no limit."""

    def __init__(self, settings: OpenAISettings) -> None:
        headers = {"Accept": "text/event-stream, application/json", "Accept-Encoding": "identity"}
        if settings.api_key:
            headers["Authorization"] = f"Bearer {settings.api_key.get_secret_value()}"
        super().__init__(
            headers=headers,
            timeout=httpx2.Timeout(None, connect=settings.connect_seconds),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
        )
        self._silence = settings.silence_seconds
        self._until_headers = settings.connect_seconds + settings.silence_seconds

    def build_request(self, method: str, url: httpx2.URL | str, *_: Any, **options: Any) -> httpx2.Request:
        """With our headers alone: the package's say where it runs, and OPENAI_… in the environment adds others."""
        content, params = options.get("content"), options.get("params")
        headers = {"Content-Type": "application/json"} if content else {}
        given = httpx2.Headers(options.get("headers"))
        headers |= trace_headers(given.get("traceparent", ""), given.get("tracestate", ""))
        return super().build_request(method, url, content=content, params=params, headers=headers)

    async def send(self, request: httpx2.Request, *, stream: bool = False, **_: Any) -> httpx2.Response:
        """Follows redirects on the same host, with the same method and body; another host would be given the
        conversation. Raises ProviderError where no answer comes in time: asked again it would begin anew."""
        response = await self._answered(request)
        for _redirect in range(MAX_REDIRECTS):
            target = _target(response)
            if target is None:
                break
            await response.aclose()
            response = await self._answered(self.build_request(request.method, target, content=request.content or None))
        if not response.is_success:
            logger.info("provider_refused", status=response.status_code)  # and may be asked again
            return await _read(response, MAX_REFUSAL_BYTES, REFUSAL_SECONDS)
        return response if stream else await _read(response, MAX_LIST_BYTES, self._silence)

    async def _answered(self, request: httpx2.Request) -> httpx2.Response:
        try:
            async with asyncio.timeout(self._until_headers):
                return await super().send(request, stream=True)
        except TimeoutError:
            raise ProviderError(f"ReadTimeout: no answer within {self._silence:g} s") from None


def _target(response: httpx2.Response) -> httpx2.URL | None:
    """Where a redirect leads that is followed."""
    asked = response.request.url
    if response.status_code not in _REDIRECTS or not (location := response.headers.get("location")):
        return None
    try:
        target = asked.join(location)
    except httpx2.InvalidURL:
        return None
    in_clear = asked.scheme == "https" and target.scheme != "https"
    return None if in_clear or target.host != asked.host else target


async def _read(response: httpx2.Response, limit: int, seconds: float) -> httpx2.Response:
    """The response with its body, as far as that comes in time and within the limit."""
    body = bytearray()
    with contextlib.suppress(TimeoutError, httpx2.TransportError):
        async with aclosing(response.aiter_raw()) as parts, asyncio.timeout(seconds):
            async for part in parts:
                body += part
                if len(body) >= limit:
                    break
    return httpx2.Response(
        response.status_code,
        headers=[(name, value) for name, value in response.headers.multi_items() if name not in _OF_THE_BODY],
        content=(compressed(response).encode() or bytes(body))[:limit],
        request=response.request,
        extensions=response.extensions,
    )


def compressed(response: httpx2.Response) -> str:
    """What is wrong with the body's encoding; empty: nothing."""
    encoding = response.headers.get("content-encoding", "").strip()
    return "" if encoding.lower() in ("", "identity") else f"a body in {encoding!r}, though `identity` was asked for"

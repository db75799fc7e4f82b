"""A server's HTTP: each message of the SDK is a request on a connection of its own, to an address that was looked at.

Whatever goes wrong is noted on the call's `Attempt`; the SDK is told of it by an answer, since an exception would end
every call of the connection.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import httpcore2
import httpx2

from dispatcher.tools.errors import ResultTooLargeError, ServiceError, UnknownOutcomeError
from dispatcher.tools.http.answers import MAX_REFUSAL_BYTES, REFUSAL_SECONDS, refusal
from dispatcher.tools.http.exchange import MAX_HEAD_BYTES, HttpRequest, HttpResponse, asked, encoding_error
from dispatcher.tools.http.network import CheckedNetwork
from dispatcher.tools.http.template import Origin
from dispatcher.tools.http.tool import Connecting
from dispatcher.tools.mcp.attempt import CURRENT, Attempt

MAX_MESSAGE_BYTES = 2 * 1024 * 1024  # a result of the contract's size, each of its characters escaped; a page of tools
# For what no call waits for, but the SDK does before it sends the next: a notification, a refusal, a session's DELETE.
NOTIFY_SECONDS = 2.0
SESSION = "mcp-session-id"
NO_SESSION = -32000  # of the codes that JSON-RPC leaves to implementations


class Web(httpx2.AsyncBaseTransport):
    """Never follows a redirect, and asks for no compression."""

    def __init__(self, connecting: Connecting) -> None:
        self._connecting = connecting

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Raises nothing of the network's."""
        attempt = CURRENT.get() or Attempt()
        call, resumed = _is_call(request), "last-event-id" in request.headers
        if attempt.over and resumed:
            return httpx2.Response(410)  # the SDK would wait for the rest of an answer
        network = CheckedNetwork(self._connecting.private, MAX_HEAD_BYTES)
        if call:
            attempt.error = None
        if call or resumed:
            attempt.network = network
        kept = False
        try:
            async with asyncio.timeout(None if request.method == "GET" or call else NOTIFY_SECONDS):
                told = attempt.told if call or resumed else ()  # whatever else is sent is nobody's
                response = await asked(_sent(request, self._connecting, told), network)
                answer = await _answer(request, response, network, attempt)
            kept = isinstance(answer.stream, _Body)
            return answer
        except (ServiceError, UnknownOutcomeError, TimeoutError) as error:
            if call:  # of which something was sent, once its answer is taken up again
                attempt.error = error
            return httpx2.Response(502)
        finally:
            if not kept:
                await network.close()


def _is_call(request: httpx2.Request) -> bool:
    """Whether it is answered with more than a status; how long that may take its caller knows."""
    message = json.loads(request.content) if request.method == "POST" else {}
    return "id" in message and "method" in message


def _sent(request: httpx2.Request, connecting: Connecting, told: tuple[tuple[str, str], ...]) -> HttpRequest:
    url = request.url
    origin = Origin(url.scheme, url.raw_host.decode(), url.port or (443 if url.scheme == "https" else 80))
    more = [(name.encode(), value.encode()) for name, value in told]
    target, headers = url.raw_path.decode(), [*request.headers.raw, *more]
    return HttpRequest(origin, request.method, target, headers, request.content, connecting.private, connecting.tls)


async def _answer(
    request: httpx2.Request, response: httpcore2.Response, network: CheckedNetwork, attempt: Attempt
) -> httpx2.Response:
    """Raises ServiceError instead of what is not to be read."""
    stream: Any = response.stream
    found = HttpResponse(response, aiter(stream))
    status = response.status
    if found.headers.get("content-encoding", "identity").lower() != "identity":
        raise encoding_error()
    if status >= 400 and request.method == "POST":
        beginning = await found.beginning(MAX_REFUSAL_BYTES, REFUSAL_SECONDS)
        error = _rpc_error(beginning)
        if SESSION in request.headers and (status == 404 or _refuses_session(status, error)):
            raise ServiceError("session_ended", "The tool's service had forgotten the session.")
        if error:  # says more than the status
            return httpx2.Response(status, headers={"content-type": "application/json"}, content=beginning)
        raise refusal(found, beginning)
    events = request.method == "GET"  # which may be as many as they like
    if network.stream:
        network.stream.most = None if events else MAX_MESSAGE_BYTES
    body = _Body(stream, network, None if events else attempt, found.headers.get("content-type", ""))
    return httpx2.Response(status, headers=response.headers, stream=body)


def _rpc_error(text: bytes) -> dict[str, Any] | None:
    """The message, if it is one."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("error"), dict) else None


def _refuses_session(status: int, error: dict[str, Any] | None) -> bool:
    """The protocol wants 404. Servers made after the TypeScript SDK's examples say 400 of a session that they do not
    know, with their transport's own error, which is no call's: nothing was called.
    """
    return status == 400 and error is not None and error.get("id") is None and error["error"].get("code") == NO_SESSION


class _Body(httpx2.AsyncByteStream):
    """attempt: of whom the answer is; None: of a stream of notifications, which may be as long as it likes."""

    def __init__(
        self, stream: AsyncGenerator[bytes, None], network: CheckedNetwork, attempt: Attempt | None, content_type: str
    ) -> None:
        self._stream, self._network, self._attempt = stream, network, attempt
        self._events = content_type.lower().startswith("text/event-stream")

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        attempt = self._attempt
        try:
            async with aclosing(self._stream) as parts:
                async for part in parts:
                    yield part
        except ResultTooLargeError as error:
            if attempt:
                attempt.error, attempt.over = error, True
            raise httpx2.StreamError("too large") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError):
            if attempt:
                attempt.error = UnknownOutcomeError()
            raise httpx2.StreamError("cut off") from None
        if attempt:
            attempt.cut = self._events

    async def aclose(self) -> None:
        await self._network.close()

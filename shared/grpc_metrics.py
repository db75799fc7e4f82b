"""Prometheus metrics of gRPC calls, with the names and labels of the Go ecosystem (go-grpc-middleware).

An interceptor of our own: grpc.aio refuses py-grpc-prometheus's, and its fork for asyncio iterates what a stream's
handler returns, which raises where that is a coroutine, as here. A message counts as one, also when it is a batch of
packets.
"""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import grpc
from grpc import aio
from prometheus_client import CollectorRegistry, Counter, Histogram

# A health check takes less than a millisecond, a stream of a Commander lives for hours.
HANDLING_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


def code_name(code: grpc.StatusCode) -> str:
    """The code as Go spells it: `OK`, `Canceled`, `InvalidArgument`."""
    if code is grpc.StatusCode.OK:
        return "OK"
    if code is grpc.StatusCode.CANCELLED:
        return "Canceled"
    return code.name.title().replace("_", "")


_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


class _Method(NamedTuple):
    """The metrics of one method, bound once."""

    started: Counter
    handled: dict[grpc.StatusCode, Counter]
    received: Counter
    sent: Counter
    seconds: Histogram

    def ended(self, started_at: float, code: grpc.StatusCode) -> None:
        self.handled[code].inc()
        self.seconds.observe(time.monotonic() - started_at)


class _Metrics:
    def __init__(self, side: str, registry: CollectorRegistry) -> None:
        labels = ("grpc_type", "grpc_service", "grpc_method")

        def counter(name: str, text: str, *more: str) -> Counter:
            return Counter(f"grpc_{side}_{name}_total", text, (*labels, *more), registry=registry)

        self._started = counter("started", f"RPCs started on the {side}.")
        self._handled = counter("handled", f"RPCs completed on the {side}, whatever their result.", "grpc_code")
        self._received = counter("msg_received", f"Messages received on the {side}; a batch of packets is one.")
        self._sent = counter("msg_sent", f"Messages sent by the {side}; a batch of packets is one.")
        self._seconds = Histogram(
            f"grpc_{side}_handling_seconds",
            "Seconds from the start of an RPC to its end.",
            labels,
            registry=registry,
            buckets=HANDLING_BUCKETS,
        )
        self._methods: dict[tuple[str, str], _Method] = {}

    def method(self, path: str, grpc_type: str = "bidi_stream") -> _Method:
        """Of `/package.Service/Method`; all its series begin at 0.

        grpc_type  `unary`, `client_stream`, `server_stream` or `bidi_stream`
        """
        found = self._methods.get((path, grpc_type))
        if found is None:
            _, service, name = path.split("/")
            labels = (grpc_type, service, name)
            found = self._methods[path, grpc_type] = _Method(
                self._started.labels(*labels),
                {code: self._handled.labels(*labels, code_name(code)) for code in grpc.StatusCode},
                self._received.labels(*labels),
                self._sent.labels(*labels),
                self._seconds.labels(*labels),
            )
        return found


# ---- server


class ServerMetrics(_Metrics, aio.ServerInterceptor):
    """`grpc_server_*`; one of the interceptors of `grpc.aio.server`. Methods that no handler serves are not counted:
    their names are the peer's choice.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__("server", registry)

    async def intercept_service(self, continuation: Callable[..., Awaitable[Any]], handler_call_details: Any) -> Any:
        """The handler, wrapped."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = self.method(handler_call_details.method, _grpc_type(handler))
        make, behavior = _KINDS[handler.request_streaming, handler.response_streaming]
        function = getattr(handler, behavior)
        wrap = _wrapped_generator if inspect.isasyncgenfunction(function) else _wrapped_coroutine
        return make(
            wrap(function, method, handler.request_streaming, handler.response_streaming),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


_KINDS: dict[tuple[bool, bool], tuple[Callable[..., Any], str]] = {
    (False, False): (grpc.unary_unary_rpc_method_handler, "unary_unary"),
    (False, True): (grpc.unary_stream_rpc_method_handler, "unary_stream"),
    (True, False): (grpc.stream_unary_rpc_method_handler, "stream_unary"),
    (True, True): (grpc.stream_stream_rpc_method_handler, "stream_stream"),
}


def _grpc_type(handler: Any) -> str:
    if handler.request_streaming:
        return "bidi_stream" if handler.response_streaming else "client_stream"
    return "server_stream" if handler.response_streaming else "unary"


def _wrapped_coroutine(
    function: Callable[..., Awaitable[Any]], method: _Method, request_streaming: bool, response_streaming: bool
) -> Callable[..., Awaitable[Any]]:
    async def handle(request: Any, context: Any) -> Any:
        started_at, code = _begin(method, request_streaming), grpc.StatusCode.UNKNOWN
        try:
            requests = _counted(request, method) if request_streaming else request
            response = await function(requests, _Context(context, method))
            code = _final(context)
            if not response_streaming:
                method.sent.inc()
            return response
        except BaseException as error:
            code = _raised(context, error)
            raise
        finally:
            method.ended(started_at, code)

    return handle


def _wrapped_generator(
    function: Callable[..., AsyncIterator[Any]], method: _Method, request_streaming: bool, response_streaming: bool
) -> Callable[..., AsyncIterator[Any]]:
    async def handle(request: Any, context: Any) -> AsyncIterator[Any]:
        started_at, code = _begin(method, request_streaming), grpc.StatusCode.UNKNOWN
        try:
            requests = _counted(request, method) if request_streaming else request
            async for response in function(requests, _Context(context, method)):
                yield response
                method.sent.inc()
            code = _final(context)
        except BaseException as error:
            code = _raised(context, error)
            raise
        finally:
            method.ended(started_at, code)

    return handle


def _begin(method: _Method, request_streaming: bool) -> float:
    method.started.inc()
    if not request_streaming:
        method.received.inc()
    return time.monotonic()


async def _counted(requests: AsyncIterator[Any], method: _Method) -> AsyncIterator[Any]:
    async for request in requests:
        method.received.inc()
        yield request


class _Context:
    """The handler's context, with its messages counted."""

    __slots__ = ("_context", "_read", "_received", "_sent", "_write")

    def __init__(self, context: Any, method: _Method) -> None:
        self._context = context
        self._read, self._received = context.read, method.received
        self._write, self._sent = context.write, method.sent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> Any:
        message = await self._read()
        if message is not aio.EOF:
            self._received.inc()
        return message

    async def write(self, message: Any) -> None:
        await self._write(message)
        self._sent.inc()


def _final(context: Any) -> grpc.StatusCode:
    """What the peer gets, or got first by going away, from a handler that returned."""
    return grpc.StatusCode.CANCELLED if context.cancelled() else _code(context) or grpc.StatusCode.OK


def _raised(context: Any, error: BaseException) -> grpc.StatusCode:
    """What the peer gets from a handler that raised."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        left = context.time_remaining()
        late = left is not None and left <= 0
        return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
    return _code(context) or grpc.StatusCode.UNKNOWN


def _code(context: Any) -> grpc.StatusCode | None:
    """The code that the handler set: grpc.aio gives it as a number or as the enum's member. None: OK, or not set."""
    code = context.code()
    code = _BY_NUMBER.get(code, code)
    return code if isinstance(code, grpc.StatusCode) and code is not grpc.StatusCode.OK else None


# ---- client


class OutgoingCall:
    """One call, from now on. Whoever writes and reads counts `sent` and `received`, and says how it `ended`."""

    def __init__(self, method: _Method) -> None:
        self._method, self._started_at = method, time.monotonic()
        self.sent, self.received = method.sent, method.received
        method.started.inc()

    def ended(self, code: grpc.StatusCode) -> None:
        self._method.ended(self._started_at, code)


class ClientMetrics(_Metrics):
    """`grpc_client_*`. Not an interceptor: those of grpc.aio's client put a queue and two tasks into each stream."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__("client", registry)

    def began(self, path: str) -> OutgoingCall:
        """On `/package.Service/Method`."""
        return OutgoingCall(self.method(path))

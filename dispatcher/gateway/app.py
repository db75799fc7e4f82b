"""The two ASGI applications: what users reach, and what operators reach."""

from collections.abc import Callable, Collection, Sequence
from functools import partial

import structlog
from prometheus_client import CollectorRegistry
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dispatcher.access.audit import AuditLog
from dispatcher.access.watch import Access
from dispatcher.core.tenant_limits import OverCode, OverLimit
from dispatcher.gateway import callers, origins
from dispatcher.gateway.answers import Answers
from dispatcher.gateway.audited import Audited
from dispatcher.gateway.bodies import Bodies
from dispatcher.gateway.errors import HttpError, internal_error, json_response, store_unavailable
from dispatcher.gateway.openai import OpenAIRoutes
from dispatcher.gateway.operator import OperatorRoutes
from dispatcher.gateway.pages import Page, operator_page, user_page
from dispatcher.gateway.ports import Sessions
from dispatcher.gateway.receipts import ReceiptKey
from dispatcher.gateway.responses import ResponseRoutes
from dispatcher.gateway.sessions import SessionRoutes
from dispatcher.gateway.sse import Connections
from dispatcher.live.fleet import OnHold, TooManyHolds, TooManyOrders
from dispatcher.live.pool import QueueFull
from dispatcher.metrics import Metrics
from dispatcher.policing.prompts import PromptRefused, PromptUnread
from dispatcher.settings import DispatcherSettings
from dispatcher.store.ports import StopKept, StoreUnavailable

logger = structlog.get_logger()

_OVER: dict[OverCode, str] = {
    "too_many_sessions": "Too many of your sessions wait or run. Try again when one has ended.",
    "rate_limit_exceeded": "Too many of your sessions began in the last minute.",
    "quota_exceeded": "Your tokens of today are used up.",
}
OPERATOR_BODY_BYTES = 64 * 1024  # a stop's detail, a decision's note
# For whoever opens the users' address in a browser, or asks for what it does not have.
WHERE = {
    "POST /v1/chat/completions": "OpenAI's Chat Completions; the model's name is the agent's",
    "POST /v1/responses": "OpenAI's Responses",
    "GET /v1/models": "the agents on offer",
    "POST /v1/sessions": "a session, whose events can be read and resumed",
    "GET /readyz": "whether this server can serve",
}


def user_app(
    sessions: Sessions,
    settings: DispatcherSettings,
    metrics: Metrics,
    access: Access,
    audit: AuditLog | None = None,
) -> ASGIApp:
    """What users reach."""
    connections, bodies = Connections(sessions.closing), Bodies(settings.max_body_bytes)
    answers = Answers(sessions, metrics, connections, settings.early_headers)

    async def ready(_: HttpRequest) -> Response:
        if sessions.trouble():
            raise HttpError(503, "Not ready.", code="not_ready")
        return json_response(200, {"status": "ready"})

    page = user_page() if settings.page else None
    routes = [
        Route("/", partial(_what, page), methods=["GET"]),
        *([Route("/page/{file}", page.file, methods=["GET"])] if page else []),
        *SessionRoutes(sessions, metrics, connections, bodies, access).routes,
        *OpenAIRoutes(sessions, answers, bodies, metrics).routes,
        *ResponseRoutes(sessions, answers, bodies, metrics).routes,
        Route("/healthz", _alive, methods=["GET"]),
        Route("/readyz", ready, methods=["GET"]),
    ]
    instead = f"There are {', '.join(WHERE)}."
    app = App(
        routes,
        callers.user(access, page.paths if page else frozenset()),
        partial(metrics.refused, "http"),
        Audited(audit or AuditLog(None, metrics), "http"),
        settings.cors_origins,
        instead,
    )
    if not settings.cors_origins:
        return app
    # Like any middleware it stands between an answer's every frame and the socket, where a page of another origin asks:
    # 0.5 µs of the 6 that a frame costs.
    return CORSMiddleware(
        app,
        allow_origins=settings.cors_origins,
        allow_methods=("GET", "POST", "DELETE"),
        allow_headers=("*",),
        expose_headers=("x-session-id", "Location", "Retry-After"),
        max_age=600,
    )


def operator_app(
    sessions: Sessions,
    registry: CollectorRegistry,
    metrics: Metrics,
    access: Access,
    receipt_key: ReceiptKey | None = None,
    audit: AuditLog | None = None,
) -> ASGIApp:
    """What operators reach: the console, metrics, and sessions with all that their logs hold. receipt_key: signs
    receipts.
    """

    async def ready(_: HttpRequest) -> Response:
        if reasons := sessions.trouble():
            raise HttpError(503, f"Not ready: {'; '.join(reasons)}.", code="not_ready")
        return json_response(200, {"status": "ready"})

    connections, bodies, page = Connections(sessions.closing), Bodies(OPERATOR_BODY_BYTES), operator_page()
    routes = [
        *OperatorRoutes(sessions, registry, connections, bodies, receipt_key, page, access).routes,
        Route("/healthz", _alive, methods=["GET"]),
        Route("/readyz", ready, methods=["GET"]),
    ]
    audited = Audited(audit or AuditLog(None, metrics), "operator")
    return App(routes, callers.operator(access, page.paths), partial(metrics.refused, "http"), audited)


async def _what(page: Page | None, http: HttpRequest) -> Response:
    """The users' page, where there is one; else, or for who asks for JSON, what this is."""
    accept = http.headers.get("accept", "")
    if page and not ("application/json" in accept and "text/html" not in accept):
        return await page.show(http)
    return json_response(200, {"name": "Midsentence Dispatcher", "routes": WHERE, "openai_base_url": "/v1"})


async def _alive(_: HttpRequest) -> Response:
    return json_response(200, {"status": "alive"})


class App:
    """Routes whose every error has the one shape. What is not meant for peers is logged, never sent. identify: who
    calls; raises HttpError. refused: told of each error's code. audited: told of each request, as its answer begins.
    trusted: the other origins whose pages may change something. instead: a sentence for those who ask for a route that
    is not there.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        identify: callers.Identify,
        refused: Callable[[str], None],
        audited: Audited,
        trusted: Collection[str] = (),
        instead: str = "",
    ) -> None:
        self._identify, self._refused, self._audited = identify, refused, audited
        self._trusted, self._instead = trusted, instead
        self.routes = routes
        self._router = Router(routes, redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is served, not {scope['type']}")
        scope["app"] = self  # then Starlette raises its 404 and 405 instead of answering in plain text
        scope["audited"] = {}
        scope["identify"] = self._identify  # for `callers.still`
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if not started:
                started = True
                self._audited.tell(scope, _route(scope), message["status"])
            await send(message)

        try:
            origins.check(scope["method"], Headers(scope=scope), self._trusted)
            await self._identify(scope)
            await self._router(scope, receive, sending)
        except ClientDisconnect:
            if not started:
                self._audited.tell(scope, _route(scope), None)
        except Exception as error:
            await self._answer(error, started, scope, receive, send)

    async def _answer(self, error: Exception, started: bool, scope: Scope, receive: Receive, send: Send) -> None:
        """Not where it is caught: a frame of its traceback that kept it would keep all that the others have, a large
        body, until the garbage collector comes.
        """
        answer = _http_error(error, self._instead)
        self._refused(answer.code or "")
        if answer.status == 500:
            logger.error("http_request_failed", method=scope["method"], route=_route(scope), exc_info=error)
        if not started:
            self._audited.tell(scope, _route(scope), answer.status, answer.code)
            await answer.response()(scope, receive, send)


def _http_error(error: Exception, instead: str) -> HttpError:
    match error:
        case HttpError():
            return error
        case HTTPException(status_code=404):
            return HttpError(404, " ".join(filter(None, ("No such route.", instead))), code="not_found")
        case HTTPException(status_code=405):
            return HttpError(405, "This method is not allowed here.", code="method_not_allowed", headers=error.headers)
        case QueueFull(retry_after=seconds):
            return HttpError(429, "Too many sessions wait.", code="queue_full", headers={"Retry-After": str(seconds)})
        case OverLimit(code=code, retry_after=seconds):
            return HttpError(429, _OVER[code], code=code, headers={"Retry-After": str(seconds)})
        case OnHold(retry_after=seconds):
            message = "New sessions like this one are on hold. Try again later."
            return HttpError(503, message, code="on_hold", headers={"Retry-After": str(seconds)})
        case TooManyHolds():
            return HttpError(429, "Too many holds are in force: lift some.", code="too_many_holds")
        case TooManyOrders():
            message = "Too many fleet's stops are under way."
            return HttpError(429, message, code="too_many_orders", headers={"Retry-After": "1"})
        case PromptRefused():
            return HttpError(400, "A rule forbids this request.", code="policy_violation")
        case PromptUnread():
            message = "What you ask with could not be checked. Try again."
            return HttpError(503, message, code="policy_unavailable", headers={"Retry-After": "1"})
        case StopKept():
            message = (
                "The store cannot be reached now. The stop is kept and tried until it can; asking again is harmless."
            )
            return HttpError(503, message, code="unavailable", headers={"Retry-After": "1"})
        case StoreUnavailable():
            return store_unavailable()
    return internal_error()


def _route(scope: Scope) -> str:
    """The route's pattern: paths hold session ids, which open sessions."""
    route = scope.get("route")
    return route.path if isinstance(route, Route) else ""

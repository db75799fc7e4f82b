"""Who calls: known before a route is looked up, and refused without a hint which part was wrong.

This is the one way from a socket to "who is it": `App` asks it for every request, and routes take what it found.
"""

import time
from collections.abc import Awaitable, Callable, Set
from typing import TypeAlias

from starlette.requests import Request as HttpRequest
from starlette.types import Scope

from dispatcher.access.rules import AccessRole, Caller, UnknownCaller
from dispatcher.access.watch import Access
from dispatcher.core.log import Record
from dispatcher.gateway import tickets
from dispatcher.gateway.errors import HttpError
from dispatcher.gateway.handshake import Certified
from dispatcher.store.ports import Store

# Puts the `caller` into the scope, also one that may not; only who comes by a ticket has none yet.
Identify: TypeAlias = Callable[[Scope], Awaitable[None]]

PROBES = frozenset({"/healthz", "/readyz"})  # they tell nothing, and who asks cannot show anything
METRICS = "/metrics"
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_NOBODY = Caller("user", agents=frozenset())  # asks a probe
_NOT_CERTIFIED = Certified()


def user(access: Access, pages: Set[str] = frozenset()) -> Identify:
    """On the users' address: users alone. pages: paths that show nothing of anybody's. Raises HttpError 401, 403."""

    async def identified(scope: Scope) -> None:
        if access.rules is not None and tickets.shows_one(scope):
            return  # only the session knows whether it is one: the route asks it, by `find_by_ticket`
        caller = scope["caller"] = await _caller(access, scope, "user", PROBES | pages)
        if caller.role != "user":
            raise _forbidden()

    return identified


def operator(access: Access, pages: Set[str] = frozenset()) -> Identify:
    """On the operators' address: operators, auditors that read, and whoever scrapes. pages: as users'. Raises HttpError
    401, 403.
    """

    async def identified(scope: Scope) -> None:
        open_metrics = access.rules is None or not access.rules.closed_metrics
        without = PROBES | {METRICS} if open_metrics else PROBES
        caller = scope["caller"] = await _caller(access, scope, "operator", without | pages)
        reads = scope["method"] in _READS and (
            caller.role == "auditor" or (caller.role == "metrics" and scope["path"] == METRICS)
        )
        if not (caller is _NOBODY or caller.role == "operator" or reads):
            raise _forbidden()

    return identified


async def _caller(access: Access, scope: Scope, anybody: AccessRole, without: Set[str]) -> Caller:
    """anybody: what whoever calls is where access is open. without: paths that anybody may ask for."""
    if scope["path"] in without and scope["method"] in _READS:
        return _NOBODY
    if access.rules is None:
        return Caller(anybody)
    shown = [value for name, value in scope["headers"] if name == b"authorization"]
    certified: Certified = scope.get("certified", _NOT_CERTIFIED)
    now = time.time()
    names = certified.names if now < certified.until else ()
    try:
        return await access.identify(access.rules, shown, names, now)
    except UnknownCaller:
        raise _unknown_caller() from None


def _unknown_caller() -> HttpError:
    return HttpError(401, "A valid key is needed.", code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _forbidden() -> HttpError:
    return HttpError(403, "This key may not do this.", code="forbidden")


def caller_of(http: HttpRequest) -> Caller:
    """Who asks, as `App` knows it."""
    caller: Caller = http.scope["caller"]
    return caller


async def still(http: HttpRequest) -> bool:
    """Whether that request would be let in now, as the same caller: keys are taken out, and tokens and certificates
    expire, while an answer that has no end goes on.
    """
    before = caller_of(http)
    try:
        await http.scope["identify"](http.scope)
    except HttpError:
        return False
    return caller_of(http) == before


def token_of(http: HttpRequest) -> str:
    """The issuer's token that was shown: for tools that may forward it, and no log. Empty: it was none of an issuer."""
    shown = http.headers.get("authorization", "") if caller_of(http).issued else ""
    return shown.partition(" ")[2].strip()


def comes_by_ticket(http: HttpRequest) -> bool:
    """Instead of a key: `find_by_ticket` has to know it before anything is shown."""
    return "caller" not in http.scope


async def find_by_ticket(access: Access, store: Store, http: HttpRequest) -> Record:
    """The session that the path names and whose ticket is shown, by somebody who may still be its user. Raises
    HttpError 401, also where there is none of that id, and StoreUnavailable.
    """
    record, now = await store.brief(http.path_params["session_id"]), time.time()
    if record is None or access.rules is None or not tickets.admits(http, record, now):
        raise _unknown_caller()
    subject, tenant = record.request.subject, record.request.tenant
    if not access.rules.knows(subject, tenant, now):
        raise _unknown_caller()
    http.scope["caller"] = Caller("user", subject, tenant, frozenset())
    return record


def theirs(caller: Caller, record: Record | None) -> Record | None:
    """The session, if it is there for that user: to others it does not exist."""
    return record if record and record.request.tenant == caller.tenant else None

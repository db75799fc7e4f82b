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
from dispatcher.gateway.errors import HttpError

Identify: TypeAlias = Callable[[Scope], Awaitable[None]]  # puts the `caller` into the scope, also one that may not

PROBES = frozenset({"/healthz", "/readyz"})  # they tell nothing, and who asks cannot show anything
METRICS = "/metrics"
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_NOBODY = Caller("user", agents=frozenset())  # asks a probe


def user(access: Access, pages: Set[str] = frozenset()) -> Identify:
    """On the users' address: users alone. pages: paths that show nothing of anybody's. Raises HttpError 401, 403."""

    async def identified(scope: Scope) -> None:
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
    try:
        return await access.identify(access.rules, shown, scope.get("peer_names", ()), time.time())
    except UnknownCaller:
        raise HttpError(
            401, "A valid key is needed.", code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"}
        ) from None


def _forbidden() -> HttpError:
    return HttpError(403, "This key may not do this.", code="forbidden")


def caller_of(http: HttpRequest) -> Caller:
    """Who asks, as `App` knows it."""
    caller: Caller = http.scope["caller"]
    return caller


def theirs(caller: Caller, record: Record | None) -> Record | None:
    """The session, if it is there for that user: to others it does not exist."""
    return record if record and record.request.tenant == caller.tenant else None

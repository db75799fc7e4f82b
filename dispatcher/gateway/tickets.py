"""Tickets: a page's `EventSource` can show no key, so the address of a session's events may hold one instead.

It reads the events of that session and nothing else, and for a minute from the session's creation: addresses get about.
Who has come by then is given another in the ids of its events, which a browser sends with the ticket as it comes back.
Both are made of a secret in the session's log, so every replica knows them and none keeps them.
"""

import re

from starlette.datastructures import QueryParams
from starlette.requests import Request as HttpRequest
from starlette.types import Scope

from dispatcher.core.log import Record
from dispatcher.core.tokens import reading_token, same
from dispatcher.gateway import bodies

TICKET_SECONDS = 60.0
_PARAMETER = "ticket"
_HEADER = "Last-Event-ID"
_EVENTS = re.compile(r"/v1/sessions/[^/]+/events")


def query(record: Record) -> str:
    """What the address of the session's events has after its path. Empty: there is nothing to make a ticket of."""
    return f"?{_PARAMETER}={_ticket(record)}" if record.request.assignment_key else ""


def resumption(record: Record) -> str:
    """What the ids of events end with, for whoever came by a ticket."""
    return "." + reading_token(record.request.assignment_key, record.session_id, "resume")


def shows_one(scope: Scope) -> bool:
    """Whether that request has a ticket, valid or not, instead of a key, and for what one is for."""
    return (
        scope["method"] == "GET"
        and _EVENTS.fullmatch(scope["path"]) is not None
        and _PARAMETER in QueryParams(scope["query_string"])
        and not any(name == b"authorization" for name, _ in scope["headers"])
    )


def offset(http: HttpRequest) -> int:
    """As `bodies.offset`, of a request with a ticket. Raises HttpError 400."""
    after = [bodies.event_number("after", value) for value in http.query_params.getlist("after")]
    return max(*after, bodies.event_number(_HEADER, _last_id(http)[0]), 0)


def admits(http: HttpRequest, record: Record, now: float) -> bool:
    """Whether the request's ticket is for that session, in Unix seconds now."""
    shown = http.query_params.getlist(_PARAMETER)
    if not record.request.assignment_key or len(shown) != 1 or not same(shown[0].encode(), _ticket(record).encode()):
        return False
    resumes = same(f".{_last_id(http)[1]}".encode(), resumption(record).encode())
    return resumes or now < record.request.created_at + TICKET_SECONDS


def _ticket(record: Record) -> str:
    return reading_token(record.request.assignment_key, record.session_id, "connect")


def _last_id(http: HttpRequest) -> tuple[str, str]:
    """The number in it, and what came after that."""
    number, _, resumed = http.headers.get(_HEADER, "0").partition(".")
    return number, resumed

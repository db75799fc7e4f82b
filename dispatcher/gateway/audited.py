"""What the audit log says of a request: by its route what was done, by its path to which session, and how it went."""

from typing import Literal

from starlette.requests import Request as HttpRequest
from starlette.types import Scope

from dispatcher.access.audit import REFUSED, AuditLog
from dispatcher.gateway.response_events import ID_PREFIX

# By method and route. NOT_TOLD show nothing of anybody's.
EVENTS = {
    ("POST", "/v1/sessions"): "session_created",
    ("POST", "/v1/chat/completions"): "session_created",
    ("POST", "/v1/responses"): "session_created",
    ("GET", "/v1/sessions/{session_id}"): "session_read",
    ("GET", "/v1/sessions/{session_id}/events"): "session_read",
    ("GET", "/v1/responses/{response_id}"): "session_read",
    ("GET", "/v1/responses/{response_id}/input_items"): "session_read",
    ("DELETE", "/v1/sessions/{session_id}"): "session_deleted",
    ("DELETE", "/v1/responses/{response_id}"): "session_deleted",
    ("POST", "/v1/sessions/{session_id}/stop"): "session_stopped",
    ("POST", "/v1/responses/{response_id}/cancel"): "session_stopped",
    ("POST", "/v1/sessions/{session_id}/calls/{call_id}/decision"): "call_decided",
    ("GET", "/operator/sessions"): "sessions_listed",
    ("GET", "/operator/live"): "sessions_listed",
    ("GET", "/operator/sessions/{session_id}"): "session_read",
    ("GET", "/operator/sessions/{session_id}/events"): "session_read",
    ("GET", "/operator/sessions/{session_id}/receipt"): "receipt_read",
    ("POST", "/operator/sessions/{session_id}/stop"): "session_stopped",
    ("POST", "/operator/sessions/{session_id}/calls/{call_id}/decision"): "call_decided",
    ("POST", "/operator/stop"): "fleet_stopped",
    ("GET", "/operator/holds"): "holds_listed",
    ("POST", "/operator/holds"): "hold_placed",
    ("DELETE", "/operator/holds/{hold_id}"): "hold_lifted",
    ("GET", "/operator/approvals"): "approvals_listed",
    ("GET", "/operator/policies"): "policies_read",
    ("GET", "/operator/instance"): "instance_read",
}
NOT_TOLD = frozenset(
    {
        ("GET", "/"),
        ("GET", "/page/{file}"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/{model:path}"),
        ("GET", "/v1/responses"),  # a WebSocket, whose messages are told of as requests
        ("POST", "/v1/responses/compact"),  # there is none: it says so
    }
)
NAMED = ("session_id", "call_id", "hold_id")  # of a path
MAX_NAMED = 100  # characters: whoever asks chooses them


def note(http: HttpRequest, **fields: object) -> None:
    """More of this request for the audit log: what its path does not say. Names, numbers and codes, no text."""
    http.scope["audited"].update(fields)


class Audited:
    """The audit log as the requests at one edge get into it."""

    def __init__(self, log: AuditLog, edge: Literal["http", "operator"]) -> None:
        self._log, self._edge = log, edge

    def tell(self, scope: Scope, route: str, status: int | None, code: str | None = None) -> None:
        """status: of the answer, as it begins; None: the client left before. code: of an error."""
        event = EVENTS.get((scope["method"], route))
        if status == 401 or (status == 403 and not route):
            event = REFUSED
        if event is None:
            return
        path = scope.get("path_params", {})
        named = {name: path[name][:MAX_NAMED] for name in NAMED if name in path}
        if "response_id" in path:
            named["session_id"] = path["response_id"].removeprefix(ID_PREFIX)[:MAX_NAMED]
        remote = scope.get("client")
        self._log.write(
            event,
            scope.get("caller"),
            **{"edge": self._edge, "from": remote[0] if remote else None, **named, **scope["audited"]},
            status=status,
            **({"code": code} if code else {}),
        )

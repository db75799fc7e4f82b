"""The one shape of an error, on every route, as OpenAI's clients read it:

{"error": {"message", "type", "param", "code"}}
"""

from collections.abc import Mapping

import msgspec
from starlette.responses import Response


class HttpError(Exception):
    """An answer that is an error. `param`: the field, header or query parameter that is wrong."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})

    @property
    def body(self) -> bytes:
        return error_body(self.message, error_type(self.status), self.code, self.param)

    def response(self) -> Response:
        return Response(self.body, self.status, self.headers, "application/json")


def json_response(status: int, content: object, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), status, headers, "application/json")


def error_type(status: int) -> str:
    """OpenAI's `type` for a status."""
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


def error_body(message: str, kind: str, code: str | None, param: str | None = None) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def unknown_session() -> HttpError:
    return HttpError(404, "No such session.", code="session_not_found")


def store_unavailable() -> HttpError:
    return HttpError(
        503, "Sessions cannot be reached now. Try again.", code="unavailable", headers={"Retry-After": "1"}
    )


def internal_error() -> HttpError:
    return HttpError(500, "Internal error.", code="internal_error")


def shutting_down(session_id: str) -> HttpError:
    """Where an answer is under way; the session goes on."""
    message = "The server is shutting down; the answer can be read under its session."
    return HttpError(503, message, code="shutting_down", headers={"x-session-id": session_id})

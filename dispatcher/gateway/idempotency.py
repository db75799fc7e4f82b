"""`Idempotency-Key`: a request that is repeated under the same key asks nothing twice, and gets the same answer."""

import hashlib

import msgspec
from starlette.requests import Request as HttpRequest

from dispatcher.core.log import Record, Request
from dispatcher.gateway import bodies
from dispatcher.gateway.errors import HttpError
from dispatcher.store.ports import Created, IdempotencyKey

HEADER = "Idempotency-Key"
KEY_SECONDS = 24 * 3600
MIN_KEY = 16  # characters: a shorter one could be guessed, and with it another's session
MAX_KEY = 255


def key_of(http: HttpRequest, request: Request, *shape: object) -> IdempotencyKey | None:
    """None: the request shows none. shape: what is asked for beside the session itself, such as its protocol. Raises
    HttpError 400.
    """
    key = http.headers.get(HEADER)
    if key is None:
        return None
    if not MIN_KEY <= len(key) <= MAX_KEY:
        raise bodies.invalid(HEADER, f"must have {MIN_KEY} to {MAX_KEY} characters")
    asked: tuple[object, ...] = (request.agent, request.messages, request.parameters_json, request.conversation_id)
    asked += (request.tools,) if request.tools else ()  # else as a replica of an earlier version has it
    if request.tenant:  # a tenant's keys are its own; no header has a line's end in it
        key = f"{request.tenant}\n{key}"
    digest = hashlib.sha256(msgspec.json.encode(asked + shape)).digest()
    return IdempotencyKey(key, digest, request.created_at + KEY_SECONDS)


def record_of(created: Created) -> Record:
    """The session that was made, or is there already. Raises HttpError 422."""
    if not created.same_request:
        message = f"This {HEADER} was used with another body."
        raise HttpError(422, message, code="idempotency_key_reused", param=HEADER)
    return created.record

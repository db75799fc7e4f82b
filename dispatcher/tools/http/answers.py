"""What a service's answer says: its JSON, or its text as JSON; of a refusal what the agent may read of it."""

import asyncio
import codecs
import json
import re
from typing import Any

from dispatcher.tools import strict_json
from dispatcher.tools.errors import BrokenAnswerError, ServiceError
from dispatcher.tools.http.exchange import HttpResponse
from shared.records import MAX_RESULT_BYTES

MAX_REFUSAL_BYTES = 4096  # of a refusal that are read, within REFUSAL_SECONDS; an agent is shown 500 characters
REFUSAL_SECONDS = 2.0
TOO_MANY = 429
NO_CONTENT = (204, 205)


class Pointer:
    """A JSON Pointer, RFC 6901. Raises ValueError."""

    def __init__(self, text: str) -> None:
        if text and not text.startswith("/"):
            raise ValueError("a JSON Pointer begins with /")
        if re.search(r"~(?![01])", text):
            raise ValueError("in a JSON Pointer ~ is written ~0, and / within a name ~1")
        self._parts = [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]

    def of(self, value: Any) -> Any:
        """What it points at. Raises LookupError."""
        for part in self._parts:
            if isinstance(value, list) and re.fullmatch(r"0|[1-9][0-9]{0,9}", part):
                value = value[int(part)]
            elif isinstance(value, dict):
                value = value[part]
            else:
                raise LookupError
        return value


async def result(response: HttpResponse, pointer: Pointer | None, html: bool) -> str:
    """As JSON. html: a page is what was asked for, not a proxy's apology. Raises ServiceError, ResultTooLargeError."""
    status = response.status
    if status >= 400:
        raise refusal(response, await response.beginning(MAX_REFUSAL_BYTES, REFUSAL_SECONDS))
    if status < 200:
        raise BrokenAnswerError("The tool's service wants another protocol.")
    if status in NO_CONTENT:
        return _pointed(None, pointer)
    kind, charset = _content_type(response)
    body = await response.body(MAX_RESULT_BYTES)
    if not body:
        return _pointed(None, pointer)
    if _is_json(kind) or not kind:
        return await asyncio.to_thread(_json, body, pointer)
    if kind.startswith("text/") and (html or kind != "text/html"):
        return _pointed(_text(body, charset), pointer)
    raise ServiceError("content_type", "The tool's service answered with neither JSON nor plain text.")


def refusal(response: HttpResponse, beginning: bytes) -> ServiceError:
    """With the beginning of its body, as far as that is text."""
    kind, charset = _content_type(response)
    readable = kind.startswith("text/") or _is_json(kind)
    text = _text(beginning, charset).strip() if readable else ""
    failing = response.status >= 500 or response.status == TOO_MANY
    return ServiceError(f"http_{response.status}", text or f"HTTP {response.status}", failing=failing)


def _json(body: bytes, pointer: Pointer | None) -> str:
    """Slow where it is large: never in the loop."""
    try:
        text = body.decode("utf-8-sig").strip()
        value = strict_json.parse(text, MAX_RESULT_BYTES)
    except ValueError:
        raise ServiceError("invalid_json", "The answer of the tool's service is no JSON that can be used.") from None
    # All of it stays as it was written: numbers that floats cannot hold, too.
    return text if pointer is None else _pointed(value, pointer)


def _pointed(value: Any, pointer: Pointer | None) -> str:
    try:
        found = pointer.of(value) if pointer else value
    except LookupError:
        raise ServiceError("no_result", "The answer of the tool's service lacks what the result is to be.") from None
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"))


def _is_json(kind: str) -> bool:
    return kind == "application/json" or kind.endswith("+json")


def _content_type(response: HttpResponse) -> tuple[str, str]:
    """Type and charset, in lower case."""
    kind, *parameters = response.headers.get("content-type", "").lower().split(";")
    charset = ""
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        charset = value.strip("\"' ") if name == "charset" else charset
    return kind.strip(), charset


def _text(body: bytes, charset: str) -> str:
    """Whatever cannot be read is replaced."""
    try:
        known = codecs.lookup(charset or "utf-8").name
        text = body.decode(known, "replace")
    except (LookupError, ValueError):  # unknown, or no encoding of text
        text = body.decode("utf-8", "replace")
    return text.removeprefix("\ufeff")

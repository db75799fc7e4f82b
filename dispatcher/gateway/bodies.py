"""Requests' bodies: read with a limit, decoded strictly, errors that name the field."""

import asyncio
import re
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from starlette.requests import Request as HttpRequest

from dispatcher.gateway.client_tools import CalledTool, check_history
from dispatcher.gateway.errors import HttpError
from dispatcher.gateway.parts import Part, check_count, contents
from shared.records import Message
from shared.spans import read_tracestate

SMALL_BYTES = 16 * 1024  # cannot be slow, whatever stands in it
MAX_HELD_BYTES = 24 * 1024 * 1024  # of all larger bodies that come at once; the others wait
ROOM_SECONDS = 10.0  # that they do
MAX_VALUES = 20_000  # decoded within 10 ms, whatever they are; a conversation of 5,000 messages
MAX_UNQUOTED = 1024 * 1024  # bytes outside of strings: digits, and white space
# That stand in each other. The interpreter allows some 900, to some of what is done with them later a few fewer; the
# schema of a tool takes two for each level of its arguments.
MAX_DEPTH = 128
_BETWEEN = (b",", b"[", b"{")  # what values begin with, or are told apart by
MAX_NAME = 256  # characters of an agent's name or a conversation_id, which stand in every log line; of a message's

BodyT = TypeVar("BodyT")
Check: TypeAlias = Callable[[dict[str, object]], None]
# No NUL: with one the store tells apart what an agent honours.
Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME, pattern=r"^[^\x00]*$")]
Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool"]

# W3C Trace Context: version; trace-id, parent-id (neither all zeros), flags; what a version after 00 has more
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(-.*)?")
_AT = re.compile(r" - at `\$\.?(.*)`$")
_FIELD = re.compile(r"field `(\w+)`")


class ChatMessage(msgspec.Struct, frozen=True):
    """`content` may be missing only where an assistant called tools instead of speaking."""

    role: Role
    content: str | list[Part] | None = None
    tool_calls: list[CalledTool] | None = None
    tool_call_id: str | None = None
    name: Annotated[str, msgspec.Meta(max_length=MAX_NAME)] | None = None


class Bodies:
    """limit: bytes of a body. What all larger ones may have that come at once is bounded too.

    What is decoded holds the loop (msgspec keeps the GIL, so a thread would spare it nothing). So a body's values are
    bounded before that, by what can be counted without decoding, and large ones are decoded one a turn of the loop.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._turn = asyncio.Lock()
        self._held = 0  # bytes that large bodies have room for
        self._freed = asyncio.Condition()

    async def take(
        self, request: HttpRequest, kind: type[BodyT], default: BodyT | None = None, check: Check | None = None
    ) -> BodyT:
        """The body as that type; without a body the default, if there is one. check: raises HttpError where the body,
        with all its fields, is not to be taken; of a large one, in a thread. Raises HttpError 400, 503; 413 as soon as
        it is known to be too large; 415 where it is compressed.
        """
        if (coding := request.headers.get("content-encoding", "identity")).lower() != "identity":
            message = f"Bodies are read as they are, not in {coding[:40]!r}."
            raise HttpError(415, message, code="unsupported_media_type", param="Content-Encoding")
        length = request.headers.get("content-length", "")
        size = int(length[:20]) if length.isdigit() else self.limit
        if length and size > self.limit:
            raise self._too_large()
        body, room = bytearray(), 0
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > self.limit:
                    raise self._too_large()
                if len(body) > SMALL_BYTES and not room:
                    room = await self._room(size)
            return await self._decoded(bytes(body), kind, default, check)
        finally:
            if room:
                async with self._freed:
                    self._held -= room
                    self._freed.notify_all()

    async def _room(self, size: int) -> int:
        """For a body of that size, once there is some: until then nothing more of it is read. Raises HttpError 503."""
        most = max(MAX_HELD_BYTES, self.limit)
        try:
            async with asyncio.timeout(ROOM_SECONDS), self._freed:
                await self._freed.wait_for(lambda: self._held + size <= most)
                self._held += size
        except TimeoutError:
            message = "Too many large bodies come at once."
            raise HttpError(503, message, code="too_many_bodies", headers={"retry-after": "1"}) from None
        return size

    async def _decoded(self, body: bytes, kind: type[BodyT], default: BodyT | None, check: Check | None) -> BodyT:
        if default is not None and not body.strip():
            return default
        if len(body) <= SMALL_BYTES:
            if not is_shallow(body):
                raise _too_complex()
            if check is None:
                return decode(body, kind)
            fields = decode(body, dict)
            check(fields)
            return typed(fields, kind)
        async with self._turn:
            if not await asyncio.to_thread(lambda: is_light(body) and is_shallow(body)):
                raise _too_complex()
            if check is None:
                decoded = decode(body, kind)
            else:
                fields = decode(body, dict)
                await asyncio.to_thread(check, fields)  # it is Python's, so that the loop has its turns meanwhile
                decoded = typed(fields, kind)
            await asyncio.sleep(0)
        return decoded

    def _too_large(self) -> HttpError:
        return HttpError(413, f"The body is larger than {self.limit} bytes.", code="body_too_large")


def is_light(body: bytes) -> bool:
    """Whether a JSON text has at most MAX_VALUES values, and MAX_UNQUOTED bytes outside of its strings. Each step is
    one pass in C. Of a text that is not JSON the answer says nothing.
    """
    if len(body) <= MAX_UNQUOTED and sum(map(body.count, _BETWEEN)) <= MAX_VALUES:
        return True  # whatever of these stands in strings
    outside = _outside(body)
    return outside is not None and len(outside) <= MAX_UNQUOTED and sum(map(outside.count, _BETWEEN)) <= MAX_VALUES


def is_shallow(body: bytes) -> bool:
    """Whether in a JSON text at most MAX_DEPTH values stand in each other. Of a text that is not JSON the answer says
    nothing.
    """
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return True
    outside = _outside(body)
    if outside is None:
        return False
    steps = (1 if each in b"[{" else -1 for each in outside if each in b"[]{}")
    return max(accumulate(steps), default=0) <= MAX_DEPTH


def _outside(body: bytes) -> bytes | None:
    """What stands outside of a JSON text's strings. None: these are more than MAX_VALUES values have."""
    body = body.replace(b"\\\\", b"").replace(b'\\"', b"")  # then a quote begins or ends a string
    if body.count(b'"') > 4 * MAX_VALUES + 2:  # a key and a value for each, and one that is all of the text
        return None
    return b"".join(body.split(b'"')[::2])


def _too_complex() -> HttpError:
    message = (
        f"The body has more than {MAX_VALUES} values, more than {MAX_DEPTH} in each other, or more than "
        f"{MAX_UNQUOTED} bytes beside its texts."
    )
    return HttpError(400, message, code="body_too_complex")


def decode(body: bytes, kind: type[BodyT]) -> BodyT:
    """The body as that type. Raises HttpError 400; `param` names the field, like `messages[0].role`."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HttpError(400, "The body is not valid JSON.", code="invalid_json") from error


def typed(fields: dict[str, object], kind: type[BodyT]) -> BodyT:
    """What was decoded as it came, as that type: no text is read again, and what is wrong is said as `decode` does."""
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from error


def _invalid(text: str) -> HttpError:
    at = _AT.search(text)
    message = text[: at.start()] if at else text
    path = [at[1]] if at and at[1] else []
    if named := _FIELD.search(message):
        path.append(named[1])
    return invalid(".".join(path) or None, message)


def invalid(param: str | None, message: str) -> HttpError:
    return HttpError(400, f"{param}: {message}" if param else message, code="invalid_value", param=param)


def messages(
    given: Sequence[ChatMessage | Message],
    field: str = "messages",
    text_types: tuple[str, ...] = ("text",),
    earlier: Sequence[Message] = (),
) -> tuple[Message, ...]:
    """The conversation as Commanders get it: the text parts of a message are joined by line breaks. given: a Message is
    one already. earlier: what stands before it.
    Raises HttpError 400.
    """
    if not (given or earlier):
        raise invalid(field, "at least one message is needed")
    found = tuple(
        message if isinstance(message, Message) else _message(message, f"{field}[{n}]", text_types)
        for n, message in enumerate(given)
    )
    check_history(found, field, earlier)
    check_count(found, field)
    return found


def _message(message: ChatMessage, where: str, text_types: tuple[str, ...]) -> Message:
    text, parts = _text(message, where, text_types)
    if message.role == "tool":
        if not message.tool_call_id:
            raise invalid(where, "a tool's message has `tool_call_id`")
        return Message("tool", text, (), message.tool_call_id, message.name or "")
    if message.tool_calls and message.role != "assistant":
        raise invalid(f"{where}.tool_calls", "only an assistant calls tools")
    calls = tuple(called.call for called in message.tool_calls or ())
    return Message(message.role, text, calls, name=message.name or "", parts_json=parts)


def _text(message: ChatMessage, where: str, text_types: tuple[str, ...]) -> tuple[str, str]:
    """The text, and the parts where there is more."""
    if isinstance(message.content, str):
        return message.content, ""
    if message.content is None:
        if message.role == "assistant":
            return "", ""
        raise invalid(f"{where}.content", "is missing")
    return contents(message.content, f"{where}.content", text_types)


def parameters_json(parameters: dict[str, Any] | None) -> str:
    """Parameters as Commanders get them; empty: none were given."""
    return msgspec.json.encode(parameters, order="deterministic").decode() if parameters else ""


def traceparent(request: HttpRequest) -> str:
    """The request's trace, as version 00 has it; a malformed one counts as absent, as the standard asks."""
    given = _TRACEPARENT.fullmatch(",".join(request.headers.getlist("traceparent")))
    return f"00-{given[2]}" if given and not (given[1] == "00" and given[3]) else ""


def tracestate(request: HttpRequest) -> str:
    """What goes on of it; beside a malformed traceparent nothing, as the standard asks."""
    return read_tracestate(request.headers.getlist("tracestate")) if traceparent(request) else ""


def offset(request: HttpRequest) -> int:
    """After which entry of the log to read: the larger of `?after=` and `Last-Event-ID`, 0 if neither is given."""
    given = [("after", value) for value in request.query_params.getlist("after")]
    given += [("Last-Event-ID", value) for value in request.headers.getlist("last-event-id")]
    return max((event_number(param, value) for param, value in given), default=0)


def event_number(param: str, value: str) -> int:
    """An event's number, as a reader gives it back. Raises HttpError 400."""
    if not (value.isascii() and value.isdigit()):
        raise invalid(param, "must be a whole number, the id of an event")
    digits = value.lstrip("0")[:19]  # more than that is beyond any log, however it goes on
    return int(digits or "0")

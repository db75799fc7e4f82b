"""OpenAI's Responses: created, read as one object or as events from any of them on, cancelled, deleted."""

import time
from collections.abc import Iterable
from functools import partial
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Send

from dispatcher.core.entries import Entry
from dispatcher.core.log import Record, Request
from dispatcher.gateway import bodies, sse
from dispatcher.gateway.answers import Answers, Json, Last
from dispatcher.gateway.callers import caller_of, theirs
from dispatcher.gateway.client_tools import (
    CalledFunction,
    CalledTool,
    CallId,
    ResponseTool,
    ToolChoice,
    ToolName,
    parameters_of,
    tools_of,
)
from dispatcher.gateway.errors import HttpError, json_response, shutting_down
from dispatcher.gateway.fields import RESPONSES, FieldCheck
from dispatcher.gateway.formats import TextFormat
from dispatcher.gateway.ports import Sessions
from dispatcher.gateway.response_events import ID_PREFIX, LAST_EVENTS, STRIDE, Echo, Object, ResponseView
from dispatcher.gateway.views import FAILURES
from dispatcher.metrics import Metrics
from shared.records import Message

TEXT_TYPES = ("input_text", "output_text")
BEFORE_ALL = -1  # a sequence number before the first event's


# Bounds as OpenAI has them.
ResponseMetadata: TypeAlias = Annotated[
    dict[Annotated[str, msgspec.Meta(max_length=64)], Annotated[str, msgspec.Meta(max_length=512)]],
    msgspec.Meta(max_length=16),
]
Marker: TypeAlias = Annotated[str, msgspec.Meta(max_length=256)]


class InputItem(msgspec.Struct, frozen=True):
    type: str = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[bodies.Part] | None = None
    call_id: CallId | None = None
    name: ToolName | None = None
    arguments: str | None = None
    output: str | list[bodies.Part] | None = None


class TextConfig(msgspec.Struct, frozen=True):
    format: TextFormat | None = None


class Reasoning(msgspec.Struct, frozen=True):
    effort: str | None = None


class ResponseBody(msgspec.Struct, frozen=True):
    """What is read of `fields.RESPONSES`. Fields from `max_output_tokens` on become the session's parameters, named as
    on Chat Completions, so that an agent need not know how it was asked.
    """

    model: bodies.Name
    input: Annotated[str, msgspec.Meta(min_length=1)] | list[InputItem]
    instructions: str | None = None
    stream: bool | None = None
    background: bool | None = None
    metadata: ResponseMetadata | None = None
    prompt_cache_key: Marker | None = None
    safety_identifier: Marker | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    tools: list[ResponseTool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None


class ResponseRoutes:
    def __init__(self, sessions: Sessions, answers: Answers, taken: bodies.Bodies, metrics: Metrics) -> None:
        self._sessions, self._answers, self._bodies = sessions, answers, taken
        self._check = FieldCheck(RESPONSES, partial(metrics.unknown_parameters, "responses"))
        self.routes = [
            Route("/v1/responses", self._create, methods=["POST"]),
            Route("/v1/responses/compact", _compact, methods=["POST"]),
            Route("/v1/responses/{response_id}", self._one, methods=["GET"]),
            Route("/v1/responses/{response_id}", self._delete, methods=["DELETE"]),
            Route("/v1/responses/{response_id}/cancel", self._cancel, methods=["POST"]),
        ]

    async def _create(self, http: HttpRequest) -> sse.RawAnswer | Response:
        needs: dict[str, str] = {}
        body = await self._bodies.take(http, ResponseBody, check=partial(self._check, needs=needs))
        background = bool(body.background)
        caller = caller_of(http)
        honoured = await self._answers.require(body.model, caller, needs)
        messages = _messages(body)
        tools = tools_of(body.tools or (), self._sessions.registry.offered(body.model))
        parameters = _parameters(body) | parameters_of(body.tool_choice, body.parallel_tool_calls, tools)
        request = Request(
            agent=body.model,
            messages=messages,
            created_at=time.time(),
            parameters_json=bodies.parameters_json(parameters),
            traceparent=bodies.traceparent(http),
            background=background,
            tenant=caller.tenant,
            subject=caller.subject,
            tools=tools,
            needs=honoured,
            shown_json=_shown(body),
        )
        record = (await self._sessions.create(request)).record
        if body.stream:
            return sse.RawAnswer(self._stream, record, BEFORE_ALL, not background)
        if background:
            return json_response(200, await self._object(record))
        return sse.RawAnswer(self._whole, record)

    async def _one(self, http: HttpRequest) -> sse.RawAnswer | Response:
        stream = _flag(http, "stream")
        after = BEFORE_ALL
        if (given := http.query_params.get("starting_after")) is not None:
            after = bodies.event_number("starting_after", given)
        record = await self._find(http)
        if not stream:
            return json_response(200, await self._object(record))
        if after >= (record.head.offset + 1) * STRIDE + (LAST_EVENTS if record.head.final else 0):
            raise bodies.invalid(
                "starting_after",
                "no such event: the log ends before it, or was rolled back. Read the response from its beginning.",
            )
        # Only the connection that asked for a response carries it: a reader may come and go.
        return sse.RawAnswer(self._stream, record, after, False)

    async def _cancel(self, http: HttpRequest) -> Response:
        record = await self._find(http)
        if not record.request.background:
            raise _not_cancelled("Only a response that was created with `background` can be cancelled.")
        if not record.head.final:
            stopped = await self._sessions.stop(record.session_id, "UserCancel", "user")
            if stopped is None:
                raise _unknown()
            record = stopped
        response = await self._object(record)
        if response["status"] != "cancelled":
            raise _not_cancelled(f"The response is {response['status']} already.")
        return json_response(200, response)

    async def _delete(self, http: HttpRequest) -> Response:
        record = await self._find(http)
        if not record.head.final:
            raise HttpError(409, "The response has not ended: cancel it first.", code="response_not_ended")
        await self._sessions.store.delete(record.session_id)
        return json_response(200, {"id": f"{ID_PREFIX}{record.session_id}", "object": "response", "deleted": True})

    async def _find(self, http: HttpRequest) -> Record:
        """The session behind the response. Raises HttpError 404."""
        response_id = http.path_params["response_id"]
        record = theirs(caller_of(http), await self._sessions.store.load(response_id.removeprefix(ID_PREFIX)))
        if record is None or not response_id.startswith(ID_PREFIX):
            raise _unknown()
        return record

    async def _object(self, record: Record) -> Object:
        """The response as it is now."""
        view = ResponseView(record)
        async for entry in sse.logged(self._sessions.store, record):
            view.take(entry)
        return view.response("queued" if record.head.state == "waiting" else "in_progress")

    async def _stream(self, record: Record, after: int, stop_when_left: bool, receive: Receive, send: Send) -> None:
        await self._answers.send(record, StreamedResponse(record, after, send), receive, stop_when_left=stop_when_left)

    async def _whole(self, record: Record, receive: Receive, send: Send) -> None:
        whole = WholeResponse(record, Json(send, self._answers.early))
        await self._answers.send(record, whole, receive, stop_when_left=True)


class StreamedResponse:
    """Sends a response's events with a sequence number above `after`.

    It is read from the log's first entry all the same, for the last events hold the whole text.
    """

    streamed = True

    def __init__(self, record: Record, after: int, send: Send) -> None:
        self._session_id, self._view, self._after, self._send = record.session_id, ResponseView(record), after, send

    async def begin(self) -> None:
        await sse.start(self._send)
        await self._write(self._frames(self._view.begin()))

    async def take(self, entries: list[Entry]) -> Last | None:
        data = b""
        for entry in entries:
            frames = self._frames(self._view.take(entry))
            if self._view.ended:
                await self._write(data)
                return partial(sse.write, self._send, frames, last=True)
            data += frames
        await self._write(data)
        return None

    async def silence(self) -> None:
        """A stream that has begun does not fall silent."""

    async def lost(self) -> None:
        await self._fail(_lost())

    async def interrupted(self) -> None:
        await self._fail(shutting_down(self._session_id))

    def _frames(self, events: Iterable[Object]) -> bytes:
        return b"".join(sse.frame(event["type"], event) for event in events if event["sequence_number"] > self._after)

    async def _write(self, data: bytes) -> None:
        if data:
            await sse.write(self._send, data)

    async def _fail(self, error: HttpError) -> None:
        """No event of the response: another read of it goes on."""
        await sse.end(self._send, b"data: %b\n\n" % error.body)


class WholeResponse:
    """Sends a response as one object when it has ended, however it did."""

    streamed = False

    def __init__(self, record: Record, json: Json) -> None:
        self._session_id, self._view, self._json = record.session_id, ResponseView(record), json

    async def begin(self) -> None:
        """HTTP has nothing to send before the answer."""

    async def take(self, entries: list[Entry]) -> Last | None:
        for entry in entries:
            self._view.take(entry)
        return self._end if self._view.ended else None

    async def _end(self) -> None:
        await self._json.end(msgspec.json.encode(self._view.response()))

    async def silence(self) -> None:
        await self._json.silence()

    async def lost(self) -> None:
        await self._json.fail(_lost())

    async def interrupted(self) -> None:
        await self._json.fail(shutting_down(self._session_id))


async def _compact(_: HttpRequest) -> Response:
    raise HttpError(404, "Nothing is compacted here: send what the agent needs as `input`.", code="not_found")


def _messages(body: ResponseBody) -> tuple[Message, ...]:
    before = (Message("system", body.instructions),) if body.instructions else ()
    if isinstance(body.input, str):
        return (*before, Message("user", body.input))
    messages = [_message(item, f"input[{n}]") for n, item in enumerate(body.input)]
    return before + _joined(bodies.messages(messages, "input", TEXT_TYPES))


def _message(item: InputItem, where: str) -> bodies.ChatMessage:
    if item.type == "function_call":
        if item.call_id is None or item.name is None or item.arguments is None:
            raise bodies.invalid(where, "a function_call has `call_id`, `name` and `arguments`")
        called = CalledTool(item.call_id, CalledFunction(item.name, item.arguments))
        return bodies.ChatMessage("assistant", None, [called])
    if item.type == "function_call_output":
        if item.call_id is None or item.output is None:
            raise bodies.invalid(where, "a function_call_output has `call_id` and `output`")
        return bodies.ChatMessage("tool", item.output, tool_call_id=item.call_id, name=item.name)
    if item.role is None:
        raise bodies.invalid(f"{where}.role", "is missing")
    return bodies.ChatMessage(item.role, item.content)


def _joined(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Calls that follow each other, and the words before them, are one message, as on Chat Completions."""
    joined: list[Message] = []
    for message in messages:
        if message.tool_calls and joined and joined[-1].role == "assistant":
            before = joined.pop()
            message = Message("assistant", before.content, before.tool_calls + message.tool_calls)  # noqa: PLW2901
        joined.append(message)
    return tuple(joined)


def _parameters(body: ResponseBody) -> dict[str, Any]:
    given = {
        "max_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "reasoning_effort": body.reasoning.effort if body.reasoning else None,
    }
    form = body.text.format.parameters("text.format") if body.text and body.text.format else {}
    return {name: value for name, value in given.items() if value is not None} | form


def _shown(body: ResponseBody) -> str:
    shown = Echo(body.metadata or {}, bool(body.instructions), body.prompt_cache_key, body.safety_identifier)
    return "" if shown == Echo() else msgspec.json.encode(shown).decode()


def _flag(http: HttpRequest, name: str) -> bool:
    match http.query_params.get(name, "false").lower():
        case "true":
            return True
        case "false":
            return False
    raise bodies.invalid(name, "must be true or false")


def _unknown() -> HttpError:
    return HttpError(404, "No such response.", code="response_not_found")


def _not_cancelled(message: str) -> HttpError:
    return HttpError(400, message, code="not_cancellable")


def _lost() -> HttpError:
    return HttpError(502, FAILURES["data_loss"], code="data_loss")

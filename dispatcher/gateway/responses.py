"""OpenAI's Responses: created, read as one object or as events from any of them on, cancelled, deleted."""

import secrets
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial

import msgspec
from msgspec.structs import replace
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Send

from dispatcher.core.entries import Entry, Finished
from dispatcher.core.log import Head, Record, Request
from dispatcher.gateway import bodies, idempotency, sse
from dispatcher.gateway.answers import Answers, Json, Last
from dispatcher.gateway.audited import note
from dispatcher.gateway.callers import caller_of, token_of
from dispatcher.gateway.client_tools import parameters_of, tools_of
from dispatcher.gateway.conversations import Earlier, check_size, earlier, find, referenced, view_of
from dispatcher.gateway.errors import HttpError, json_response, shutting_down
from dispatcher.gateway.fields import RESPONSE_CREATE, RESPONSES, FieldCheck
from dispatcher.gateway.parts import needs_of
from dispatcher.gateway.ports import Sessions
from dispatcher.gateway.response_bodies import (
    MessageBody,
    ResponseBody,
    functions_of,
    messages_of,
    namespaces_of,
    parameters_of_response,
    shown_of,
)
from dispatcher.gateway.response_events import ID_PREFIX, LAST_EVENTS, STRIDE, Echo, Object, ResponseView, input_item
from dispatcher.gateway.response_socket import ResponseSocket, SocketRequest
from dispatcher.gateway.views import FAILURES
from dispatcher.metrics import Metrics
from dispatcher.store.ports import StoreUnavailable

MAX_ITEMS = 100  # of a page
BEFORE_ALL = -1  # a sequence number before the first event's


class ResponseRoutes:
    def __init__(self, sessions: Sessions, answers: Answers, taken: bodies.Bodies, metrics: Metrics) -> None:
        self._sessions, self._answers, self._bodies = sessions, answers, taken
        count = partial(metrics.unknown_parameters, "responses")
        self._check, self._check_message = FieldCheck(RESPONSES, count), FieldCheck(RESPONSE_CREATE, count)
        self.routes = [
            Route("/v1/responses", self._create, methods=["POST"]),
            Route("/v1/responses", self._connect, methods=["GET"]),
            Route("/v1/responses/compact", _compact, methods=["POST"]),
            Route("/v1/responses/{response_id}", self._one, methods=["GET"]),
            Route("/v1/responses/{response_id}", self._delete, methods=["DELETE"]),
            Route("/v1/responses/{response_id}/input_items", self._input_items, methods=["GET"]),
            Route("/v1/responses/{response_id}/cancel", self._cancel, methods=["POST"]),
        ]

    async def _create(self, http: HttpRequest) -> sse.RawAnswer | Response:
        """Also of a message, where the scope has a `socket`."""
        needs: dict[str, str] = {}
        socket: SocketRequest | None = http.scope.get("socket")
        if socket is None:
            asked = await self._bodies.take(http, ResponseBody, check=partial(self._check, needs=needs))
            return await self._answer(http, asked, needs)
        message = await self._bodies.take(http, MessageBody, check=partial(self._check_message, needs=needs))
        await socket.enter(message.stream_id, message.previous_response_id)
        request = await self._request(http, message, needs, socket.kept)
        if message.generate is False:
            note(http, generate=False)
            return sse.RawAnswer(_prepare, request, socket)
        record = (await self._sessions.create(request, token=token_of(http))).record
        note(http, session_id=record.session_id)
        return sse.RawAnswer(self._tell, record, socket, message.store is False)

    async def _answer(self, http: HttpRequest, body: ResponseBody, needs: dict[str, str]) -> sse.RawAnswer | Response:
        background, forgotten = bool(body.background), body.store is False
        if background and forgotten:
            raise bodies.invalid("store", "a response in the background is read later, so it is stored")
        if forgotten and idempotency.HEADER in http.headers:
            raise bodies.invalid(idempotency.HEADER, "an answer that is not stored cannot be given again")
        request = await self._request(http, body, needs, {})
        key = idempotency.key_of(http, request, "responses", bool(body.stream), background, request.shown_json)
        record = idempotency.record_of(await self._sessions.create(request, key, token_of(http)))
        note(http, session_id=record.session_id)
        if body.stream:
            view = ResponseView(record, told=True)
            return sse.RawAnswer(self._stream, view, BEFORE_ALL, not background and key is None, forgotten)
        if background:
            return json_response(200, await self._object(record))
        return sse.RawAnswer(self._whole, ResponseView(record, told=True), forgotten, key is None)

    async def _request(
        self, http: HttpRequest, body: ResponseBody, needs: dict[str, str], kept: Mapping[str, ResponseView]
    ) -> Request:
        """kept: responses that are not stored, by their ids. Raises HttpError 400, 404, 409."""
        caller, store = caller_of(http), self._sessions.store
        asked = () if isinstance(body.input, str) else body.input
        references = {item.id or "": f"input[{n}]" for n, item in enumerate(asked) if item.type == "item_reference"}
        found = await referenced(store, references, caller, kept)
        before = Earlier()
        if body.previous_response_id is not None:
            before = await earlier(store, body.previous_response_id, caller, kept)
            for feature in set[str]().union(*map(needs_of, before.messages)):
                needs.setdefault(feature, "previous_response_id")
        for item_id, where in references.items():
            for feature in needs_of(found[item_id]):
                needs.setdefault(feature, where)
        honoured = await self._answers.require(body.model, caller, needs)
        given = [*before.messages, *(found[item.id or ""] for item in asked if item.type == "item_reference")]
        param = "previous_response_id" if before.links else "input"
        check_size(given, self._bodies.limit, param)  # before anything is made of it
        messages = messages_of(body, before.messages, found)
        if given:
            check_size(messages, self._bodies.limit, param)
        tools = tools_of(functions_of(body.tools or ()), self._sessions.registry.offered(body.model))
        chosen = parameters_of(body.tool_choice, body.parallel_tool_calls, tools, namespaces_of(body.tools or ()))
        parameters = parameters_of_response(body) | chosen
        return Request(
            agent=body.model,
            messages=messages,
            created_at=time.time(),
            parameters_json=bodies.parameters_json(parameters),
            traceparent=bodies.traceparent(http),
            tracestate=bodies.tracestate(http),
            background=bool(body.background),
            tenant=caller.tenant,
            subject=caller.subject,
            claims=caller.claims,
            tools=tools,
            needs=honoured,
            shown_json=shown_of(body, before),
        )

    async def _connect(self, http: HttpRequest) -> sse.RawAnswer:
        return sse.RawAnswer(ResponseSocket(http).run, self._answers.connections)

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
        return sse.RawAnswer(self._stream, ResponseView(record, told=True), after, False, False)

    async def _cancel(self, http: HttpRequest) -> Response:
        over_socket = "socket" in http.scope  # which cancels what it answers, and nothing else
        record = await self._find(http, stored=not over_socket)
        if not (record.request.background or over_socket):
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
        await self._sessions.delete(record)
        return json_response(200, {"id": f"{ID_PREFIX}{record.session_id}", "object": "response", "deleted": True})

    async def _find(self, http: HttpRequest, *, stored: bool = True) -> Record:
        """The session behind the response. Raises HttpError 404."""
        response_id = http.path_params["response_id"]
        record = await find(self._sessions.store, response_id, caller_of(http), stored=stored)
        if record is None:
            raise _unknown()
        return record

    async def _object(self, record: Record) -> Object:
        """The response as it is now."""
        view = await view_of(self._sessions.store, record)
        return view.response("queued" if record.head.state == "waiting" else "in_progress")

    async def _stream(
        self, view: ResponseView, after: int, stop_when_left: bool, forgotten: bool, receive: Receive, send: Send
    ) -> None:
        sending = StreamedResponse(view, after, send)
        async with self._forgetting(view.session_id, forgotten):
            await self._answers.send(view.session_id, sending, receive, stop_when_left=stop_when_left)

    async def _tell(self, record: Record, socket: SocketRequest, forgotten: bool, receive: Receive, send: Send) -> None:
        async with self._forgetting(record.session_id, forgotten):
            await self._answers.send(record.session_id, socket.response(record, send), receive, stop_when_left=True)

    async def _whole(
        self, view: ResponseView, forgotten: bool, stop_when_left: bool, receive: Receive, send: Send
    ) -> None:
        whole = WholeResponse(view, Json(send, self._answers.early))
        async with self._forgetting(view.session_id, forgotten):
            await self._answers.send(view.session_id, whole, receive, stop_when_left=stop_when_left)

    @asynccontextmanager
    async def _forgetting(self, session_id: str, forgotten: bool) -> AsyncIterator[None]:
        """Delete the log once it is answered, or left, where it is not to be stored. One that goes on, since the server
        drains, or whose store is away, goes with its retention: no route gives it any more.
        """
        try:
            yield
        finally:
            if forgotten:
                with suppress(StoreUnavailable):
                    record = await self._sessions.store.brief(session_id)
                    if record and record.head.final:
                        await self._sessions.delete(record)

    async def _input_items(self, http: HttpRequest) -> Response:
        """OpenAI's pages: the newest first, unless `order` says otherwise."""
        record = await self._find(http)
        asked = http.query_params
        limit, order = bodies.event_number("limit", asked.get("limit", "20")), asked.get("order", "desc")
        if not 1 <= limit <= MAX_ITEMS:
            raise bodies.invalid("limit", f"must be 1 to {MAX_ITEMS}")
        if order not in ("asc", "desc"):
            raise bodies.invalid("order", "must be asc or desc")
        view = ResponseView(record)
        items = view.input()
        if order == "desc":
            items.reverse()
        if (after := asked.get("after")) is not None:
            found = [n for n, (item_id, _) in enumerate(items) if item_id == after]
            if not found:
                raise bodies.invalid("after", "there is no such item")
            items = items[found[0] + 1 :]
        page = [input_item(item_id, message, view.echo.namespaces) for item_id, message in items[:limit]]
        ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
        return json_response(200, {"object": "list", "data": page, **ends, "has_more": len(items) > limit})


class StreamedResponse:
    """Sends a response's events with a sequence number above `after`.

    It is read from the log's first entry all the same, for the last events hold the whole text.
    """

    streamed = True

    def __init__(self, view: ResponseView, after: int, send: Send) -> None:
        self._view, self._after, self._send = view, after, send

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
        await self._fail(shutting_down(self._view.session_id))

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

    def __init__(self, view: ResponseView, json: Json) -> None:
        self._view, self._json = view, json

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
        await self._json.fail(shutting_down(self._view.session_id))


async def _prepare(request: Request, socket: SocketRequest, receive: Receive, send: Send) -> None:
    """A response that nobody is asked for, and that nothing stores: to go on from."""
    shown = replace(msgspec.json.decode(request.shown_json or "{}", type=Echo), store=False, prepared=True)
    request = replace(request, shown_json=msgspec.json.encode(shown).decode())
    record = Record(secrets.token_urlsafe(24), request, Head(since=request.created_at))
    sending = socket.response(record, send)
    await sending.begin()
    if last := await sending.take([Entry(Finished("stop"), request.created_at, offset=1)]):
        await last()


async def _compact(_: HttpRequest) -> Response:
    raise HttpError(404, "Nothing is compacted here: send what the agent needs as `input`.", code="not_found")


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

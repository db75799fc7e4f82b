"""The native routes: a session is created, read as events, stopped, looked at and deleted."""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Send

from dispatcher.access.watch import Access
from dispatcher.core.entries import Entry
from dispatcher.core.log import Record, Request
from dispatcher.gateway import approvals, bodies, idempotency, sse, tickets
from dispatcher.gateway.audited import note
from dispatcher.gateway.callers import caller_of, comes_by_ticket, find_by_ticket, theirs, token_of
from dispatcher.gateway.client_tools import ChatTool, ToolChoice, functions_of, parameters_of, tools_of
from dispatcher.gateway.errors import HttpError, json_response, unknown_session
from dispatcher.gateway.fields import not_honoured
from dispatcher.gateway.parts import needs_of
from dispatcher.gateway.ports import Sessions
from dispatcher.gateway.receipts import receipt
from dispatcher.gateway.views import (
    ENDS,
    EVENT_NAMES,
    KnowsTool,
    UserEvent,
    UserFinished,
    UserReset,
    decides,
    shown,
    user_event,
    user_session,
)
from dispatcher.metrics import Metrics
from dispatcher.store.ports import Store, StoreUnavailable
from shared.records import Message, StopReason

DEFAULT_AGENT = "default"  # that of COMMANDER_AGENT
HALT_SECONDS = 15.0  # for a stop to be over: its Commander is given up sooner, and tools are cancelled
LOOK_SECONDS = 1.0  # between looks, where the news was lost


class CreateBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    agent: bodies.Name = DEFAULT_AGENT
    prompt: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    messages: list[bodies.ChatMessage] | None = None
    parameters: dict[str, Any] | None = None
    conversation_id: Annotated[str, msgspec.Meta(max_length=bodies.MAX_NAME)] | None = None
    tools: list[ChatTool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None


class StopBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: StopReason = "UserCancel"


class SessionRoutes:
    def __init__(
        self, sessions: Sessions, metrics: Metrics, connections: sse.Connections, taken: bodies.Bodies, access: Access
    ) -> None:
        self._sessions, self._metrics, self._connections, self._bodies = sessions, metrics, connections, taken
        self._access = access
        self.routes = [
            Route("/v1/sessions", self._create, methods=["POST"]),
            Route("/v1/sessions/{session_id}", self._one, methods=["GET", "DELETE"]),
            Route("/v1/sessions/{session_id}/events", self._events, methods=["GET"]),
            Route("/v1/sessions/{session_id}/stop", self._stop, methods=["POST"]),
            Route("/v1/sessions/{session_id}/calls/{call_id}/decision", self._decide, methods=["POST"]),
        ]

    async def _create(self, http: HttpRequest) -> Response:
        body, caller = await self._bodies.take(http, CreateBody), caller_of(http)
        # A request that is repeated gets the answer that it got, whoever is here by then.
        messages = _messages(body)
        needs = _needs(body, messages)
        features = (
            await self._sessions.features(body.agent) if idempotency.HEADER not in http.headers else frozenset(needs)
        )
        if features is None or not caller.may_use(body.agent):
            raise HttpError(404, "No such agent is offered.", code="agent_not_found", param="agent")
        for feature, where in needs.items():
            if feature not in features:
                raise not_honoured(body.agent, feature, where)
        tools = tools_of(functions_of(body.tools), self._sessions.registry.offered(body.agent))
        parameters = (body.parameters or {}) | parameters_of(body.tool_choice, body.parallel_tool_calls, tools)
        request = Request(
            agent=body.agent,
            messages=messages,
            created_at=time.time(),
            parameters_json=bodies.parameters_json(parameters),
            conversation_id=body.conversation_id or "",
            traceparent=bodies.traceparent(http),
            tracestate=bodies.tracestate(http),
            tenant=caller.tenant,
            subject=caller.subject,
            claims=caller.claims,
            tools=tools,
            needs=tuple(sorted(needs)),
        )
        key = idempotency.key_of(http, request)
        record = idempotency.record_of(await self._sessions.create(request, key, token_of(http)))
        note(http, session_id=record.session_id)
        return _created(record, with_ticket=bool(caller.subject))

    async def _one(self, http: HttpRequest) -> Response:
        record = await find_theirs(self._sessions.store, http)
        if http.method != "DELETE":
            return json_response(200, user_session(record))
        if not record.head.final:
            raise HttpError(409, "The session has not ended: stop it first.", code="session_not_ended")
        await self._sessions.delete(record)
        return Response(status_code=204)

    async def _stop(self, http: HttpRequest) -> Response:
        body = await self._bodies.take(http, StopBody, StopBody())
        note(http, reason=body.reason)
        waits = http.query_params.get("wait", "false")
        if waits not in ("true", "false"):
            raise bodies.invalid("wait", "must be true or false")
        tenant = caller_of(http).tenant
        record = await self._sessions.stop(http.path_params["session_id"], body.reason, "user", tenant=tenant)
        if record is None:
            raise unknown_session()
        if waits == "true":
            return json_response(200, await self._halted(record))
        return json_response(202, user_session(record))

    async def _halted(self, record: Record) -> dict[str, object]:
        """What a user is told of a stop once it is over: of its receipt what has no free text."""
        store, session_id = self._sessions.store, record.session_id
        found: Record | None = record
        with store.follow(session_id) as follower, contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HALT_SECONDS):
                while (found := await store.brief(session_id)) and not found.head.complete:
                    await follower.wait(LOOK_SECONDS)
        if found is None:
            raise unknown_session()
        told = msgspec.to_builtins(user_session(found))
        if not found.head.complete:
            return {**told, "halted": False}
        made = await receipt(store, found, None)
        return {
            **told,
            "halted": made.stop is None or made.stop.halt != "unconfirmed",
            "tokens_after": made.stop.tokens_after if made.stop else 0,
            "delivered": made.delivered,
        }

    async def _decide(self, http: HttpRequest) -> Response:
        body = await self._bodies.take(http, approvals.DecisionBody)
        note(http, decision=body.decision)
        record = await find_theirs(self._sessions.store, http)
        return await approvals.decide(self._sessions, record, http.path_params["call_id"], body, "user")

    async def _events(self, http: HttpRequest) -> sse.RawAnswer | Response:
        store, by_ticket = self._sessions.store, comes_by_ticket(http)
        try:
            record = await find_by_ticket(self._access, store, http) if by_ticket else await find_theirs(store, http)
            after = tickets.offset(http) if by_ticket else bodies.offset(http)
            if record.head.final and after <= record.head.offset and await _read_whole(store, record, after):
                return Response(status_code=204)
        except StoreUnavailable:
            if sse.is_event_source(http):
                return sse.RawAnswer(sse.come_again)
            raise
        return sse.RawAnswer(self._stream, record, after, tickets.resumption(record) if by_ticket else "")

    # ---- one stream

    async def _stream(self, record: Record, after: int, resumed: str, receive: Receive, send: Send) -> None:
        """From the entry after `after` to the end, or until the reader goes or the server drains. resumed: what ids end
        with.
        """
        store, session_id = self._sessions.store, record.session_id
        await sse.start(send)
        await sse.write(send, b"id: %d%b\n%b" % (after, resumed.encode(), sse.RETRY) if resumed else sse.RETRY)
        try:
            with self._metrics.event_streams.track_inprogress():
                async with self._connections.watch(receive):
                    found: Record | None = record
                    rolled_back = after > record.head.offset
                    while found:
                        if rolled_back:
                            await sse.write(send, await self._reset(found, resumed))
                            after = found.head.offset
                        if found.head.final and after == found.head.offset:
                            break
                        if await self._follow(session_id, after, resumed, send):
                            break
                        found, rolled_back = await store.brief(session_id), True
        except StoreUnavailable:
            pass  # it comes back
        finally:
            await sse.end(send)

    async def _reset(self, record: Record, resumed: str) -> bytes:
        """The text so far; of an ended session its end too, without an id, for that of the reset is the newest."""
        store, state = self._sessions.store, record.head.state
        reset = UserReset(await released_text(store, record), state)
        data = sse.frame("reset", reset, f"{record.head.offset}{resumed}")
        if record.head.final:
            async for entry in sse.logged(store, record):
                if decides(entry, state) and (event := user_event(entry, self._sessions.registry.knows)):
                    return data + framed(event)
        return data

    async def _follow(self, session_id: str, after: int, resumed: str, send: Send) -> bool:
        """Whether it was read to its end; else what was read is gone."""
        knows = self._sessions.registry.knows

        def take(entries: list[Entry]) -> bool:
            data, ended = render(entries, knows, resumed)
            return not ended and sse.write_now(send, data)

        with sse.LogReader.open(self._sessions.store, session_id, after, take) as reader:
            while True:
                entries = await reader.next()
                if not entries:
                    if not await reader.intact():
                        return False
                    continue
                data, ended = render(entries, knows, resumed)
                if data:
                    await sse.write(send, data)
                if ended:
                    return True


def render(entries: Iterable[Entry], knows_tool: KnowsTool, resumed: str = "") -> tuple[bytes, bool]:
    """The frames of these entries, and whether the session's last event is among them. resumed: what ids end with."""
    frames: list[bytes] = []
    ended = False
    for offset, event in shown(entries, knows_tool):
        frames.append(framed(event, f"{offset}{resumed}"))
        ended = isinstance(event, ENDS)
    return b"".join(frames), ended


def framed(event: UserEvent, event_id: str | None = None) -> bytes:
    """An entry's event under its id. Calls of the client's tools go ahead of the end, without an id: whoever has
    not seen the end gets them again.
    """
    ahead = b""
    if isinstance(event, UserFinished):
        ahead = b"".join(sse.frame("client_call", call) for call in event.calls)
        event = UserFinished(event.finish_reason, event.usage)
    return ahead + sse.frame(EVENT_NAMES[type(event)], event, event_id)


async def find(store: Store, session_id: str, *, whole: bool = False) -> Record:
    """The session, whosever it is: for operators. whole: with its prompt. Raises HttpError 404."""
    record = await (store.load if whole else store.brief)(session_id)
    if record is None:
        raise unknown_session()
    return record


async def find_theirs(store: Store, http: HttpRequest) -> Record:
    """The user's session that the path names, without its prompt. Raises HttpError 404."""
    record = theirs(caller_of(http), await store.brief(http.path_params["session_id"]))
    if record is None:
        raise unknown_session()
    return record


async def _read_whole(store: Store, record: Record, after: int) -> bool:
    """Whether a reader at `after` has had the last event of this ended session."""
    async for entry in sse.logged(store, record, after):
        if entry.released or decides(entry, record.head.state):
            return False  # nothing is released after the end
    return True


async def released_text(store: Store, record: Record) -> str:
    """All that users were shown up to the record's offset."""
    return "".join([entry.released async for entry in sse.logged(store, record)])


def _messages(body: CreateBody) -> tuple[Message, ...]:
    if body.prompt is not None and body.messages is None:
        return (Message("user", body.prompt),)
    if body.messages is not None and body.prompt is None:
        return bodies.messages(body.messages)
    raise bodies.invalid("messages", "give either `messages` or `prompt`")


def _needs(body: CreateBody, messages: Sequence[Message]) -> dict[str, str]:
    """The features that the agent has to have, and for which field."""
    needs = {"tools": "tools"} if body.tools else {}
    for n, message in enumerate(messages):
        for feature in needs_of(message):
            needs.setdefault(feature, f"messages[{n}]")
    return needs


def _created(record: Record, with_ticket: bool) -> Response:
    """Depends on what is stored alone, so that a repetition gets the same answer."""
    location = f"/v1/sessions/{record.session_id}"
    answer = {
        "session_id": record.session_id,
        "agent": record.request.agent,
        "created_at": record.request.created_at,
        "events": f"{location}/events{tickets.query(record) if with_ticket else ''}",
    }
    return json_response(201, answer, {"Location": location})

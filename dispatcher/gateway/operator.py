"""The operators' routes: metrics, and sessions with all that their logs hold, thoughts and arguments included."""

import base64
import math
from collections.abc import Iterable, Iterator
from functools import partial

import msgspec
from prometheus_client import CollectorRegistry
from starlette.datastructures import QueryParams
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Send

from dispatcher.access.watch import Access
from dispatcher.core.entries import Entry, as_event, fields_of
from dispatcher.core.log import LIVE, STATES, Record, State
from dispatcher.gateway import approvals, bodies, callers, sse
from dispatcher.gateway.audited import note
from dispatcher.gateway.errors import json_response, unknown_session
from dispatcher.gateway.holds import FleetOrder, HoldRoutes, named
from dispatcher.gateway.live_list import LiveList
from dispatcher.gateway.pages import Page
from dispatcher.gateway.ports import Sessions
from dispatcher.gateway.receipts import ReceiptKey, receipt
from dispatcher.gateway.sessions import find, released_text
from dispatcher.live.fleet import (
    FleetDone,
    FleetProgress,
    FleetStop,
    HoldPlaced,
    SessionHalted,
    new_hold,
)
from dispatcher.live.ports import Unlogged
from dispatcher.metrics import exposition
from dispatcher.store.ports import Place, place
from shared.records import StopReason
from shared.turns import LoopTurn

LIST_LIMIT = 100
MAX_LIST_LIMIT = 1000
FIELDS = ("agent", "reason", "conversation")
PARAMETERS = ("state", *FIELDS, "since", "limit", "cursor")
PAGE = 50  # sessions that are read at once, with what each was asked
TOLD: dict[type, str] = {
    HoldPlaced: "hold",
    SessionHalted: "halted",
    FleetProgress: "progress",
    FleetDone: "done",
}  # events of a fleet's stop
PIECE_BYTES = 65536  # of a session's events that go out at once
LOOKED_AT = 5000  # for one answer; one that found less has a cursor all the same


class OperatorStopBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`detail` is for other operators and the Commander's log; users see the reason only."""

    reason: StopReason = "RiskControl"
    detail: str = ""


class Listing(msgspec.Struct, frozen=True):
    """What `GET /operator/sessions` is asked for."""

    states: tuple[State, ...]
    limit: int
    since: float
    cursor: Place | None
    fields: dict[str, str]  # only sessions that have these

    @staticmethod
    def of(asked: QueryParams) -> "Listing":
        """Raises HttpError 400."""
        _check_names(asked, PARAMETERS)
        states = asked.getlist("state")
        if not all(state in STATES for state in states):
            raise bodies.invalid("state", f"must be one of {', '.join(STATES)}")
        return Listing(
            tuple(state for state in STATES if (state in states if states else state in LIVE)),
            _limit(asked, MAX_LIST_LIMIT),
            _unix_seconds(asked.get("since", "0")),
            _asked_cursor(asked),
            {name: asked[name] for name in FIELDS if name in asked},
        )

    def wants(self, record: Record) -> bool:
        has = {
            "agent": record.request.agent,
            "reason": record.head.reason or record.head.code,
            "conversation": record.request.conversation_id,
        }
        return all(has[name] == value for name, value in self.fields.items())


def _check_names(asked: QueryParams, names: tuple[str, ...]) -> None:
    """Raises HttpError 400, for an unknown parameter too: a filter with a slip in its name would be none."""
    for name in asked:
        if name not in names:
            raise bodies.invalid(name, f"unknown; there are {', '.join(names)}")
        if name != "state" and len(asked.getlist(name)) > 1:
            raise bodies.invalid(name, "must be given once")


def _limit(asked: QueryParams, most: int) -> int:
    limit = asked.get("limit", str(LIST_LIMIT))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= most):
        raise bodies.invalid("limit", f"must be a whole number from 1 to {most}")
    return int(limit)


def _unix_seconds(given: str) -> float:
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise bodies.invalid("since", "must be a time in Unix seconds")
    return seconds


def _asked_cursor(asked: QueryParams) -> Place | None:
    if (given := asked.get("cursor")) is None:
        return None
    try:
        cursor: Place = msgspec.msgpack.decode(base64.urlsafe_b64decode(given), type=Place)
    except (ValueError, msgspec.DecodeError):
        raise bodies.invalid("cursor", "must be the `cursor` of an answer before") from None
    return cursor


def _cursor_of(at: Place | None) -> str | None:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(at)).decode() if at else None


def _listed(found: list[dict[str, object]], at: Place | None) -> Response:
    """at: where to look on, if there may be more."""
    return json_response(200, {"sessions": found, "cursor": _cursor_of(at)})


class OperatorRoutes:
    def __init__(
        self,
        sessions: Sessions,
        registry: CollectorRegistry,
        connections: sse.Connections,
        taken: bodies.Bodies,
        receipt_key: ReceiptKey | None,
        page: Page,
        access: Access,
    ) -> None:
        self._access = access
        self._sessions, self._registry, self._connections, self._bodies = sessions, registry, connections, taken
        self._receipt_key = receipt_key
        self._live_list = LiveList(sessions, connections, self._summary)
        self.routes = [
            Route("/", page.show, methods=["GET"]),
            Route("/page/{file}", page.file, methods=["GET"]),
            Route("/metrics", self._metrics, methods=["GET"]),
            Route("/operator/policies", self._policies, methods=["GET"]),
            Route("/operator/instance", self._instance, methods=["GET"]),
            Route("/operator/live", self._live, methods=["GET"]),
            Route("/operator/sessions", self._list, methods=["GET"]),
            Route("/operator/sessions/{session_id}", self._session, methods=["GET"]),
            Route("/operator/sessions/{session_id}/events", self._events, methods=["GET"]),
            Route("/operator/sessions/{session_id}/receipt", self._receipt, methods=["GET"]),
            Route("/operator/sessions/{session_id}/stop", self._stop, methods=["POST"]),
            Route("/operator/sessions/{session_id}/calls/{call_id}/decision", self._decide, methods=["POST"]),
            Route("/operator/stop", self._stop_fleet, methods=["POST"]),
            *HoldRoutes(sessions.store, taken).routes,
            Route("/operator/approvals", self._approvals, methods=["GET"]),
        ]

    def _summary(self, record: Record) -> dict[str, object]:
        return _summary(record, self._sessions.unlogged(record.session_id))

    async def _metrics(self, http: HttpRequest) -> Response:
        text, kind = exposition(self._registry, http.headers.get("accept", ""))
        return Response(text, headers={"Content-Type": kind})

    async def _policies(self, http: HttpRequest) -> Response:
        return json_response(200, self._sessions.policy_status())

    async def _instance(self, http: HttpRequest) -> Response:
        """Who works for this instance, its tools, and who may come to it; null: whoever reaches it."""
        rules = self._access.rules
        told = {
            "instance": self._sessions.instance,
            "commanders": self._sessions.commanders(),
            "tools": self._sessions.registry.up,
            "access": rules and rules.shown(),
        }
        return json_response(200, told)

    async def _list(self, http: HttpRequest) -> Response:
        """Live sessions, or those that are asked for, the newest first: see `Listing`."""
        listing = Listing.of(http.query_params)
        found: list[dict[str, object]] = []
        at = listing.cursor
        for _ in range(LOOKED_AT // PAGE):
            records = await self._sessions.store.page(listing.states, PAGE, at)
            for record in records:
                at = place(record.session_id, record.head)
                if at[0] < listing.since:
                    return _listed(found, None)
                if listing.wants(record):
                    found.append(self._summary(record))
                    if len(found) == listing.limit:
                        return _listed(found, at)
            if len(records) < PAGE:
                return _listed(found, None)
        return _listed(found, at)

    async def _live(self, http: HttpRequest) -> sse.RawAnswer:
        return sse.RawAnswer(self._live_list.stream, partial(callers.still, http))

    async def _session(self, http: HttpRequest) -> Response:
        """One of the list, and what it was asked with, which is no entry of its log."""
        record = await find(self._sessions.store, http.path_params["session_id"], whole=True)
        fields = map(fields_of, record.request.messages)
        messages = [{name: value for name, value in each.items() if value or name == "content"} for each in fields]
        asked = {"messages": messages, "parameters_json": record.request.parameters_json}
        return json_response(200, {**self._summary(record), **asked})

    async def _receipt(self, http: HttpRequest) -> Response:
        record = await find(self._sessions.store, http.path_params["session_id"], whole=True)
        return json_response(200, await receipt(self._sessions.store, record, self._receipt_key))

    async def _stop(self, http: HttpRequest) -> Response:
        body = await self._bodies.take(http, OperatorStopBody, OperatorStopBody())
        note(http, reason=body.reason)
        record = await self._sessions.stop(http.path_params["session_id"], body.reason, "operator", body.detail)
        if record is None:
            raise unknown_session()
        return json_response(202, self._summary(record))

    async def _stop_fleet(self, http: HttpRequest) -> sse.RawAnswer:
        body = await self._bodies.take(http, FleetOrder)
        fits, seconds = body.fits(), body.hold_seconds
        note(http, fits=named(fits), reason=body.reason, hold_seconds=seconds)
        hold = await new_hold(self._sessions.store, fits, seconds, body.reason, body.detail) if seconds else None
        return sse.RawAnswer(self._tell, self._sessions.stop_fleet(fits, body.reason, body.detail, hold))

    async def _tell(self, order: FleetStop, receive: Receive, send: Send) -> None:
        """What comes of it. It is carried out to its end, also where nobody listens."""
        await sse.start(send)
        try:
            async with self._connections.watch(receive):
                async for told in order.news():
                    await sse.write(send, sse.frame(TOLD[type(told)], told))
        finally:
            await sse.end(send)

    async def _decide(self, http: HttpRequest) -> Response:
        body = await self._bodies.take(http, approvals.DecisionBody)
        note(http, decision=body.decision)
        record = await find(self._sessions.store, http.path_params["session_id"])
        return await approvals.decide(self._sessions, record, http.path_params["call_id"], body, "operator")

    async def _approvals(self, http: HttpRequest) -> Response:
        """The calls that wait for an approval, in the store; those of the newest sessions first."""
        asked = http.query_params
        _check_names(asked, ("limit", "cursor"))
        calls, at = await approvals.waiting(self._sessions.store, _limit(asked, LIST_LIMIT), _asked_cursor(asked))
        return json_response(200, {"approvals": calls, "cursor": _cursor_of(at)})

    async def _events(self, http: HttpRequest) -> sse.RawAnswer | Response:
        after = bodies.offset(http)
        record = await find(self._sessions.store, http.path_params["session_id"])
        if record.head.complete and after == record.head.offset:
            return Response(status_code=204)
        return sse.RawAnswer(self._stream, record, after)

    async def _stream(self, record: Record, after: int, receive: Receive, send: Send) -> None:
        """Every entry after `after`, until the session is over and no call waits for its result."""
        store = self._sessions.store
        await sse.start(send)
        await sse.write(send, sse.RETRY)
        try:
            async with self._connections.watch(receive):
                if after > record.head.offset:
                    text = await released_text(store, record)
                    reset = {"text": text, "state": record.head.state}
                    await sse.write(send, sse.frame("reset", reset, record.head.offset))
                    after = record.head.offset
                await self._follow(record.session_id, after, send)
        finally:
            await sse.end(send)

    async def _follow(self, session_id: str, after: int, send: Send) -> None:
        store = self._sessions.store
        with sse.LogReader.open(store, session_id, after) as reader:
            while True:
                record = await store.brief(session_id)
                if record is None or record.head.offset < reader.offset:  # rolled back: who comes back is told
                    return
                if record.head.complete and reader.offset == record.head.offset:
                    return
                entries = await reader.next()
                turn = LoopTurn()
                for piece in _pieces(entries):
                    await sse.write(send, piece)
                    await turn.step()


def _pieces(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Their events, so many as go out at once: 128 results come to 32 MiB."""
    frames, size = list[bytes](), 0
    for entry in entries:
        frames.append(_frame(entry))
        size += len(frames[-1])
        if size >= PIECE_BYTES:
            yield b"".join(frames)
            frames, size = [], 0
    if frames:
        yield b"".join(frames)


def _frame(entry: Entry) -> bytes:
    """An entry as an event that is named after its kind. `released`: what users got of it."""
    return sse.frame(*as_event(entry), entry.offset)


def _summary(record: Record, unlogged: Unlogged | None) -> dict[str, object]:
    """unlogged: null where another instance has it, or nobody."""
    head, request = record.head, record.request
    return {
        "session_id": record.session_id,
        "state": head.state,
        "over": head.over,
        "agent": request.agent,
        "origin": request.origin,
        "tenant": request.tenant,
        "subject": request.subject,
        "conversation_id": request.conversation_id,
        "created_at": request.created_at,
        "since": head.since,
        "ended_at": head.ended_at or None,
        "reason": head.reason,
        "code": head.code,
        "commander_id": head.commander_id,
        "credential": head.credential,
        "instance": head.instance,
        "generation": head.generation,
        "takeovers": head.takeovers,
        "sequence": head.sequence,
        "offset": head.offset,
        "decided": head.decided,
        "step": unlogged and unlogged.step,
        "held": unlogged and unlogged.held,
        "running_calls": [call.tool_name for call in head.calls.values() if call.instance],
        "waiting_calls": [call.tool_name for call in head.calls.values() if not call.instance],  # to be approved
    }

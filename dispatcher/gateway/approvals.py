"""Tool calls that wait for an approval: decided on by users and operators, and listed for operators (rule 40)."""

from collections.abc import AsyncIterator
from typing import Annotated, Literal, TypeAlias

import msgspec
from starlette.responses import Response

from dispatcher.core.entries import Approval, Call, Decision
from dispatcher.core.log import LIVE, OpenCall, Record
from dispatcher.gateway import sse
from dispatcher.gateway.errors import HttpError, json_response, unknown_session
from dispatcher.gateway.ports import Sessions
from dispatcher.gateway.views import shown_call_id
from dispatcher.store.ports import Place, Store, place

MAX_NOTE = 1000  # characters
Author: TypeAlias = Literal["user", "operator"]

PAGE = 50  # sessions that are read at once
LOOKED_AT = 5000  # for one answer; one that found less has a cursor all the same


class DecisionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`note` is for operators: neither the agent nor the user sees it."""

    decision: Literal["approve", "deny"]
    arguments_sha256: Annotated[str, msgspec.Meta(max_length=128)]
    note: Annotated[str, msgspec.Meta(max_length=MAX_NOTE)] = ""


async def decide(sessions: Sessions, record: Record, call_id: str, body: DecisionBody, author: Author) -> Response:
    """Decide on the call of that id, as users see it or as it is. Raises HttpError 404, 409."""
    session_id = record.session_id
    found = next((each for each in record.head.calls.items() if _is(each[0], call_id)), None)
    if found:
        await _decide_open(sessions, session_id, *found, body, author)
    else:
        await _judge_ended(sessions.store, record, call_id, body, author)
    decided = {"call_id": call_id, "decision": body.decision, "arguments_sha256": body.arguments_sha256}
    return json_response(202, {"session_id": session_id, **decided})


def _is(call_id: str, given: str) -> bool:
    return given in (call_id, shown_call_id(call_id))


async def _decide_open(
    sessions: Sessions, session_id: str, call_id: str, call: OpenCall, body: DecisionBody, author: Author
) -> None:
    _check(call.approval, author)
    if not call.asked:
        raise _conflict(
            "approval_not_asked", "The call is still being checked; it is not known what would be approved."
        )
    _check_arguments(call.arguments_sha256, body)
    if call.waits:
        decision = Decision(call_id, body.decision, author, call.arguments_sha256, body.note)
        outcome = await sessions.decide(session_id, decision)
        if outcome is None:
            raise unknown_session()
        if outcome.entries:
            return
        if (now := outcome.head.calls.get(call_id)) is None:  # another was first, or the session is over
            record = await sessions.store.brief(session_id)
            if record is None:
                raise unknown_session()
            await _judge_ended(sessions.store, record, call_id, body, author)
            return
        if outcome.head.final:
            raise _ended()
        if now.waits:  # its time is over, and nobody has said so yet
            await sessions.decide(session_id, Decision(call_id, "expire", "dispatcher", call.arguments_sha256))
            raise _expired()
    _check_decision("approve", body)


async def _judge_ended(store: Store, record: Record, call_id: str, body: DecisionBody, author: Author) -> None:
    """A call that has its result: what was decided then."""
    call: Call | None = None
    approval: Approval | None = None
    decision: Decision | None = None
    async for entry in sse.logged(store, record):
        match entry.body:
            case Call(refused=False) as each if _is(each.call_id, call_id):
                call = each
            case Approval() as asked if _is(asked.call_id, call_id):
                approval = asked
            case Decision() as decided if _is(decided.call_id, call_id):
                decision = decided
    if call is None:
        raise HttpError(404, "No such call.", code="call_not_found")
    _check(call.approval, author)
    if approval:
        _check_arguments(approval.arguments_sha256, body)
    if decision is None:
        raise _ended()
    _check_decision(decision.decision, body)


def _check(approval: str, author: Author) -> None:
    if not approval:
        raise _conflict("approval_not_needed", "Nobody has to approve this call.")
    if author == "user" and approval != "user":
        raise _conflict("operator_decides", "An operator has to decide on this call.")


def _check_arguments(arguments_sha256: str, body: DecisionBody) -> None:
    if body.arguments_sha256 != arguments_sha256:
        raise _conflict("arguments_mismatch", "The call has other arguments.", "arguments_sha256")


def _check_decision(decision: str, body: DecisionBody) -> None:
    if decision == "expire":
        raise _expired()
    if decision != body.decision:
        raise _conflict("already_decided", "Another decision came first.", "decision")


def _ended() -> HttpError:
    return _conflict("call_ended", "The call was over before anybody decided.")


def _expired() -> HttpError:
    return _conflict("approval_expired", "Nobody decided in time; the call was denied.")


def _conflict(code: str, message: str, param: str | None = None) -> HttpError:
    return HttpError(409, message, code=code, param=param)


# ---- what waits


class WaitingCall(msgspec.Struct, frozen=True):
    """arguments: as whoever approves them has to see them, canonical."""

    session_id: str
    call_id: str
    tool_name: str
    approval: str
    agent: str
    conversation_id: str
    arguments: msgspec.Raw
    arguments_sha256: str
    asked_at: float
    expires_at: float


async def waiting(store: Store, limit: int, cursor: Place | None) -> tuple[list[WaitingCall], Place | None]:
    """Those of the newest sessions first, `limit` or a few more, for a session's are listed together; and where to look
    on, if there may be more.
    """
    found: list[WaitingCall] = []
    at = cursor
    for _ in range(LOOKED_AT // PAGE):
        records = await store.page(tuple(LIVE), PAGE, at)
        for record in records:
            at = place(record.session_id, record.head)
            found += [call async for call in _of_session(store, record)]
            if len(found) >= limit:
                return found, at
        if len(records) < PAGE:
            return found, None
    return found, at


async def _of_session(store: Store, record: Record) -> AsyncIterator[WaitingCall]:
    for call_id, call in record.head.calls.items():
        if not call.waits:
            continue
        for entry in (await store.read(record.session_id, call.asked - 1, 1)).entries:
            if isinstance(entry.body, Approval):
                yield WaitingCall(
                    session_id=record.session_id,
                    call_id=shown_call_id(call_id),
                    tool_name=call.tool_name,
                    approval=call.approval,
                    agent=record.request.agent,
                    conversation_id=record.request.conversation_id,
                    arguments=msgspec.Raw(entry.body.arguments_json.encode()),
                    arguments_sha256=call.arguments_sha256,
                    asked_at=entry.at,
                    expires_at=call.expires_at,
                )

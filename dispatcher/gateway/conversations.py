"""What a response goes on from: an earlier one that is stored, or items of such.

A response's request holds the whole conversation before it, so one look finds it, however long the chain is. Of the
answer a successor's agent gets what the user saw.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from dispatcher.access.rules import Caller
from dispatcher.core.log import Record
from dispatcher.gateway import sse
from dispatcher.gateway.callers import theirs
from dispatcher.gateway.errors import HttpError
from dispatcher.gateway.response_events import ID_PREFIX, ResponseView
from dispatcher.store.ports import Store
from shared.records import Message

MAX_LINKS = 100  # responses in a row
MAX_EARLIER_BYTES = 1024 * 1024  # of text in them
MAX_REFERENCED = 16  # responses whose items a request may refer to: each is read whole

_ITEM_ID = re.compile(r"(?:msg|(?:fc|in)_\d+)_([A-Za-z0-9_-]{1,64})")


class Earlier(NamedTuple):
    """messages: without the instructions, which are each response's own. links: how many responses these come from."""

    messages: tuple[Message, ...] = ()
    links: int = 0


async def find(store: Store, response_id: str, caller: Caller, *, stored: bool = True) -> Record | None:
    """The session behind a response that is the caller's. stored: and to be asked for later."""
    if not response_id.startswith(ID_PREFIX):
        return None
    record = theirs(caller, await store.load(response_id.removeprefix(ID_PREFIX)))
    return record if record and (ResponseView(record).echo.store or not stored) else None


async def view_of(store: Store, record: Record) -> ResponseView:
    """As it is now."""
    view = ResponseView(record)
    async for entry in sse.logged(store, record):
        view.take(entry)
    return view


async def earlier(store: Store, response_id: str, caller: Caller, kept: Mapping[str, ResponseView]) -> Earlier:
    """What stands before a request that goes on from there. kept: responses that are not stored, by their ids. Raises
    HttpError 400, 404, 409.
    """
    param = "previous_response_id"
    view = kept.get(response_id)
    if view is None:
        record = await find(store, response_id, caller)
        if record is None:
            raise HttpError(404, "No such response to go on from.", code="previous_response_not_found", param=param)
        view = await _ended(store, record, param)
    said = [message for _, message in view.output()]
    messages = (*view.asked, *joined(said))
    links = view.echo.links + 1
    if links > MAX_LINKS or sum(map(_text_size, messages)) > MAX_EARLIER_BYTES:
        message = f"{param}: more than {MAX_LINKS} responses in a row, or {MAX_EARLIER_BYTES} bytes of text in them"
        raise HttpError(400, message, code="context_length_exceeded", param=param)
    return Earlier(messages, links)


async def referenced(
    store: Store, asked: Mapping[str, str], caller: Caller, kept: Mapping[str, ResponseView]
) -> dict[str, Message]:
    """The items of stored responses, or of those that are kept, by their ids. asked: each id → the field's path. Raises
    HttpError 400, 404, 409.
    """
    views: dict[str, dict[str, Message]] = {}
    found: dict[str, Message] = {}
    for item_id, where in asked.items():
        named = _ITEM_ID.fullmatch(item_id)
        session_id = named[1] if named else ""
        if named and session_id not in views:
            if len(views) == MAX_REFERENCED:
                message = f"{where}: items of more than {MAX_REFERENCED} responses are referred to"
                raise HttpError(400, message, code="invalid_value", param=where)
            view = kept.get(f"{ID_PREFIX}{session_id}")
            if view is None and (record := await find(store, f"{ID_PREFIX}{session_id}", caller)):
                view = await _ended(store, record, where)
            items = [*view.input(), *view.output()] if view else []
            views[session_id] = {each: message for each, message in items if each in asked}  # the rest may be large
        if item_id not in views.get(session_id, {}):
            raise HttpError(404, f"{where}: there is no such item.", code="item_not_found", param=where)
        found[item_id] = views[session_id][item_id]
    return found


async def _ended(store: Store, record: Record, param: str) -> ResponseView:
    view = await view_of(store, record)
    if not view.ended:
        message = f"{param}: the response has not ended"
        raise HttpError(409, message, code="response_not_ended", param=param)
    return view


def joined(messages: list[Message]) -> tuple[Message, ...]:
    """Calls that follow each other, and the words before them, are one message, as on Chat Completions."""
    found: list[Message] = []
    for message in messages:
        if message.tool_calls and found and found[-1].role == "assistant":
            before = found.pop()
            found.append(replace(before, tool_calls=before.tool_calls + message.tool_calls))
        else:
            found.append(message)
    return tuple(found)


def check_size(messages: Sequence[Message], body_limit: int, param: str) -> None:
    """Of all that an agent is to get: no more than with a body of that many bytes. A message may be in it many times,
    as an item may be referred to so. Raises HttpError 400.
    """
    most = body_limit + MAX_EARLIER_BYTES
    different = {id(message): message for message in messages}
    sizes = {key: _size(message) for key, message in different.items()}
    if sum(sizes[id(message)] for message in messages) > most:
        message = f"{param}: more than {most} bytes, with what it goes on from and refers to"
        raise HttpError(400, message, code="context_length_exceeded", param=param)


def _size(message: Message) -> int:
    return _text_size(message) + len(message.parts_json.encode())


def _text_size(message: Message) -> int:
    return len(msgspec.json.encode(replace(message, parts_json="")))

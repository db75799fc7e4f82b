"""What the stores on disk and in Redis keep as blobs: msgpack of a session's `Request`, `Head` and `Entry`, of `Hold`.

A request is kept twice, whole and without its prompt, for its prompt may be a thousand times the rest.
"""

import msgspec
from msgspec.structs import replace

from dispatcher.core.entries import Entry
from dispatcher.core.holds import Hold
from dispatcher.core.log import Head, Record, Request
from dispatcher.store.ports import StoreUnavailable

_REQUEST = msgspec.msgpack.Decoder(Request)
_HEAD = msgspec.msgpack.Decoder(Head)
_ENTRY = msgspec.msgpack.Decoder(Entry)
_HOLD = msgspec.msgpack.Decoder(Hold)
encode = msgspec.msgpack.Encoder().encode


def without_prompt(record: Record) -> Record:
    """What of a record the steps and lists need: thousands may be kept at hand."""
    return replace(record, request=briefly(record.request))


def briefly(request: Request) -> Request:
    """Without its prompt."""
    return replace(request, messages=(), parameters_json="", tools=(), shown_json="")


def brief_of(blob: bytes) -> bytes:
    """Of a request's blob that of the request without its prompt. What cannot be read stays as it is."""
    try:
        return encode(briefly(_REQUEST.decode(blob)))
    except msgspec.DecodeError:
        return blob


def head_of(blob: bytes) -> Head:
    """Raises StoreUnavailable."""
    try:
        return _HEAD.decode(blob)
    except msgspec.DecodeError as error:
        raise StoreUnavailable(f"a session's head cannot be read: {error}") from error


def record_of(session_id: str, request: bytes, head: bytes) -> Record:
    """Raises StoreUnavailable."""
    try:
        return Record(session_id, _REQUEST.decode(request), _HEAD.decode(head))
    except msgspec.DecodeError as error:
        raise StoreUnavailable(f"a session's record cannot be read: {error}") from error


def entry_of(blob: bytes) -> Entry:
    """Raises StoreUnavailable."""
    try:
        return _ENTRY.decode(blob)
    except msgspec.DecodeError as error:
        raise StoreUnavailable(f"an entry cannot be read: {error}") from error


def hold_of(blob: bytes) -> Hold:
    """Raises StoreUnavailable."""
    try:
        return _HOLD.decode(blob)
    except msgspec.DecodeError as error:
        raise StoreUnavailable(f"a hold cannot be read: {error}") from error

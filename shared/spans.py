"""What is told in traces: spans, and by which ids they find each other. `shared.traces` tells them.

A session's ids follow from the session's own, so whichever instance tells of a part, and however often it was killed
or taken over, it is one tree. Names are those of OpenTelemetry's GenAI semantic conventions 1.41.0 (status:
development); what these have no name for begins with `midsentence.`.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import msgspec

SCHEMA_URL = "https://opentelemetry.io/schemas/1.41.0"
PROVIDER = "midsentence"  # gen_ai.provider.name of what the Dispatcher tells: it does not know whose the model is
SAMPLED, UNSAMPLED = "01", "00"  # trace flags

# W3C Trace Context, version 00 and what later ones begin with; ids of zeros alone are invalid.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

# Of its tracestate: a member's key, also a vendor's with its tenant before it, and its value.
_MEMBER = re.compile(
    r"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
MAX_MEMBERS = 32
MAX_TRACESTATE = 512  # characters that go on: what is to be passed on at least
LONG_MEMBER = 128  # characters; longer ones are left out first

Attribute: TypeAlias = str | int | float | Sequence[str]


class TraceContext(NamedTuple):
    """In hex. span: of whoever asked; empty: nobody did in a trace. state: their tracestate."""

    trace: str
    span: str
    flags: str
    state: str = ""

    def traceparent(self, span: str) -> str:
        return f"00-{self.trace}-{span}-{self.flags}"


def trace_context(traceparent: str, session_id: str, tracestate: str = "") -> TraceContext:
    """The trace that was given, or one of the session's own."""
    if given := _TRACEPARENT.fullmatch(traceparent):
        return TraceContext(given[1], given[2], given[3], tracestate)
    return TraceContext(digest("trace", session_id)[:32], "", SAMPLED)


def trace_headers(traceparent: str, tracestate: str) -> dict[str, str]:
    """As a request shows them to its server; those that are empty are not there."""
    shown = {"traceparent": traceparent, "tracestate": tracestate}
    return {name: value for name, value in shown.items() if value}


def read_tracestate(headers: Sequence[str]) -> str:
    """What goes on of a request's `tracestate` headers, which are one list. Empty: they are malformed, or there are
    none. Of one that is too long the long members are left out first, then the last.
    """
    members = [member for each in ",".join(headers).split(",") if (member := each.strip(" \t"))]
    keys = {member.partition("=")[0] for member in members}
    if not len(keys) == len(members) <= MAX_MEMBERS or not all(map(_MEMBER.fullmatch, members)):
        return ""
    while len(state := ",".join(members)) > MAX_TRACESTATE:
        long = [n for n, member in enumerate(members) if len(member) > LONG_MEMBER]
        del members[long[-1] if long else -1]
    return state


def invocation_span(session_id: str, generation: int) -> str:
    """Of that generation's Commander; the first one's is the session's."""
    parts = ("session", session_id) if generation <= 1 else ("generation", session_id, str(generation))
    return digest(*parts)[:16]


def stop_span(session_id: str) -> str:
    return digest("stop", session_id)[:16]


def call_key(session_id: str, call_id: str) -> str:
    """What names a call to whoever must not learn the session's id."""
    return digest("call", session_id, call_id)


def call_span(key: str) -> str:
    return digest("span", key)[:16]


def digest(*parts: str) -> str:
    """In hex. A part's length stands before it: no two lists of parts are hashed alike."""
    encoded = [part.encode(errors="surrogatepass") for part in parts]
    return hashlib.sha256(b"".join(b"%d:%b" % (len(part), part) for part in encoded)).hexdigest()


class SpanEvent(msgspec.Struct, frozen=True):
    """at: Unix seconds."""

    name: str
    at: float
    attributes: Mapping[str, Attribute] = {}


class Span(msgspec.Struct, frozen=True):
    """began, ended: Unix seconds. span_id, parent_id, linked: in hex; parent_id empty: it has none; linked: to another
    of the same trace. error: why it failed; empty: it did not.
    """

    name: str
    kind: Literal["client", "internal"]
    span_id: str
    parent_id: str
    began: float
    ended: float
    attributes: Mapping[str, Attribute]
    events: tuple[SpanEvent, ...] = ()
    linked: str = ""
    error: str = ""

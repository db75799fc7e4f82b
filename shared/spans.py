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

Attribute: TypeAlias = str | int | float | Sequence[str]


class TraceContext(NamedTuple):
    """In hex. span: of whoever asked; empty: nobody did in a trace."""

    trace: str
    span: str
    flags: str

    def traceparent(self, span: str) -> str:
        return f"00-{self.trace}-{span}-{self.flags}"


def trace_context(traceparent: str, session_id: str) -> TraceContext:
    """The trace that was given, or one of the session's own."""
    if given := _TRACEPARENT.fullmatch(traceparent):
        return TraceContext(given[1], given[2], given[3])
    return TraceContext(digest("trace", session_id)[:32], "", SAMPLED)


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

"""How a call is told to another service: the same at every try, and of no use to whoever reads it."""

from typing import NamedTuple

from dispatcher.tools.context import Context
from shared.spans import call_key, call_span, trace_context


class Identity(NamedTuple):
    """key: 256 bits, of session and call; the session's id would let its reader read and stop the session.
    traceparent: in the trace of whoever asked for the session, else in one of the session's own.
    """

    key: str
    traceparent: str


def identity(context: Context) -> Identity:
    """Of that call."""
    key = call_key(context.session_id, context.call_id)
    return Identity(key, trace_context(context.traceparent, context.session_id).traceparent(call_span(key)))

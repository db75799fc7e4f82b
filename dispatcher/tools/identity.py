"""How a call, and who asked, is told to another service: the same at every try, and of no use to whoever reads it."""

import re
import string
from typing import NamedTuple
from urllib.parse import quote

from dispatcher.tools.context import Context
from dispatcher.tools.errors import ServiceError
from shared.spans import call_key, call_span, trace_context, trace_headers

WHO = re.compile(r"\$\{(user\.subject|user\.tenant|claim:[^{}]+)\}")  # as a header's whole value, in an entry
SHOWN = "shown"  # of the user's issuer, as it was shown: by `forward_token` alone
NOT_AT_HAND = (
    "The tool has to be shown the user's own token, which is not at hand: it was none of an issuer, or only the "
    "Dispatcher that was asked has it, in memory."
)
_PLAIN = string.punctuation.replace("%", "")


class Identity(NamedTuple):
    """key: 256 bits, of session and call; the session's id would let its reader read and stop the session.
    traceparent, tracestate: in the trace of whoever asked for the session, else in one of the session's own.
    """

    key: str
    traceparent: str
    tracestate: str = ""

    @property
    def trace(self) -> dict[str, str]:
        """As headers."""
        return trace_headers(self.traceparent, self.tracestate)


def identity(context: Context) -> Identity:
    """Of that call."""
    key = call_key(context.session_id, context.call_id)
    trace = trace_context(context.traceparent, context.session_id, context.tracestate)
    return Identity(key, trace.traceparent(call_span(key)), trace.state)


def who_asked(context: Context, what: str) -> str:
    """As a header says it, percent-encoded beyond ASCII's letters, digits and punctuation. what: as in WHO; or SHOWN,
    whose scheme stands before it.

    Raises ServiceError: it is not known. What acts for somebody is not asked to act for nobody.
    """
    if what == SHOWN:
        if not context.token:
            raise ServiceError("user_unknown", NOT_AT_HAND)
        return f"Bearer {context.token}"
    kind, _, name = what.partition(":")
    known = {"user.subject": context.subject, "user.tenant": context.tenant, "claim": context.claims.get(name, "")}
    if not known[kind]:
        raise ServiceError("user_unknown", "The tool has to be told who asks, which is not known.")
    return quote(known[kind], safe=_PLAIN)

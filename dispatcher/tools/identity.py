"""How a call is told to another service: the same at every try, and of no use to whoever reads it."""

import hashlib
import re
from typing import NamedTuple

from dispatcher.tools.context import Context

# W3C Trace Context, version 00; ids of zeros alone are invalid.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?")
SAMPLED = "01"


class Identity(NamedTuple):
    """key: 256 bits, of session and call; the session's id would let its reader read and stop the session.
    traceparent: in the trace of whoever asked for the session, else in one of the session's own.
    """

    key: str
    traceparent: str


def identity(context: Context) -> Identity:
    """Of that call."""
    key = _hash("call", context.session_id, context.call_id)
    given = _TRACEPARENT.fullmatch(context.traceparent)
    trace, flags = (given[1], given[2]) if given else (_hash("trace", context.session_id)[:32], SAMPLED)
    return Identity(key, f"00-{trace}-{_hash('span', key)[:16]}-{flags}")


def _hash(*parts: str) -> str:
    """A part's length stands before it: no two lists of parts are hashed alike."""
    encoded = [part.encode(errors="surrogatepass") for part in parts]
    return hashlib.sha256(b"".join(b"%d:%b" % (len(part), part) for part in encoded)).hexdigest()

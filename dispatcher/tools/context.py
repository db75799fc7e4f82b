"""What a tool may learn of its call."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Context:
    """For a parameter of this type, by whatever name: it is no argument of the tool's, and no model sees it.

    agent            under whose name the session was asked for
    conversation_id  the caller's grouping of sessions; may be empty
    traceparent, tracestate  W3C trace context of whoever asked for the session; may be empty
    subject, tenant  of whoever asked for the session, as the Dispatcher knows them; empty: it does not
    claims           of their token, by name, those that its issuer's entry lists under `forward`
    token            itself, for services whose entry says `forward_token`; else, and to functions, empty
    """

    session_id: str = ""
    call_id: str = ""
    agent: str = ""
    conversation_id: str = ""
    traceparent: str = ""
    subject: str = ""
    tenant: str = ""
    claims: Mapping[str, str] = field(default_factory=dict)
    token: str = field(default="", repr=False)
    tracestate: str = ""

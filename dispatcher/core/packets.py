"""What becomes of a packet, as far as that depends on nothing else of its session."""

import json
import re
from collections.abc import Container
from typing import TypeAlias

import msgspec

from dispatcher.core.entries import Body, Call, Decision, Entry, Finished, Text
from dispatcher.policies.arguments import parsed
from dispatcher.policies.outcomes import Release
from shared.records import ClientCall, Content, Error, ToolResult, Upstream

_ESCAPE = re.compile(r"\\u([0-9A-Fa-f]{4})")
# What becomes an entry: (body, released, decided, redacted_by).
Taken: TypeAlias = tuple[Body, str, int, tuple[str, ...]]


class WaitingEnd(msgspec.Struct):
    """An end that waits, and with it its packet, until verdicts on the content before it are in, and on the calls that
    it ends with. taken: what becomes of the packet, the end last. unread: those on the calls are still to come.
    """

    packet: Upstream
    taken: list[Taken]
    unread: bool = False

    @property
    def speaks(self) -> bool:
        """Something is let out before it that is not in the log yet: what its packet says, or what other rules held."""
        return len(self.taken) > 1


def spoken(release: Release) -> list[Taken]:
    """What was held, and is let out by something other than a content packet."""
    return [(Text(), release.text, release.decided, release.redacted_by)] if release.text else []


def entries_of(
    taken: list[Taken], now: float, generation: int, sequence: int = 0, timestamp: int = 0
) -> tuple[Entry, ...]:
    return tuple(
        [
            Entry(body, now, generation, sequence, released, decided, timestamp, redacted_by=redacted_by)
            for body, released, decided, redacted_by in taken
        ]
    )


def misses(end: Content, offered: Container[str]) -> bool:
    """Whether an end's calls are none that an answer may end with. offered: the names of the client's tools."""
    ids = {call.call_id for call in end.client_calls}
    known = all(call.call_id and call.name in offered for call in end.client_calls)
    return bool(ids) != (end.finish_reason == "tool_calls") or len(ids) < len(end.client_calls) or not known


def without(end: Finished, denied: Container[str]) -> Finished:
    """The end without the calls of these ids, which policies deny."""
    calls = tuple(call for call in end.calls if call.call_id not in denied)
    return end if calls == end.calls else Finished("content_filter", end.usage, calls)


def read_as(call: ClientCall) -> Call:
    """A call of the client's as policies read it. Arguments that are not JSON go on as they are, and a lenient client
    may understand them: so their escapes are decoded.
    """
    arguments_json = call.arguments_json
    if isinstance(parsed(arguments_json), str):
        arguments_json = json.dumps(_ESCAPE.sub(lambda found: chr(int(found[1], 16)), arguments_json))
    return Call(call.name, arguments_json, call.call_id, "")


def ends(body: Body) -> bool:
    return isinstance(body, Finished) or (isinstance(body, Error) and not body.retryable)


def denial(of: Call | ToolResult) -> ToolResult:
    """The result of a call that a policy does not let through, or in place of the result."""
    error = '{"error": {"code": "denied", "message": "A rule forbids this."}}'
    return ToolResult(of.tool_name, error, of.call_id, "DENIED")


def disapproval(tool_name: str, decision: Decision) -> ToolResult:
    """The result of a call that was denied, or that nobody approved in time."""
    message = "Nobody approved the call in time." if decision.decision == "expire" else "The call was not approved."
    error = f'{{"error": {{"code": "denied", "message": "{message}"}}}}'
    return ToolResult(tool_name, error, decision.call_id, "DENIED")


def abandoned(call_id: str, tool_name: str) -> ToolResult:
    """The result of a call that nobody needs to approve any more."""
    error = '{"error": {"code": "cancelled", "message": "The session was over before the tool ran."}}'
    return ToolResult(tool_name, error, call_id, "CANCELLED")


def reused_call_id(call: Call) -> ToolResult:
    error = '{"error": {"code": "call_id_reused", "message": "This call_id was used before in the session."}}'
    return ToolResult(call.tool_name, error, call.call_id, "INVALID_ARGUMENTS")

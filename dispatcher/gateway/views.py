"""What users may see of a session: a pure function of its log.

A `UserEvent` has no place for a thought, a result, an error's message or a stop's detail, nor for an argument but those
that a user has to approve or a client to run, so none of them can reach a user (rule 29). What a Commander or a client
wrote shows else only if it is content, a call's id, or one of the published values: those of `FAILURES`, and the
statuses and reasons in `shared.records`.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import msgspec

from dispatcher.core.entries import Approval, Call, Entry, Failed, Finished, Started, StopEntry, Text
from dispatcher.core.log import Record, Request, State
from dispatcher.core.receipts import token_count
from shared.records import FINISH_REASONS, STOP_REASONS, TOOL_STATUSES, Content, Error, ToolResult, Usage

FAILURES = {
    "agent_error": "The agent failed.",
    "commander_lost": "The agent was lost before it had finished.",
    "no_commander": "No agent was free in time.",
    "data_loss": "Part of the answer was lost.",
    "invalid_output": "The answer does not fit the schema that was asked for.",
    "log_full": "The answer, with what led to it, is longer than a session may be.",
    "history_too_large": "The answer is too long to be continued.",
    "protocol_error": "The agent broke the contract.",
}
SPOKEN = (Content, Text)  # nearly every entry: what it lets out shows as content
FILTERED = frozenset({"PolicyViolation", "RiskControl"})  # stops that OpenAI's clients see as `content_filter`
MAX_JOINED = 64 * 1024  # characters of text that go out as one event
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class UserContent(msgspec.Struct, frozen=True):
    text: str


class UserToolCall(msgspec.Struct, frozen=True):
    """`status`: RUNNING, or that of a call which was refused at once."""

    call_id: str
    tool_name: str
    status: str


class UserApproval(msgspec.Struct, frozen=True):
    """A call waits for an approval; `arguments`, where it is the user's: canonical, as they are hashed."""

    call_id: str
    tool_name: str
    arguments_sha256: str
    expires_at: float
    arguments: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class UserToolResult(msgspec.Struct, frozen=True):
    call_id: str
    tool_name: str
    status: str


class UserStopped(msgspec.Struct, frozen=True):
    reason: str


class UserFailed(msgspec.Struct, frozen=True):
    code: str
    message: str


class UserUsage(msgspec.Struct, frozen=True, omit_defaults=True):
    """estimated: the agent did not come to count, or does not, one of them or both. 0: it did not."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False


class UserClientCall(msgspec.Struct, frozen=True):
    """arguments: as the model wrote them, once policies have read them: nobody vouches that they are JSON."""

    call_id: str
    name: str
    arguments: str


class UserFinished(msgspec.Struct, frozen=True, omit_defaults=True):
    """calls: of the client's tools. On the native routes each is an event before this one, which does not show them."""

    finish_reason: str
    usage: UserUsage | None
    calls: tuple[UserClientCall, ...] = ()


FinalEvent: TypeAlias = UserStopped | UserFailed | UserFinished
ENDS = (UserStopped, UserFailed, UserFinished)
UserEvent: TypeAlias = UserContent | UserToolCall | UserApproval | UserToolResult | FinalEvent
KnowsTool: TypeAlias = Callable[[str], bool]

EVENT_NAMES: dict[type[UserEvent], str] = {
    UserContent: "content",
    UserToolCall: "tool_call",
    UserApproval: "approval",
    UserToolResult: "tool_result",
    UserStopped: "stopped",
    UserFailed: "failed",
    UserFinished: "finished",
}


def user_event(entry: Entry, knows_tool: KnowsTool) -> UserEvent | None:
    """The event that an entry makes for users; None: nothing is shown of it."""
    match entry.body:
        case Content() | Text():
            return UserContent(entry.released) if entry.released else None
        case Call(tool_name=name, call_id=call_id, refused=refused, approval=""):
            status = "INVALID_ARGUMENTS" if refused else "RUNNING"
            return UserToolCall(shown_call_id(call_id), _tool(name, knows_tool), status)
        case Approval(call_id, name, approval, arguments_json, sha256, expires_at):
            arguments = msgspec.Raw(arguments_json.encode()) if approval == "user" else msgspec.UNSET
            return UserApproval(shown_call_id(call_id), _tool(name, knows_tool), sha256, expires_at, arguments)
        case Started(call_id, name):
            return UserToolCall(shown_call_id(call_id), _tool(name, knows_tool), "RUNNING")
        case ToolResult(tool_name=name, call_id=call_id, status=status):
            status = status if status in TOOL_STATUSES else "TOOL_ERROR"
            return UserToolResult(shown_call_id(call_id), _tool(name, knows_tool), status)
        case StopEntry(reason=reason):
            return UserStopped(stop_reason(reason))
        case Failed(code=code) | Error(code=code, retryable=False):
            return user_failure(code)
        case Finished(reason, usage, calls):
            shown_calls = tuple(
                UserClientCall(shown_call_id(call.call_id), call.name, call.arguments_json) for call in calls
            )
            return UserFinished(reason if reason in FINISH_REASONS else "stop", _usage(usage), shown_calls)
    return None


def shown(entries: Iterable[Entry], knows_tool: KnowsTool) -> Iterator[tuple[int, UserEvent]]:
    """Events with their offsets, up to the session's last, if it is among them: what follows that is not for users.

    Consecutive text is joined into one event under the offset of its last entry.
    """
    texts: list[str] = []
    joined = last = 0
    for entry in entries:
        text = entry.released if isinstance(entry.body, SPOKEN) else ""
        event = None if text else user_event(entry, knows_tool)
        if not text and event is None:
            continue
        if texts and not (text and joined + len(text) <= MAX_JOINED):
            yield last, UserContent("".join(texts))
            texts, joined = [], 0
        if event is None:
            texts.append(text)
            joined, last = joined + len(text), entry.offset
            continue
        yield entry.offset, event
        if isinstance(event, ENDS):
            return
    if texts:
        yield last, UserContent("".join(texts))


def user_failure(code: str) -> UserFailed:
    """A failure in published words: a code that is not published shows as `agent_error`."""
    code = code if code in FAILURES else "agent_error"
    return UserFailed(code, FAILURES[code])


def openai_end(final: FinalEvent) -> FinalEvent:
    """An end as OpenAI's protocols can tell it: there is no answer that the service stopped, but a failure."""
    if isinstance(final, UserStopped) and final.reason == "Shutdown":
        return UserFailed("shutdown", "The service was shut down before the agent had finished.")
    return final


def incomplete(final: FinalEvent) -> str | None:
    """Why OpenAI's clients see the answer as incomplete, in the words of Chat Completions."""
    match final:
        case UserFinished(finish_reason=("length" | "content_filter") as reason):
            return reason
        case UserStopped(reason=reason) if reason in FILTERED:
            return "content_filter"
        case UserStopped(reason="Timeout"):
            return "length"
    return None


def stop_reason(reason: str) -> str:
    return reason if reason in STOP_REASONS else "PolicyViolation"


def decides(entry: Entry, state: State) -> bool:
    """Whether this is the entry that made the session's final state what it is: the last that a user sees."""
    match entry.body:
        case StopEntry():
            return state == "stopped"
        case Finished():
            return state == "finished"
        case Failed() | Error(retryable=False):
            return state == "failed"
    return False


class UserReset(msgspec.Struct, frozen=True):
    """Where a reader asked for what the log does not hold (it was rolled back): all text so far, to begin with."""

    text: str
    state: State


class UserSession(msgspec.Struct, frozen=True, omit_defaults=True):
    """A session's head. Times are Unix seconds. `reason`: of a stop; `code`, `message`: of a failure."""

    session_id: str
    state: State
    agent: str
    created_at: float
    conversation_id: str = ""
    ended_at: float | None = None
    reason: str | None = None
    code: str | None = None
    message: str | None = None


def user_session(record: Record) -> UserSession:
    head, request = record.head, record.request
    failure = user_failure(head.code) if head.state == "failed" else None
    return UserSession(
        session_id=record.session_id,
        state=head.state,
        agent=request.agent,
        created_at=request.created_at,
        conversation_id=request.conversation_id,
        ended_at=head.ended_at if head.final else None,
        reason=stop_reason(head.reason) if head.state == "stopped" else None,
        code=failure.code if failure else None,
        message=failure.message if failure else None,
    )


def _tool(name: str, knows_tool: KnowsTool) -> str:
    return name if knows_tool(name) else "unknown"


def shown_call_id(call_id: str) -> str:
    """The Commander's id where it is one; anything else could say something to the user, so it shows as a digest."""
    if _ID.fullmatch(call_id):
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:32]


def asked_bytes(request: Request) -> int:
    return sum(len(message.content.encode()) for message in request.messages)


def usage_of(final: FinalEvent, asked: int, text: int) -> UserUsage:
    """What the agent counted; of what it did not, an estimate from the bytes that were asked and let out."""
    calls, usage = (final.calls, final.usage) if isinstance(final, UserFinished) else ((), None)
    if usage and usage.prompt_tokens and usage.completion_tokens:
        return usage
    answered = text + sum(len(call.arguments.encode()) for call in calls)
    counted = Usage(usage.prompt_tokens, usage.completion_tokens) if usage else None
    count = token_count(counted, asked, answered)
    return UserUsage(count.prompt, count.completion, count.estimated)


def _usage(usage: Usage | None) -> UserUsage | None:
    return UserUsage(usage.prompt_tokens, usage.completion_tokens) if usage else None

"""What a session's log says of its end: the receipt. Its form, for whoever checks one: `docs/receipts.md`.

A function of the session and its log alone, so that each instance gives the same, whenever it is asked.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec
from msgspec.structs import asdict, replace

from dispatcher.core.entries import completed, members
from dispatcher.core.log import Record, Request
from shared.records import MAX_NAME, Usage

MAX_INTEGER = 2**53 - 1  # that each reader of JSON takes for what it is (RFC 8259, 6)
QUOTED = 200  # characters of a value, where two are compared
BYTES_A_TOKEN = 4  # of UTF-8: what tokenisers come to for English, and near it for other scripts


class PromptDigest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """bytes: of the messages' texts. sha256: over all that was asked."""

    bytes: int
    sha256: str


class SessionEnd(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The entry that decided the session's state. Times are Unix microseconds.

    author     user, operator, policy, dispatcher or agent
    reason     of a stop; the code of a failure; how the agent finished
    character  of the content, counted from 0: nothing from there on was let out
    """

    state: Literal["finished", "stopped", "failed"]
    author: str
    reason: str
    detail: str
    policy: str
    character: int
    at: int
    entry: int


class StopCourse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a stop went. None: it is not known, or did not come to it.

    halt            confirmed (the Commander said so), ended (it sent its own end instead), unconfirmed, never_ran
    halt_micros     by the Commander's clock, from when it read the stop
    deltas_logged   that came after the stop, and were let out to nobody
    deltas_dropped  that the agent produced after the Commander had read the stop
    tokens_after    both, one a delta, as models stream them
    """

    stop_id: str
    detected: int
    logged: int | None
    sent: int | None
    halted: int | None
    halt: Literal["confirmed", "ended", "unconfirmed", "never_ran"]
    halt_micros: int | None
    deltas_logged: int
    deltas_dropped: int
    tokens_after: int


class ToolInFlight(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call that had no result at the end. started: None where it waited for an approval."""

    call_id: str
    tool_name: str
    called: int
    started: int | None
    outcome: str
    answered: int | None


class TokenCount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """estimated: the agent did not come to count, or does not, one of them or both."""

    prompt: int
    completion: int
    estimated: bool


class Delivered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was let out to the user. sha256: over its UTF-8."""

    characters: int
    bytes: int
    sha256: str


class Chain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """entries: how many. sha256: over the last entry and, through it, all before."""

    entries: int
    sha256: str


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Both in hex: the raw public key, and the signature over the receipt's canonical form."""

    algorithm: Literal["Ed25519"]
    public_key: str
    value: str


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """sha256, signature: over the rest."""

    format: Literal["midsentence-receipt-1"]
    session_id: str
    agent: str
    conversation_id: str
    origin: str
    created: int
    prompt: PromptDigest
    end: SessionEnd
    stop: StopCourse | None
    tools_in_flight: tuple[ToolInFlight, ...]
    tokens: TokenCount
    delivered: Delivered
    log: Chain
    sha256: str = ""
    signature: Signature | None = None


class Account:
    """Reads a session's log, entry by entry, as operators get it. Raises KeyError, TypeError, ValueError or
    AttributeError for what is no entry of one, and Unfinished where it has no end.
    """

    def __init__(self, session_id: str, prompt: PromptDigest) -> None:
        self.entries = 0
        self._prompt = prompt
        self._chain = hashlib.sha256(session_id.encode()).digest()
        self._delivered, self._characters, self._bytes = hashlib.sha256(), 0, 0
        self._said = 0  # bytes of content and thoughts
        self._end: SessionEnd | None = None
        self._stop: StopCourse | None = None
        self._given = False  # to a Commander
        self._usage: Mapping[str, Any] | None = None
        self._calls: dict[str, ToolInFlight] = {}  # without a result
        self._in_flight: dict[str, ToolInFlight] = {}  # those at the end

    def take(self, offset: int, kind: str, fields: Mapping[str, Any]) -> None:
        """The next entry."""
        if offset != self.entries + 1:
            raise ValueError(f"entry {self.entries + 1} is missing")
        if unknown := fields.keys() - members(kind):
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        fields = completed(kind, fields)
        self.entries = offset
        self._chain = hashlib.sha256(self._chain + canonical_entry(offset, kind, fields)).digest()
        released = fields["released"].encode()
        self._delivered.update(released)
        self._bytes += len(released)
        self._characters += len(fields["released"])
        self._given |= kind == "assigned" or fields["sequence"] > 0
        match kind:
            case "content" | "thought":
                self._delta(fields["text"] if kind == "content" else fields["delta"])
            case "finished":
                self._usage = fields["usage"]
        self._call(kind, fields)
        if self._end is None:
            self._decide(offset, kind, fields)
        elif self._stop:
            self._stop = self._followed(self._stop, kind, fields)

    def _delta(self, text: str) -> None:
        self._said += len(text.encode())
        if self._stop:
            self._stop = replace(self._stop, deltas_logged=self._stop.deltas_logged + 1)

    def _call(self, kind: str, fields: Mapping[str, Any]) -> None:
        if kind not in ("call", "started", "tool_result"):
            return
        call_id, at = fields["call_id"], micros(fields["at"])
        if kind == "call" and not fields["refused"]:
            started = None if fields["approval"] else at
            self._calls[call_id] = ToolInFlight(
                call_id[:MAX_NAME], fields["tool_name"][:MAX_NAME], at, started, "", None
            )
        elif kind == "started" and call_id in self._calls:
            self._calls[call_id] = replace(self._calls[call_id], started=at)
        elif kind == "tool_result" and (call := self._calls.pop(call_id, None)) and call_id in self._in_flight:
            self._in_flight[call_id] = replace(call, outcome=fields["status"] or "UNKNOWN_OUTCOME", answered=at)

    def _decide(self, offset: int, kind: str, fields: Mapping[str, Any]) -> None:
        """Whether this entry is the session's end."""
        at, detail, policy = micros(fields["at"]), "", ""
        state: Literal["finished", "stopped", "failed"] = "failed"
        match kind:
            case "stop":
                state, author, reason = "stopped", fields["author"], fields["reason"]
                detail, policy = fields["detail"], fields["policy"]
                halt: Literal["unconfirmed", "never_ran"] = "unconfirmed" if self._given else "never_ran"
                self._stop = StopCourse(fields["stop_id"], at, None, None, None, halt, None, 0, 0, 0)
            case "finished":
                state, author, reason = "finished", "agent", fields["finish_reason"]
            case "failed":
                author, reason, detail = "dispatcher", fields["code"], fields["detail"]
            case "agent_error" if not fields["retryable"]:
                author, reason, detail = "agent", fields["code"], fields["message"]
            case _:
                return
        self._end = SessionEnd(state, author, reason, detail, policy, fields["decided"], at, offset)
        self._in_flight = dict(self._calls)

    def _followed(self, stop: StopCourse, kind: str, fields: Mapping[str, Any]) -> StopCourse:
        """What an entry after the stop says of it."""
        at = micros(fields["at"])
        match kind:
            case "stop_sent" if stop.sent is None:
                logged = micros(fields["logged_at"]) if fields["logged_at"] else None
                return replace(stop, sent=at, logged=logged, halt="unconfirmed")
            case "stopped" if stop.halted is None:
                halt_micros, dropped = _bounded(fields["halt_micros"]), fields["deltas_after_stop"]
                return replace(stop, halted=at, halt="confirmed", halt_micros=halt_micros, deltas_dropped=dropped)
            case "finished" | "agent_error" if stop.halted is None and not fields.get("retryable"):
                return replace(stop, halted=at, halt="ended")
        return stop

    def facts(self) -> dict[str, Any]:
        """The fields of a Receipt that follow from the log. Raises Unfinished."""
        if self._end is None:
            raise Unfinished
        stop = self._stop
        return {
            "end": self._end,
            "stop": stop and replace(stop, tokens_after=stop.deltas_logged + stop.deltas_dropped),
            "tools_in_flight": tuple(self._in_flight.values()),
            "tokens": self._tokens(),
            "delivered": Delivered(self._characters, self._bytes, self._delivered.hexdigest()),
            "log": Chain(self.entries, self._chain.hex()),
        }

    def _tokens(self) -> TokenCount:
        counted = None
        if usage := self._usage:
            counted = Usage(_bounded(usage["prompt_tokens"]), _bounded(usage["completion_tokens"]))
        return token_count(counted, self._prompt.bytes, self._said)


def token_count(usage: Usage | None, asked: int, answered: int) -> TokenCount:
    """What the agent counted; of what it did not, which is 0, an estimate from so many bytes."""
    prompt, completion = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
    counts = prompt or -(-asked // BYTES_A_TOKEN), completion or -(-answered // BYTES_A_TOKEN)
    return TokenCount(*counts, estimated=usage is None or counts != (prompt, completion))


class Unfinished(Exception):
    """The log has no end yet."""


def receipt_of(record: Record, account: Account) -> Receipt:
    """Without its digest and signature: see `sealed`. account: has taken the whole log. Raises Unfinished."""
    request = record.request
    return Receipt(
        format="midsentence-receipt-1",
        session_id=record.session_id,
        agent=request.agent,
        conversation_id=request.conversation_id,
        origin=request.origin,
        created=micros(request.created_at),
        prompt=prompt_of(request),
        **account.facts(),
    )


def prompt_of(request: Request) -> PromptDigest:
    messages = [_given(asdict(each)) for each in request.messages]
    asked = {"messages": messages, "parameters_json": request.parameters_json}
    size = sum(len(message.content.encode()) for message in request.messages)
    return PromptDigest(size, hashlib.sha256(canonical(asked)).hexdigest())


def body_of(receipt: Receipt) -> bytes:
    """What its digest and its signature are over."""
    fields: dict[str, Any] = msgspec.to_builtins(receipt)
    del fields["sha256"], fields["signature"]
    return canonical(fields)


def differences(receipt: Receipt, account: Account) -> list[str]:
    """What the receipt says and the log does not, by field. Raises Unfinished."""
    told, found = msgspec.to_builtins(receipt), msgspec.to_builtins(account.facts())
    return [
        f"{path}: the receipt has {_quoted(one)}, the log {_quoted(other)}"
        for name, value in found.items()
        for path, one, other in _compared(name, told[name], value)
    ]


def _compared(path: str, one: object, other: object) -> Iterator[tuple[str, object, object]]:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in one:
            yield from _compared(f"{path}.{name}", one[name], other[name])
    elif one != other:
        yield path, one, other


def _quoted(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= QUOTED else f"{text[:QUOTED]}…"


# ---- bytes


def canonical(value: object) -> bytes:
    """As RFC 8785 writes it. value: of JSON's types, numbers with a fraction being times in Unix seconds; an integer
    beyond MAX_INTEGER stands as its digits in a string.
    """
    return msgspec.json.encode(_exact(value), order="deterministic")


def _exact(value: object) -> object:
    match value:
        case bool():
            return value
        case int() if abs(value) > MAX_INTEGER:
            return str(value)
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {name: _exact(each) for name, each in value.items()}
        case list() | tuple():
            return [_exact(each) for each in value]
    return value


def canonical_entry(offset: int, kind: str, fields: Mapping[str, Any]) -> bytes:
    return canonical({**_given(fields), "offset": offset, "event": kind})


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Without those that are empty: what a later version adds to what is stored today is."""
    return {name: value for name, value in fields.items() if value}


def micros(seconds: float) -> int:
    return round(seconds * 1_000_000)


def _bounded(number: int) -> int:
    """What a Commander counted, which may be anything."""
    return min(number, MAX_INTEGER)

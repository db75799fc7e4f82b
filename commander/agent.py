"""What an agent's author imports. An agent is an async generator function that takes a Turn:

    async def agent(turn: Turn):
        yield Thought("Planning", "…")                             # a step of thinking: operators only
        hits = await turn.call_tool("search", {"q": "weather"})    # parsed JSON; ToolError on failure
        yield "It is sunny."                                       # content for the user

When the session is stopped the generator is cancelled at its current `await` and closed; its `finally` blocks run. Work
that it started elsewhere (threads, background tasks) is not stopped by that: stop it in `finally`. Returning ends the
session; raising ends it with an error that users see only as a code. A slow Dispatcher makes `yield` wait.
"""

import json
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from shared import records
from shared.wire import well_formed

CALL_ID_BYTES = 16

FinishReason: TypeAlias = records.FinishReason
Feature: TypeAlias = records.Feature


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of thinking. Pieces of one step that follow each other belong together. Users never see it."""

    step_name: str
    delta: str

    def __post_init__(self) -> None:
        parts: tuple[object, ...] = (self.step_name, self.delta)
        if not all(isinstance(part, str) for part in parts):
            raise TypeError(f"a Thought is made of two str, got {', '.join(type(part).__name__ for part in parts)}")


@dataclass(frozen=True, slots=True)
class ClientCall:
    """A call of one of the client's own tools, which the client runs. Raises ValueError.

    arguments: a JSON object, or its text as the model wrote it; always that in a message. call_id: made up, where the
    model gave none.
    """

    name: str
    arguments: Mapping[str, Any] | str
    call_id: str = field(default_factory=lambda: f"call_{secrets.token_hex(CALL_ID_BYTES)}")

    def __post_init__(self) -> None:
        names: tuple[tuple[str, object], ...] = (("name", self.name), ("call_id", self.call_id))
        for name, value in names:
            if not isinstance(value, str) or not 0 < len(value) <= records.MAX_NAME:
                raise ValueError(f"{name} must be a str of 1 to {records.MAX_NAME} characters, got {value!r:.80}")
        if not isinstance(self.arguments, str | Mapping):
            raise ValueError(f"arguments must be a mapping or its JSON, got {type(self.arguments).__name__}")  # noqa: TRY004
        if (size := len(self.arguments_json.encode())) > records.MAX_ARGUMENTS_BYTES:
            raise ValueError(f"arguments of {size} bytes are more than {records.MAX_ARGUMENTS_BYTES}")

    @property
    def arguments_json(self) -> str:
        """As text."""
        if isinstance(self.arguments, str):
            return well_formed(self.arguments)
        try:
            return well_formed(json.dumps(dict(self.arguments), ensure_ascii=False, allow_nan=False))
        except (TypeError, RecursionError) as error:
            raise ValueError(f"arguments are not JSON: {error}") from error


@dataclass(frozen=True, slots=True)
class Finish:
    """The last thing to yield, if at all: why the answer ends, what the model counted, and the calls of the client's
    tools, with which it ends for the reason `tool_calls` alone. Raises ValueError.
    """

    reason: FinishReason = "stop"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    calls: tuple[ClientCall, ...] = ()

    def __post_init__(self) -> None:
        if self.reason not in records.FINISH_REASONS:
            raise ValueError(f"reason must be one of {', '.join(records.FINISH_REASONS)}, got {self.reason!r}")
        for name in ("prompt_tokens", "completion_tokens"):
            count = getattr(self, name)
            if count is not None and not (isinstance(count, int) and 0 <= count < 2**32):
                raise ValueError(f"{name} must be a whole number of 32 bits, got {count!r}")
        if not all(isinstance(call, ClientCall) for call in self.calls):
            raise ValueError("calls must be ClientCall")
        if bool(self.calls) != (self.reason == "tool_calls"):
            raise ValueError(f"calls go with the reason tool_calls and with no other, got {self.reason!r}")
        if len({call.call_id for call in self.calls}) < len(self.calls):
            raise ValueError("calls must have different call_ids")
        size = sum(len(call.arguments_json.encode()) for call in self.calls)
        if len(self.calls) > records.MAX_CLIENT_CALLS or size > records.MAX_CLIENT_CALLS_BYTES:
            most = f"{records.MAX_CLIENT_CALLS}, and {records.MAX_CLIENT_CALLS_BYTES} bytes of arguments"
            raise ValueError(f"calls must be at most {most}; got {len(self.calls)} of {size} bytes")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the conversation. `role`: system, developer, user, assistant or tool.

    tool_calls: of an assistant, the client's tools that it called. tool_call_id: of a tool, the call that it answers.
    name: of a tool, or of whoever speaks, where the client said it. parts: the content where it has more than text, as
    Chat Completions have it (`text`, `image_url`, `input_audio`, `file`); what a URL names was not fetched. phase: of
    an assistant, where the client said it, `commentary` or `final_answer`.
    """

    role: str
    content: str
    tool_calls: tuple[ClientCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""
    parts: tuple[Mapping[str, Any], ...] = ()
    phase: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that may be called. `parameters`: JSON Schema of its arguments, an object; sessions share it, so only a
    copy of it can be changed. `client`: it is the client's, and is called by the answer's end (`Finish.calls`), never
    by `call_tool`. `strict`: the client asks for arguments that fit the schema exactly.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    client: bool = False
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that a predecessor made. `status`: OK, or why not (`TOOL_ERROR`, `DENIED`, `UNKNOWN_OUTCOME` …).

    `arguments` and `result` are parsed JSON; a result that is not OK is `{"error": {"code", "message"}}`.
    """

    call_id: str
    tool_name: str
    arguments: Any
    status: str
    result: Any


@dataclass(frozen=True, slots=True)
class History:
    """What a predecessor already said and got, where this agent takes a session over (see `continues`)."""

    said: str = ""
    calls: tuple[Call, ...] = ()


class ToolError(Exception):
    """A tool call failed: `code` is short and stable (`TIMEOUT`, `DENIED`, `UNKNOWN_TOOL` …), `message` for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class User:
    """Who asked for the session, as the Dispatcher knows them by a key or token. `claims`: of the token, by name, those
    that the operator passes on.
    """

    subject: str
    tenant: str
    claims: Mapping[str, str] = field(default_factory=dict)


ToolCaller: TypeAlias = Callable[[str, Mapping[str, Any]], Awaitable[Any]]


async def _no_tools(name: str, arguments: Mapping[str, Any]) -> Any:
    raise ToolError("UNKNOWN_TOOL", f"no tool {name!r}")


@dataclass(frozen=True, slots=True)
class Turn:
    """What an agent gets: one session. The newest message stands last; `parameters` is a JSON object; `conversation_id`
    is the caller's grouping of sessions, `trace` the W3C traceparent for what it asks of others, with its `tracestate`;
    all three may be empty. `user` is None where the Dispatcher does not know who asked.
    """

    messages: tuple[Message, ...]
    parameters: dict[str, Any] = field(default_factory=dict)
    tools: tuple[Tool, ...] = ()
    history: History = History()
    session_id: str = ""
    tool_caller: ToolCaller = field(default=_no_tools, repr=False, compare=False)
    conversation_id: str = ""
    trace: str = ""
    user: User | None = None
    tracestate: str = ""

    async def call_tool(self, name: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """The tool's result as parsed JSON. Raises ToolError. Several calls may run at once (`asyncio.gather`)."""
        return await self.tool_caller(name, arguments or {})


Yielded: TypeAlias = str | Thought | Finish
Agent: TypeAlias = Callable[[Turn], AsyncGenerator[Yielded, None]]
_Agent = TypeVar("_Agent", bound=Callable[..., Any])


def continues(agent: _Agent) -> _Agent:
    """Declares that this agent goes on from `turn.history` when the Commander that ran it is lost.

    Without it a lost session ends: an agent that is run again says everything again and calls its tools again.
    """
    agent.continues = True  # type: ignore[attr-defined]
    return agent


def supports(*features: Feature) -> Callable[[_Agent], _Agent]:
    """Declares what of clients' requests this agent honours. Raises ValueError.

    tools: the client's, `turn.parameters["tool_choice"]` and `["parallel_tool_calls"]`, and their calls and results in
    messages. structured: `turn.parameters["response_format"]`. sampling: `temperature`, `max_tokens` and the like.
    images, audio, files: `Message.parts`.
    Without it an agent has to honour sampling. What an agent does not honour, the Dispatcher refuses.
    """
    for feature in features:
        if feature not in records.FEATURES:
            raise ValueError(f"what is supported must be of {', '.join(records.FEATURES)}, got {feature!r}")

    def declared(agent: _Agent) -> _Agent:
        agent.supports = features  # type: ignore[attr-defined]
        return agent

    return declared


def supported(agent: Callable[..., Any]) -> tuple[str, ...] | None:
    """What the agent was declared with `supports`; None: it was not."""
    features: tuple[str, ...] | None = getattr(agent, "supports", None)
    return features


def can_continue(agent: Callable[..., Any]) -> bool:
    """Whether the agent was declared with `continues`."""
    return getattr(agent, "continues", False) is True

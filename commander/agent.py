"""What an agent's author imports. An agent is an async generator function that takes a Turn:

    async def agent(turn: Turn):
        yield Thought("Planning", "…")                             # a step of thinking: operators only
        hits = await turn.call_tool("search", {"q": "weather"})    # parsed JSON; ToolError on failure
        yield "It is sunny."                                       # content for the user

When the session is stopped the generator is cancelled at its current `await` and closed; its `finally` blocks run. Work
that it started elsewhere (threads, background tasks) is not stopped by that: stop it in `finally`. Returning ends the
session; raising ends it with an error that users see only as a code. A slow Dispatcher makes `yield` wait.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from shared import records

FinishReason: TypeAlias = records.FinishReason


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
class Finish:
    """The last thing to yield, if at all: why the answer ends, and what the model counted. Raises ValueError."""

    reason: FinishReason = "stop"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.reason not in records.FINISH_REASONS:
            raise ValueError(f"reason must be one of {', '.join(records.FINISH_REASONS)}, got {self.reason!r}")
        for name in ("prompt_tokens", "completion_tokens"):
            count = getattr(self, name)
            if count is not None and not (isinstance(count, int) and 0 <= count < 2**32):
                raise ValueError(f"{name} must be a whole number of 32 bits, got {count!r}")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the conversation. `role`: system, developer, user, assistant or tool."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that may be called. `parameters`: JSON Schema of its arguments, an object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


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


ToolCaller: TypeAlias = Callable[[str, Mapping[str, Any]], Awaitable[Any]]


async def _no_tools(name: str, arguments: Mapping[str, Any]) -> Any:
    raise ToolError("UNKNOWN_TOOL", f"no tool {name!r}")


@dataclass(frozen=True, slots=True)
class Turn:
    """What an agent gets: one session. The newest message stands last; `parameters` is a JSON object; `conversation_id`
    is the caller's grouping of sessions, and may be empty.
    """

    messages: tuple[Message, ...]
    parameters: dict[str, Any] = field(default_factory=dict)
    tools: tuple[Tool, ...] = ()
    history: History = History()
    session_id: str = ""
    tool_caller: ToolCaller = field(default=_no_tools, repr=False, compare=False)
    conversation_id: str = ""

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


def can_continue(agent: Callable[..., Any]) -> bool:
    """Whether the agent was declared with `continues`."""
    return getattr(agent, "continues", False) is True

"""The back-end `local`: the bundled model, or any GGUF file.

One answer calls one tool at most, before it begins.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from commander.agent import Agent, Call, Finish, FinishReason, Thought, Tool, ToolError, Turn, Yielded
from commander.backends import prompts
from commander.backends.chat_spans import ChatSpans
from commander.backends.llama import Engine, ModelError
from commander.backends.parameters import sampling
from commander.backends.relevance import given, named_by
from commander.backends.settings import LocalSettings

BUNDLED = "SmolLM2"
PLANNING = "Planning"
REASONING = "Reasoning"

# Where the session's parameters say nothing else: an answer about a tool's result must keep to it; a small model's
# story goes round in circles without some freedom.
FAITHFUL = {"temperature": 0}
FREE = {"temperature": 0.7, "repeat_penalty": 1.1}


class LocalAgent:
    """An agent over one model. It continues: what was said is prefilled, and a call is not made again. (Tokens that
    were said before a takeover do not count to `max_tokens`.)"""

    continues = True

    def __init__(self, settings: LocalSettings, slots: int) -> None:
        self._settings = settings
        self._engine = Engine(settings, slots)
        self._name = settings.model.stem if settings.model else BUNDLED
        self._spans = ChatSpans("llama.cpp")

    async def prepare(self) -> None:
        """Load the model; to be awaited before joining the pool. Raises ConfigError."""
        self._spans.open()
        await self._engine.load()

    async def close(self) -> None:
        await self._engine.close()
        await self._spans.close()

    async def __call__(self, turn: Turn) -> AsyncGenerator[Yielded, None]:
        model = _Model(self._engine)
        call = turn.history.calls[-1] if turn.history.calls else None
        if call is None and turn.tools and turn.messages and not turn.history.said:
            yield Thought(PLANNING, "Does this need a tool? ")
            plan = await self._plan(model, turn.messages[-1].content, turn.tools)
            if plan is None:
                yield Thought(PLANNING, "No.")
            else:
                tool, arguments = plan
                yield Thought(PLANNING, f"Yes: {tool.name} {json.dumps(arguments, ensure_ascii=False)}")
                call = await _called(turn, tool.name, arguments)
        parameters = sampling(turn.parameters)
        body = {
            "messages": prompts.answering(turn.messages, call, turn.history.said),
            "max_tokens": parameters.pop("max_completion_tokens", self._settings.max_tokens),
            **(FAITHFUL if call else FREE),
            **parameters,
        }
        with self._spans.request(turn, self._name) as span:
            async with aclosing(model.complete(body)) as answer:
                async for piece in answer:
                    yield piece
            span.finished(model.reason, model.prompt_tokens, model.completion_tokens)
        yield Finish(model.reason, model.prompt_tokens, model.completion_tokens)

    async def _plan(self, model: "_Model", request: str, tools: tuple[Tool, ...]) -> tuple[Tool, dict[str, Any]] | None:
        """The tool to call and its arguments. None: no tool, or none that the model can write a call for."""
        bundled = self._settings.model is None
        candidates = named_by(request, tools) if bundled else list(tools)
        if not candidates:
            return None
        if len(candidates) > 1 or not bundled:
            choice = await model.json(prompts.choosing(request, candidates, may_decline=not bundled))
            candidates = [tool for tool in candidates if choice and tool.name == choice.get("tool")]
        if not candidates:
            return None
        tool = candidates[0]
        schema = given(request, tool.parameters) if bundled else tool.parameters
        arguments = await model.json(prompts.arguing(request, tool, schema)) if schema.get("properties") else {}
        return None if arguments is None else (tool, arguments)


class _Model:
    """The completions of one answer, counted together."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.reason: FinishReason = "stop"
        self.prompt_tokens = 0
        self.completion_tokens = 0

    async def complete(self, body: dict[str, Any]) -> AsyncGenerator[str | Thought, None]:
        """Content as it comes; reasoning as thoughts. Raises ModelError."""
        async with aclosing(self._engine.chat(body)) as chunks:
            async for chunk in chunks:
                if usage := chunk.get("usage"):
                    self.prompt_tokens += usage["prompt_tokens"]
                    self.completion_tokens += usage["completion_tokens"]
                for choice in chunk.get("choices", ()):
                    if reasoning := choice["delta"].get("reasoning_content"):
                        yield Thought(REASONING, reasoning)
                    if text := choice["delta"].get("content"):
                        yield text
                    if choice["finish_reason"]:
                        self.reason = "length" if choice["finish_reason"] == "length" else "stop"

    async def json(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """The object that a completion under a schema wrote. None: cut off, or a schema that llama.cpp cannot read."""
        try:
            text = "".join([piece async for piece in self.complete(body) if isinstance(piece, str)])
            parsed = json.loads(text)
        except (ModelError, ValueError):
            return None
        return parsed if isinstance(parsed, dict) else None


async def _called(turn: Turn, name: str, arguments: dict[str, Any]) -> Call:
    try:
        result, status = await turn.call_tool(name, arguments), "OK"
    except ToolError as error:
        result, status = {"error": {"code": error.code, "message": error.message}}, error.code
    return Call("", name, arguments, status, result)


def make(settings: LocalSettings, capacity: int) -> Agent:
    """An agent with a slot for each of so many sessions at once. Raises ConfigError."""
    return LocalAgent(settings, capacity)

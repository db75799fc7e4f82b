"""The back-end `local`: the bundled model, or any GGUF file.

One answer calls one tool at most, the Dispatcher's before it begins, the client's as its end. Arguments that have to be
given, and an answer that has to fit a schema, are written under its form; what breaks off is ended so that it fits.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from commander.agent import (
    Agent,
    Call,
    ClientCall,
    Feature,
    Finish,
    FinishReason,
    Thought,
    Tool,
    ToolError,
    Turn,
    Yielded,
)
from commander.backends import prompts
from commander.backends.chat_spans import ChatSpans
from commander.backends.filling import completed
from commander.backends.llama import Engine, ModelError
from commander.backends.parameters import answer_form, choice, form_of_arguments, sampling
from commander.backends.relevance import given, named_by
from commander.backends.schemas import JsonForm, bounded
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
    supports: tuple[Feature, ...] = ("tools", "structured", "sampling")

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
        """Raises ModelError, and ValueError for what cannot be kept to: a `tool_choice`, or a schema."""
        chosen, form = choice(turn), answer_form(turn.parameters)
        if form is not None and self._settings.model is None:
            form = bounded(form)
        model = _Model(self._engine)
        messages, calls = prompts.asked(turn.messages)
        calls += turn.history.calls[-1:]
        request = messages[-1].content if messages else ""
        if chosen.required:
            with self._spans.request(turn, self._name) as span:
                tool, arguments = await self._required(model, request, chosen.tools)
                span.finished("tool_call", model.prompt_tokens, model.completion_tokens)
            yield _handed_over(model, tool, arguments)
            return
        tools = (*(tool for tool in turn.tools if not tool.client), *chosen.tools)
        if tools and messages and not calls and not turn.history.said:
            yield Thought(PLANNING, "Does this need a tool? ")
            plan = await self._plan(model, request, tools)
            if plan is None:
                yield Thought(PLANNING, "No.")
            else:
                tool, arguments = plan
                yield Thought(PLANNING, f"Yes: {tool.name} {json.dumps(arguments, ensure_ascii=False)}")
                if tool.client:
                    yield _handed_over(model, tool, arguments)
                    return
                calls.append(await _called(turn, tool.name, arguments))
        parameters = sampling(turn.parameters)
        schema = form and turn.parameters["response_format"].get("json_schema", {}).get("schema", form)
        body = {
            "messages": prompts.answering(messages, calls, turn.history.said, schema),
            "max_tokens": parameters.pop("max_completion_tokens", self._settings.max_tokens),
            **(FREE if not calls and form is None else FAITHFUL),
            **parameters,
        }
        pieces = model.complete(body) if form is None else model.fitting(body, form, turn.history.said)
        with self._spans.request(turn, self._name) as span:
            async with aclosing(pieces) as answer:
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
        try:
            return tool, await self._arguments(model, request, tool)
        except ModelError:
            return None
        except ValueError:  # llama.cpp may hold to more than we can end
            schema = given(request, tool.parameters) if bundled else tool.parameters
            held = {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}
            found = await model.json(prompts.arguing(request, tool) | held)
            return None if found is None else (tool, found)

    async def _required(self, model: "_Model", request: str, tools: tuple[Tool, ...]) -> tuple[Tool, dict[str, Any]]:
        """One of them, and its arguments. Raises ModelError, and ValueError: they cannot be held to its schema."""
        bundled = self._settings.model is None
        candidates = (named_by(request, tools) if bundled else []) or list(tools)
        if len(candidates) > 1:
            choice = await model.json(prompts.choosing(request, candidates, may_decline=False))
            candidates = [tool for tool in candidates if choice and tool.name == choice.get("tool")] or candidates
        return candidates[0], await self._arguments(model, request, candidates[0])

    async def _arguments(self, model: "_Model", request: str, tool: Tool) -> dict[str, Any]:
        """Raises ModelError, and ValueError: they cannot be held to the schema."""
        form = form_of_arguments(tool)
        if self._settings.model is None:
            form = bounded({**given(request, form)})
        if not form.get("properties", True):
            return {}
        text = "".join(
            [piece async for piece in model.fitting(prompts.arguing(request, tool), form, "") if isinstance(piece, str)]
        )
        arguments: dict[str, Any] = json.loads(text)
        return arguments


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

    async def fitting(self, body: dict[str, Any], form: JsonForm, begun: str) -> AsyncGenerator[str | Thought, None]:
        """JSON of the form, as it comes; the shortest end where the model is cut off, or where there is a beginning (a
        grammar cannot begin in the middle). Raises ModelError."""
        text = begun
        if not begun:
            async with aclosing(self.complete(body | prompts.under(form))) as pieces:
                async for piece in pieces:
                    if isinstance(piece, str):
                        text += piece
                    yield piece
        try:
            rest = completed(form, text)[len(text) :]
        except ValueError as error:
            raise ModelError(f"the answer does not fit the schema: {error}") from None
        if rest:
            yield rest

    async def json(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """The object that a completion under a schema wrote. None: cut off, or a schema that llama.cpp cannot read."""
        try:
            text = "".join([piece async for piece in self.complete(body) if isinstance(piece, str)])
            parsed = json.loads(text)
        except (ModelError, ValueError):
            return None
        return parsed if isinstance(parsed, dict) else None


def _handed_over(model: _Model, tool: Tool, arguments: dict[str, Any]) -> Finish:
    call = ClientCall(tool.name, arguments)
    return Finish("tool_calls", model.prompt_tokens, model.completion_tokens, (call,))


async def _called(turn: Turn, name: str, arguments: dict[str, Any]) -> Call:
    try:
        result, status = await turn.call_tool(name, arguments), "OK"
    except ToolError as error:
        result, status = {"error": {"code": error.code, "message": error.message}}, error.code
    return Call("", name, arguments, status, result)


def make(settings: LocalSettings, capacity: int) -> Agent:
    """An agent with a slot for each of so many sessions at once. Raises ConfigError."""
    return LocalAgent(settings, capacity)

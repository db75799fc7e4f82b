"""The back-end `openai`: any server that speaks OpenAI's Chat Completions, with tool calls and reasoning."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from commander.agent import Agent, Finish, FinishReason, Thought, Tool, ToolError, Turn, Yielded
from commander.backends.calls import CallParts, Calls, parsed
from commander.backends.client import ProviderClient
from commander.backends.completions import MAX_COUNT, Chunk, Ending, Piece
from commander.backends.errors import ProviderError
from commander.backends.parameters import sampling
from commander.backends.settings import OpenAISettings
from commander.backends.texts import TextJoiner, ThinkTags
from shared import http_environment
from shared.wire import well_formed

REASONING = "Reasoning"
MAX_ROUND_CHARACTERS = 4 * 1024**2  # words and thoughts of one request's answer: all of them are kept for the next


class OpenAIAgent:
    """Asks, runs the tools that the model asks for, and asks again with their results, `max_rounds` times at most; in
    the last round the model is told to call none. What it reasons comes as thoughts."""

    def __init__(self, settings: OpenAISettings) -> None:
        self.continues = settings.continues
        self._settings = settings
        self._model = settings.model
        self._client = ProviderClient(settings)

    async def close(self) -> None:
        await self._client.close()

    async def __call__(self, turn: Turn) -> AsyncGenerator[Yielded, None]:
        """Raises ProviderError."""
        self._model = self._model or await self._client.first_model()
        messages = _conversation(turn, self._settings.developer_role)
        prompt_tokens = completion_tokens = None  # of all rounds; None: the server does not count
        for left in reversed(range(self._settings.max_rounds)):
            request = _Round(self._client, self._body(turn, messages, last=left == 0))
            async with aclosing(request.stream()) as pieces:
                async for piece in pieces:
                    yield piece
            prompt_tokens = _sum(prompt_tokens, request.prompt_tokens)
            completion_tokens = _sum(completion_tokens, request.completion_tokens)
            if request.reason or not request.calls:
                yield Finish(request.reason or "stop", prompt_tokens, completion_tokens)
                return
            messages = _said(messages, request)
            messages += await asyncio.gather(*(_answer(turn, call) for call in request.calls))
        raise ProviderError(f"the model still calls tools after {self._settings.max_rounds} rounds")

    def _body(self, turn: Turn, messages: list[dict[str, Any]], *, last: bool) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "stream": True,
            **sampling(turn.parameters, limit_name=self._settings.limit_name),
        }
        if self._settings.stream_options:
            body["stream_options"] = {"include_usage": True}
        if effort := turn.parameters.get("reasoning_effort"):
            body["reasoning_effort"] = effort
        if turn.tools and self._settings.tools:
            body["tools"] = [_tool(tool) for tool in turn.tools]
            if last:
                body["tool_choice"] = "none"
        if self.continues and messages and messages[-1]["role"] == "assistant":
            body |= {"continue_final_message": True, "add_generation_prompt": False}  # vLLM's and SGLang's names
        return body


class _Round:
    """One request, and what came of it.

    text    what the model said, thinking in tags too: in the next round it goes back as it came
    kept    what else goes back
    reason  why the answer ends; None: it does not, or just stops
    """

    def __init__(self, client: ProviderClient, body: dict[str, Any]) -> None:
        self._client = client
        self._body = body
        self._said: list[str] = []
        self._kept: dict[str, list[Any]] = {}
        self._characters = 0
        self._ending = Ending("stop")
        self.calls = Calls()
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None

    @property
    def text(self) -> str:
        return well_formed("".join(self._said))

    @property
    def kept(self) -> dict[str, Any]:
        return {name: _joined(values) for name, values in self._kept.items()}

    @property
    def reason(self) -> FinishReason | None:
        return None if self._ending.reason == "stop" else self._ending.reason

    async def stream(self) -> AsyncGenerator[str | Thought, None]:
        """Raises ProviderError."""
        words, thoughts, tags = TextJoiner(), TextJoiner(), ThinkTags()
        async with aclosing(self._client.stream(self._body)) as chunks:
            async for chunk in chunks:
                for text, thought in self._new(chunk):
                    pieces = [Piece(thoughts.add(text), True)] if thought else tags.add(words.add(text))
                    for piece in filter(_speaks, pieces):
                        yield _yielded(piece)
        for piece in filter(_speaks, [Piece(thoughts.end(), True), *tags.add(words.end()), *tags.end()]):
            yield _yielded(piece)
        if self._ending.calls and not self.calls:
            raise ProviderError("the model asked for tools, and the server named none")
        if not all(call.name for call in self.calls):
            raise ProviderError("a tool call without a name")

    def _new(self, chunk: Chunk) -> list[Piece]:
        """What a chunk adds."""
        # some servers repeat their counts, growing, in each chunk
        self.prompt_tokens = _either(chunk.usage.prompt_tokens, self.prompt_tokens)
        self.completion_tokens = _either(chunk.usage.completion_tokens, self.completion_tokens)
        if chunk.ending and self.reason is None and (chunk.ending.reason != "stop" or not self._ending.calls):
            self._ending = chunk.ending
        if chunk.whole and self._characters:  # at the end, some repeat all that they said
            return []
        for text, thought in chunk.pieces:
            self._characters += len(text)
            if not thought:
                self._said.append(text)
        for name, value in chunk.kept.items():
            self._characters += len(value if isinstance(value, str) else repr(value))
            self._kept.setdefault(name, []).append(value)
        for call in chunk.calls:
            self._characters += len(repr(call.extra_content))
        self.calls.add(*chunk.calls)
        if self._characters > MAX_ROUND_CHARACTERS:
            raise ProviderError(f"an answer of more than {MAX_ROUND_CHARACTERS} characters")
        return chunk.pieces


def _speaks(piece: Piece) -> bool:
    return bool(piece.text)


def _yielded(piece: Piece) -> str | Thought:
    return Thought(REASONING, piece.text) if piece.thought else piece.text


def _either(new: int | None, old: int | None) -> int | None:
    return old if new is None else new


def _sum(first: int | None, second: int | None) -> int | None:
    """Of what was counted; None: nothing was."""
    return _either(first, second) if first is None or second is None else min(first + second, MAX_COUNT)


def _joined(values: list[Any]) -> Any:
    """What came in pieces, whole; where their types differ, the last."""
    if all(isinstance(value, str) for value in values):
        return "".join(values)
    if all(isinstance(value, list) for value in values):
        return [each for value in values for each in value]
    if all(isinstance(value, dict) for value in values):
        return {name: each for value in values for name, each in value.items()}
    return values[-1]


def _tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def _asked(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _asked_again(call: CallParts) -> dict[str, Any]:
    arguments = "{}" if parsed(call.arguments) == {} else call.arguments  # which may have come as null, or not at all
    asked = _asked(call.call_id, call.name, arguments)
    return asked | ({"extra_content": call.extra_content} if call.extra_content else {})


def _said(messages: list[dict[str, Any]], request: _Round) -> list[dict[str, Any]]:
    """The messages with what the model said and asked for; a message that it continued stays one."""
    text = request.text
    if messages and messages[-1]["role"] == "assistant":
        *messages, before = messages
        text = before["content"] + text
    asked = [_asked_again(call) for call in request.calls]
    return [*messages, {"role": "assistant", "content": text or None, "tool_calls": asked, **request.kept}]


def _conversation(turn: Turn, developer_role: str) -> list[dict[str, Any]]:
    """The messages; what a predecessor asked and got; what it said. (How these two interleaved is not handed over.)"""
    # a tool's message is refused without the call that it answers, which the conversation does not show
    roles = {"developer": developer_role, "tool": "user"}
    messages: list[dict[str, Any]] = [
        {"role": roles.get(message.role, message.role), "content": message.content} for message in turn.messages
    ]
    if calls := turn.history.calls:
        asked = [_asked(call.call_id, call.tool_name, json.dumps(call.arguments)) for call in calls]
        messages.append({"role": "assistant", "content": None, "tool_calls": asked})
        messages += [_result(call.call_id, call.result) for call in calls]
    if turn.history.said:
        messages.append({"role": "assistant", "content": turn.history.said})
    return messages


def _result(call_id: str, result: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": json.dumps(result, ensure_ascii=False)}


async def _answer(turn: Turn, call: CallParts) -> dict[str, Any]:
    """The message that answers a call. A model learns of its mistakes as it does of a tool's."""
    arguments = parsed(call.arguments)
    if arguments is None:
        error = {"code": "INVALID_ARGUMENTS", "message": "the arguments are not a JSON object"}
        return _result(call.call_id, {"error": error})
    try:
        return _result(call.call_id, await turn.call_tool(call.name, arguments))
    except ToolError as failure:
        return _result(call.call_id, {"error": {"code": failure.code, "message": failure.message}})


def make(settings: OpenAISettings) -> Agent:
    """An agent over the server that the settings name. Raises ConfigError: the environment's proxy cannot be used."""
    http_environment.check()
    return OpenAIAgent(settings)

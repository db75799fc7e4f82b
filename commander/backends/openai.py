"""The back-end `openai`: any server that speaks OpenAI's Chat Completions, with tool calls and reasoning."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from commander.agent import Agent, Finish, FinishReason, Thought, Tool, ToolError, Turn, Yielded
from commander.backends.completions import CallParts, Calls, Client, ProviderError, TextJoiner, Usage
from commander.backends.parameters import sampling
from commander.backends.settings import OpenAISettings
from commander.settings import CommanderSettings

REASONING = "Reasoning"

_FINISH: dict[str, FinishReason] = {"length": "length", "content_filter": "content_filter"}


class OpenAIAgent:
    """Asks, runs the tools that the model asks for, and asks again with their results, `max_rounds` times at most; in
    the last round the model is told to call none. What it reasons comes as thoughts."""

    def __init__(self, settings: OpenAISettings) -> None:
        self.continues = settings.continues
        self._settings = settings
        self._model = settings.model
        self._client = Client(settings)

    async def close(self) -> None:
        await self._client.close()

    async def __call__(self, turn: Turn) -> AsyncGenerator[Yielded, None]:
        """Raises ProviderError."""
        self._model = self._model or await self._client.first_model()
        messages = _conversation(turn)
        prompt_tokens: int | None = None  # of all rounds; None: the server does not count
        completion_tokens: int | None = None
        for left in reversed(range(self._settings.max_rounds)):
            request = _Round(self._client, self._body(turn, messages, last=left == 0))
            async with aclosing(request.stream()) as pieces:
                async for piece in pieces:
                    yield piece
            if usage := request.usage:
                prompt_tokens = (prompt_tokens or 0) + usage.prompt_tokens
                completion_tokens = (completion_tokens or 0) + usage.completion_tokens
            if request.reason or not request.calls:
                yield Finish(request.reason or "stop", prompt_tokens, completion_tokens)
                return
            messages = _said(messages, request.text, request.calls)
            messages += await asyncio.gather(*(_answer(turn, call) for call in request.calls))
        raise ProviderError(f"the model still calls tools after {self._settings.max_rounds} rounds")

    def _body(self, turn: Turn, messages: list[dict[str, Any]], *, last: bool) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            **sampling(turn.parameters),
        }
        if effort := turn.parameters.get("reasoning_effort"):
            body["reasoning_effort"] = effort
        if turn.tools:
            body["tools"] = [_tool(tool) for tool in turn.tools]
            if last:
                body["tool_choice"] = "none"
        if self.continues and messages and messages[-1]["role"] == "assistant":
            body |= {"continue_final_message": True, "add_generation_prompt": False}  # vLLM's and SGLang's names
        return body


class _Round:
    """One request, and what came of it. `reason`: why the answer ends; None: it does not, or just stops."""

    def __init__(self, client: Client, body: dict[str, Any]) -> None:
        self._client = client
        self._body = body
        self.text = ""
        self.calls = Calls()
        self.reason: FinishReason | None = None
        self.usage: Usage | None = None

    async def stream(self) -> AsyncGenerator[str | Thought, None]:
        said: list[str] = []
        content, thinking = TextJoiner(), TextJoiner()
        async with aclosing(self._client.stream(self._body)) as chunks:
            async for chunk in chunks:
                self.usage = chunk.usage or self.usage  # some servers repeat it, growing, in each chunk
                for choice in chunk.choices or ():
                    delta = choice.delta
                    if thought := thinking.add(delta.reasoning_content or delta.reasoning or ""):
                        yield Thought(REASONING, thought)
                    if text := content.add(delta.content or delta.refusal or ""):
                        said.append(text)
                        yield text
                    for call in delta.tool_calls or ():
                        self.calls.add(call)
                    self.reason = _FINISH.get(choice.finish_reason or "", self.reason)
        if thought := thinking.end():
            yield Thought(REASONING, thought)
        if text := content.end():
            said.append(text)
            yield text
        self.text = "".join(said)


def _tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def _asked(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _said(messages: list[dict[str, Any]], text: str, calls: Calls) -> list[dict[str, Any]]:
    """The messages with what the model said and asked for; a message that it continued stays one."""
    if messages and messages[-1]["role"] == "assistant":
        *messages, before = messages
        text = before["content"] + text
    asked = [_asked(call.call_id, call.name, call.arguments or "{}") for call in calls]
    return [*messages, {"role": "assistant", "content": text or None, "tool_calls": asked}]


def _conversation(turn: Turn) -> list[dict[str, Any]]:
    """The messages; what a predecessor asked and got; what it said. (How these two interleaved is not handed over.)"""
    # a tool's message is refused without the call that it answers, which the conversation does not show
    messages: list[dict[str, Any]] = [
        {"role": "user" if message.role == "tool" else message.role, "content": message.content}
        for message in turn.messages
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
    arguments = _object(call.arguments or "{}")
    if arguments is None:
        error = {"code": "INVALID_ARGUMENTS", "message": "the arguments are not a JSON object"}
        return _result(call.call_id, {"error": error})
    try:
        return _result(call.call_id, await turn.call_tool(call.name, arguments))
    except ToolError as failure:
        return _result(call.call_id, {"error": {"code": failure.code, "message": failure.message}})


def _object(text: str) -> dict[str, Any] | None:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def make(settings: CommanderSettings) -> Agent:
    """An agent over the server that the settings name."""
    return OpenAIAgent(settings.openai)

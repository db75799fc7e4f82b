"""The back-end `openai`: any server that speaks OpenAI's Chat Completions, with tool calls and reasoning."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from commander.agent import Agent, ClientCall, Feature, Finish, FinishReason, Thought, ToolError, Turn, Yielded
from commander.backends import chat
from commander.backends.calls import CallParts, Calls, parsed
from commander.backends.chat_spans import ChatSpans
from commander.backends.client import ProviderClient
from commander.backends.completions import MAX_COUNT, Chunk, Ending, Piece
from commander.backends.errors import ProviderError
from commander.backends.handed_over import HandedOver
from commander.backends.parameters import ClientChoice, choice, sampling
from commander.backends.settings import OpenAISettings
from commander.backends.texts import TextJoiner, ThinkTags
from shared import http_environment
from shared.wire import well_formed

REASONING = "Reasoning"
MAX_ROUND_CHARACTERS = 4 * 1024**2  # words and thoughts of one request's answer: all of them are kept for the next


class OpenAIAgent:
    """Asks, runs the Dispatcher's tools that the model asks for, and asks again with their results, `max_rounds` times
    at most; in the last round the model is told to call none of them. Where it asks for the client's tools alone, the
    answer ends with these calls. What it reasons comes as thoughts."""

    def __init__(self, settings: OpenAISettings) -> None:
        self.continues = settings.continues
        self.supports = _supported(settings)
        self._settings = settings
        self._model = settings.model
        self._client = ProviderClient(settings)
        self._spans = ChatSpans("openai")
        self._handed_over = HandedOver()

    async def prepare(self) -> None:
        """Raises ConfigError."""
        self._spans.open()

    async def close(self) -> None:
        await self._client.close()
        await self._spans.close()

    async def __call__(self, turn: Turn) -> AsyncGenerator[Yielded, None]:
        """Raises ProviderError, and ValueError for a `tool_choice` that cannot be read."""
        chosen = choice(turn)
        names = {tool.name for tool in chosen.tools}
        self._model = self._model or await self._client.first_model()
        messages = self._handed_over.put_back(turn.user, chat.conversation(turn, self._settings.developer_role))
        prompt_tokens = completion_tokens = None  # of all rounds; None: the server does not count
        for left in reversed(range(self._settings.max_rounds)):
            tags = ThinkTags(begun=self._settings.thinks_first)
            request = _Round(self._client, self._body(turn, chosen, messages, last=left == 0), tags)
            with self._spans.request(turn, self._model) as span:
                async with aclosing(request.stream(span.trace)) as pieces:
                    async for piece in pieces:
                        yield piece
                span.finished(request.ended, request.prompt_tokens, request.completion_tokens)
            prompt_tokens = _sum(prompt_tokens, request.prompt_tokens)
            completion_tokens = _sum(completion_tokens, request.completion_tokens)
            if request.reason or not request.calls:
                yield Finish(request.reason or "stop", prompt_tokens, completion_tokens)
                return
            calls = list(request.calls)
            clients = [call for call in calls if call.name in names]
            if clients and (len(clients) == len(calls) or left == 0):
                self._handed_over.keep(turn.user, clients, request.kept)
                yield _handed_over(prompt_tokens, completion_tokens, clients)
                return
            messages = chat.said(messages, request.text, calls, request.kept)
            messages += await asyncio.gather(*(_answer(turn, call, names) for call in calls))
        raise ProviderError(f"the model still calls tools after {self._settings.max_rounds} rounds")

    def _body(self, turn: Turn, chosen: ClientChoice, messages: list[dict[str, Any]], *, last: bool) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "stream": True,
            **sampling(turn.parameters, limit_name=self._settings.limit_name),
        }
        if self._settings.stream_options:
            body["stream_options"] = {"include_usage": True}
        for name in ("reasoning_effort", "response_format"):
            if value := turn.parameters.get(name):
                body[name] = value
        if self._settings.tools:
            body |= chat.offered(turn, chosen, last=last)
        if self.continues and chat.is_continued(messages):
            body |= {"continue_final_message": True, "add_generation_prompt": False}  # vLLM's and SGLang's names
        return body


class _Round:
    """One request, and what came of it.

    text    what the model said, thinking in tags too: in the next round it goes back as it came
    kept    what else goes back
    reason  why the answer ends; None: it does not, or just stops
    """

    def __init__(self, client: ProviderClient, body: dict[str, Any], tags: ThinkTags) -> None:
        self._client = client
        self._body = body
        self._tags = tags
        self._said: list[str] = []
        self._said_in_deltas = False
        self._speakers: set[int] = set()
        self._sounds = False
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
    def ended(self) -> str:
        """As the conventions of traces have it."""
        return "tool_call" if self.calls else self._ending.reason

    @property
    def reason(self) -> FinishReason | None:
        return None if self._ending.reason == "stop" else self._ending.reason

    async def stream(self, trace: Mapping[str, str]) -> AsyncGenerator[str | Thought, None]:
        """Raises ProviderError."""
        words, thoughts, tags = TextJoiner(), TextJoiner(), self._tags
        async with aclosing(self._client.stream(self._body, trace)) as chunks:
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
        if self._sounds and not self._said:
            raise ProviderError("the answer holds sound without its words, and nothing but words can be passed on")

    def _new(self, chunk: Chunk) -> list[Piece]:
        """What a chunk adds."""
        # some servers repeat their counts, growing, in each chunk
        self.prompt_tokens = _either(chunk.usage.prompt_tokens, self.prompt_tokens)
        self.completion_tokens = _either(chunk.usage.completion_tokens, self.completion_tokens)
        if chunk.ending and self.reason is None and (chunk.ending.reason != "stop" or not self._ending.calls):
            self._ending = chunk.ending
        self._sounds |= chunk.sounds
        self._speakers |= chunk.speakers
        if len(self._speakers) > 1:  # calls may stand in a choice of their own, as Copilot has them
            raise ProviderError("the server gives several answers at once, and one was asked for")
        pieces = self._unsaid(chunk.pieces) if chunk.whole and self._characters else chunk.pieces
        for text, thought in pieces:
            self._characters += len(text)
            if not thought:
                self._said.append(text)
                self._said_in_deltas |= not chunk.whole
        for name, value in chunk.kept.items():
            if chunk.whole and name in self._kept:
                continue
            self._characters += len(value if isinstance(value, str) else repr(value))
            self._kept.setdefault(name, []).append(value)
        if not chunk.whole or not self.calls:
            for call in chunk.calls:
                self._characters += len(repr(call.extra_content))
            self.calls.add(*chunk.calls)
        if self._characters > MAX_ROUND_CHARACTERS:
            raise ProviderError(f"an answer of more than {MAX_ROUND_CHARACTERS} characters")
        return pieces

    def _unsaid(self, pieces: list[Piece]) -> list[Piece]:
        """Of a message that is not the first thing to come. Some servers say all again at the end, others send messages
        for deltas, each with all so far or with what is new. What was said in deltas and comes otherwise is not new."""
        words, said = "".join(text for text, thought in pieces if not thought), "".join(self._said)
        if words.startswith(said):
            return [Piece(words[len(said) :])]
        return [] if self._said_in_deltas else pieces


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


def _supported(settings: OpenAISettings) -> tuple[Feature, ...]:
    features: dict[Feature, bool] = {
        "tools": settings.tools,
        "structured": settings.structured,
        "images": settings.images,
        "files": settings.files,
        "sampling": True,
        "reasoning": settings.reasoning,
    }
    return tuple(feature for feature, honoured in features.items() if honoured)


def _handed_over(prompt_tokens: int | None, completion_tokens: int | None, calls: list[CallParts]) -> Finish:
    """To the client. Raises ProviderError: more than an answer may end with."""
    try:
        handed_over = tuple(ClientCall(call.name, call.object_text, call.call_id) for call in calls)
        return Finish("tool_calls", prompt_tokens, completion_tokens, handed_over)
    except ValueError as error:
        raise ProviderError(str(error)) from None


async def _answer(turn: Turn, call: CallParts, clients: set[str]) -> dict[str, Any]:
    """The message that answers a call. A model learns of its mistakes as it does of a tool's. clients: names of the
    client's tools, whose calls were mixed with others: only these are run, for of theirs the client would not learn."""
    if call.name in clients:
        error = {"code": "NOT_CALLED", "message": "cannot be called together with the others: call it again by itself"}
        return chat.result(call.call_id, {"error": error})
    arguments = parsed(call.arguments)
    if arguments is None:
        error = {"code": "INVALID_ARGUMENTS", "message": "the arguments are not a JSON object"}
        return chat.result(call.call_id, {"error": error})
    try:
        return chat.result(call.call_id, await turn.call_tool(call.name, arguments))
    except ToolError as failure:
        return chat.result(call.call_id, {"error": {"code": failure.code, "message": failure.message}})


def make(settings: OpenAISettings) -> Agent:
    """An agent over the server that the settings name. Raises ConfigError: the environment's proxy cannot be used."""
    http_environment.check()
    return OpenAIAgent(settings)

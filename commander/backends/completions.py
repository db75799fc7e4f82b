"""One streaming request to a server that speaks OpenAI's Chat Completions."""

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any, cast

import httpx2
import msgspec

from commander.backends.settings import OpenAISettings
from shared.records import MAX_ARGUMENTS_BYTES
from shared.wire import well_formed

MAX_CALLS = 64  # of one round; no model asks for so many at once
MAX_ERROR_BYTES = 16 * 1024  # read of an answer that is no stream
MAX_ERROR_CHARACTERS = 300  # of it quoted


class ProviderError(Exception):
    """The server refused, broke off or made no sense. For operators: the text holds the status, and never the key."""


class Model(msgspec.Struct, frozen=True):
    id: str


class Models(msgspec.Struct, frozen=True):
    data: list[Model]


class Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class FunctionDelta(msgspec.Struct, frozen=True):
    name: str | None = None
    arguments: str | None = None


class CallDelta(msgspec.Struct, frozen=True):
    index: int | None = None
    id: str | None = None
    function: FunctionDelta = FunctionDelta()


class Delta(msgspec.Struct, frozen=True):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None  # DeepSeek, vLLM, llama.cpp
    reasoning: str | None = None  # OpenRouter, Ollama
    tool_calls: list[CallDelta] | None = None


class Choice(msgspec.Struct, frozen=True):
    delta: Delta = Delta()
    finish_reason: str | None = None


class Chunk(msgspec.Struct, frozen=True):
    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None


class CallParts:
    """A tool call, as its deltas have put it together so far."""

    def __init__(self, call_id: str) -> None:
        self.call_id = call_id
        self.name = ""
        self._arguments: list[str] = []
        self._length = 0

    @property
    def arguments(self) -> str:
        return "".join(self._arguments)

    def add(self, part: FunctionDelta) -> None:
        self.name += part.name or ""
        self._arguments.append(part.arguments or "")
        self._length += len(self._arguments[-1])
        if self._length > MAX_ARGUMENTS_BYTES or len(self.name) > MAX_ARGUMENTS_BYTES:
            raise ProviderError(f"a tool call of more than {MAX_ARGUMENTS_BYTES} characters")


class Calls:
    """The tool calls of one round. Deltas name theirs by index; where a server gives none, an id begins the next."""

    def __init__(self) -> None:
        self._calls: dict[int, CallParts] = {}

    def __iter__(self) -> Iterator[CallParts]:
        return (self._calls[index] for index in sorted(self._calls))

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, delta: CallDelta) -> None:
        index = delta.index
        if index is None:
            last = max(self._calls, default=-1)
            begins = not self._calls or (delta.id and delta.id != self._calls[last].call_id)
            index = last + 1 if begins else last
        if index not in self._calls:
            if len(self._calls) == MAX_CALLS:
                raise ProviderError(f"more than {MAX_CALLS} tool calls at once")
            self._calls[index] = CallParts(delta.id or f"call_{index}")
        self._calls[index].add(delta.function)


class TextJoiner:
    """Joins a character that a server has split over two deltas (the halves of a UTF-16 pair)."""

    def __init__(self) -> None:
        self._half = ""

    def add(self, text: str) -> str:
        text = self._half + text
        self._half = text[-1] if text and "\ud800" <= text[-1] <= "\udbff" else ""
        return well_formed(text[: len(text) - len(self._half)])

    def end(self) -> str:
        half, self._half = self._half, ""
        return well_formed(half)


class Client:
    """Connections are never kept: one that is closed, at its end or by a stop, is closed for the server too."""

    def __init__(self, settings: OpenAISettings) -> None:
        self._base = str(settings.base_url).rstrip("/")
        self._key = settings.api_key.get_secret_value() if settings.api_key else ""
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}  # compression would hold tokens back
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._http = httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(settings.silence_seconds, connect=settings.connect_seconds),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def first_model(self) -> str:
        """The name of the first model that the server lists. Raises ProviderError."""
        try:
            async with self._http.stream(
                "GET", f"{self._base}/models", headers={"Accept": "application/json"}
            ) as response:
                if response.status_code != httpx2.codes.OK:
                    raise ProviderError(await self._refusal(response))
                listed = msgspec.json.decode(await response.aread(), type=Models).data
        except httpx2.HTTPError as error:
            raise ProviderError(self._quoted(f"{type(error).__name__}: {error}")) from None
        except msgspec.DecodeError as error:
            raise ProviderError(f"a list of models that cannot be read: {type(error).__name__}") from None
        if not listed:
            raise ProviderError("the server lists no model; name one: COMMANDER_OPENAI__MODEL")
        return listed[0].id

    async def stream(self, body: dict[str, Any]) -> AsyncGenerator[Chunk, None]:
        """The chunks of one completion, to its end. Closing the generator closes the connection. Raises ProviderError,
        also where the stream ends without saying so."""
        try:
            async with self._http.stream("POST", f"{self._base}/chat/completions", json=body) as response:
                if response.status_code != httpx2.codes.OK:
                    raise ProviderError(await self._refusal(response))
                response.encoding = "utf-8"  # as server-sent events always are
                finished = False
                # an async generator, though its annotation says less
                events = cast("AsyncGenerator[httpx2.ServerSentEvent, None]", aiter(httpx2.EventSource(response)))
                async with aclosing(events):
                    async for event in events:
                        if event.data == "[DONE]":
                            return
                        chunk = self._parsed(event.data)
                        finished = finished or any(choice.finish_reason for choice in chunk.choices or ())
                        yield chunk
                if not finished:
                    raise ProviderError("the server ended the stream before the answer was finished")
        except httpx2.HTTPError as error:
            raise ProviderError(self._quoted(f"{type(error).__name__}: {error}")) from None

    def _parsed(self, data: str) -> Chunk:
        try:
            chunk = msgspec.convert(json.loads(data), Chunk)
        except (ValueError, RecursionError) as error:  # msgspec's errors and json's are ValueErrors
            raise ProviderError(f"a chunk that cannot be read: {type(error).__name__}") from None
        if chunk.error:
            raise ProviderError(self._quoted(f"error in mid-stream: {_message(chunk.error)}"))
        return chunk

    async def _refusal(self, response: httpx2.Response) -> str:
        text = b""
        async for part in response.aiter_bytes():
            text += part
            if len(text) >= MAX_ERROR_BYTES:
                break
        try:
            reason = _message(json.loads(text).get("error"))
        except (ValueError, AttributeError, RecursionError):
            reason = text.decode(errors="replace")
        return self._quoted(f"status {response.status_code} {response.reason_phrase}: {reason}")

    def _quoted(self, text: str) -> str:
        if self._key:
            text = text.replace(self._key, "[key]")
        return " ".join(text.split())[:MAX_ERROR_CHARACTERS]


def _message(error: object) -> str:
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)

"""Requests to a server that speaks OpenAI's Chat Completions, through the package `openai`.

The package makes the requests, repeats those that were refused for the moment or never answered, and knows errors by
their status. The HTTP client under it is ours, and so is the reading of streams: the package's takes fewer shapes.
"""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, cast
from urllib.parse import unquote

import httpx2
import openai

from commander.backends.completions import Chunk, chunks, is_sign_of_life
from commander.backends.errors import ProviderError, Quoting, message
from commander.backends.http_client import HttpClient, compressed
from commander.backends.settings import OpenAISettings
from commander.backends.sse import BOM, Decoder, Event

SLICE_BYTES = 4096  # read before the loop gets a turn
MAX_WHOLE_BYTES = 4 * 1024 * 1024  # of an answer that is no stream
DONE = "[DONE]"
ERRORS = ("error", "exception")  # the names of events that are one
USAGE_SECONDS = 5.0  # after the end of an answer: what counts it may come behind

_SECRETS = ("key", "token", "secret", "sig", "code")  # within a query parameter's name: its value is one


class ProviderClient:
    """What it raises quotes the server, without the key."""

    def __init__(self, settings: OpenAISettings) -> None:
        url, key = settings.base_url, settings.api_key
        query = dict(url.query_params())
        secrets = [value for name, value in query.items() if any(word in name.lower() for word in _SECRETS)]
        self._quoted = Quoting(key.get_secret_value() if key else "", unquote(url.password or ""), *secrets)
        self._silence = settings.silence_seconds
        self._http = HttpClient(settings)
        self._openai = openai.AsyncOpenAI(
            api_key="in the HTTP client's headers",
            base_url=str(url).partition("?")[0],
            default_query=query,
            max_retries=settings.retries,
            http_client=self._http,
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def first_model(self) -> str:
        """The name of the first model that the server lists. Raises ProviderError."""
        with self._telling():
            response = await self._openai.get("/models", cast_to=httpx2.Response)
            if name := next(_models(response.content), None):
                return name
        raise ProviderError("the server lists no model; name one: COMMANDER_OPENAI__MODEL")

    async def stream(self, body: dict[str, Any], trace: Mapping[str, str] = {}) -> AsyncGenerator[Chunk, None]:
        """The chunks of one completion, to its end. Closing the generator closes the connection. Raises ProviderError,
        also where the stream ends without saying so."""
        content = json.dumps(body).encode()  # ASCII: a lone surrogate, which a model may write, has no other form
        with self._telling():
            answer = await self._openai.post(
                "/chat/completions",
                content=content,
                options={"headers": trace} if trace else {},
                cast_to=httpx2.Response,
                stream=True,
                stream_cls=openai.AsyncStream[object],
            )
            response = cast("httpx2.Response", answer)  # asked for that class, the package hands it on as it is
            try:
                async with aclosing(_Answer(response, self._silence).chunks()) as found:
                    async for chunk in found:
                        yield chunk
            finally:
                await response.aclose()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Whatever goes wrong is a ProviderError, fit for a log."""
        try:
            yield
        except openai.APIStatusError as error:
            why = _refusal(error.response)
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            why = f"{type(cause).__name__}: {cause}"
        except (httpx2.HTTPError, ssl.SSLError) as error:
            why = f"{type(error).__name__}: {error}"
        except ProviderError as error:
            why = str(error)
        else:
            return
        raise ProviderError(self._quoted(why.removesuffix(": "))) from None


class _Answer:
    """One answer, a stream or whole: how far it is read, and how long it is waited for.

    Silence is counted by what is said: a server that sends signs of life and nothing else is silent.
    """

    def __init__(self, response: httpx2.Response, silence: float) -> None:
        self._response = response
        self._silence = silence
        self._deadline = asyncio.get_running_loop().time() + silence
        self._spoke = False
        self._ended = False  # it is whole; counts may follow
        self._went_on = False  # with words behind a reason why it ends: only the end of the stream is its end

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """Raises ProviderError and what httpx2 raises."""
        if wrong := compressed(self._response):
            raise ProviderError(wrong)
        async with aclosing(self._events()) as events:
            async for event in events:
                data = event.data.strip()
                if event.name in ERRORS:
                    raise ProviderError(f"the server reports an error: {message(_json(data) or data)}")
                if is_sign_of_life(event.name):
                    continue
                if _is_done(data):
                    self._ended = self._ended or self._spoke
                    break
                for chunk in chunks(data) if data else ():
                    yield chunk
                    if chunk.failure:
                        raise ProviderError(chunk.failure)
                    self._heard(chunk)
        if not self._ended:
            raise ProviderError("the server ended the stream before the answer was finished")

    def _heard(self, chunk: Chunk) -> None:
        if chunk.speaks:
            self._spoke = True
            self._went_on |= self._ended and not chunk.whole and any(piece.text for piece in chunk.pieces)
            self._ended = self._ended or chunk.ending is not None
            wait = self._silence if self._went_on or not self._ended else min(self._silence, USAGE_SECONDS)
            self._deadline = asyncio.get_running_loop().time() + wait

    async def _events(self) -> AsyncGenerator[Event, None]:
        """A stream's events, whatever type it says it has; what begins as JSON is read to its end first."""
        decoder, head, whole, any_event = Decoder(), b"", bytearray(), False
        async with aclosing(self._parts()) as parts:
            async for each in parts:
                part = each if head else each.removeprefix(BOM).lstrip()
                head = head or part
                if head[:1] in (b"{", b"["):
                    whole += part
                    if len(whole) > MAX_WHOLE_BYTES:
                        raise ProviderError(f"an answer of more than {MAX_WHOLE_BYTES} bytes that is no stream")
                    continue
                for event in decoder.feed(part):
                    any_event = True
                    yield event
        for event in _last(decoder, bytes(whole)):
            any_event = True
            yield event
        if head and not any_event:
            kind = self._response.headers.get("content-type", "of no type")
            raise ProviderError(f"neither text/event-stream nor JSON but {kind}: {head.decode(errors='replace')}")

    async def _parts(self) -> AsyncGenerator[bytes, None]:
        """What comes, in slices; the loop has a turn after each."""
        async with aclosing(self._response.aiter_raw()) as parts:
            while part := await self._next(parts):
                for start in range(0, len(part), SLICE_BYTES):
                    yield part[start : start + SLICE_BYTES]
                    await asyncio.sleep(0)

    async def _next(self, parts: AsyncGenerator[bytes, None]) -> bytes:
        """Empty: nothing more comes. After the end of the answer that may be so because the line was cut."""
        try:
            async with asyncio.timeout_at(self._deadline):
                return await anext(parts, b"")
        except (TimeoutError, httpx2.TransportError) as error:
            if self._ended and not self._went_on:
                return b""
            if isinstance(error, TimeoutError):
                raise ProviderError(f"ReadTimeout: nothing was said for {self._silence:g} s") from None
            raise


def _last(decoder: Decoder, whole: bytes) -> list[Event]:
    """The events at the end: a whole answer, lines of JSON, or a last event whose end is missing, unless it was cut."""
    text = whole.decode(errors="replace")
    if _json(text) is not None:
        return [Event("", text), Event("", DONE)]
    events = [*decoder.feed(whole), *decoder.end()]
    return [event for event in events if event.name in ERRORS or _is_whole(event.data.strip())]


def _is_done(data: str) -> bool:
    return data.lstrip('"').upper().startswith(DONE)


def _is_whole(data: str) -> bool:
    return not data or _is_done(data) or _json(data) is not None


def _json(text: str | bytes) -> Any:
    """None: it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _models(content: bytes) -> Iterator[str]:
    """The names in a list of models: OpenAI's form, a bare array, or with null in the places of some. Raises
    ProviderError."""
    found = _json(content)
    if isinstance(found, dict):
        if found.get("error"):
            raise ProviderError(f"the server reports an error: {message(found)}")
        found = found.get("data") or found.get("models") or []
    if not isinstance(found, list):
        raise ProviderError("a list of models that cannot be read")
    for model in found:
        name = model.get("id") or model.get("name") or model.get("model") if isinstance(model, dict) else model
        if isinstance(name, str) and name:
            yield name


def _refusal(response: httpx2.Response) -> str:
    status = f"status {response.status_code} {response.reason_phrase}".rstrip()
    if "location" in response.headers:
        status += f", to {response.headers['location']}"
    text = response.content.decode(errors="replace")
    return f"{status}: {message(_json(text) or text)}"

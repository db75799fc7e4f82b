"""The OpenAI subset: models, and chat completions, streamed and not. A completion is a session seen through its log."""

import hashlib
import time
from collections.abc import Iterable
from functools import partial
from io import StringIO
from typing import Annotated, Any

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Send

from dispatcher.core.entries import Entry
from dispatcher.core.log import Record, Request
from dispatcher.gateway import bodies, idempotency, sse
from dispatcher.gateway.answers import Answers, Json, Last
from dispatcher.gateway.audited import note
from dispatcher.gateway.callers import caller_of, token_of
from dispatcher.gateway.client_tools import ChatTool, ToolChoice, functions_of, parameters_of, tools_of
from dispatcher.gateway.errors import HttpError, json_response, shutting_down
from dispatcher.gateway.fields import CHAT, FieldCheck
from dispatcher.gateway.formats import ChatFormat
from dispatcher.gateway.ports import Sessions
from dispatcher.gateway.views import (
    FinalEvent,
    UserApproval,
    UserContent,
    UserFailed,
    UserFinished,
    UserToolCall,
    UserToolResult,
    asked_bytes,
    incomplete,
    openai_end,
    shown,
    usage_of,
    user_failure,
)
from dispatcher.metrics import Metrics

DONE = b"data: [DONE]\n\n"


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class ChatBody(msgspec.Struct, frozen=True):
    """What is read of `fields.CHAT`. Fields from `temperature` on become the session's parameters by the same names,
    but for `tools`, or what their types make of them.
    """

    model: bodies.Name
    messages: list[bodies.ChatMessage]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    response_format: ChatFormat | None = None
    reasoning_effort: str | None = None
    tools: list[ChatTool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None


PARAMETERS = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
    "reasoning_effort",
)


class OpenAIRoutes:
    def __init__(self, sessions: Sessions, answers: Answers, taken: bodies.Bodies, metrics: Metrics) -> None:
        self._sessions, self._answers, self._bodies = sessions, answers, taken
        self._check = FieldCheck(CHAT, partial(metrics.unknown_parameters, "chat_completions"))
        self.routes = [
            Route("/v1/models", self._models, methods=["GET"]),
            Route("/v1/models/{model:path}", self._model, methods=["GET"]),
            Route("/v1/chat/completions", self._complete, methods=["POST"]),
        ]

    async def _models(self, http: HttpRequest) -> Response:
        may_use = caller_of(http).may_use
        models = [_model_object(name) for name in await self._sessions.agents() if may_use(name)]
        return json_response(200, {"object": "list", "data": models})

    async def _model(self, http: HttpRequest) -> Response:
        name = http.path_params["model"]
        await self._answers.require(name, caller_of(http))
        return json_response(200, _model_object(name))

    async def _complete(self, http: HttpRequest) -> sse.RawAnswer:
        needs: dict[str, str] = {}
        body = await self._bodies.take(http, ChatBody, check=partial(self._check, needs=needs))
        caller = caller_of(http)
        honoured = await self._answers.require(body.model, caller, needs)
        messages = bodies.messages(body.messages)
        tools = tools_of(functions_of(body.tools), self._sessions.registry.offered(body.model))
        parameters = _parameters(body) | parameters_of(body.tool_choice, body.parallel_tool_calls, tools)
        request = Request(
            agent=body.model,
            messages=messages,
            created_at=time.time(),
            parameters_json=bodies.parameters_json(parameters),
            traceparent=bodies.traceparent(http),
            tracestate=bodies.tracestate(http),
            tenant=caller.tenant,
            subject=caller.subject,
            claims=caller.claims,
            tools=tools,
            needs=honoured,
        )
        usage = bool(body.stream_options and body.stream_options.include_usage)
        key = idempotency.key_of(http, request, "chat", bool(body.stream), usage)
        record = idempotency.record_of(await self._sessions.create(request, key, token_of(http)))
        note(http, session_id=record.session_id)
        return sse.RawAnswer(self._answer, Completion(record, usage), bool(body.stream), key is None)

    async def _answer(
        self, completion: "Completion", streamed: bool, stop_when_left: bool, receive: Receive, send: Send
    ) -> None:
        """Leaving a completion before its end stops the session, unless the server drains or it may be asked again."""
        sending = (
            StreamedCompletion(completion, send)
            if streamed
            else WholeCompletion(completion, Json(send, self._answers.early, completion.headers))
        )
        await self._answers.send(completion.session_id, sending, receive, stop_when_left=stop_when_left)


def said(entries: Iterable[Entry]) -> tuple[list[str], FinalEvent | None]:
    """What these entries let the user read, and the session's end if it is among them. Tools do not show."""
    text: list[str] = []
    for _, event in shown(entries, _no_tool):
        match event:
            case UserContent(text=piece):
                text.append(piece)
            case UserToolCall() | UserApproval() | UserToolResult():
                pass
            case final:
                return text, openai_end(final)
    return text, None


def _no_tool(_: str) -> bool:
    return False


class Completion:
    """The objects of one completion. Its id does not tell the session's, which would let whoever reads it stop the
    session.
    """

    def __init__(self, record: Record, include_usage: bool) -> None:
        self.session_id, self.model = record.session_id, record.request.agent
        self.id = f"chatcmpl-{hashlib.sha256(record.session_id.encode()).hexdigest()[:32]}"
        self.created = int(record.request.created_at)
        self.include_usage = include_usage
        self._asked, self._answered = asked_bytes(record.request), 0  # bytes: nothing of either is kept

    def take(self, entries: Iterable[Entry]) -> tuple[list[str], FinalEvent | None]:
        """What these entries let the user read, and the session's end if it is among them."""
        text, final = said(entries)
        self._answered += sum(len(piece.encode()) for piece in text)
        return text, final

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}

    def chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk = self._object("chat.completion.chunk", [choice])
        if self.include_usage:
            chunk["usage"] = None
        return _data(chunk)

    def usage_chunk(self, final: FinalEvent) -> bytes:
        return _data(self._object("chat.completion.chunk", []) | {"usage": self._usage(final)})

    def whole(self, text: str, final: FinalEvent) -> bytes:
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if calls := _calls(final):
            message |= {"content": text or None, "tool_calls": calls}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(final)}
        return msgspec.json.encode(self._object("chat.completion", [choice]) | {"usage": self._usage(final)})

    def _usage(self, final: FinalEvent) -> dict[str, object]:
        usage = usage_of(final, self._asked, self._answered)
        total = usage.prompt_tokens + usage.completion_tokens
        counts = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
        return {**counts, "total_tokens": total, **({"estimated": True} if usage.estimated else {})}

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"x-session-id", self.session_id.encode())]

    def failure(self, failed: UserFailed) -> HttpError:
        """Before the first byte. An agent's error is 502; that no agent was free is no agent's error."""
        status = 503 if failed.code in ("no_commander", "shutdown") else 502
        return HttpError(status, failed.message, code=failed.code, headers={"x-session-id": self.session_id})


class StreamedCompletion:
    """Sends a completion as chunks. Nothing is sent before the first text, so that a failure can still be a status; but
    for KEEP_ALIVE_SECONDS at most, for then a proxy may cut.
    """

    streamed = True

    def __init__(self, completion: Completion, send: Send) -> None:
        self._completion, self._send = completion, send
        self._started = False

    async def begin(self) -> None:
        """What comes first may be an error."""

    async def take(self, entries: list[Entry]) -> Last | None:
        text, final = self._completion.take(entries)
        for piece in text:
            await self._start()
            await sse.write(self._send, self._completion.chunk({"content": piece}))
        return partial(self._end, final) if final else None

    async def _end(self, final: FinalEvent) -> None:
        if isinstance(final, UserFailed):
            await self._fail(self._completion.failure(final))
            return
        await self._start()
        calls = [{"index": n, **call} for n, call in enumerate(_calls(final))]
        data = self._completion.chunk({"tool_calls": calls}) if calls else b""
        data += self._completion.chunk({}, _finish_reason(final))
        if self._completion.include_usage:
            data += self._completion.usage_chunk(final)
        await sse.write(self._send, data + DONE, last=True)

    async def silence(self) -> None:
        await self._start()

    async def lost(self) -> None:
        await self._fail(self._completion.failure(user_failure("data_loss")))

    async def interrupted(self) -> None:
        await self._fail(shutting_down(self._completion.session_id))

    async def _start(self) -> None:
        if not self._started:
            self._started = True
            await sse.start(self._send, self._completion.headers)
            await sse.write(self._send, self._completion.chunk({"role": "assistant", "content": ""}))

    async def _fail(self, error: HttpError) -> None:
        if not self._started:
            raise error
        await sse.end(self._send, b"data: %b\n\n" % error.body + DONE)


class WholeCompletion:
    """Collects a completion and sends it as one JSON object."""

    streamed = False

    def __init__(self, completion: Completion, json: Json) -> None:
        self._completion, self._json = completion, json
        self._text = StringIO()

    async def begin(self) -> None:
        """HTTP has nothing to send before the answer."""

    async def take(self, entries: list[Entry]) -> Last | None:
        text, final = self._completion.take(entries)
        self._text.writelines(text)
        return partial(self._end, final) if final else None

    async def _end(self, final: FinalEvent) -> None:
        if isinstance(final, UserFailed):
            await self._json.fail(self._completion.failure(final))
        else:
            await self._json.end(self._completion.whole(self._text.getvalue(), final))

    async def silence(self) -> None:
        await self._json.silence()

    async def lost(self) -> None:
        await self._json.fail(self._completion.failure(user_failure("data_loss")))

    async def interrupted(self) -> None:
        await self._json.fail(shutting_down(self._completion.session_id))


def _finish_reason(final: FinalEvent) -> str:
    return incomplete(final) or (final.finish_reason if isinstance(final, UserFinished) else "stop")


def _calls(final: FinalEvent) -> list[dict[str, Any]]:
    """Of the client's tools."""
    calls = final.calls if isinstance(final, UserFinished) else ()
    return [
        {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in calls
    ]


def _parameters(body: ChatBody) -> dict[str, Any]:
    parameters = {name: value for name in PARAMETERS if (value := getattr(body, name)) is not None}
    if body.response_format:
        parameters |= body.response_format.parameters("response_format")
    if body.max_completion_tokens:  # some models refuse the one name, some servers the other: it goes on as it was used
        return parameters | {"max_completion_tokens": body.max_completion_tokens}
    return parameters | ({"max_tokens": body.max_tokens} if body.max_tokens else {})


def _model_object(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "midsentence"}


def _data(content: object) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(content)

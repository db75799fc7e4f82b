"""OpenAI's response object and its events: a pure function of a session's log, ids and times included.

The entry at offset n makes the events from `sequence_number` n * STRIDE on; 0 and 1 are known before the log begins.
So whoever reads the log, at any replica and at any time, makes the same events to the byte, and a reader that has seen
one of them has seen all that come before it.
"""

from collections.abc import Collection
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import replace

from dispatcher.core.entries import Entry
from dispatcher.core.log import Record
from dispatcher.gateway.namespaces import apart, full_name, grouped
from dispatcher.gateway.views import (
    FinalEvent,
    UserContent,
    UserFailed,
    UserFinished,
    UserStopped,
    UserUsage,
    asked_bytes,
    incomplete,
    openai_end,
    usage_of,
    user_event,
)
from shared.records import MAX_CLIENT_CALLS, ClientCall, Message, Tool

STRIDE = 16  # sequence numbers of an entry, of which 4 are used at most, but by the last, after which none follow
LAST_EVENTS = 4 * (MAX_CLIENT_CALLS + 1)  # of the last entry: of each call, and of the text and the response
ID_PREFIX = "resp_"

Object: TypeAlias = dict[str, Any]


class Echo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a response's object shows again of its request, beside what agents get: `Request.shown_json`. instructions:
    whether the first message is these. earlier: messages after that which come from other responses, `links` of them.
    store: it can be asked for later. prepared: nobody is asked, it is there to go on from. namespaces: of its tools, by
    name what was said of them.
    """

    metadata: dict[str, str] = {}
    instructions: bool = False
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    previous_response_id: str | None = None
    store: bool = True
    earlier: int = 0
    links: int = 0
    prepared: bool = False
    namespaces: dict[str, str] = {}


class ResponseView:
    """One response, as the entries that were taken in show it. It has one message with one part, once there is text.

    told: to a reader who may stay for long: of what was asked it keeps the instructions alone, which are shown again.
    """

    def __init__(self, record: Record, told: bool = False) -> None:
        request = record.request
        self.echo = msgspec.json.decode(request.shown_json or "{}", type=Echo)
        self._asked = asked_bytes(request)
        self._request = replace(request, messages=request.messages[: self.echo.instructions]) if told else request
        self.session_id = record.session_id
        self.id, self._item_id = f"{ID_PREFIX}{record.session_id}", f"msg_{record.session_id}"
        self._texts: list[str] = []
        self._final: FinalEvent | None = None
        self._ended_at = 0.0

    @property
    def ended(self) -> bool:
        return self._final is not None

    @property
    def failed(self) -> bool:
        return isinstance(self._final, UserFailed)

    @property
    def asked(self) -> tuple[Message, ...]:
        """With what stands before it, and without the instructions."""
        return self._request.messages[self.echo.instructions :]

    @property
    def size(self) -> int:
        """Bytes of what it was asked with and says."""
        return len(msgspec.json.encode((self._request.messages, self._texts)))

    def begin(self) -> list[Object]:
        """The events before the log's first entry."""
        response = self.response()
        return _numbered(
            0, ("response.created", {"response": response}), ("response.in_progress", {"response": response})
        )

    def take(self, entry: Entry) -> list[Object]:
        """The events that the next entry makes. What follows the session's end makes none."""
        if self._final:
            return []
        match user_event(entry, _no_tool):
            case UserContent(text=text):
                return _numbered(entry.offset, *self._say(text))
            case UserStopped() | UserFailed() | UserFinished() as final:
                self._final, self._ended_at = openai_end(final), entry.at
                return _numbered(entry.offset, *self._end())
        return []

    def response(self, live_status: str = "in_progress") -> Object:
        """The object. live_status: shown while the session has not ended."""
        status, reason = _outcome(self._final) if self._final else (live_status, None)
        failed = self._final if isinstance(self._final, UserFailed) else None
        request, shown = self._request, self.echo
        asked = msgspec.json.decode(request.parameters_json or "{}")
        effort = asked.get("reasoning_effort")
        return {
            "id": self.id,
            "object": "response",
            "created_at": int(request.created_at),
            "completed_at": int(self._ended_at) if status == "completed" else None,
            "status": status,
            "background": request.background,
            "error": _error(failed) if failed else None,
            "incomplete_details": {"reason": reason} if reason else None,
            "instructions": request.messages[0].content if shown.instructions else None,
            "max_output_tokens": asked.get("max_tokens"),
            "max_tool_calls": None,
            "metadata": shown.metadata,
            "model": request.agent,
            "output": ([self._item()] if self._texts else []) + self._calls(),
            "parallel_tool_calls": asked.get("parallel_tool_calls", True),
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "previous_response_id": shown.previous_response_id,
            "prompt_cache_key": shown.prompt_cache_key,
            "reasoning": {"effort": effort, "summary": None} if effort else None,
            "safety_identifier": shown.safety_identifier,
            "service_tier": "default",
            "store": shown.store,
            "temperature": asked.get("temperature", 1.0),
            "text": {"format": _text_format(asked)},
            "tool_choice": _choice(asked.get("tool_choice", "auto"), self.echo.namespaces),
            "tools": grouped([_tool(tool) for tool in request.tools], shown.namespaces),
            "top_logprobs": 0,
            "top_p": asked.get("top_p", 1.0),
            "truncation": "disabled",
            "usage": _usage(self._used(self._final)) if self._final else None,
        }

    def _used(self, final: FinalEvent) -> UserUsage:
        if self.echo.prepared:
            return UserUsage()
        return usage_of(final, self._asked, sum(len(text.encode()) for text in self._texts))

    def output(self) -> list[tuple[str, Message]]:
        """The items of the answer so far, each as the message that a later request has of it."""
        text = [(self._item_id, Message("assistant", "".join(self._texts)))] if self._texts else []
        calls = (
            (item["id"], ClientCall(item["call_id"], full_name(item.get("namespace"), item["name"]), item["arguments"]))
            for item in self._calls()
        )
        return [*text, *((item_id, Message("assistant", "", (call,))) for item_id, call in calls)]

    def input(self) -> list[tuple[str, Message]]:
        """The items that it was asked with, without those of other responses; a message and each call is one."""
        items: list[Message] = []
        for message in self._request.messages[self.echo.instructions + self.echo.earlier :]:
            if message.content or not message.tool_calls:
                items.append(replace(message, tool_calls=()))
            items += (Message("assistant", "", (call,)) for call in message.tool_calls)
        return [(f"in_{n}_{self.session_id}", item) for n, item in enumerate(items)]

    def _say(self, text: str) -> list[tuple[str, Object]]:
        events: list[tuple[str, Object]] = []
        if not self._texts:
            item = self._item() | {"content": []}
            events.append(("response.output_item.added", {"output_index": 0, "item": item}))
            events.append(("response.content_part.added", self._place() | {"part": _part("")}))
        self._texts.append(text)
        events.append(("response.output_text.delta", self._place() | {"delta": text, "logprobs": []}))
        return events

    def _end(self) -> list[tuple[str, Object]]:
        events: list[tuple[str, Object]] = []
        response = self.response()
        if self._texts:
            item = response["output"][0]
            (part,) = item["content"]
            events.append(("response.output_text.done", self._place() | {"text": part["text"], "logprobs": []}))
            events.append(("response.content_part.done", self._place() | {"part": part}))
            events.append(("response.output_item.done", {"output_index": 0, "item": item}))
        for n, item in enumerate(response["output"]):
            if item["type"] == "function_call":
                events += _called(n, item)
        kind = "failed" if response["status"] == "cancelled" else response["status"]
        return [*events, (f"response.{kind}", {"response": response})]

    def _item(self) -> Object:
        status = "in_progress"
        if self._final:
            status = "completed" if _outcome(self._final)[0] == "completed" else "incomplete"
        content = [_part("".join(self._texts))]
        return {"id": self._item_id, "type": "message", "status": status, "role": "assistant", "content": content}

    def _calls(self) -> list[Object]:
        """Of the client's tools: items, one after the other."""
        calls = self._final.calls if isinstance(self._final, UserFinished) else ()
        return [
            {
                "id": f"fc_{n}_{self.session_id}",
                "type": "function_call",
                "status": "completed",
                "call_id": call.call_id,
                **apart(call.name, self.echo.namespaces),
                "arguments": call.arguments,
            }
            for n, call in enumerate(calls)
        ]

    def _place(self) -> Object:
        return {"item_id": self._item_id, "output_index": 0, "content_index": 0}


def input_item(item_id: str, message: Message, namespaces: Collection[str]) -> Object:
    """An item of `ResponseView.input`, as it is listed."""
    place = {"id": item_id, "status": "completed"}
    if message.tool_calls:
        (call,) = message.tool_calls
        called = {"call_id": call.call_id, **apart(call.name, namespaces), "arguments": call.arguments_json}
        return {"type": "function_call", **place, **called}
    if message.role == "tool":
        named = apart(message.name, namespaces) if message.name else {}
        called = {"call_id": message.tool_call_id} if message.tool_call_id else {}
        return {"type": "function_call_output", **place, **called, **named, "output": message.content}
    if message.role == "assistant":
        phase = {"phase": message.phase} if message.phase else {}
        return {"type": "message", **place, "role": message.role, "content": [_part(message.content)], **phase}
    text = {"type": "text", "text": message.content}
    parts = map(_input_part, msgspec.json.decode(message.parts_json) if message.parts_json else [text])
    return {"type": "message", **place, "role": message.role, "content": list(parts)}


def _input_part(part: Object) -> Object:
    """A part as Responses have it."""
    match part:
        case {"type": "image_url", "image_url": image}:
            return {"type": "input_image", "image_url": image["url"], "detail": image.get("detail", "auto")}
        case {"type": "file", "file": file}:
            return {"type": "input_file", **file}
        case {"type": "text", "text": text}:
            return {"type": "input_text", "text": text}
    return part


def _called(output_index: int, item: Object) -> list[tuple[str, Object]]:
    """The events of a call, whose arguments come whole."""
    place = {"item_id": item["id"], "output_index": output_index}
    begun = item | {"status": "in_progress", "arguments": ""}
    return [
        ("response.output_item.added", {"output_index": output_index, "item": begun}),
        ("response.function_call_arguments.delta", place | {"delta": item["arguments"]}),
        ("response.function_call_arguments.done", place | {"name": item["name"], "arguments": item["arguments"]}),
        ("response.output_item.done", {"output_index": output_index, "item": item}),
    ]


def _tool(tool: Tool) -> Object:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description or None,
        "parameters": msgspec.json.decode(tool.parameters_json_schema),
        "strict": tool.strict,
    }


def _choice(choice: Any, namespaces: Collection[str]) -> Any:
    """A choice among tools as Responses have it: a level less deep."""
    match choice:
        case {"type": "function", "function": {"name": name}}:
            return {"type": "function", "name": ".".join(apart(name, namespaces).values())}
        case {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}:
            return {"type": "allowed_tools", "mode": mode, "tools": [_choice(tool, namespaces) for tool in tools]}
    return choice


def _text_format(parameters: dict[str, Any]) -> dict[str, Any]:
    """The form that was asked for, a level less deep than on Chat Completions."""
    match parameters.get("response_format"):
        case {"type": "json_schema", "json_schema": dict() as asked}:
            return {"type": "json_schema", "description": None, "strict": False} | asked
        case {"type": "json_object"}:
            return {"type": "json_object"}
    return {"type": "text"}


def _numbered(offset: int, *events: tuple[str, Object]) -> list[Object]:
    first = offset * STRIDE
    return [{"type": kind, "sequence_number": first + n} | fields for n, (kind, fields) in enumerate(events)]


def _outcome(final: FinalEvent) -> tuple[str, str | None]:
    """A response's status, and why it is incomplete if it is."""
    if reason := incomplete(final):
        return "incomplete", "max_output_tokens" if reason == "length" else reason
    match final:
        case UserFinished():
            return "completed", None
        case UserStopped():
            return "cancelled", None
        case UserFailed():
            return "failed", None


def _error(failed: UserFailed) -> Object:
    """With all that an error with a status has: the AI SDK reads none without `type`."""
    return {"type": "server_error", "code": failed.code, "message": failed.message, "param": None}


def _part(text: str) -> Object:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(usage: UserUsage) -> Object:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        **({"estimated": True} if usage.estimated else {}),
    }


def _no_tool(_: str) -> bool:
    return False

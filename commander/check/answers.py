"""What the metered provider answers, token by token, in the forms of OpenAI's API that agents use. Pure.

Each form: `begin()` opens the stream, `token(text)` carries one token, `call()` is the call of the check's tool,
`end(tokens)` closes it, each as bytes of server-sent events; `whole(text, tokens)` is the answer to a request that does
not stream. `asked` says what is to be answered in place of the tale.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

MODEL = "metered"
TOOL, SCHEMA = "weather", "place"  # of the check itself: an agent's own get the tale, for it is to be stopped
CREATED = 1_700_000_000  # of everything that it says it has made

_TALE = (
    "The sea is wide and the night is long, and far beyond the last of the lights a ship goes on and on, "
    "as if nobody had ever told it that a voyage may end in the middle of a sentence. "
)
_WORDS: list[str] = re.findall(r"\S+ ", _TALE)


def word(index: int) -> str:
    """The token of that index, from 0."""
    return _WORDS[index % len(_WORDS)]


class ShortAnswer(NamedTuple):
    """One token, or the call of a tool: its name and arguments."""

    text: str = ""
    name: str = ""
    arguments: str = ""


def asked(body: dict[str, Any]) -> ShortAnswer | None:
    """What a request with the check's tool or schema asks for, in either form; None: the tale. The tool is called where
    one has to be, its result is said again, and the schema is kept to."""
    newest = _objects(body.get("messages") or body.get("input"))[-1:]
    if any(CALL_ID in (item.get("tool_call_id"), item.get("call_id")) for item in newest):
        return ShortAnswer(str(newest[0].get("content") or newest[0].get("output")))
    tools = [_nested(tool, "function") for tool in _objects(body.get("tools"))]
    if body.get("tool_choice") not in (None, "auto", "none"):
        for tool in tools:
            if tool.get("name") == TOOL:
                return ShortAnswer(name=TOOL, arguments=_filled(tool.get("parameters")))
    form = _nested(body.get("response_format") or _nested(body, "text").get("format"), "json_schema")
    return ShortAnswer(_filled(form.get("schema"))) if form.get("name") == SCHEMA else None


def _objects(found: Any) -> list[dict[str, Any]]:
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _nested(found: Any, name: str) -> dict[str, Any]:
    """What Chat Completions have a level deeper than Responses."""
    inner = found.get(name) if isinstance(found, dict) else None
    return inner if isinstance(inner, dict) else found if isinstance(found, dict) else {}


def _filled(schema: Any) -> str:
    return json.dumps(dict.fromkeys(_nested(schema, "properties"), "Oslo"))


class AnswerForm(Protocol):
    """One answer in one form."""

    def begin(self) -> bytes: ...
    def token(self, text: str) -> bytes: ...
    def call(self, name: str, arguments: str) -> bytes: ...
    def end(self, tokens: int) -> bytes: ...
    def whole(self, text: str, tokens: int) -> bytes: ...


class ChatCompletion:
    """`POST /chat/completions`."""

    def __init__(self, include_usage: bool) -> None:
        self._include_usage = include_usage
        self._calls: list[dict[str, Any]] = []

    def begin(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""})

    def token(self, text: str) -> bytes:
        return self._chunk({"content": text})

    def call(self, name: str, arguments: str) -> bytes:
        call = {"id": CALL_ID, "type": "function", "function": {"name": name, "arguments": arguments}}
        self._calls.append(call)
        return self._chunk({"tool_calls": [{"index": 0, **call}]})

    def end(self, tokens: int) -> bytes:
        usage = self._data(choices=[], usage=_chat_usage(tokens)) if self._include_usage else b""
        return self._chunk({}, self._reason) + usage + b"data: [DONE]\n\n"

    def whole(self, text: str, tokens: int) -> bytes:
        message = {"role": "assistant", "content": text or None, **({"tool_calls": self._calls} if self._calls else {})}
        choices = [{"index": 0, "message": message, "finish_reason": self._reason}]
        return _json(**_CHAT, object="chat.completion", choices=choices, usage=_chat_usage(tokens))

    @property
    def _reason(self) -> str:
        return "tool_calls" if self._calls else "stop"

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        return self._data(choices=[{"index": 0, "delta": delta, "finish_reason": finish_reason}])

    def _data(self, **fields: Any) -> bytes:
        return b"data: %b\n\n" % _json(**_CHAT, object="chat.completion.chunk", **fields)


class Response:
    """`POST /responses`."""

    def __init__(self) -> None:
        self._sequence = 0
        self._said: list[str] = []
        self._call: dict[str, Any] | None = None

    def begin(self) -> bytes:
        return self._event("response.created", response=_response("in_progress")) + self._event(
            "response.in_progress", response=_response("in_progress")
        )

    def token(self, text: str) -> bytes:
        begun = b""
        if not self._said:
            item = {**_ITEM, "status": "in_progress", "content": []}
            begun = self._event("response.output_item.added", output_index=0, item=item)
            begun += self._event("response.content_part.added", **_PLACE, part=_part(""))
        self._said.append(text)
        return begun + self._event("response.output_text.delta", **_PLACE, delta=text, logprobs=[])

    def call(self, name: str, arguments: str) -> bytes:
        place = {"item_id": "fc_metered", "output_index": 0}
        self._call = {
            "id": "fc_metered",
            "type": "function_call",
            "call_id": CALL_ID,
            "name": name,
            "arguments": arguments,
            "status": "completed",
        }
        begun = {**self._call, "arguments": "", "status": "in_progress"}
        return (
            self._event("response.output_item.added", output_index=0, item=begun)
            + self._event("response.function_call_arguments.delta", **place, delta=arguments)
            + self._event("response.function_call_arguments.done", **place, name=name, arguments=arguments)
            + self._event("response.output_item.done", output_index=0, item=self._call)
        )

    def end(self, tokens: int) -> bytes:
        text, ended = "".join(self._said), b""
        response = self._completed(text, tokens)
        if self._said:
            ended = (
                self._event("response.output_text.done", **_PLACE, text=text, logprobs=[])
                + self._event("response.content_part.done", **_PLACE, part=_part(text))
                + self._event("response.output_item.done", output_index=0, item=response["output"][0])
            )
        return ended + self._event("response.completed", response=response)

    def whole(self, text: str, tokens: int) -> bytes:
        return _json(**self._completed(text, tokens))

    def _completed(self, text: str, tokens: int) -> dict[str, Any]:
        output = self._call or {**_ITEM, "status": "completed", "content": [_part(text)]}
        return _response("completed", [output], tokens)

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = _json(type=kind, sequence_number=self._sequence, **fields)
        self._sequence += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


CALL_ID = "call_metered"
_CHAT = {"id": "chatcmpl-metered", "created": CREATED, "model": MODEL}
_ITEM = {"id": "msg_metered", "type": "message", "role": "assistant"}
_PLACE = {"item_id": "msg_metered", "output_index": 0, "content_index": 0}


def _chat_usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _response(status: str, output: Sequence[dict[str, Any]] = (), tokens: int = 0) -> dict[str, Any]:
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    usage = {"input_tokens": 1, "output_tokens": tokens, "total_tokens": tokens + 1, **details}
    return {
        "id": "resp_metered",
        "object": "response",
        "created_at": CREATED,
        "model": MODEL,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "output": list(output),
        "usage": usage if output else None,
    }


def models() -> bytes:
    """`GET /models`."""
    return _json(object="list", data=[{"id": MODEL, "object": "model", "created": CREATED, "owned_by": "check"}])


def error(message: str) -> bytes:
    return _json(error={"message": message, "type": "invalid_request_error", "param": None, "code": None})


def _json(**fields: Any) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()

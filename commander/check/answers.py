"""What the metered provider answers, token by token, in the forms of OpenAI's API that agents use. Pure.

Each form: `begin()` opens the stream, `token(text)` carries one token, `end(tokens)` closes it, each as bytes of
server-sent events; `whole(text, tokens)` is the answer to a request that does not stream.
"""

import json
import re
from typing import Any, Protocol

MODEL = "metered"
CREATED = 1_700_000_000  # of everything that it says it has made

_TALE = (
    "The sea is wide and the night is long, and far beyond the last of the lights a ship goes on and on, "
    "as if nobody had ever told it that a voyage may end in the middle of a sentence. "
)
_WORDS: list[str] = re.findall(r"\S+ ", _TALE)


def word(index: int) -> str:
    """The token of that index, from 0."""
    return _WORDS[index % len(_WORDS)]


class AnswerForm(Protocol):
    """One answer in one form."""

    def begin(self) -> bytes: ...
    def token(self, text: str) -> bytes: ...
    def end(self, tokens: int) -> bytes: ...
    def whole(self, text: str, tokens: int) -> bytes: ...


class ChatCompletion:
    """`POST /chat/completions`."""

    def __init__(self, include_usage: bool) -> None:
        self._include_usage = include_usage

    def begin(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""})

    def token(self, text: str) -> bytes:
        return self._chunk({"content": text})

    def end(self, tokens: int) -> bytes:
        usage = self._data(choices=[], usage=_chat_usage(tokens)) if self._include_usage else b""
        return self._chunk({}, "stop") + usage + b"data: [DONE]\n\n"

    def whole(self, text: str, tokens: int) -> bytes:
        message = {"role": "assistant", "content": text}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return _json(**_CHAT, object="chat.completion", choices=choices, usage=_chat_usage(tokens))

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        return self._data(choices=[{"index": 0, "delta": delta, "finish_reason": finish_reason}])

    def _data(self, **fields: Any) -> bytes:
        return b"data: %b\n\n" % _json(**_CHAT, object="chat.completion.chunk", **fields)


class Response:
    """`POST /responses`."""

    def __init__(self) -> None:
        self._sequence = 0
        self._said: list[str] = []

    def begin(self) -> bytes:
        item = {**_ITEM, "status": "in_progress", "content": []}
        return (
            self._event("response.created", response=_response("in_progress"))
            + self._event("response.in_progress", response=_response("in_progress"))
            + self._event("response.output_item.added", output_index=0, item=item)
            + self._event("response.content_part.added", **_PLACE, part=_part(""))
        )

    def token(self, text: str) -> bytes:
        self._said.append(text)
        return self._event("response.output_text.delta", **_PLACE, delta=text, logprobs=[])

    def end(self, tokens: int) -> bytes:
        text = "".join(self._said)
        response = _response("completed", text, tokens)
        return (
            self._event("response.output_text.done", **_PLACE, text=text, logprobs=[])
            + self._event("response.content_part.done", **_PLACE, part=_part(text))
            + self._event("response.output_item.done", output_index=0, item=response["output"][0])
            + self._event("response.completed", response=response)
        )

    def whole(self, text: str, tokens: int) -> bytes:
        return _json(**_response("completed", text, tokens))

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = _json(type=kind, sequence_number=self._sequence, **fields)
        self._sequence += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


_CHAT = {"id": "chatcmpl-metered", "created": CREATED, "model": MODEL}
_ITEM = {"id": "msg_metered", "type": "message", "role": "assistant"}
_PLACE = {"item_id": "msg_metered", "output_index": 0, "content_index": 0}


def _chat_usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _response(status: str, text: str = "", tokens: int = 0) -> dict[str, Any]:
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    usage = {"input_tokens": 1, "output_tokens": tokens, "total_tokens": tokens + 1, **details}
    done = status == "completed"
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
        "output": [{**_ITEM, "status": status, "content": [_part(text)]}] if done else [],
        "usage": usage if done else None,
    }


def models() -> bytes:
    """`GET /models`."""
    return _json(object="list", data=[{"id": MODEL, "object": "model", "created": CREATED, "owned_by": "check"}])


def error(message: str) -> bytes:
    return _json(error={"message": message, "type": "invalid_request_error", "param": None, "code": None})


def _json(**fields: Any) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()

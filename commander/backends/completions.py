"""What a server says in one piece of a Chat Completion's stream, whatever shape it gives it.

Words, tool calls and the end are read from every shape that was seen; of all else (reasoning, counts, what a provider
adds of its own) what cannot be read is passed over: an extra costs no words.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from commander.agent import FinishReason
from commander.backends.calls import CallDelta, FunctionDelta
from commander.backends.errors import ProviderError, message

MAX_COUNT = 2**32 - 1  # of tokens, as the contract has it
MAX_DEPTH = 8  # of texts within texts

# Names of texts: a piece's own, and those under which a thought comes. Of several that say the same the first counts.
_TEXTS = ("text", "content", "thinking", "reasoning", "summary", "refusal", "transcript", "value")
_THOUGHTS = (
    "reasoning_content",
    "reasoning",
    "reasoning_text",
    "reasoning_details",
    "thinking",
    "thinking_blocks",
    "thought",
)
_THOUGHT_KINDS = ("think", "thought", "reason", "summary")
# More than words: kinds of parts, and the fields of a message where gateways put such (OpenRouter's, LiteLLM's).
_SOUNDS = ("audio", "audio_url")
_MEDIA = ("image", "image_url", "image_file", "video", "video_url", "file")
_MEDIA_FIELDS = ("image", "images", "video", "videos")

# What goes back as it came in the next round. Gemini's signatures stand in `extra_content`, which calls have too;
# DeepSeek and Moonshot refuse calls without their `reasoning_content`; OpenRouter and MiniMax want `reasoning_details`,
# Copilot its two.
KEPT = (
    "reasoning_content",
    "reasoning",
    "reasoning_text",
    "reasoning_opaque",
    "reasoning_details",
    "extra_content",
)


class Ending(NamedTuple):
    """Why an answer ends. `calls`: for the tool calls that it made."""

    reason: FinishReason
    calls: bool = False


# By the servers' names for it, in small letters and in one word: `MAX_TOKENS`, `max-tokens` and `maxTokens` are one.
# What is not here means that the answer was broken off (`abort`, `error`, `network_error`), or is not known.
_ENDINGS = {
    name: ending
    for ending, names in {
        Ending("stop"): "stop stopped stopsequence stopword end endturn endofturn eos eostoken complete completed"
        " finished done normal",
        Ending("stop", calls=True): "toolcalls toolcall tooluse functioncall functioncalls",
        Ending("length"): "length maxlength modellength contextlength maxcontextlength contextlengthexceeded"
        " contextwindowexceeded modelcontextwindowexceeded maxtokens maxtokensreached"
        " maxcompletiontokens maxoutputtokens maxnewtokens tokenlimit tokenlimitreached errorlimit",
        Ending("content_filter"): "contentfilter contentfiltered contentpolicy contentpolicyviolation policyviolation"
        " moderation moderated contentmoderation safety safetyfilter imagesafety sensitive refusal recitation blocklist"
        " blocked prohibitedcontent spii errortoxic guardrail guardrailintervened",
    }.items()
    for name in names.split()
}
_FAILURES = ("error", "failed")  # how the type, status or object of what is none ends
# What says that the answer is still to come, by the name of its event, its type or its status.
_SIGNS_OF_LIFE = (
    "ping",
    "heartbeat",
    "keepalive",
    "progress",
    "queued",
    "pending",
    "processing",
    "loading",
    "inprogress",
)
_NOT_YET = ("", "null", "none", "not_finished")  # what some servers write while the answer goes on


class Piece(NamedTuple):
    """Words for the user, or a thought."""

    text: str
    thought: bool = False


class TokenCounts(msgspec.Struct, frozen=True):
    """Tokens. None: not counted."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Chunk(msgspec.Struct):
    """
    whole    the answer as one message: what deltas said before is in it again
    kept     what goes back as it came, by its name
    speakers indexes of the choices whose words these are
    sounds   it has sound, the words of which may come elsewhere
    failure  why this is the last one, and the answer no whole one; empty: it is not
    """

    pieces: list[Piece] = []
    calls: list[CallDelta] = []
    ending: Ending | None = None
    usage: TokenCounts = TokenCounts()
    kept: dict[str, Any] = {}
    whole: bool = False
    failure: str = ""
    speakers: set[int] = set()
    sounds: bool = False

    @property
    def speaks(self) -> bool:
        """It is more than a sign of life."""
        said = any(piece.text for piece in self.pieces) or self.ending is not None or self.sounds
        return said or any(call.function.name or call.function.arguments for call in self.calls)


def chunks(data: str) -> Iterator[Chunk]:
    """The chunks in one event's data: one, or a list of them. Raises ProviderError: it is no JSON, or an error."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise ProviderError(f"a chunk that cannot be read: {data}") from None
    for each in found if isinstance(found, list) else [found]:
        if isinstance(each, dict):
            yield _chunk(each)


def _chunk(found: dict[str, Any]) -> Chunk:
    choices = found.get("choices") or []
    if not isinstance(choices, list):
        raise ProviderError("a chunk that cannot be read: its choices are no list")
    choices = [choice for choice in choices if isinstance(choice, dict)]
    places = [found, _object(found.get("x_groq")), *choices]  # the last as Moonshot's
    usage = next(filter(None, (place.get("usage") for place in places)), None)
    chunk = Chunk(usage=_usage(_object(usage)))
    for place, choice in enumerate(choices):
        _add(chunk, choice, place)
    if error := _error(found, choices):
        chunk.failure = f"the server reports an error: {message(error)}"
    return chunk


def _add(chunk: Chunk, choice: dict[str, Any], place: int) -> None:
    delta = _said(choice.get("delta"))
    pieces, calls = _pieces(delta), _calls(delta)
    if not pieces and not calls and (answer := _said(choice.get("message"))):
        delta, pieces, calls, chunk.whole = answer, _pieces(answer), _calls(answer), True
    pieces = pieces or [Piece(text) for text in [_text(choice.get("text"))] if text]  # as on Completions
    if not all(piece.thought for piece in pieces):
        index = choice.get("index")
        chunk.speakers.add(index if isinstance(index, int) and not isinstance(index, bool) else place)
    chunk.pieces += pieces
    chunk.calls += calls
    chunk.sounds |= _sounds(delta)
    reasons = (choice.get("finish_reason"), choice.get("finishReason"), delta.get("finish_reason"))
    if reason := next(filter(None, map(_reason, reasons)), ""):
        if ending := _ending(reason):
            chunk.ending = ending
        else:
            chunk.failure = f"the server ended the answer with the reason {reason}"
    if media := _media(delta):
        chunk.failure = f"the answer holds {media}, and nothing but words can be passed on"
    chunk.kept |= {name: value for name in KEPT if isinstance(value := delta.get(name), str | list | dict) and value}


def _said(value: object) -> dict[str, Any]:
    return {"content": value} if isinstance(value, str | list) else _object(value)


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


# ---- words and thoughts


def _pieces(delta: dict[str, Any]) -> list[Piece]:
    thoughts = (_text(value) for name in _THOUGHTS if (value := delta.get(name)))
    pieces = [Piece(next(filter(None, thoughts), ""), True)]
    content = delta.get("content")
    pieces += map(_part, content) if isinstance(content, list) else [_part(content)]
    pieces.append(Piece(_text(delta.get("refusal"))))
    pieces.append(Piece(_text(_object(delta.get("audio")).get("transcript"))))
    return [piece for piece in pieces if piece.text]


def _part(part: object) -> Piece:
    """Of content that comes in parts, as Mistral's."""
    if isinstance(part, int | float) and not isinstance(part, bool):
        return Piece(str(part))
    if not isinstance(part, dict):
        return Piece(_text(part))
    kind = str(part.get("type", "")).lower()
    thought = part.get("thought") is True or any(name in kind for name in _THOUGHT_KINDS)
    return Piece(_text(part), thought)


def _media(delta: dict[str, Any]) -> str:
    """What of a message is more than words, other than sound; empty: nothing."""
    found = [name for name in _MEDIA_FIELDS if isinstance(value := delta.get(name), str | list | dict) and value]
    found += (kind for kind in _wordless(delta) if kind in _MEDIA)
    return found[0] if found else ""


def _sounds(delta: dict[str, Any]) -> bool:
    return bool(_object(delta.get("audio")).get("data")) or any(kind in _SOUNDS for kind in _wordless(delta))


def _wordless(delta: dict[str, Any]) -> Iterator[str]:
    """The kinds of the parts of its content that hold no words."""
    parts = delta.get("content")
    for part in parts if isinstance(parts, list) else [parts]:
        if isinstance(part, dict) and not _text(part):
            yield str(part.get("type", "")).lower().removeprefix("output_").removeprefix("input_")


def _text(value: object, depth: int = 0) -> str:
    match value:
        case str():
            return value
        case list() if depth < MAX_DEPTH:
            return "".join(_text(each, depth + 1) for each in value)
        case dict() if depth < MAX_DEPTH:
            return next(filter(None, (_text(value.get(name), depth + 1) for name in _TEXTS)), "")
    return ""


# ---- calls


def _calls(delta: dict[str, Any]) -> list[CallDelta]:
    calls = delta.get("tool_calls")
    calls = calls if isinstance(calls, list) else [calls]
    if isinstance(older := delta.get("function_call"), dict):
        calls.append({"function": older})
    return [_call(call) for call in calls if isinstance(call, dict)]


_ARGUMENTS = ("arguments", "parameters", "input")  # Llama's own name and Anthropic's


def _call(call: dict[str, Any]) -> CallDelta:
    function = _object(call.get("function")) or call  # some write name and arguments without `function`
    arguments = next((function[name] for name in _ARGUMENTS if name in function), None)
    return CallDelta(
        index=_index(call.get("index")),
        id=_name(call.get("id")),
        function=FunctionDelta(_name(function.get("name")), arguments),
        extra_content=_object(call.get("extra_content")) or None,
    )


def _index(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _name(value: object) -> str | None:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


# ---- the end


def _reason(written: object) -> str:
    """As the server wrote it; empty: the answer goes on."""
    written = _object(written).get("type", written)  # SGLang's own form
    text = written if isinstance(written, str) else repr(written) if written else ""
    return "" if text.strip().lower() in _NOT_YET else text


def _ending(reason: str) -> Ending | None:
    kind = reason.partition(":")[0]  # Gemini's: `content_filter: RECITATION`
    return _ENDINGS.get(_word(kind).removeprefix("finishreason"))  # as enumerations are printed


def _word(name: object) -> str:
    """In small letters and in one word."""
    return re.sub(r"[-_. ]", "", name.lower()) if isinstance(name, str) else ""


def is_sign_of_life(kind: object) -> bool:
    return _word(kind) in _SIGNS_OF_LIFE


def _usage(usage: dict[str, Any]) -> TokenCounts:
    return TokenCounts(_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))


def _count(value: object) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT else None


def _error(found: dict[str, Any], choices: list[dict[str, Any]]) -> object:
    """What a chunk says went wrong; None: nothing."""
    places = [found, *(place for choice in choices for place in (choice, choice.get("delta"), choice.get("message")))]
    if error := next(filter(None, map(_told, places)), None):
        return error
    if choices:
        return None
    for head in (_object(found.get("base_resp")), _object(found.get("header"))):  # MiniMax's; Spark's
        if not {head.get("status_code"), head.get("code")} <= {None, 0, "0"}:
            return head
    kinds = [_word(found.get(name)) for name in ("object", "type", "status")]
    if any(is_sign_of_life(kind) for kind in kinds) or found.get("code") in (0, "0"):  # Spark's: it is a success
        return None
    failed = any(kind.endswith(_FAILURES) for kind in kinds) or any(
        _is_refusal(found.get(name)) for name in ("status", "status_code", "code")
    )
    return found if failed or any(_says_what(*field) for field in found.items()) else None


def _is_refusal(status: object) -> bool:
    """As HTTP has it."""
    return re.fullmatch(r"[45]\d\d", str(status)) is not None


def _says_what(name: str, value: object) -> bool:
    """That field, beside no choices, says what went wrong."""
    name = _word(name)
    named = name in ("detail", "message", "msg") or (name != "error" and "error" in name) or "exception" in name
    return named and isinstance(value, str | list | dict) and bool(value)


def _told(place: object) -> object:
    """An error that stands under that name, or where gateways put it. Some servers always send an empty one."""
    if not isinstance(place, dict):
        return None
    error = place.get("error") or place.get("fault") or _object(place.get("x_groq")).get("error")  # Apigee's; Groq's
    if isinstance(error, dict) and not any(error.values()):
        return None
    return place if isinstance(error, int | float) and error else error

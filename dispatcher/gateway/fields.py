"""What becomes of each field of OpenAI's requests: it is honoured, or refused by its path, or changes nothing.

A field that would change the answer is never dropped in silence: who offers tools to a model that is not told of them
waits for calls that never come. One line a field. One that becomes HONOURED needs its field in the body that its route
decodes, and nothing else here. On every line `null` is what leaving the field out is.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import TypeAlias

import msgspec

from dispatcher.gateway.errors import HttpError


class Fate(Enum):
    HONOURED = "honoured"  # read by the route: what is wrong with it, decoding says
    PASSED = "passed over"  # known to change nothing in an answer, whatever it is


class Unsupported(msgspec.Struct, frozen=True):
    """Refused but for these values, which ask for what happens anyway."""

    but: tuple[object, ...] = ()
    instead: str = ""  # what to do, a sentence


class Needs(msgspec.Struct, frozen=True):
    """Honoured by agents that honour this feature (`shared.records.FEATURES`), and refused for others but for these
    values, which ask for what happens anyway.
    """

    feature: str
    but: tuple[object, ...] = ()
    inner: "Treatment" = Fate.HONOURED


class Each(msgspec.Struct, frozen=True):
    """A list, by what becomes of its items. What is no list is left to decoding, as in all that follows."""

    item: "Treatment"


class ByKind(msgspec.Struct, frozen=True):
    """An object that says in one field what it is. Kinds that are not listed are refused. usual: where it says none."""

    field: str
    kinds: Mapping[str, "Treatment"]
    usual: str | None = None


Fields: TypeAlias = Mapping[str, "Treatment"]  # an object, by its fields
Treatment: TypeAlias = Fate | Unsupported | Needs | Each | ByKind | Fields

HONOURED, PASSED, UNSUPPORTED = Fate.HONOURED, Fate.PASSED, Unsupported()
_WHOLE = Unsupported(instead="Send the whole conversation as `input`.")

_TEXT: Fields = {"type": HONOURED, "text": HONOURED}
_ASKED: Fields = {**_TEXT, "prompt_cache_breakpoint": PASSED}
_PASSED_ON: Fields = {"type": HONOURED, "prompt_cache_breakpoint": PASSED}
_PARTS: Mapping[str, Treatment] = {
    "text": _ASKED,
    "image_url": Needs("images", (), {**_PASSED_ON, "image_url": {"url": HONOURED, "detail": HONOURED}}),
    "input_audio": Needs("audio", (), {**_PASSED_ON, "input_audio": {"data": HONOURED, "format": HONOURED}}),
    "file": Needs(
        "files", (), {**_PASSED_ON, "file": {"file_data": HONOURED, "filename": HONOURED, "file_id": HONOURED}}
    ),
}
_MESSAGE: Fields = {"role": HONOURED, "content": Each(ByKind("type", {"text": _ASKED})), "name": HONOURED}
_CALLED: Fields = {"id": HONOURED, "type": HONOURED, "function": {"name": HONOURED, "arguments": HONOURED}}
_SAID: Fields = {
    **_MESSAGE,
    "audio": UNSUPPORTED,
    "function_call": UNSUPPORTED,
    "refusal": Unsupported(("",)),
    "tool_calls": Needs("tools", ([],), Each(ByKind("type", {"function": _CALLED}))),
}
_ANSWERED: Fields = {**_MESSAGE, "tool_call_id": HONOURED}
_FUNCTION: Fields = {"name": HONOURED, "description": HONOURED, "parameters": HONOURED, "strict": HONOURED}
_SCHEMA: Fields = {"name": HONOURED, "description": HONOURED, "schema": HONOURED, "strict": HONOURED}
_FORMATS: Mapping[str, Fields] = {"text": {"type": HONOURED}, "json_object": {"type": HONOURED}}
_SAMPLING = Needs("sampling")
_EFFORT = Needs("reasoning", ("none",))  # as an answer without any thought before it is
_NO_LOGPROBS = Unsupported((False, 0))
_NAMED: Fields = {"type": HONOURED, "name": HONOURED}
_ALLOWED: Fields = {"mode": HONOURED, "tools": HONOURED}
_CACHE: Fields = {
    "comparison_response_id": UNSUPPORTED,
    "mode": PASSED,
    "prewarm": Unsupported((False,)),  # true: no answer
    "ttl": PASSED,
}

CHAT: Fields = {
    "audio": UNSUPPORTED,
    "frequency_penalty": _SAMPLING,
    "function_call": Unsupported(("none", "auto")),
    "functions": Unsupported(([],)),
    "logit_bias": Unsupported(({},)),
    "logprobs": _NO_LOGPROBS,
    "max_completion_tokens": _SAMPLING,
    "max_tokens": _SAMPLING,
    "messages": Each(
        ByKind(
            "role",
            {
                "system": _MESSAGE,
                "developer": _MESSAGE,
                "user": {**_MESSAGE, "content": Each(ByKind("type", _PARTS))},
                "assistant": _SAID,
                "tool": Needs("tools", (), _ANSWERED),
            },
        )
    ),
    "metadata": PASSED,
    "modalities": Unsupported((["text"],)),
    "model": HONOURED,
    "moderation": UNSUPPORTED,
    "n": Unsupported((1,)),
    "parallel_tool_calls": HONOURED,  # where there are tools
    "prediction": UNSUPPORTED,
    "presence_penalty": _SAMPLING,
    "prompt_cache_key": PASSED,
    "prompt_cache_options": PASSED,
    "prompt_cache_retention": PASSED,
    "reasoning_effort": _EFFORT,
    "response_format": Needs(
        "structured",
        ({"type": "text"},),
        ByKind("type", {**_FORMATS, "json_schema": {"type": HONOURED, "json_schema": _SCHEMA}}),
    ),
    "safety_identifier": PASSED,
    "seed": _SAMPLING,
    "service_tier": PASSED,
    "stop": _SAMPLING,
    "store": PASSED,
    "stream": HONOURED,
    "stream_options": {"include_usage": HONOURED, "include_obfuscation": PASSED},
    "temperature": _SAMPLING,
    "tool_choice": Needs(
        "tools",
        ("none", "auto"),
        ByKind(
            "type",
            {
                "function": {"type": HONOURED, "function": {"name": HONOURED}},
                "allowed_tools": {"type": HONOURED, "allowed_tools": _ALLOWED},
            },
        ),
    ),
    "tools": Needs("tools", ([],), Each(ByKind("type", {"function": {"type": HONOURED, "function": _FUNCTION}}))),
    "top_logprobs": _NO_LOGPROBS,
    "top_p": _SAMPLING,
    "user": PASSED,
    "verbosity": Unsupported(("medium",)),
    "web_search_options": UNSUPPORTED,
}

_ITEM: Fields = {
    "type": HONOURED,
    "role": HONOURED,
    "content": Each(
        ByKind(
            "type",
            {
                "input_text": _ASKED,
                "output_text": {**_TEXT, "annotations": PASSED, "logprobs": PASSED},
                "input_image": Needs(
                    "images",
                    (),
                    {**_PASSED_ON, "image_url": HONOURED, "detail": HONOURED, "file_id": UNSUPPORTED},
                ),
                "input_file": Needs(
                    "files",
                    (),
                    {
                        **_PASSED_ON,
                        **dict.fromkeys(("file_data", "filename", "file_id"), HONOURED),
                        "file_url": UNSUPPORTED,
                        "detail": Unsupported(("auto",)),
                    },
                ),
            },
        )
    ),
    "id": PASSED,
    "phase": HONOURED,
    "status": PASSED,
}
_CALLER = Unsupported(({"type": "direct"},))
_TOOL: Fields = {
    "type": HONOURED,
    **_FUNCTION,
    "allowed_callers": Unsupported((["direct"],)),
    "async": Unsupported((False,)),
    "defer_loading": Unsupported((False,)),
    "output_schema": UNSUPPORTED,
}
_NAMESPACE: Fields = {
    **dict.fromkeys(("type", "name", "description"), HONOURED),
    "tools": Each(ByKind("type", {"function": _TOOL})),
}
# A search that may not leave the provider, where none has an index, finds nothing: as if it was not offered, which is
# what the response's `tools` say. Codex offers it unasked.
_HOSTED: Fields = {"web_search": Unsupported(({"type": "web_search", "external_web_access": False},))}
_CALL: Fields = {
    **dict.fromkeys(("type", "call_id", "name", "arguments"), HONOURED),
    **dict.fromkeys(("id", "status"), PASSED),
    "async": Unsupported((False,)),
    "caller": _CALLER,
    "namespace": HONOURED,
}
_OUTPUT: Fields = {
    **dict.fromkeys(("type", "call_id", "name"), HONOURED),
    **dict.fromkeys(("id", "status"), PASSED),
    "output": Each(ByKind("type", {"input_text": _ASKED})),
    "caller": _CALLER,
    "namespace": HONOURED,
}
# More of what an answer here never has; `message.output_text.logprobs` would be of what it has.
_NEVER_THERE = (
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
)

RESPONSES: Fields = {
    "access_programs": UNSUPPORTED,
    "background": HONOURED,
    "background_options": Unsupported(({}, {"completion_window": "soonest"})),
    "context_management": Unsupported(([],)),
    "conversation": _WHOLE,
    "image": UNSUPPORTED,
    "include": Each(Unsupported(_NEVER_THERE)),
    "input": Each(
        ByKind(
            "type",
            {
                "message": _ITEM,
                "function_call": Needs("tools", (), _CALL),
                "function_call_output": Needs("tools", (), _OUTPUT),
                "item_reference": {"type": HONOURED, "id": HONOURED},
            },
            usual="message",
        )
    ),
    "instructions": HONOURED,
    "max_output_tokens": _SAMPLING,
    "max_tool_calls": UNSUPPORTED,
    "metadata": HONOURED,
    "model": HONOURED,
    "moderation": UNSUPPORTED,
    "parallel_tool_calls": HONOURED,  # where there are tools
    "previous_response_id": HONOURED,
    "prompt": _WHOLE,
    "prompt_cache_key": HONOURED,
    "prompt_cache_options": _CACHE,
    "prompt_cache_retention": PASSED,
    "reasoning": {
        "context": Unsupported(("auto",)),
        "effort": _EFFORT,
        "generate_summary": Unsupported(("auto",)),  # as for a model that has none to give
        "mode": Unsupported(("standard",)),
        "summary": Unsupported(("auto",)),
    },
    "safety_identifier": HONOURED,
    "service_tier": PASSED,
    "store": HONOURED,
    "stream": HONOURED,
    "stream_options": {"include_obfuscation": PASSED},
    "temperature": _SAMPLING,
    "text": {
        "format": Needs(
            "structured",
            ({"type": "text"},),
            ByKind("type", {**_FORMATS, "json_schema": {"type": HONOURED, **_SCHEMA}}),
        ),
        "verbosity": Unsupported(("medium",)),
    },
    "tool_choice": Needs(
        "tools",
        ("none", "auto"),
        ByKind("type", {"function": _NAMED, "allowed_tools": {"type": HONOURED, **_ALLOWED}}),
    ),
    "tools": Needs("tools", ([],), Each(ByKind("type", {"function": _TOOL, "namespace": _NAMESPACE, **_HOSTED}))),
    "top_logprobs": _NO_LOGPROBS,
    "top_p": _SAMPLING,
    "truncation": Unsupported(("disabled",)),
    "user": PASSED,
}

RESPONSE_CREATE: Fields = {
    **RESPONSES,
    **dict.fromkeys(("type", "stream_id", "generate"), HONOURED),
    "background": Unsupported((False,)),
    "stream": Unsupported((True,)),
}


class FieldCheck:
    """What becomes of a body. count: told how many names in it nobody knows. needs: by feature the path of a field for
    which the agent has to have it, filled in.
    """

    def __init__(self, fields: Fields, count: Callable[[int], None]) -> None:
        self._fields, self._count = fields, count

    def __call__(self, body: dict[str, object], needs: dict[str, str]) -> None:
        """Raises HttpError 400 `unsupported_parameter`, whose `param` is the field's path."""
        self._count(_unknown(self._fields, body, "", needs))


def _unknown(treatment: Treatment, value: object, where: str, needs: dict[str, str]) -> int:
    """How many names nobody knows. Raises HttpError 400."""
    if value is None or isinstance(treatment, Fate):
        return 0
    if isinstance(treatment, Needs):
        if not _among(value, treatment.but):
            needs.setdefault(treatment.feature, where)
        return _unknown(treatment.inner, value, where, needs)
    if isinstance(treatment, Unsupported):
        if not _among(value, treatment.but):
            raise _unsupported(where, f"not supported; {_instead(treatment.but)}.", treatment.instead)
        return 0
    if isinstance(treatment, Each):
        items = value if isinstance(value, list) else ()
        return sum(_unknown(treatment.item, item, f"{where}[{n}]", needs) for n, item in enumerate(items))
    if not isinstance(value, dict):
        return 0
    if isinstance(treatment, ByKind):
        kind = value.get(treatment.field, treatment.usual)
        if not isinstance(kind, str):
            return 0
        if kind not in treatment.kinds:
            kinds = ", ".join(treatment.kinds)
            raise _unsupported(where, f"the {treatment.field} {kind[:40]!r} is not supported, only {kinds}.")
        return _unknown(treatment.kinds[kind], value, where, needs)
    unknown, below = 0, f"{where}." if where else ""
    for name, inner in value.items():
        if name not in treatment:
            unknown += 1
        elif treatment[name] is not HONOURED:
            unknown += _unknown(treatment[name], inner, below + name, needs)
    return unknown


def _among(value: object, values: tuple[object, ...]) -> bool:
    return any(type(value) is type(taken) and value == taken for taken in values)  # True is no 1


def _instead(values: tuple[object, ...]) -> str:
    given = " or ".join(msgspec.json.encode(value).decode() for value in values)
    return f"leave it out, or give {given}" if given else "leave it out"


def not_honoured(agent: str, feature: str, where: str) -> HttpError:
    """The agent does not honour what a field asks for."""
    return _unsupported(where, f"not supported by {agent[:80]!r}, which does not have the feature {feature!r}.")


def _unsupported(where: str, what: str, instead: str = "") -> HttpError:
    message = " ".join(filter(None, (f"{where}: {what}", instead)))
    return HttpError(400, message, code="unsupported_parameter", param=where)

"""What of a request is refused, passed over and counted, by the official SDK, and that its every field has its line."""

import asyncio
import json
import re
from collections import ChainMap
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from itertools import chain
from types import UnionType
from typing import Annotated, Any, Literal, NotRequired, Required, Union, get_args, get_origin

import httpx2
import msgspec
import openai
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st
from msgspec.structs import replace
from openai.types.chat import completion_create_params
from openai.types.responses import response_create_params, responses_client_event_param
from prometheus_client import CollectorRegistry
from typing_extensions import get_type_hints, is_typeddict

from dispatcher.core.log import Request
from dispatcher.gateway import bodies
from dispatcher.gateway.client_tools import CalledTool, FunctionDefinition
from dispatcher.gateway.errors import HttpError
from dispatcher.gateway.fields import (
    CHAT,
    HONOURED,
    PASSED,
    RESPONSE_CREATE,
    RESPONSES,
    UNSUPPORTED,
    ByKind,
    Each,
    Fate,
    FieldCheck,
    Fields,
    Needs,
    Treatment,
    Unsupported,
)
from dispatcher.gateway.formats import ChatFormat, SchemaFormat, TextFormat
from dispatcher.gateway.openai import ChatBody, StreamOptions
from dispatcher.gateway.parts import FilePart, ImageUrl, InputAudio, Part
from dispatcher.gateway.response_bodies import InputItem, Reasoning, ResponseBody, ResponseTool, TextConfig
from tests.dispatcher.gateway.fakes import FakeSessions
from tests.shared.documents import CLIENTS, table

MESSAGE = {"role": "user", "content": "hi"}
FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {}}}
SCHEMA = {"name": "x", "schema": {"type": "object"}, "strict": True}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
IMAGE = "data:image/png;base64,AA=="


@pytest.fixture
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield client


def history(*said: object) -> dict[str, object]:
    return {"messages": [MESSAGE, *said]}


def given(*items: object) -> dict[str, object]:
    return {"input": [MESSAGE, *items]}


CHAT_REFUSED: list[tuple[dict[str, object], str]] = [
    ({"tools": [{"type": "function", "function": FUNCTION}]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
    ({"functions": [FUNCTION]}, "functions"),
    ({"function_call": {"name": "f"}}, "function_call"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"response_format": {"type": "json_schema", "json_schema": SCHEMA}}, "response_format"),
    ({"n": 2}, "n"),
    ({"n": True}, "n"),
    ({"logprobs": True}, "logprobs"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logit_bias": {"50256": -100}}, "logit_bias"),
    ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
    ({"web_search_options": {}}, "web_search_options"),
    ({"moderation": {"model": "x"}}, "moderation"),
    ({"verbosity": "low"}, "verbosity"),
    ({"reasoning_effort": "low"}, "reasoning_effort"),
    (history({"role": "tool", "tool_call_id": "1", "content": "3"}), "messages[1]"),
    (history({"role": "function", "name": "f", "content": "3"}), "messages[1]"),
    (history({"role": "assistant", "content": None, "tool_calls": [CALL]}), "messages[1].tool_calls"),
    (history({"role": "assistant", "function_call": {"name": "f", "arguments": ""}}), "messages[1].function_call"),
    (history({"role": "assistant", "audio": {"id": "x"}}), "messages[1].audio"),
    (history({"role": "assistant", "refusal": "I will not."}), "messages[1].refusal"),
    *(
        (history({"role": "user", "content": [{"type": "text", "text": "see"}, part]}), "messages[1].content[1]")
        for part in (
            {"type": "image_url", "image_url": {"url": IMAGE}},
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            {"type": "file", "file": {"file_id": "x"}},
            {"type": "hologram"},
        )
    ),
]
RESPONSES_REFUSED: list[tuple[dict[str, object], str]] = [
    ({"tools": [{"type": "function", **FUNCTION}]}, "tools"),
    ({"tools": [{"type": "web_search"}]}, "tools[0]"),
    ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
    ({"text": {"format": {"type": "json_schema", **SCHEMA}}}, "text.format"),
    ({"text": {"format": {"type": "json_object"}}}, "text.format"),
    ({"text": {"verbosity": "high"}}, "text.verbosity"),
    ({"reasoning": {"effort": "low"}}, "reasoning.effort"),
    ({"reasoning": {"effort": "low", "summary": "detailed"}}, "reasoning.summary"),
    ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
    ({"tool_choice": {"type": "web_search"}}, "tool_choice"),
    ({"prompt_cache_options": {"prewarm": True}}, "prompt_cache_options.prewarm"),
    ({"include": ["reasoning.encrypted_content", "message.output_text.logprobs"]}, "include[1]"),
    ({"top_logprobs": 1}, "top_logprobs"),
    ({"conversation": "conv_x"}, "conversation"),
    ({"conversation": {"id": "conv_x"}}, "conversation"),
    ({"prompt": {"id": "pmpt_x"}}, "prompt"),
    ({"truncation": "auto"}, "truncation"),
    ({"max_tool_calls": 1}, "max_tool_calls"),
    ({"moderation": {"model": "x"}}, "moderation"),
    ({"context_management": [{"type": "compaction"}]}, "context_management"),
    (given({"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}), "input[1]"),
    (given({"type": "function_call_output", "call_id": "1", "output": "3"}), "input[1]"),
    (given({"type": "reasoning", "id": "rs_1", "summary": []}), "input[1]"),
    (given({"role": "user", "content": [{"type": "input_image", "image_url": IMAGE}]}), "input[1].content[0]"),
    (given({"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}), "input[1].content[0]"),
]


def check_refused(raised: openai.BadRequestError, param: str) -> None:
    assert (raised.code, raised.param, raised.type) == ("unsupported_parameter", param, "invalid_request_error")
    assert f"{param}: " in raised.message


@pytest.mark.parametrize(("fields", "param"), CHAT_REFUSED)
async def test_chat_refuses_what_no_agent_honours(
    client: openai.AsyncOpenAI, sessions: FakeSessions, fields: dict[str, object], param: str
) -> None:
    for stream in (True, False):
        with pytest.raises(openai.BadRequestError) as raised:
            await client.chat.completions.create(
                model="default", messages=[{"role": "user", "content": "hi"}], stream=stream, extra_body=fields
            )
        check_refused(raised.value, param)
    assert sessions.created.empty()


@pytest.mark.parametrize(("fields", "param"), RESPONSES_REFUSED)
async def test_responses_refuse_what_no_agent_honours(
    client: openai.AsyncOpenAI, sessions: FakeSessions, fields: dict[str, object], param: str
) -> None:
    for how in ({"stream": True}, {"stream": False}, {"background": True}):
        with pytest.raises(openai.BadRequestError) as raised:
            await client.responses.create(model="default", input="hi", extra_body=how | fields)
        check_refused(raised.value, param)
    assert sessions.created.empty()


NOTHING = {
    "chat/completions": {
        "model": "default",
        "messages": [
            MESSAGE,
            {"role": "assistant", "content": "x", "tool_calls": [], "refusal": None, "function_call": None},
            {
                "role": "user",
                "content": [{"type": "text", "text": "y", "prompt_cache_breakpoint": {"mode": "explicit"}}],
            },
        ],
        "tools": [],
        "tool_choice": "none",
        "functions": [],
        "function_call": "auto",
        "parallel_tool_calls": False,
        "response_format": {"type": "text"},
        "n": 1,
        "logprobs": False,
        "top_logprobs": 0,
        "logit_bias": {},
        "modalities": ["text"],
        "verbosity": "medium",
        "reasoning_effort": "none",
        "user": "u",
        "metadata": {"a": "b"},
        "safety_identifier": "s",
        "prompt_cache_key": "p",
        "prompt_cache_retention": "24h",
        "service_tier": "flex",
        "store": True,
        "stream_options": {"include_obfuscation": False},
    },
    "responses": {
        "model": "default",
        "input": [
            MESSAGE,
            {
                "type": "message",
                "id": "msg_1",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "x", "annotations": [], "logprobs": []}],
            },
        ],
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "reasoning": {"effort": "none", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "top_logprobs": 0,
        "truncation": "disabled",
        "store": True,
        "user": "u",
        "metadata": {"a": "b"},
        "safety_identifier": "s",
        "prompt_cache_key": "p",
        "service_tier": "auto",
        "stream_options": {"include_obfuscation": True},
    },
}
ROUTES = {"chat/completions": CHAT, "responses": RESPONSES}


async def accepted(http: httpx2.AsyncClient, sessions: FakeSessions, route: str, body: Mapping[str, object]) -> None:
    asking = asyncio.create_task(http.post(f"/v1/{route}", json=body))
    created = asyncio.create_task(sessions.created.get())
    await asyncio.wait([asking, created], return_when=asyncio.FIRST_COMPLETED)
    assert created.done(), (await asking).text
    await (await sessions.begin(created.result())).finish()
    assert (await asking).status_code == 200


@pytest.mark.parametrize("route", ROUTES)
async def test_what_changes_nothing_is_accepted(http: httpx2.AsyncClient, sessions: FakeSessions, route: str) -> None:
    await accepted(http, sessions, route, NOTHING[route])


@pytest.mark.parametrize("value", [0, False, None])
async def test_no_log_probabilities_are_asked_for(
    http: httpx2.AsyncClient, sessions: FakeSessions, value: object
) -> None:
    chat = {"model": "default", "messages": [MESSAGE], "logprobs": value, "top_logprobs": value}
    await accepted(http, sessions, "chat/completions", chat)
    await accepted(http, sessions, "responses", {"model": "default", "input": "hi", "top_logprobs": value})


async def test_a_file_by_its_url_is_refused_by_its_path(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    sessions.honoured = frozenset({"files"})
    file = {"type": "input_file", "file_url": "https://192.168.0.1/a.pdf"}
    body = {"model": "default", "input": [MESSAGE, {"role": "user", "content": [file]}]}
    error = (await http.post("/v1/responses", json=body)).json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_parameter", "input[1].content[0].file_url")


@pytest.mark.parametrize("route", ROUTES)
async def test_null_is_as_if_left_out(http: httpx2.AsyncClient, sessions: FakeSessions, route: str) -> None:
    body = dict.fromkeys(ROUTES[route]) | {"model": "default"}
    body |= {"messages": [MESSAGE]} if route == "chat/completions" else {"input": [MESSAGE]}
    await accepted(http, sessions, route, body)


@pytest.mark.parametrize(("route", "label"), [("chat/completions", "chat_completions"), ("responses", "responses")])
async def test_a_name_that_nobody_knows_is_counted(
    http: httpx2.AsyncClient, sessions: FakeSessions, registry: CollectorRegistry, route: str, label: str
) -> None:
    def counted() -> float | None:
        return registry.get_sample_value("dispatcher_unknown_parameters_total", {"route": label})

    assert counted() == 0
    body = json.loads(json.dumps(NOTHING[route]))
    await accepted(http, sessions, route, body)
    assert counted() == 0
    (body.get("messages") or body["input"])[1]["mood"] = "good"
    await accepted(http, sessions, route, body | {"top_k": 5, "text": None, "stream_options": {"flavour": 1}})
    assert counted() == (3 if route == "responses" else 4)  # Chat Completions has no `text`


async def test_a_large_body_is_read_to_its_last_message(client: openai.AsyncOpenAI, sessions: FakeSessions) -> None:
    part = {"type": "image_url", "image_url": {"url": IMAGE}}
    with pytest.raises(openai.BadRequestError) as raised:
        await client.chat.completions.create(
            model="default",
            messages=[],
            extra_body=history(*[MESSAGE] * 999, {"role": "user", "content": [part]}),
        )
    check_refused(raised.value, "messages[1000].content[0]")
    assert sessions.created.empty()


async def test_routes_that_are_not_there_say_which_are(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as completing:
        await client.completions.create(model="default", prompt="hi")
    with pytest.raises(openai.NotFoundError) as embedding:
        await client.embeddings.create(model="default", input="hi")
    for raised in (completing.value, embedding.value):
        assert raised.code == "not_found"
        assert "POST /v1/chat/completions" in raised.message
        assert "POST /v1/responses" in raised.message


async def test_nothing_is_compacted(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        await client.responses.compact(model="default", input="hi")
    assert raised.value.code == "not_found"
    assert "compacted" in raised.value.message


# ---- the tables


def below(treatment: Treatment, *path: str) -> Fields:
    """The fields at that path; of a list's items; of an object of that kind."""
    while isinstance(treatment, Each | Needs):
        treatment = treatment.item if isinstance(treatment, Each) else treatment.inner
    if not path:
        assert isinstance(treatment, Mapping)
        return treatment
    name, *rest = path
    return below(treatment.kinds[name] if isinstance(treatment, ByKind) else treatment[name], *rest)  # type: ignore[index]


def every_kind(treatment: Treatment) -> dict[str, Treatment]:
    """The fields of a list's items, of all kinds."""
    assert isinstance(treatment, Each)
    assert isinstance(treatment.item, ByKind)
    return dict(ChainMap(*(dict(below(kind)) for kind in treatment.item.kinds.values())))


RESPONSES_PARTS = every_kind(below(RESPONSES, "input", "message")["content"])


def members(kind: Any) -> Iterator[Any]:
    """The types that a hint may be, without what only qualifies it."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Required, NotRequired, Annotated):
        yield from members(inner[0])
    elif origin in (Union, UnionType):
        yield from chain.from_iterable(map(members, inner))
    else:
        yield kind


def listed(kinds: Iterable[Any]) -> list[Any]:
    """What the lists among these types hold."""
    lists = [get_args(kind)[0] for kind in kinds if get_origin(kind) not in (None, Literal, dict)]
    return list(chain.from_iterable(map(members, lists)))


def walk(treatment: Treatment, kinds: Iterable[Any], path: str) -> Iterator[tuple[str, Treatment, set[str]]]:
    """All that the SDK knows below a field, as far as it is looked into: where, what becomes of it, its names."""
    kinds = [kind for kind in kinds if is_typeddict(kind) or get_origin(kind)]
    match treatment:
        case Needs():
            yield from walk(treatment.inner, kinds, path)
        case Each():
            yield from walk(treatment.item, listed(kinds), f"{path}[]")
        case ByKind():
            for params in filter(is_typeddict, kinds):
                hint = get_type_hints(params, include_extras=True).get(treatment.field)
                said = chain.from_iterable(get_args(kind) for kind in members(hint))
                for kind in set(said) or {treatment.usual}:  # one that is not in the table is refused
                    yield from walk(treatment.kinds.get(kind, UNSUPPORTED), [params], f"{path}<{kind}>")
        case Mapping():
            for params in filter(is_typeddict, kinds):
                hints = get_type_hints(params, include_extras=True)
                yield path, treatment, set(hints)
                for name, hint in hints.items():
                    yield from walk(treatment.get(name, UNSUPPORTED), members(hint), f"{path}.{name}")
        case Fate.HONOURED if kinds and any(map(is_typeddict, [*kinds, *listed(kinds)])):
            yield path, treatment, {"an object that nothing is said of"}


KNOWN = [
    each
    for fields, params in (
        (CHAT, completion_create_params.CompletionCreateParamsNonStreaming),
        (CHAT, completion_create_params.CompletionCreateParamsStreaming),
        (RESPONSES, response_create_params.ResponseCreateParamsNonStreaming),
        (RESPONSES, response_create_params.ResponseCreateParamsStreaming),
        (RESPONSE_CREATE, responses_client_event_param.ResponseCreate),
    )
    for each in walk(fields, [params], params.__name__)
]
BESIDE = {"name"}  # of a tool's message, which some clients send as with OpenAI's former functions


def test_every_field_that_the_sdk_knows_has_a_line() -> None:
    """However deep it stands: what is not looked into is refused or passed over whole."""
    for path, treatment, names in KNOWN:
        assert isinstance(treatment, Mapping), path
        assert not names - set(treatment), path
    assert len(KNOWN) > 60


def test_no_line_is_of_a_field_that_the_sdk_does_not_know() -> None:
    for path, treatment, _ in KNOWN:
        assert isinstance(treatment, Mapping)
        names: set[str] = set().union(*(names for _, same, names in KNOWN if same is treatment))
        assert set(treatment) <= names | (BESIDE if "<tool>" in path else set()), path


SAID_BY_KIND = {"type"}  # which is one, or leads elsewhere


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        (CHAT, ChatBody),
        (below(CHAT, "stream_options"), StreamOptions),
        (every_kind(CHAT["messages"]), bodies.ChatMessage),
        (below(CHAT, "messages", "assistant", "tool_calls", "function"), CalledTool),
        (below(CHAT, "tools", "function", "function"), FunctionDefinition),
        (below(CHAT, "response_format", "json_schema"), ChatFormat),
        (below(CHAT, "response_format", "json_schema", "json_schema"), SchemaFormat),
        (below(RESPONSES, "text", "format", "json_schema"), TextFormat),
        (every_kind(below(CHAT, "messages", "user")["content"]) | RESPONSES_PARTS, Part),
        (below(CHAT, "messages", "user", "content", "image_url", "image_url"), ImageUrl),
        (below(CHAT, "messages", "user", "content", "input_audio", "input_audio"), InputAudio),
        (below(CHAT, "messages", "user", "content", "file", "file"), FilePart),
        (RESPONSES, ResponseBody),
        (below(RESPONSES, "text"), TextConfig),
        (below(RESPONSES, "reasoning"), Reasoning),
        (every_kind(RESPONSES["input"]), InputItem),
        ({**below(RESPONSES, "tools", "function"), **below(RESPONSES, "tools", "namespace")}, ResponseTool),
        (RESPONSES_PARTS | every_kind(below(CHAT, "messages", "user")["content"]), Part),
    ],
)
def test_what_is_honoured_is_read(fields: Fields, body: type[msgspec.Struct]) -> None:
    honoured = {name for name, treatment in fields.items() if treatment is HONOURED} - SAID_BY_KIND
    assert honoured <= set(body.__struct_fields__)
    assert set(body.__struct_fields__) <= set(fields)


# A value for each field that is honoured, other than what is there without it.
TOOL: dict[str, object] = {"type": "function", "function": FUNCTION}
VALUES: dict[str, dict[str, object]] = {
    "chat/completions": {
        "messages": [{"role": "user", "content": "something else"}],
        "max_completion_tokens": 7,
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.5,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.5,
        "seed": 7,
        "stop": ["x"],
        "reasoning_effort": "low",
        "response_format": {"type": "json_object"},
        "tools": [TOOL, TOOL | {"function": FUNCTION | {"name": "g"}}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    },
    "responses": {
        "input": "something else",
        "instructions": "Be short.",
        "background": True,
        "store": False,
        "metadata": {"a": "b"},
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "max_output_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.5,
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_object"}},
        "tools": [{"type": "function", **FUNCTION}, {"type": "function", **FUNCTION, "name": "g"}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    },
}
# What the model is asked by is another agent's; the rest tests of streams and of conversations look at.
ELSEWHERE = {"model", "stream", "stream_options", "include", "previous_response_id", "prompt_cache_options"}


@pytest.mark.parametrize("route", ROUTES)
async def test_what_is_honoured_changes_what_a_session_is_asked(
    http: httpx2.AsyncClient, sessions: FakeSessions, route: str
) -> None:
    honoured = {
        name
        for name, treatment in ROUTES[route].items()
        if not isinstance(treatment, Unsupported) and treatment != PASSED
    }
    assert honoured - ELSEWHERE == set(VALUES[route])
    sessions.honoured = frozenset({"sampling", "reasoning", "structured", "tools"})
    tool = TOOL if route == "chat/completions" else {"type": "function", **FUNCTION}
    body: dict[str, object] = {"model": "default", "tools": [tool]}
    body |= {"messages": [MESSAGE]} if route == "chat/completions" else {"input": [MESSAGE]}

    async def asked(changed: Mapping[str, object]) -> Request:
        asking = asyncio.create_task(http.post(f"/v1/{route}", json={**body, **changed}))
        session_id = await sessions.created.get()
        record = await sessions.store.load(session_id)
        await sessions.stop(session_id, "UserCancel", "user")
        assert (await asking).status_code == 200
        assert record
        return replace(record.request, created_at=0.0, assignment_key=b"", prompt_bytes=0)

    usual = await asked({})
    assert usual == await asked({})
    for name, value in VALUES[route].items():
        assert await asked({name: value}) != usual, name


def documented(treatment: Treatment) -> str:
    """What the table for clients says."""
    if isinstance(treatment, Fate):
        return treatment.value
    if not isinstance(treatment, Unsupported | Needs):
        return HONOURED.value  # in part, which the text says
    values = " and ".join(f"`{msgspec.json.encode(value).decode()}`" for value in treatment.but)
    fate = "refused" if isinstance(treatment, Unsupported) else f"needs `{treatment.feature}`"
    return f"{fate}, but for {values}" if values else fate


@pytest.mark.parametrize(("fields", "column"), [(CHAT, "Chat Completions"), (RESPONSES, "Responses")])
def test_the_documented_fields_are_those_of_the_table(fields: Fields, column: str) -> None:
    rows = table(CLIENTS, f"field of {column}")
    said = [(name.strip("` "), fate) for names, fate in rows for name in names.split(",")]
    assert sorted(said) == sorted((name, documented(treatment)) for name, treatment in fields.items())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(["", "text", "message", "user", "auto", "none"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "text", "format", "effort", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@drawn(fields=st.sampled_from([CHAT, RESPONSES]), data=st.data())
def test_whatever_a_field_is_it_passes_or_is_named(fields: Fields, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(fields)))
    value, treatment = data.draw(JSON), fields[name]
    counted: list[int] = []
    needs: dict[str, str] = {}
    refused = code = None
    try:
        FieldCheck(fields, counted.append)({name: value}, needs)
    except HttpError as error:
        refused, code = error.param, error.code
    assert (refused is None, code == "unsupported_parameter") == ((True, False) if counted else (False, True))
    if isinstance(treatment, Fate):
        assert counted == [0]
    elif isinstance(treatment, Unsupported):
        encoded = [msgspec.json.encode(one) for one in (None, *treatment.but)]
        assert refused == (None if msgspec.json.encode(value) in encoded else name)
    elif isinstance(treatment, Needs):
        encoded = [msgspec.json.encode(one) for one in (None, *treatment.but)]
        assert refused or needs == ({} if msgspec.json.encode(value) in encoded else {treatment.feature: name})
    elif refused:
        assert re.match(re.escape(name) + r"[.\[]", refused)
    elif not isinstance(value, list | dict):
        assert counted == [0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"functions": [1]}, "functions: not supported; leave it out, or give []."),
        ({"function_call": "x"}, 'function_call: not supported; leave it out, or give "none" or "auto".'),
        ({"logit_bias": {"1": 2}}, "logit_bias: not supported; leave it out, or give {}."),
    ],
)
def test_what_to_do_instead_is_said(body: dict[str, object], message: str) -> None:
    with pytest.raises(HttpError) as raised:
        FieldCheck(CHAT, lambda count: None)(body, {})
    assert raised.value.message == message

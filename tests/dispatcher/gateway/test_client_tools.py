"""The client's own tools on all three routes: offered, called, answered; and what of it is refused."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest

from dispatcher.core.log import Request
from dispatcher.gateway.client_tools import MAX_CLIENT_SCHEMA_BYTES, MAX_CLIENT_TOOLS
from shared.records import ClientCall, Message, Tool
from tests.dispatcher.gateway.fakes import REGISTERED, Commander, FakeSessions
from tests.dispatcher.gateway.test_events import path, read

ROUTES = ("chat/completions", "responses", "sessions")
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "of a city", "parameters": SCHEMA, "strict": True}
CALLS = (ClientCall("call-1", "weather", '{"city": "Oslo"}'), ClientCall("call-2", "mail", "{}"))


@pytest.fixture
async def client(url: str, sessions: FakeSessions) -> AsyncIterator[openai.AsyncOpenAI]:
    sessions.honoured = frozenset({"sampling", "tools"})
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield client


def tool(route: str, function: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", **(function if route == "responses" else {"function": function})}


def named(route: str, name: str) -> dict[str, Any]:
    return tool(route, {"name": name})


def called(route: str, *calls: ClientCall) -> list[dict[str, Any]]:
    if route == "responses":
        return [
            {"type": "function_call", "call_id": c.call_id, "name": c.name, "arguments": c.arguments_json}
            for c in calls
        ]
    function_calls = [
        {"id": c.call_id, "type": "function", "function": {"name": c.name, "arguments": c.arguments_json}}
        for c in calls
    ]
    return [{"role": "assistant", "content": None, "tool_calls": function_calls}]


def answered(route: str, call_id: str, text: str) -> dict[str, Any]:
    if route == "responses":
        return {"type": "function_call_output", "call_id": call_id, "output": text}
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def body(route: str, *more: dict[str, Any], **fields: Any) -> dict[str, Any]:
    history = [{"role": "user", "content": "hi"}, *more]
    asked = {"input": history} if route == "responses" else {"messages": history}
    return {"agent" if route == "sessions" else "model": "default", **asked, **fields}


def offering(route: str, *names: str) -> list[dict[str, Any]]:
    return [tool(route, WEATHER | {"name": name}) for name in names or ("weather", "mail")]


async def asked(http: httpx2.AsyncClient, sessions: FakeSessions, route: str, given: dict[str, Any]) -> Request:
    """What the agent is asked by that body."""
    asking = asyncio.create_task(http.post(f"/v1/{route}", json=given))
    created = asyncio.create_task(sessions.created.get())
    await asyncio.wait([asking, created], return_when=asyncio.FIRST_COMPLETED)
    assert created.done(), (await asking).text
    commander = await sessions.begin(created.result())
    await commander.finish()
    assert (await asking).status_code in (200, 201)
    record = await sessions.store.load(commander.session_id)
    assert record
    return record.request


@pytest.fixture
def able(sessions: FakeSessions) -> FakeSessions:
    sessions.honoured = frozenset({"sampling", "tools"})
    return sessions


def allowed(route: str, mode: str, *names: str) -> dict[str, Any]:
    some = {"mode": mode, "tools": [named(route, name) for name in names]}
    return {"type": "allowed_tools", **(some if route == "responses" else {"allowed_tools": some})}


# ---- offered


@pytest.mark.parametrize("route", ROUTES)
async def test_tools_reach_the_agent_as_the_clients(http: httpx2.AsyncClient, able: FakeSessions, route: str) -> None:
    tools = [tool(route, WEATHER), tool(route, {"name": "mail", "parameters": None, "strict": None})]
    request = await asked(http, able, route, body(route, tools=tools, parallel_tool_calls=False))
    weather, mail = request.tools
    assert (weather.name, weather.description, weather.client, weather.strict) == ("weather", "of a city", True, True)
    assert json.loads(weather.parameters_json_schema) == SCHEMA
    assert mail == Tool("mail", "", '{"type":"object","properties":{}}', client=True)
    assert request.needs == ("tools",)
    assert json.loads(request.parameters_json) == {"parallel_tool_calls": False}


@pytest.mark.parametrize("route", ROUTES)
async def test_a_choice_reaches_the_agent_in_one_form(http: httpx2.AsyncClient, able: FakeSessions, route: str) -> None:
    def choices(where: str) -> list[object]:
        return ["auto", "none", "required", named(where, "mail"), allowed(where, "required", "mail", "weather")]

    for given, same in zip(choices(route), choices("chat/completions"), strict=True):
        request = await asked(http, able, route, body(route, tools=offering(route), tool_choice=given))
        assert json.loads(request.parameters_json) == {"tool_choice": same}


@pytest.mark.parametrize("route", ROUTES)
async def test_without_tools_nothing_is_needed(http: httpx2.AsyncClient, sessions: FakeSessions, route: str) -> None:
    given = body(route, tools=[], tool_choice="auto", parallel_tool_calls=True)
    request = await asked(http, sessions, route, given)
    assert (request.tools, request.needs, request.parameters_json) == ((), (), "")


# ---- called


async def ending(sessions: FakeSessions, *texts: str) -> Commander:
    commander = await sessions.begin(await sessions.created.get())
    await commander.say(*texts)
    await commander.hand_over(*CALLS)
    return commander


@pytest.mark.parametrize("text", ["", "I look."])
async def test_calls_on_chat_completions(client: openai.AsyncOpenAI, sessions: FakeSessions, text: str) -> None:
    given: dict[str, Any] = body("chat/completions", tools=offering("chat/completions"))
    asking = asyncio.ensure_future(client.chat.completions.create(**given))
    await ending(sessions, *filter(None, [text]))
    (choice,) = (await asking).choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", text or None)
    whole = [call.to_dict() for call in choice.message.tool_calls or ()]
    assert [{"role": "assistant", "content": None, "tool_calls": whole}] == called("chat/completions", *CALLS)

    async with client.chat.completions.stream(**given) as stream:
        await ending(sessions, *filter(None, [text]))
        (choice,) = (await stream.get_final_completion()).choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", text)
    streamed = [(call.id, call.function.name, call.function.arguments) for call in choice.message.tool_calls or ()]
    assert streamed == [(call.call_id, call.name, call.arguments_json) for call in CALLS]


@pytest.mark.parametrize("text", ["", "I look."])
async def test_calls_on_responses(client: openai.AsyncOpenAI, sessions: FakeSessions, text: str) -> None:
    given: dict[str, Any] = body("responses", tools=offering("responses"), tool_choice=named("responses", "mail"))
    asking = asyncio.ensure_future(client.responses.create(**given))
    await ending(sessions, *filter(None, [text]))
    response = await asking
    items = [item.to_dict() for item in response.output if item.type == "function_call"]
    assert response.status == "completed"
    assert len(response.output) == 2 + bool(text)
    assert [{name: item[name] for name in ("type", "call_id", "name", "arguments")} for item in items] == called(
        "responses", *CALLS
    )
    assert {item["status"] for item in items} == {"completed"}
    assert len({item["id"] for item in items}) == 2
    asked_with = response.to_dict()
    assert (asked_with["tools"], asked_with["tool_choice"]) == (given["tools"], given["tool_choice"])

    async with client.responses.stream(**given) as stream:
        await ending(sessions, *filter(None, [text]))
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert [item.type for item in final.output] == [item.type for item in response.output]
    assert [event.type.removeprefix("response.") for event in events[-9:]] == [
        *["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"] * 2,
        "completed",
    ]
    for event in events:
        if event.type != "response.completed" and event.sequence_number > 1:
            again = await client.responses.retrieve(final.id, stream=True, starting_after=event.sequence_number)
            assert [one.sequence_number async for one in again] == [
                one.sequence_number for one in events if one.sequence_number > event.sequence_number
            ]


async def test_calls_on_the_native_route(http: httpx2.AsyncClient, able: FakeSessions) -> None:
    created = await http.post("/v1/sessions", json=body("sessions", tools=offering("sessions")))
    commander = await ending(able, "I look.")
    assert created.status_code == 201
    content, *calls, end = await read(http, path(commander))
    assert [(each.event, each.id) for each in calls] == [("client_call", content.id)] * 2
    assert [each.data for each in calls] == [
        {"call_id": call.call_id, "name": call.name, "arguments": call.arguments_json} for call in CALLS
    ]
    assert (end.event, end.data) == ("finished", {"finish_reason": "tool_calls", "usage": None})
    again = await read(http, path(commander), int(content.id))
    assert [(each.event, each.data) for each in again] == [(each.event, each.data) for each in (*calls, end)]


async def test_an_id_that_could_say_something_shows_as_a_digest(
    client: openai.AsyncOpenAI, sessions: FakeSessions
) -> None:
    asking = asyncio.ensure_future(client.chat.completions.create(**body("chat/completions", tools=offering("")[:1])))
    commander = await sessions.begin(await sessions.created.get())
    await commander.hand_over(ClientCall("a secret word", "weather", "{}"))
    (choice,) = (await asking).choices
    assert choice.message.tool_calls
    assert re.fullmatch("[0-9a-f]{32}", choice.message.tool_calls[0].id)


# ---- answered


@pytest.mark.parametrize("route", ROUTES)
async def test_a_second_round_reaches_the_agent_as_it_is(
    http: httpx2.AsyncClient, able: FakeSessions, route: str
) -> None:
    calls = (CALLS[0], ClientCall("call-2", "mail", "no JSON"))
    more = [answered(route, "call-2", "sent"), answered(route, "call-1", '{"sun": true}')]
    said = [{"role": "assistant", "content": "I look."}, *called(route, *calls)]
    if route != "responses":
        said = [said[1] | {"content": "I look."}]
    request = await asked(http, able, route, body(route, *said, *more, tools=offering(route)))
    assert request.messages == (
        Message("user", "hi"),
        Message("assistant", "I look.", calls),
        Message("tool", "sent", (), "call-2"),
        Message("tool", '{"sun": true}', (), "call-1"),
    )
    assert request.needs == ("tools",)


# ---- refused

LARGE = {"type": "object", "description": "x" * MAX_CLIENT_SCHEMA_BYTES}


def refusals(route: str) -> dict[str, tuple[dict[str, Any], str]]:
    history = "input" if route == "responses" else "messages"
    call, other = CALLS
    two = called(route, call)
    return {
        "an orphan": (body(route, answered(route, "call-1", "x")), f"{history}[1]"),
        "answered twice": (
            body(route, *two, answered(route, "call-1", "x"), answered(route, "call-1", "x")),
            f"{history}[3]",
        ),
        "two of one id": (body(route, *called(route, call, ClientCall("call-1", "mail", "{}"))), f"{history}["),
        "an id of nothing": (body(route, *called(route, ClientCall("", "mail", "{}"))), f"{history}["),
        "a name that says something": (body(route, *called(route, ClientCall("a", "a b", "{}"))), f"{history}["),
        "a name of both": (body(route, tools=offering(route, "weather", REGISTERED)), "tools[1]"),
        "a name twice": (body(route, tools=offering(route, "weather", "weather")), "tools[1]"),
        "too many": (body(route, tools=offering(route, *map(str, range(MAX_CLIENT_TOOLS + 1)))), "tools"),
        "a large schema": (body(route, tools=[tool(route, WEATHER | {"parameters": LARGE})]), "tools[0]"),
        "no name": (body(route, tools=[tool(route, {"parameters": SCHEMA})]), "tools["),
        "no schema": (body(route, tools=[tool(route, WEATHER | {"parameters": "x"})]), "tools["),
        "a choice of none": (body(route, tool_choice="required"), "tool_choice"),
        "a choice of nobody": (
            body(route, tools=offering(route), tool_choice=named(route, "other")),
            "tool_choice",
        ),
        "a choice of some that are not there": (
            body(route, tools=offering(route), tool_choice=allowed(route, "auto", "mail", "other")),
            "tool_choice.tools[1]",
        ),
        "a choice of no tools": (
            body(route, tools=offering(route), tool_choice=allowed(route, "auto")),
            "tool_choice",
        ),
        "a choice that nobody knows": (body(route, tools=offering(route), tool_choice="all"), "tool_choice"),
    }


@pytest.mark.parametrize("route", ROUTES)
async def test_what_is_wrong_is_named(http: httpx2.AsyncClient, able: FakeSessions, route: str) -> None:
    for name, (given, param) in refusals(route).items():
        answer = await http.post(f"/v1/{route}", json=given)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "invalid_value"), name
        assert error["param"].startswith(param) if param.endswith("[") else error["param"] == param, name
    assert able.created.empty()


@pytest.mark.parametrize("route", ROUTES)
async def test_an_agent_without_them_is_not_asked(http: httpx2.AsyncClient, sessions: FakeSessions, route: str) -> None:
    history = "input[1]" if route == "responses" else "messages[1]"
    call = CALLS[0]
    for given, param in (
        (body(route, tools=offering(route)), "tools"),
        (body(route, *called(route, call), answered(route, "call-1", "x")), history),
    ):
        answer = await http.post(f"/v1/{route}", json=given)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "unsupported_parameter"), error
        assert error["param"].removesuffix(".tool_calls") == param
        assert "'tools'" in error["message"]
    assert sessions.created.empty()


async def test_an_output_that_nobody_called_reaches_the_agent(http: httpx2.AsyncClient, able: FakeSessions) -> None:
    """Codex tells of its goals so."""
    goal = {"type": "function_call_output", "namespace": "agent", "name": "goal", "output": "see Oslo"}
    parts = {**goal, "namespace": None, "output": [{"type": "input_text", "text": "and Rome"}]}
    request = await asked(http, able, "responses", body("responses", goal, parts))
    assert request.messages[1:] == (
        Message("tool", "see Oslo", name="agent__goal"),
        Message("tool", "and Rome", name="goal"),
    )
    assert request.needs == ("tools",)
    nameless = {"type": "function_call_output", "output": "see Oslo"}
    for route, wrong in (
        ("responses", nameless),
        ("responses", {"type": "function_call_output", "name": "goal"}),
        ("chat/completions", {"role": "tool", "name": "goal", "content": "see Oslo"}),
        ("chat/completions", {"role": "tool", "name": "goal", "content": "see Oslo", "tool_call_id": ""}),
        ("sessions", {"role": "tool", "name": "goal", "content": "see Oslo"}),
    ):
        answer = await http.post(f"/v1/{route}", json=body(route, wrong))
        error = answer.json()["error"]
        where = "input[1]" if route == "responses" else "messages[1]"
        assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_value", where)

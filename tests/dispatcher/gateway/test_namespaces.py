"""Client tools in namespaces: agents know them by one name, clients by two."""

import asyncio
import json
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.gateway.client_tools import FunctionDefinition
from dispatcher.gateway.errors import HttpError
from dispatcher.gateway.namespaces import apart, full_name
from dispatcher.gateway.response_bodies import ResponseTool, functions_of
from shared.records import ClientCall
from tests.dispatcher.gateway.fakes import FakeSessions
from tests.dispatcher.gateway.test_client_tools import SCHEMA, able, answered, asked, body, client

__all__ = ["able", "client"]

SPAWN = {"type": "function", "name": "spawn", "description": "Begins one.", "parameters": SCHEMA, "strict": True}
CLOSE = {"type": "function", "name": "close", "description": None, "parameters": SCHEMA, "strict": False}
PLAIN = {"type": "function", "name": "close", "description": "A file.", "parameters": SCHEMA, "strict": False}
AGENTS = {"type": "namespace", "name": "agents", "description": "Others like you.", "tools": [SPAWN, CLOSE]}
SEARCH = {"type": "web_search", "external_web_access": False}
names = st.from_regex(r"[a-z_]{1,6}", fullmatch=True)


async def test_an_agent_knows_them_by_one_name_and_the_client_by_both(
    client: openai.AsyncOpenAI, http: httpx2.AsyncClient, able: FakeSessions
) -> None:
    offered: Any = body("responses", tools=[AGENTS, PLAIN, SEARCH])
    asking = asyncio.ensure_future(client.responses.create(**offered))
    commander = await able.begin(await able.created.get())
    record = await able.store.load(commander.session_id)
    assert record
    assert [(tool.name, tool.description) for tool in record.request.tools] == [
        ("agents__spawn", "Others like you.\n\nBegins one."),
        ("agents__close", "Others like you."),
        ("close", "A file."),
    ]
    await commander.hand_over(ClientCall("1", "agents__close", "{}"), ClientCall("2", "close", "{}"))
    response = await asking
    one, other = (item.to_dict() for item in response.output)
    assert (one["namespace"], one["name"]) == ("agents", "close")
    assert (other.get("namespace"), other["name"]) == (None, "close")
    assert response.to_dict()["tools"] == [AGENTS, PLAIN], "a search that cannot be is not shown as offered"

    # The client sends them back, or goes on from there: to the agent it is the same.
    results = [answered("responses", "1", "done"), answered("responses", "2", "done")]
    calls = [{**item, "id": None} for item in (one, other)]
    for fields in (body("responses", *calls, *results), {"previous_response_id": response.id, "input": results}):
        request = await asked(http, able, "responses", {"model": "default", **fields, "tools": [AGENTS, PLAIN]})
        (called,) = [message.tool_calls for message in request.messages if message.tool_calls]
        assert [call.name for call in called] == ["agents__close", "close"]


async def test_one_of_them_is_chosen_by_both_names(http: httpx2.AsyncClient, able: FakeSessions) -> None:
    """As OpenAI has it, where a tool's name alone is refused: several may have it."""

    def choice(name: str) -> dict[str, Any]:
        return body("responses", tools=[AGENTS, PLAIN], tool_choice={"type": "function", "name": name})

    for name, known in (("agents.close", "agents__close"), ("agents__close", "agents__close"), ("close", "close")):
        request = await asked(http, able, "responses", choice(name))
        assert json.loads(request.parameters_json)["tool_choice"] == {"type": "function", "function": {"name": known}}
    of_both = [{"type": "function", "name": name} for name in ("agents.spawn", "close")]
    allowed = {"type": "allowed_tools", "mode": "required", "tools": of_both}
    shown = await http.post("/v1/responses", json={**choice("close"), "tool_choice": allowed, "background": True})
    assert shown.json()["tool_choice"] == allowed
    refused = await http.post("/v1/responses", json=choice("spawn"))
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == (
        "tool_choice: there is no tool of this name among `tools`; of a namespace's it is `namespace.name`"
    )


@given(names, names, st.sets(names, max_size=3))
def test_both_names_come_back_or_the_tool_is_refused(namespace: str, name: str, others: set[str]) -> None:
    function = FunctionDefinition(name)
    tools = [ResponseTool("namespace", each, tools=[]) for each in sorted(others - {namespace})]
    tools.append(ResponseTool("namespace", namespace, tools=[function]))
    try:
        (found,) = functions_of(tools).values()
    except HttpError:  # it could be taken for another's
        return
    assert found.name == full_name(namespace, name)
    assert apart(found.name, [tool.name or "" for tool in tools]) == {"namespace": namespace, "name": name}


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ([AGENTS, AGENTS], "tools"),
        ([{**AGENTS, "name": None}], "tools"),
        ([{**SPAWN, "name": None}], "tools[0].name"),
        ([AGENTS, {**PLAIN, "name": "agents__x"}], "tools[1]"),
        ([AGENTS, {**AGENTS, "name": "agents__more"}], "tools[1].tools[0]"),
        ([{**AGENTS, "tools": [{**SPAWN, "name": "x" * 121}]}], "tools[0].tools[0]"),
        ([{**AGENTS, "tools": [SPAWN, SPAWN]}], "tools[0].tools[1]"),
        ([{**AGENTS, "tools": [{"type": "custom", "name": "x"}]}], "tools[0].tools[0]"),
        ([{**SEARCH, "external_web_access": True}], "tools[0]"),
        ([{**SEARCH, "search_context_size": "low"}], "tools[0]"),
        ([{"type": "web_search"}], "tools[0]"),
    ],
)
async def test_what_could_be_taken_for_another_or_cannot_be_is_refused(
    http: httpx2.AsyncClient, able: FakeSessions, tools: list[dict[str, Any]], param: str
) -> None:
    answer = await http.post("/v1/responses", json=body("responses", tools=tools))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert able.created.empty()

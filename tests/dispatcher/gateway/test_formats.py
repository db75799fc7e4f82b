"""The form that an answer is asked for in, on both of OpenAI's routes."""

import asyncio
import json
from typing import Any

import httpx2
import pytest

from dispatcher.gateway.client_tools import MAX_CLIENT_SCHEMA_BYTES
from tests.dispatcher.gateway.fakes import FakeSessions

SCHEMA = {"type": "object", "properties": {"sunny": {"type": "boolean"}}}
ROUTES = {"chat/completions": "response_format", "responses": "text.format"}


def asked(route: str, form: dict[str, Any]) -> dict[str, Any]:
    if route == "responses":
        return {"model": "default", "input": "hi", "text": {"format": form}}
    return {"model": "default", "messages": [{"role": "user", "content": "hi"}], "response_format": form}


def of_schema(route: str, **fields: Any) -> dict[str, Any]:
    return {"type": "json_schema", **(fields if route == "responses" else {"json_schema": fields})}


@pytest.mark.parametrize("route", ROUTES)
async def test_a_form_reaches_an_agent_that_honours_it(
    http: httpx2.AsyncClient, sessions: FakeSessions, route: str
) -> None:
    sessions.honoured = frozenset({"structured"})
    whole = {"name": "x", "description": "of x", "schema": SCHEMA, "strict": True}
    for form, parameters in (
        ({"type": "text"}, {}),
        ({"type": "json_object"}, {"response_format": {"type": "json_object"}}),
        (of_schema(route, **whole), {"response_format": {"type": "json_schema", "json_schema": whole}}),
    ):
        asking = asyncio.create_task(http.post(f"/v1/{route}", json=asked(route, form)))
        commander = await sessions.begin(await sessions.created.get())
        await commander.say('{"sunny": true}')
        await commander.finish()
        assert (await asking).status_code == 200
        record = await sessions.store.load(commander.session_id)
        assert record
        assert json.loads(record.request.parameters_json or "{}") == parameters
        assert record.request.needs == (("structured",) if parameters else ())


@pytest.mark.parametrize("route", ROUTES)
async def test_a_form_that_is_none_is_named(http: httpx2.AsyncClient, sessions: FakeSessions, route: str) -> None:
    sessions.honoured = frozenset({"structured"})
    large = {"description": "x" * MAX_CLIENT_SCHEMA_BYTES}
    for form in (
        of_schema(route, name="x", schema={"type": "nothing"}),
        of_schema(route, name="x", schema={"$ref": "https://192.168.0.1/x.json"}),
        of_schema(route, name="x", schema={"properties": {"a": {"pattern": "("}}}),
        of_schema(route, name="x", schema=large),
        of_schema(route, name="x"),
        of_schema(route, schema=SCHEMA),
        of_schema(route, name="a b", schema=SCHEMA),
        {"type": "json_schema"},
        {"type": 1},
        "json",
    ):
        answer = await http.post(f"/v1/{route}", json=asked(route, form))  # type: ignore[arg-type]
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "invalid_value"), (form, error)
        assert error["param"].startswith(ROUTES[route])
    assert sessions.created.empty()


@pytest.mark.parametrize("route", ROUTES)
async def test_an_agent_that_honours_none_is_not_asked(
    http: httpx2.AsyncClient, sessions: FakeSessions, route: str
) -> None:
    for form in ({"type": "json_object"}, of_schema(route, name="x", schema=SCHEMA)):
        error = (await http.post(f"/v1/{route}", json=asked(route, form))).json()["error"]
        assert (error["code"], error["param"]) == ("unsupported_parameter", ROUTES[route])
        assert "'structured'" in error["message"]
    assert sessions.created.empty()
